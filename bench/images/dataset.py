"""The content of a folder of images, determined from file names alone. No file is opened.

folder       <class>/*.jpg, .jpeg or .png; the classes are the folders, sorted by name, from 0
tfrecord     train-00000-of-00008 or validation-..., of tf.train.Example with image/encoded and
             image/class/label, as ImageNet is distributed for TensorFlow
webdataset   *.tar of <key>.jpg, .jpeg or .png beside <key>.cls
Splits       a subfolder train, validation or val is used if there is one, and so is the split in
             the name of a TFRecord or a tar; a set without splits serves for both
Parent       a folder without images, of whose folders exactly one is a set, stands for that set
Shards       files named -00000-of-00008 and so on must all be there, once each
Hidden       files and folders whose names begin with a dot are ignored
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
# Of ImageNet's TFRecords, where 0 is the background.
FIRST_LABEL = {"folder": 0, "tfrecord": 1, "webdataset": 0}

_SPLIT_OF = {"train": "train", "validation": "validation", "val": "validation"}
_TFRECORD = re.compile(r"(train|validation)-\d+-of-(\d+)")
_WORDS = re.compile(r"(?<![a-z])(train|validation|val)(?![a-z])")
_NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)(.*)", re.DOTALL)
_COMPRESSED = re.compile(r"(?:.*[.]tar|(?:train|validation)-\d+-of-\d+)[.](?:gz|bz2|xz|zst)|.*[.]tgz", re.DOTALL)
_ALLOWED = "<class>/*.jpg, train-00000-of-00001 (TFRecord) or *.tar (WebDataset)"


@dataclass(frozen=True)
class Dataset:
    """A set of images. Plain data, sent to workers.

    root       the absolute path of the set
    files      paths relative to root, in order: images, or the TFRecords or tars that contain them
    labels     of each image of a folder; empty for other formats
    classes    the number of classes; None: unknown
    count      of images, including bad ones; None until `counting.counted` has opened the files
    counts     of images in each TFRecord or tar; empty until they are counted
    labelled   False: images without classes, whose labels here have no meaning
    first_label   the label of the first class in TFRecords and tars; None: as usual in the format
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
    first_label: Optional[int] = None

    @property
    def first(self) -> int:
        """The label of the first class in the files."""
        return FIRST_LABEL[self.format] if self.first_label is None else self.first_label

    def path(self, file: str) -> str:
        return os.path.join(self.root, file)


