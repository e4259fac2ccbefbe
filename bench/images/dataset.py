"""What a folder of images holds: found by its names alone, no file is opened.

folder       <class>/*.jpg, .jpeg or .png; the classes are the folders, sorted by name, from 0
tfrecord     train-00000-of-00008 or validation-..., of tf.train.Example with image/encoded and
             image/class/label, as ImageNet is distributed for TensorFlow
webdataset   *.tar of <key>.jpg, .jpeg or .png beside <key>.cls
Splits       a subfolder train, validation or val is used when there is one, and so is the split in
             the name of a TFRecord or a tar; a set without any serves for both
Parent       a folder that holds no images, and in which one folder alone is a set, stands for that one
Labels       0 to classes - 1 when read. In TFRecords they count from 1, as ImageNet's do (0 is its
             background), in tars from 0. A label outside is a fault of that image; with `classes`
             unknown only the lower end is judged
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Tuple, Union

from bench.images.faults import one_line

FORMATS = ("folder", "tfrecord", "webdataset")
SPLITS = ("train", "validation")
SUFFIXES = (".jpg", ".jpeg", ".png")
FIRST_LABEL = {"folder": 0, "tfrecord": 1, "webdataset": 0}

_SPLIT_OF = {"train": "train", "validation": "validation", "val": "validation"}
_TFRECORD = re.compile(r"(train|validation)-\d+-of-(\d+)")
_WORDS = re.compile(r"(?<![a-z])(train|validation|val)(?![a-z])")
_ALLOWED = "<class>/*.jpg, train-00000-of-00001 (TFRecord) or *.tar (WebDataset)"


@dataclass(frozen=True)
class Dataset:
    """Where images are. Plain data: it crosses to workers.

    root          the folder of the set, absolute: as given, or the one in it
    files         below root, in order: images, or the files that hold them
    labels        of each image of a folder, else empty
    classes       how many, where known
    count         of images, bad ones included; None until `counting.counted` has opened the files
    counts        of images in each file that holds several; empty until they are counted
    labelled      False: pictures without classes, whose labels here mean nothing
    """

    root: str
    format: str
    split: str
    files: Tuple[str, ...]
    labels: Tuple[int, ...]
    classes: Optional[int]
    count: Optional[int]
    counts: Tuple[int, ...] = ()
    labelled: bool = True

    @property
    def first_label(self) -> int:
        """What the first class is called in the files."""
        return FIRST_LABEL[self.format]

    def path(self, file: str) -> str:
        return os.path.join(self.root, file)


def find(
    path: Union[str, Path],
    split: str = "train",
    *,
    classes: Optional[int] = None,
    labelled: bool = True,
) -> Dataset:
    """Return what a folder holds. Raises ValueError, in one line, where that is nothing or not clear.

    labelled   False: pictures that lie in no class folder will do
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r}; allowed are {' and '.join(SPLITS)}")
    if classes is not None and classes < 1:
        raise ValueError(f"classes={classes}; at least 1 is needed")
    root = Path(os.path.abspath(path))
    try:
        root = _set_of(root)
        place = _place(root, split)
        kind = _format(place)
        if kind == "folder":
            return _folder(root, place, split, classes)
        if kind == "pictures":
            return _pictures(root, place, split, labelled)
        names = _tfrecords(place, split) if kind == "tfrecord" else _tars(place, split)
    except OSError as error:
        raise ValueError(f"{one_line(root)} cannot be read: {error.strerror}") from None
    files = tuple(str((place / name).relative_to(root)) for name in names)
    return Dataset(str(root), kind, split, files, (), classes, None)


def format_of(path: Union[str, Path], split: str) -> str:
    """The format of a set, without a look at all of it. Raises ValueError as `find` does."""
    kind = _format(_place(_set_of(Path(os.path.abspath(path))), split))
    return "folder" if kind == "pictures" else kind


def _set_of(root: Path) -> Path:
    """The folder itself, or where that holds no set, the one folder in it that does. ValueError: several do."""
    if not root.is_dir() or _splits(root) or _holds(root):
        return root
    sets = [folder for folder in _folders(root) if _splits(folder) or _holds(folder)]
    if len(sets) > 1:
        names = ", ".join(one_line(folder.name) for folder in sets)
        raise ValueError(f"{one_line(root)} holds several sets of images: {names}; give one of these folders")
    return sets[0] if sets else root


def _splits(root: Path) -> List[str]:
    return [name for name in _SPLIT_OF if (root / name).is_dir()]


