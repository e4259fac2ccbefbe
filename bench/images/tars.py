"""WebDataset tars: <key>.jpg, .jpeg or .png beside <key>.cls, which holds the label as text.

A key ends at the first dot of the file's name, and the files of one key are consecutive. Files with other
suffixes are ignored, and so are files whose names begin with a dot, such as the `._` files of a Mac. Tars
joined by `cat` are read to their end.
"""

from __future__ import annotations

import os
import re
import tarfile
from typing import BinaryIO, Callable, Iterator, List, NamedTuple, Optional, Tuple, Union

from bench import signatures
from bench.images.faults import BadImage

IMAGES = ("jpg", "jpeg", "png")
LABEL = "cls"
BLOCK = 512

_NAME = re.compile(r"((?:.*/)?[^./]+)[.]([^/]*)", re.DOTALL)


class Sample(NamedTuple):
    """One undecoded image, where it is stored, and its label as stored."""

    where: str
    image: bytes
    label: int


class Member(NamedTuple):
    """A file in a tar, not read. `regular`: it has content, and is no link."""

    name: str
    offset: int
    size: int
    regular: bool


# The files of one key, by suffix in lower case.
Files = List[Tuple[str, Member]]


def where(path: str, key: str) -> str:
    return f"{path}, key {key}"


def samples(path: str, wanted: Callable[[int], bool]) -> Iterator[Union[Sample, BadImage, None]]:
    """Each wanted image of a tar, or its fault; None for the others, of which only headers are read.

    A fault of the tar itself is the last item: what follows is lost.
    """
    number = 0
    try:
        with open(path, "rb") as file:
            for item in _grouped(_members(file, path)):
                if isinstance(item, BadImage):
                    yield item
                else:
                    yield _labelled(file, path, *item) if wanted(number) else None
                number += 1
    except OSError as error:
        yield BadImage(path, f"cannot be read: {error.strerror or error}")


def _members(file: BinaryIO, path: str) -> Iterator[Union[Member, BadImage, None]]:
    """The files of a tar, None for an end mark, and the damage that ends the tar.

    Python's TarFile takes a damaged header for the end of the tar, without an error, and stops at the first
    end mark. So headers are read one by one.
    """
    size, at = os.fstat(file.fileno()).st_size, 0
    ended = size == 0
    tar: Optional[tarfile.TarFile] = None
    while at + BLOCK <= size:
        file.seek(at)
        ended = not any(file.read(BLOCK))
        if ended:
            at += BLOCK
            yield None
            continue
        file.seek(at)
        try:
            tar = tar or tarfile.TarFile(fileobj=file)
            file.seek(at)
            member = tarfile.TarInfo.fromtarfile(tar)
        except (tarfile.TarError, ValueError, OverflowError):
            yield BadImage(path, _damage(file, at))
            return
        at = tar.offset
        if member.offset_data + member.size > size:
            break
        if not member.isdir():
            yield Member(member.name, member.offset_data, member.size, member.isreg())
    if not ended:
        yield BadImage(path, _damage(file, 0) if size < BLOCK else f"cut off at byte {size}")


def _damage(file: BinaryIO, at: int) -> str:
    """Why there is no header at a byte of a file."""
    file.seek(at)
    return (None if at else signatures.description(file.read(signatures.HEAD))) or (
        f"no tar, or damaged, at byte {at}; what follows is lost"
    )


def _grouped(members: Iterator[Union[Member, BadImage, None]]) -> Iterator[Union[Tuple[str, Files], BadImage]]:
    """The consecutive files of each key among which is an image or a label."""
    current: str = ""
    files: Files = []
    for member in members:
        match = _NAME.fullmatch(member.name) if isinstance(member, Member) else None
        if isinstance(member, Member) and match is None:
            continue
        key, suffix = (match[1], match[2].lower()) if match else ("", "")
        if key != current or match is None:
            if _is_sample(files):
                yield current, files
            current, files = key, []
        if isinstance(member, BadImage):
            yield member
        elif isinstance(member, Member):
            files.append((suffix, member))
    if _is_sample(files):
        yield current, files


def _is_sample(files: Files) -> bool:
    return any(suffix.rpartition(".")[2] in (*IMAGES, LABEL) for suffix, _ in files)


def _labelled(file: BinaryIO, path: str, key: str, files: Files) -> Union[Sample, BadImage]:
    """The image of a key with its label, or its fault."""
    fault = _fault(key, files)
    if fault is not None:
        return BadImage(where(path, key), fault)
    members = dict(files)
    image, text = (
        _content(file, next(members[suffix] for suffix in kinds if suffix in members)) for kinds in (IMAGES, (LABEL,))
    )
    try:
        return Sample(where(path, key), image, int(text))
    except ValueError:
        return BadImage(where(path, key), f"its label is {text[:20]!r}, not a number")


def _fault(key: str, files: Files) -> Optional[str]:
    """What is wrong with the files of a key; None: they are one image and one label."""
    used = [(suffix, member) for suffix, member in files if suffix in (*IMAGES, LABEL)]
    images = [suffix for suffix, _ in used if suffix != LABEL]
    labels = len(used) - len(images)
    dotted = [member.name for suffix, member in files if "." in suffix and _is_sample([(suffix, member)])]
    if dotted and not (images and labels):
        return f"{os.path.basename(dotted[0])} has several dots, and a key ends at the first; rename it in the tar"
    if not images:
        return f"a label ({key}.{LABEL}) without an image beside it"
    if not labels:
        return f"an image without a label ({key}.{LABEL}) beside it"
    if len(images) > 1:
        return f"two images, {images[0]} and {images[1]}"
    if labels > 1:
        return f"two labels ({key}.{LABEL})"
    links = [suffix for suffix, member in used if not member.regular]
    return f"its {links[0]} is a link; write the tar with the files themselves" if links else None


def _content(file: BinaryIO, member: Member) -> bytes:
    file.seek(member.offset)
    return file.read(member.size)