def find(
    path: Union[str, Path],
    split: str = "train",
    *,
    classes: Optional[int] = None,
    labelled: bool = True,
    first_label: Optional[int] = None,
) -> Dataset:
    """Return the set of images in a folder. Raises ValueError, in one line, if there is none, or not exactly one.

    labelled      False: images outside class folders are allowed
    first_label   the label of the first class in TFRecords and tars; None: 1 in TFRecords, 0 in tars
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
        if first_label is not None and kind in ("folder", "pictures"):
            raise ValueError(f"{one_line(place)} holds image files; --first-label is for TFRecords and tars")
        if kind == "folder":
            return _folder(root, place, split, classes)
        if kind == "pictures":
            return _pictures(root, place, split, labelled)
        names = _tfrecords(place, split) if kind == "tfrecord" else _tars(place, split)
        _require_complete(place, names)
    except OSError as error:
        raise ValueError(f"{one_line(root)} cannot be read: {error.strerror}") from None
    files = tuple(str((place / name).relative_to(root)) for name in names)
    return Dataset(str(root), kind, split, files, (), classes, None, first_label=first_label)


def format_of(path: Union[str, Path], split: str) -> str:
    """The format of a set, without listing all of it. Raises ValueError as `find` does."""
    kind = _format(_place(_set_of(Path(os.path.abspath(path))), split))
    return "folder" if kind == "pictures" else kind


def _set_of(root: Path) -> Path:
    """The folder itself, or the only folder in it that is a set. Raises ValueError if several are."""
    if not root.is_dir() or _splits(root) or _formats(root):
        return root
    sets = [folder for folder in _folders(root) if _splits(folder) or _formats(folder)]
    if len(sets) > 1:
        names = ", ".join(one_line(folder.name) for folder in sets)
        raise ValueError(f"{one_line(root)} holds several sets of images: {names}; give one of these folders")
    return sets[0] if sets else root


def _splits(root: Path) -> List[str]:
    return [name for name in _SPLIT_OF if (root / name).is_dir()]


def _place(root: Path, split: str) -> Path:
    """The folder itself, or its subfolder of a split. Raises ValueError if neither exists."""
    if not root.exists():
        raise ValueError(f"{one_line(root)} is not there; give a folder of images: {_ALLOWED}")
    if not root.is_dir():
        raise ValueError(f"{one_line(root)} is not a folder; give the folder that holds {_ALLOWED}")
    splits = _splits(root)
    chosen = [name for name in splits if _SPLIT_OF[name] == split]
    if splits and not chosen:
        raise ValueError(f"{one_line(root)} has {' and '.join(splits)} and no {split}; choose another split or folder")
    if len(chosen) > 1:
        raise ValueError(f"{one_line(root)} has both {' and '.join(chosen)}; keep one of them")
    return root / chosen[0] if chosen else root


def _format(place: Path) -> str:
    """The format of the files in a folder. Raises ValueError for none, for several and for compressed files."""
    formats = _formats(place)
    compressed = [name for name in _names(place) if _COMPRESSED.fullmatch(name)]
    if compressed:
        raise ValueError(
            f"{one_line(place / compressed[0])} is compressed; only uncompressed files are read, so decompress it"
        )
    if len(formats) > 1:
        raise ValueError(
            f"{one_line(place)} holds {' and '.join(formats)}; one format is allowed, move the others away"
        )
    if formats:
        return next(iter(formats.values()))
    raise ValueError(f"{one_line(place)} holds no images; allowed are {_ALLOWED}")


def _formats(place: Path) -> Dict[str, str]:
    """The formats of the files in a folder, by their names in messages; images count if there is nothing else."""
    names = _names(place)
    candidates = {
        "class folders": ("folder", any(_images(folder) for folder in _folders(place))),
        "TFRecords": ("tfrecord", any(_TFRECORD.fullmatch(name) for name in names)),
        "tars": ("webdataset", any(name.endswith(".tar") for name in names)),
    }
    formats = {name: kind for name, (kind, present) in candidates.items() if present}
    return formats or ({"pictures": "pictures"} if _images(place) else {})


def _pictures(root: Path, place: Path, split: str, labelled: bool) -> Dataset:
    """Images outside class folders, for cases that need no labels."""
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


def _require_complete(place: Path, names: List[str]) -> None:
    """Raise ValueError if shards that are numbered 00000-of-00008 and so on are missing, or there twice."""
    series: Dict[Tuple[str, int, str], Dict[int, str]] = {}
    for stem, number, total, suffix in (match.groups() for match in map(_NUMBERED.fullmatch, names) if match):
        name = f"{stem}-{number}-of-{total}{suffix}"
        shards = series.setdefault((stem, int(total), suffix), {})
        if int(number) >= int(total):
            raise ValueError(one_line(f"{place / name} is none of {total} shards, which count from 0; rename it"))
        if int(number) in shards:
            raise ValueError(
                one_line(f"{place} has {shards[int(number)]} and {name}, the same shard; keep one of them")
            )
        shards[int(number)] = name
    for (stem, total, suffix), shards in series.items():
        if len(shards) < total:
            missing = next(number for number in range(total) if number not in shards)
            raise ValueError(
                one_line(
                    f"{place} has {len(shards)} of {total} shards, without {stem}-{missing:05}-of-{total:05}{suffix};"
                    f" add what is missing, or rename these to -of-{len(shards):05}, numbered from 0"
                )
            )


def _names(folder: Path) -> List[str]:
    return sorted(name for name in os.listdir(str(folder)) if not name.startswith("."))


def _folders(place: Path) -> Iterable[Path]:
    return (place / name for name in _names(place) if (place / name).is_dir())


def _images(folder: Path) -> List[str]:
    return [name for name in _names(folder) if _is_image(name)]


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)
