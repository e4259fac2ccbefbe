"""What a file is by its first bytes, where it is not what its name says."""

from __future__ import annotations

from typing import Optional

# As many bytes as `description` looks at.
HEAD = 64
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x78\x01": "zlib",
    b"\x78\x9c": "zlib",
    b"\x78\xda": "zlib",
}


def description(head: bytes) -> Optional[str]:
    """What a file is that begins with these bytes, and what to do; None if that is unknown.

    Ask only about a file that could not be read: a good file may begin with any bytes.
    """
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer instead of the file; fetch the file by `git lfs pull`"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page instead of the file; download the file again, from its own address"
    if text.startswith(b"<?xml"):
        return "an XML text instead of the file, such as a server's error; download the file again"
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            return f"compressed by {name}; only uncompressed files are read, so decompress it"
    return None
