"""A quota of CPU time, from a tree of files as the kernel has it, and from the kernel itself where that is allowed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from suite import ROOT, finished

from bench import quota
from bench.devices import cpu

V1 = "30 23 0:26 {start} /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "31 23 0:27 / /sys/fs/cgroup/memory rw,nosuid shared:10 - cgroup cgroup rw,memory"
V2 = "29 22 0:25 {start} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
DISK = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw"


def machine(root: Path, groups: str, mounts: str, **files: str) -> Path:
    """A machine's files: the groups of a process, what is mounted, and files of groups by path (`__` for a slash)."""
    texts = {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts}
    texts.update({f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def version_2(root: Path, own: str, start: str = "/", **files: str) -> Path:
    return machine(root, f"0::{own}", f"{DISK}\n{V2.format(start=start)}", **files)


def version_1(root: Path, own: str, start: str = "/", **files: str) -> Path:
    groups = f"5:memory:/elsewhere\n4:cpu,cpuacct:{own}\n0::/"
    return machine(root, groups, f"{V1_MEMORY}\n{V1.format(start=start)}", **files)


def test_a_quota_of_version_2_is_time_over_period(tmp_path):
    root = version_2(tmp_path, "/job", **{"job/cpu.max": "150000 100000"})

    assert quota.cores(root) == 1.5


def test_a_quota_of_version_1_is_time_over_period(tmp_path):
    files = {"cpu,cpuacct/job/cpu.cfs_quota_us": "25000", "cpu,cpuacct/job/cpu.cfs_period_us": "50000"}

    assert quota.cores(version_1(tmp_path, "/job", **files)) == 0.5


@pytest.mark.parametrize("text", ["max 100000", "max"])
def test_no_quota_is_none_in_version_2(tmp_path, text):
    assert quota.cores(version_2(tmp_path, "/job", **{"job/cpu.max": text})) is None


def test_no_quota_is_none_in_version_1(tmp_path):
    files = {"cpu,cpuacct/job/cpu.cfs_quota_us": "-1", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}

    assert quota.cores(version_1(tmp_path, "/job", **files)) is None


def test_a_machine_without_groups_has_no_quota(tmp_path):
    assert quota.cores(tmp_path) is None
    assert quota.throttled_s(tmp_path) == 0


def test_the_smallest_quota_above_a_process_holds(tmp_path):
    files = {"a/cpu.max": "50000 100000", "a/b/cpu.max": "200000 100000", "other/cpu.max": "1000 100000"}

    assert quota.cores(version_2(tmp_path, "/a/b", **files)) == 0.5


@pytest.mark.parametrize("own, start", [("/", "/"), ("/docker/4f", "/docker/4f"), ("/", "/../..")])
def test_in_a_container_the_mount_may_be_the_containers_own_group(tmp_path, own, start):
    """With a namespace of its own a container sees `/`; without one it sees its path on the host."""
    assert quota.cores(version_2(tmp_path, own, start, **{"cpu.max": "300000 100000"})) == 3


def test_a_container_of_version_1_sees_its_quota(tmp_path):
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}

    assert quota.cores(version_1(tmp_path, "/docker/4f", "/docker/4f", **files)) == 2


def test_throttled_time_is_in_seconds_in_both_versions_and_of_all_groups(tmp_path):
    second = {
        "cpu.stat": "usage_usec 9\nnr_throttled 1\nthrottled_usec 500000",
        "job/cpu.stat": "throttled_usec 250000",
    }
    first = {"cpu,cpuacct/job/cpu.stat": "nr_periods 3\nnr_throttled 2\nthrottled_time 1500000000"}

    assert quota.throttled_s(version_2(tmp_path / "2", "/job", **second)) == 0.75
    assert quota.throttled_s(version_1(tmp_path / "1", "/job", **first)) == 1.5


@pytest.mark.parametrize(
    "granted, usable", [(None, [0, 1, 2, 3]), (8.0, [0, 1, 2, 3]), (2.9, [2, 3]), (1.0, [3]), (0.2, [3])]
)
def test_usable_cores_are_as_many_as_a_quota_keeps_busy(monkeypatch, granted, usable):
    monkeypatch.setattr(quota, "cores", lambda: granted)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(cpu, "_siblings", str)

    assert cpu.usable_cores.__wrapped__() == usable


def test_a_device_names_its_quota(monkeypatch):
    monkeypatch.setattr(quota, "cores", lambda: 1.5)

    assert cpu.describe()["quota"] == 1.5


@pytest.fixture
def group():
    """A function that makes a group with a quota in cores, and returns the file that moves a process into it."""
    folders = [root / f"layerbench-test-{os.getpid()}" for root in (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup"))]
    folder = next((folder for folder in folders if folder.parent.exists()), folders[0])

    def made(cores):
        try:
            folder.mkdir()
            if (folder / "cpu.max").exists():
                (folder / "cpu.max").write_text(f"{round(100_000 * cores)} 100000")
            else:
                (folder / "cpu.cfs_quota_us").write_text(str(round(100_000 * cores)))
        except OSError:
            pytest.skip("no group with a quota can be made here")
        return folder / "cgroup.procs"

    yield made
    if folder.exists():
        folder.rmdir()


# Computes for a second in a group that is entered before the clock starts.
STOPPED = """
import sys, time
from pathlib import Path
from bench.cases.case import Settings
from bench.clock import conditions
Path(sys.argv[1]).write_text("0")
with conditions.watched(Settings(), decoding=False) as watch:
    end = time.perf_counter() + 1
    while time.perf_counter() < end:
        pass
print(*watch.reasons)
"""


def test_the_kernel_tells_that_a_quota_stopped_a_case(group):
    shown = subprocess.run(
        [sys.executable, "-c", STOPPED, str(group(0.03))],
        cwd=str(ROOT),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )

    assert shown.stdout.startswith("the CPU quota of 0.03 cores of its cgroup stopped its threads for ")


def test_the_header_names_a_quota(suite, group):
    procs = group(0.9)
    with suite.start("--collect-only") as process:
        procs.write_text(str(process.pid))
        result = finished(process)

    assert "layerbench: CPU quota of 0.9 (cgroup), usable cores: 1" in result.text
