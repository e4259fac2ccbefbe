"""The cache folder of a user on a machine, atomic writes of files, and fingerprints."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, Optional, Union


def folder() -> Path:
    """$LAYERBENCH_CACHE, or `layerbench` in the user's cache folder, or if that is read-only in the temporary one.

    Raises ValueError if it cannot be written.
    """
    named = os.environ.get("LAYERBENCH_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    for path in [Path(named)] if named else [Path(base) / "layerbench", Path(tempfile.gettempdir()) / _private()]:
        with contextlib.suppress(OSError):
            path.mkdir(parents=True, exist_ok=True)
            if os.access(str(path), os.W_OK):
                return path
    raise ValueError(f"no folder for calibrations: {named or base} cannot be written; set LAYERBENCH_CACHE")


def read(name: str) -> Optional[Dict[str, Any]]:
    """The cached value of a name; None if it is missing or damaged."""
    try:
        content = json.loads((folder() / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write(name: str, value: Dict[str, Any]) -> None:
    """Cache a value under a name."""
    write_whole(folder() / f"{name}.json", json.dumps(value, indent=1))


def write_whole(path: Path, content: Union[str, bytes]) -> None:
    """Write a file atomically: on a full disk or a kill, the old file stays."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """An open file that replaces `path` when the block ends. After an error or a kill, the old file is still there."""
    handle, temporary = tempfile.mkstemp(dir=str(path.parent), prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, str(path))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _private() -> str:
    return f"layerbench-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


def fingerprint(value: Any) -> str:
    """A hash of a JSON value, as twelve hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
