"""The quota of CPU time that cgroups (version 1 or 2) give this process, and how long they stopped it.

A process with a quota of half a core computes for 50 ms of every 100 ms at full speed, and is stopped for the rest:
"throttled". A short step does not show it. Each group above the process has a quota of its own, and the smallest holds.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path, PurePosixPath
from typing import Iterator, List, Optional, Tuple

ROOT = Path("/")


def cores(root: Path = ROOT) -> Optional[float]:
    """The quota, in cores; None: there is none. `root`: the folder that has /proc and /sys."""
    quotas = [quota for quota in map(_quota, _groups(root)) if quota is not None]
    return min(quotas) if quotas else None


def throttled_s(root: Path = ROOT) -> float:
    """Seconds for which this process's groups have been stopped since they exist, over all cores; 0: never."""
    return math.fsum(map(_throttled_s, _groups(root)))


def _quota(group: Path) -> Optional[float]:
    """The quota of one group, in cores."""
    words = _words(group / "cpu.max") or [*_words(group / "cpu.cfs_quota_us"), *_words(group / "cpu.cfs_period_us")]
    if len(words) != 2 or words[0] in ("max", "-1"):
        return None
    return int(words[0]) / int(words[1])


def _throttled_s(group: Path) -> float:
    words = _words(group / "cpu.stat")
    counts = dict(zip(words[::2], words[1::2]))
    if "throttled_usec" in counts:  # version 2
        return int(counts["throttled_usec"]) / 1e6
    return int(counts.get("throttled_time", 0)) / 1e9


def _words(path: Path) -> List[str]:
    return _text(path).split()


def _text(path: Path) -> str:
    """The text of a file; empty where it cannot be read."""
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""


def _groups(root: Path) -> List[Path]:
    """The folders of this process's groups that may have a quota, from its own group up."""
    lines = [line.split(":", 2) for line in _text(root / "proc/self/cgroup").splitlines()]
    paths = {controllers: path for _, controllers, path in lines}
    groups = []
    for kind, options, mounted, folder in _mounts(root):
        # Version 2 has one tree of groups, which names no controllers; version 1 has one for each set of them.
        named = [path for controllers, path in paths.items() if "cpu" in controllers.split(",")]
        own = [paths.get("", "")] if kind == "cgroup2" else named if "cpu" in options else []
        if not own or not own[0]:
            continue
        group = PurePosixPath(own[0])
        # In a container the mount may start at the container's own group.
        below = group.relative_to(mounted) if mounted in (group, *group.parents) else PurePosixPath()
        groups += [folder / part for part in (below, *below.parents)]
    return [group for group in groups if group.is_dir()]


def _mounts(root: Path) -> Iterator[Tuple[str, List[str], PurePosixPath, Path]]:
    """Each mounted tree of groups: its version, options, the group at which it starts, and the folder where it is."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            start, folder = before.split(" ")[3:5]
            yield kind, options.split(","), PurePosixPath(start), root / folder.lstrip("/")