def _place(root: Path, split: str) -> Path:
    """The folder itself, or its subfolder of a split. Raises ValueError when neither is there."""
    if not root.exists():
        raise ValueError(f"{one_line(root)} is not there; give a folder of images: {_ALLOWED}")
    if not root.is_dir():
        raise ValueError(f"{one_line(root)} is not a folder; give the folder that holds {_ALLOWED}")
    there = _splits(root)
    chosen = [name for name in there if _SPLIT_OF[name] == split]
    if there and not chosen:
        raise ValueError(f"{one_line(root)} has {' and '.join(there)} and no {split}; choose another split or folder")
    if len(chosen) > 1:
        raise ValueError(f"{one_line(root)} has both {' and '.join(chosen)}; keep one of them")
    return root / chosen[0] if chosen else root


def _format(place: Path) -> str:
    """The one format of which there is something. Raises ValueError at none and at several."""
    there = _holds(place)
    if len(there) > 1:
        raise ValueError(f"{one_line(place)} holds {' and '.join(there)}; one format is allowed, move the others away")
    if there:
        return next(iter(there.values()))
    raise ValueError(f"{one_line(place)} holds no images; allowed are {_ALLOWED}")


def _holds(place: Path) -> Dict[str, str]:
    """The formats of what lies in a folder, by what one calls it; pictures count where there is nothing else."""
    names = _names(place)
    found = {
        "class folders": ("folder", any(_images(folder) for folder in _folders(place))),
        "TFRecords": ("tfrecord", any(_TFRECORD.fullmatch(name) for name in names)),
        "tars": ("webdataset", any(name.endswith(".tar") for name in names)),
    }
    there = {name: kind for name, (kind, seen) in found.items() if seen}
    return there or ({"pictures": "pictures"} if _images(place) else {})


def _pictures(root: Path, place: Path, split: str, labelled: bool) -> Dataset:
    """Pictures that lie in no class folder: good for what looks at no label."""
    if labelled:
        raise ValueError(
            f"{one_line(place)} holds images without classes; put them into a folder per class, since training and"
            " losses need labels"
        )
    files = tuple(str((place / name).relative_to(root)) for name in _images(place))
    return Dataset(str(root), "folder", split, files, (0,) * len(files), None, len(files), labelled=False)


def _folder(root: Path, place: Path, split: str, classes: Optional[int]) -> Dataset:
    images: Dict[Path, List[str]] = {folder: _images(folder) for folder in _folders(place)}
    empty = [folder for folder, names in images.items() if not names]
    if empty:
        raise ValueError(f"{one_line(empty[0])} holds no images; fill it, or remove it so that it is no class")
    if classes is not None and len(images) > classes:
        raise ValueError(
            f"{one_line(place)} has {len(images)} class folders; at most {classes} are allowed here (--classes)"
        )
    pairs = [
        (str((folder / name).relative_to(root)), label)
        for label, (folder, names) in enumerate(images.items())
        for name in names
    ]
    files, labels = tuple(file for file, _ in pairs), tuple(label for _, label in pairs)
    return Dataset(str(root), "folder", split, files, labels, classes or len(images), len(files))


def _tfrecords(place: Path, split: str) -> List[str]:
    matches = [match for match in map(_TFRECORD.fullmatch, _names(place)) if match]
    chosen = [match for match in matches if match[1] == split]
    if not chosen:
        raise ValueError(f"{one_line(place)} has no {split}-*-of-*, only {matches[0][0]} and the like")
    totals = sorted({int(match[2]) for match in chosen})
    if len(totals) > 1:
        sets = " and ".join(f"-of-{total}" for total in totals)
        raise ValueError(f"{one_line(place)} mixes {split} sets, {sets}; keep one of them")
    return [match[0] for match in chosen]


def _tars(place: Path, split: str) -> List[str]:
    names = [name for name in _names(place) if name.endswith(".tar")]
    splits = [{_SPLIT_OF[word] for word in _WORDS.findall(name.lower())} for name in names]
    if not any(splits):
        return names
    chosen = [name for name, named in zip(names, splits) if split in named]
    if not chosen:
        raise ValueError(f"{one_line(place)} has no tar named {split}, only {names[0]} and the like")
    return chosen


def _names(folder: Path) -> List[str]:
    return sorted(name for name in os.listdir(str(folder)) if not name.startswith("."))


def _folders(place: Path) -> Iterable[Path]:
    return (place / name for name in _names(place) if (place / name).is_dir())


def _images(folder: Path) -> List[str]:
    return [name for name in _names(folder) if _is_image(name)]


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)
