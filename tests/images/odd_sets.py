"""Sets that are unusual as a whole, each with what both input pipelines do with it.

Each has eight images in a fixed order, whose labels are 0 to 7, unless it says otherwise.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Tuple

import picture_sets

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
HTML = b"\n<!DOCTYPE html>\n<html><body>404</body></html>\n"
SKIP = "--data-errors skip"
ZERO = "label 0; labels of TFRecords count from 1: if yours count from 0, give --first-label 0"
POINTER = "a Git LFS pointer instead of the file; fetch the file by `git lfs pull`"
GZIP = "compressed by gzip; only uncompressed files are read, so decompress it"
EMPTY = f"holds no images; write it again, or leave it out by {SKIP}"
ALL = (0, 1, 2, 3, 4, 5, 6, 7)


@dataclass(frozen=True)
class Odd:
    """An unusual set.

    files    makes the files by name
    find     further arguments of `find`
    refused  the line with which a pipeline stops; empty: it reads `labels`
    labels   what is read with `skip`; None: it stops all the same
    skipped  how many images `skip` counts
    """

    files: Callable[[], Dict[str, bytes]]
    refused: str = ""
    labels: Any = ALL
    skipped: int = 0
    find: Dict[str, Any] = field(default_factory=dict)


def tar(*files: Tuple[str, Any]) -> bytes:
    """A tar of files; a file that is a text is a link to it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for name, data in files:
            member = tarfile.TarInfo(name)
            if isinstance(data, str):
                member.type, member.linkname = tarfile.SYMTYPE, data
                out.addfile(member)
            else:
                member.size = len(data)
                out.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def members(first=0, stop=8, name="set/{:04}", label=0):
    """The files of some images in a tar, and of their labels, which count from `label`."""
    for number, (true, image) in list(enumerate(picture_sets.labelled()))[first:stop]:
        yield f"{name.format(number)}.png", image
        yield f"{name.format(number)}.cls", str(true + label).encode()


def of_a_mac():
    for name, data in members():
        yield name.replace("set/", "set/._"), b"\0\5\x16\7Mac OS X"
        yield name, data


def records(label=1, odd=None) -> bytes:
    """A TFRecord file of the images, with labels from `label`; `odd` is the label of the fourth."""
    from bench.images import tf_example, tfrecords

    file = io.BytesIO()
    for true, image in picture_sets.labelled():
        stored = odd if odd is not None and true == 3 else true + label
        tfrecords.write(file, tf_example.example({"image/encoded": image, "image/class/label": stored}))
    return file.getvalue()


def without(*labels):
    return tuple(label for label in ALL if label not in labels)


