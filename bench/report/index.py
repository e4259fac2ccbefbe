"""An index of a folder of results, so that a history reads only new and changed files.

The index is a file of SQLite in the folder. One process at a time updates it, under a lock. Each transaction has the
files that were read since the one before, so a killed process loses the last of them. A damaged index is made anew.
Where the folder cannot be written, all files are read, and a note says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import numpy as np

from bench import locks
from bench.report import entries
from bench.report.entries import POINT, Entry

NAME, LOCK = ".layerbench-index.sqlite", ".layerbench-index.lock"
# Of the tables, and of what an entry has. An index of another version is made anew.
VERSION = 1
# So many files are read in one transaction.
BATCH = 200
TABLES = """
    CREATE TABLE file (path BLOB PRIMARY KEY, size INTEGER, modified INTEGER, head TEXT, points BLOB);
    CREATE TABLE text (number INTEGER PRIMARY KEY, content TEXT UNIQUE);
"""


@dataclass
class Collection:
    """What a history is made from.

    entries   of all files, without their points
    points    of all files, of the type POINT; `files`: the index in `entries` of each point's file
    texts     the JSON of series and facts, by their numbers in `points`
    notes     what a person should know, such as that no index is kept
    """

    entries: List[Entry] = field(default_factory=list)
    points: Any = field(default_factory=lambda: np.empty(0, POINT))
    files: Any = field(default_factory=lambda: np.empty(0, np.int64))
    texts: List[str] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)


def collect(paths: Sequence[Path]) -> Collection:
    """Read files and folders of files, each file once. Raises ValueError, in one line, for a path that is not there."""
    found = Collection()
    numbers: Dict[str, int] = {}
    parts: List[Any] = []
    for path in paths:
        with contextlib.ExitStack() as stack:
            connection = _of_folder(path, stack, found.notes) if path.is_dir() else _of_file(path)
            stack.callback(connection.close)
            _load(connection, path if path.is_dir() else Path(), found, numbers, parts)
    found.points = np.concatenate(parts) if parts else found.points
    found.files = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    found.texts = list(numbers)
    return found


def files(paths: Sequence[Path]) -> List[Path]:
    """These files, and the files of these folders."""
    found: List[Path] = []
    for path in paths:
        inside = sorted(path / os.fsdecode(name) for name, _ in _files(path)) if path.is_dir() else [path]
        found += inside
    return found


def _of_file(path: Path) -> sqlite3.Connection:
    """An index in memory of one file. Raises ValueError if it cannot be used."""
    only = entries.entry(path)
    if only.fault:
        raise ValueError(only.fault)
    connection = _empty(":memory:")
    _store(connection, os.fsencode(str(path)), (0, 0), only, {})
    return connection


def _of_folder(folder: Path, stack: contextlib.ExitStack, notes: List[str]) -> sqlite3.Connection:
    """The index of a folder, with all of its files. No other process changes it until `stack` ends."""
    try:
        stack.enter_context(locks.alone_with(folder / LOCK))
        connection = _connection(folder / NAME)
        _update(connection, folder)
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        notes.append(f"{folder} keeps no index, so every report reads all of its files: {reason}")
        connection = _empty(":memory:")
        _update(connection, folder)
    return connection


def _connection(file: Path) -> sqlite3.Connection:
    """The index in a file. It is made anew if it is damaged or of another version."""
    if file.exists():
        connection = sqlite3.connect(str(file))
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (intact,) = connection.execute("PRAGMA quick_check").fetchone()
            if version == VERSION and intact == "ok":
                # Fails if it cannot be written.
                connection.execute("BEGIN IMMEDIATE")
                connection.rollback()
                return connection
        except sqlite3.OperationalError:
            connection.close()
            raise
        except sqlite3.DatabaseError:
            pass
        connection.close()
        for leftover in (file, Path(f"{file}-journal")):
            with contextlib.suppress(FileNotFoundError):
                leftover.unlink()
    return _empty(str(file))


def _empty(file: str) -> sqlite3.Connection:
    connection = sqlite3.connect(file)
    with connection:
        connection.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
    return connection


def _update(connection: sqlite3.Connection, folder: Path) -> None:
    """Read the files that are new or changed, and drop those that are gone."""
    known = {path: (size, time) for path, size, time in connection.execute("SELECT path, size, modified FROM file")}
    present = dict(_files(folder))
    with connection:
        connection.executemany("DELETE FROM file WHERE path = ?", [(path,) for path in known if path not in present])
    numbers = {text: number for number, text in connection.execute("SELECT number, content FROM text")}
    new = [path for path, state in present.items() if known.get(path) != state]
    for start in range(0, len(new), BATCH):
        with connection:
            for path in new[start : start + BATCH]:
                # The state is that from before the file was read, so one that changes meanwhile is read again.
                _store(connection, path, present[path], entries.entry(folder / os.fsdecode(path)), numbers)


def _files(folder: Path) -> Iterator[Tuple[bytes, Tuple[int, int]]]:
    """The paths of files below a folder, in it or one folder down, with their size and the time of their change."""
    for place, folders, _ in os.walk(str(folder)):
        depth = len(Path(place).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth == 0 else []
        with os.scandir(place) as found:
            for each in found:
                # A file can disappear meanwhile.
                with contextlib.suppress(FileNotFoundError):
                    if each.name.endswith(".json") and not each.name.startswith(".") and each.is_file():
                        state = each.stat()
                        relative = os.path.relpath(each.path, str(folder))
                        yield os.fsencode(relative), (state.st_size, state.st_mtime_ns)


def _store(
    connection: sqlite3.Connection, path: bytes, state: Tuple[int, int], entry: Entry, numbers: Dict[str, int]
) -> None:
    """Add an entry, and the texts of its points that the index does not have yet."""
    packed: Any = np.empty(len(entry.points), POINT)
    for place, (series, facts, *values) in enumerate(entry.points):
        for text in (series, facts):
            if text not in numbers:
                numbers[text] = len(numbers)
                connection.execute("INSERT INTO text VALUES (?, ?)", (numbers[text], text))
        packed[place] = (numbers[series], numbers[facts], *values)
    connection.execute("REPLACE INTO file VALUES (?, ?, ?, ?, ?)", (path, *state, entry.head, packed.tobytes()))


def _load(
    connection: sqlite3.Connection, folder: Path, found: Collection, numbers: Dict[str, int], parts: List[Any]
) -> None:
    """Add what the index of a folder has to a collection.

    numbers   those of the collection's texts
    parts     the points of each file
    """
    texts = [text for (text,) in connection.execute("SELECT content FROM text ORDER BY number")]
    renumbered = np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int32)
    for path, head, points in connection.execute("SELECT path, head, points FROM file ORDER BY path"):
        found.entries.append(Entry(str(folder / os.fsdecode(path)), **json.loads(head)))
        part = np.frombuffer(points, POINT).copy()
        if len(part):
            part["series"], part["facts"] = renumbered[part["series"]], renumbered[part["facts"]]
        parts.append(part)