TFRECORD = "train-00000-of-00001"
ODD = {
    "tar of a Mac": Odd(lambda: {"a.tar": tar(*of_a_mac())}),
    "tars joined": Odd(lambda: {"a.tar": tar(*members(0, 3)) + tar(*members(3, 4)) + tar(*members(4))}),
    "tars joined, the same key on both sides": Odd(
        lambda: {"a.tar": tar(*members(0, 1, "key")) + tar(*members(1, 2, "key")) + tar(*members(2))}
    ),
    "tar with more": Odd(
        lambda: {"a.tar": tar(("readme", b"x"), *members(0, 1), ("set/0000.seg.png", b"x"), *members(1))}
    ),
    "tar with long names": Odd(lambda: {"a.tar": tar(*members(name="folder/" * 30 + "{:04}"))}),
    "tar with several dots": Odd(
        lambda: {"a.tar": tar(*members(0, 3), *members(3, 4, "img.v1"), *members(4))},
        "key img: img.v1.png has several dots, and a key ends at the first; rename it in the tar",
        without(3),
        1,
    ),
    "tar with a link": Odd(
        lambda: {"a.tar": tar(*members(0, 3), ("x.png", "0000.png"), ("x.cls", b"3"), *members(4))},
        "key x: its png is a link; write the tar with the files themselves",
        without(3),
        1,
    ),
    "tar by gzip": Odd(lambda: {"a.tar": gzip.compress(tar(*members()))}, GZIP, (), 1),
    "tar by gzip beside a good one": Odd(
        lambda: {"a.tar": tar(*members()), "b.tar": gzip.compress(tar(*members()))}, f"b.tar: {GZIP}", ALL, 1
    ),
    "tar.gz": Odd(lambda: {"a.tar.gz": gzip.compress(tar(*members()))}, "a.tar.gz is compressed; only", None),
    "tar.gz beside a good one": Odd(
        lambda: {"a.tar": tar(*members()), "b.tar.gz": b""}, "b.tar.gz is compressed", None
    ),
    "tar of 0 bytes": Odd(lambda: {"a.tar": tar(*members()), "b.tar": b""}, f"b.tar: {EMPTY}", ALL, 1),
    "tar without files": Odd(lambda: {"a.tar": tar(*members()), "b.tar": tar()}, f"b.tar: {EMPTY}", ALL, 1),
    "tar without images": Odd(
        lambda: {"a.tar": tar(*members()), "b.tar": tar(("a.txt", b"x"))}, f"b.tar: {EMPTY}", ALL, 1
    ),
    "tar of Git LFS": Odd(lambda: {"a.tar": tar(*members()), "b.tar": LFS}, f"b.tar: {POINTER}", ALL, 1),
    "tar of HTML": Odd(
        lambda: {"a.tar": tar(*members()), "b.tar": HTML}, "b.tar: an HTML page instead of the file; download", ALL, 1
    ),
    "tars missing": Odd(
        lambda: {"x-00000-of-00004.tar": tar(*members()), "x-00002-of-00004.tar": b""},
        "has 2 of 4 shards, without x-00001-of-00004.tar; add what is missing, or rename these to -of-00002",
        None,
    ),
    "tar with labels from 1": Odd(
        lambda: {"a.tar": tar(*members(label=1))},
        "label 8; labels of tars count from 0: if yours count from 1, give --first-label 1; if there are more than 8",
        None,
        find={"classes": 8},
    ),
    "tar with labels from 1, as stated": Odd(
        lambda: {"a.tar": tar(*members(label=1))}, find={"classes": 8, "first_label": 1}
    ),
    "TFRecord with two labels": Odd(
        lambda: {TFRECORD: records(odd=[4, 5])},
        "record 3: 2 values in image/class/label; one is allowed",
        without(3),
        1,
    ),
    "TFRecord with labels from 0": Odd(lambda: {TFRECORD: records(0)}, ZERO, None, find={"classes": 8}),
    "TFRecord with labels from 0, as stated": Odd(
        lambda: {TFRECORD: records(0)}, find={"classes": 8, "first_label": 0}
    ),
    "TFRecord with a label 0, labels from 1 as stated": Odd(
        lambda: {TFRECORD: records(odd=0)},
        f"record 3: label 0; the first is 1; leave such images out by {SKIP}",
        without(3),
        1,
        {"classes": 8, "first_label": 1},
    ),
    "TFRecord by gzip": Odd(lambda: {TFRECORD: gzip.compress(records())}, GZIP, (), 1),
    "TFRecord.gz": Odd(lambda: {f"{TFRECORD}.gz": b""}, f"{TFRECORD}.gz is compressed; only", None),
    "TFRecord of 0 bytes": Odd(
        lambda: {"train-00000-of-00002": records(), "train-00001-of-00002": b""},
        f"train-00001-of-00002: {EMPTY}",
        ALL,
        1,
    ),
    "TFRecord of Git LFS": Odd(lambda: {TFRECORD: LFS}, f"{TFRECORD}: {POINTER}", (), 1),
    "TFRecords missing": Odd(
        lambda: {"train-00000-of-00004": records()},
        "has 1 of 4 shards, without train-00001-of-00004; add what is missing, or rename these to -of-00001",
        None,
    ),
    "TFRecord twice": Odd(
        lambda: {"train-00000-of-00001": records(), "train-0-of-1": records()}, "the same shard; keep one", None
    ),
    "TFRecord beyond": Odd(lambda: {"train-00001-of-00001": records()}, "is none of 00001 shards", None),
    "folder of a Mac": Odd(
        lambda: {
            f"{prefix}class{label}/{dots}{label}.png": image
            for label, image in picture_sets.labelled()
            for prefix, dots in (("", ""), ("", "._"), (".Trashes/", ""))
        }
    ),
    "image of Git LFS": Odd(
        lambda: {f"class{label}/{label}.png": LFS if label == 3 else image for label, image in picture_sets.labelled()},
        f"class3/3.png: {POINTER}",
        without(3),
        1,
    ),
    "folder with a first label": Odd(
        lambda: {"class0/0.png": b""},
        "holds image files; --first-label is for TFRecords and tars",
        None,
        find={"first_label": 0},
    ),
}


def write(root, name):
    for file, data in ODD[name].files().items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(data)
