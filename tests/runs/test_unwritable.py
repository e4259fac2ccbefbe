"""Places that take no results: said in a line, before the measurement where that can be known."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
from pathlib import Path
from typing import Callable, Iterator, List

import pytest
from suite import EMPTIES_JSON, SMALL, Suite


# Nobody can write there, root included: no such folder, under a file, in /proc, a folder for a file.
@pytest.mark.parametrize(
    "args",
    [
        ["--benchmark-json=nowhere/x.json"],
        ["--benchmark-json=run.json/x.json"],
        ["--benchmark-json=/proc/x.json"],
        ["--benchmark-json=empty"],
        ["--benchmark-autosave", "--benchmark-storage=run.json/x"],
        ["--benchmark-save=x", "--benchmark-storage=/proc/x"],
        ["--baseline=run.json/x.json", "--baseline-accept=why"],
        ["--baseline=/proc/x.json", "--baseline-accept=why"],
    ],
    ids=" ".join,
)
def test_a_place_that_takes_no_results_is_refused_before_anything_is_measured(
    refused: Callable[..., str], args: List[str]
) -> None:
    line = refused(*SMALL, *args)

    assert args[0].split("=")[0][:11] in line
    assert args[-1].split("=")[-1].split("/")[0] in line or args[0].split("=")[-1].split("/")[0] in line


def test_a_cache_that_cannot_be_written_is_one_line(refused: Callable[..., str]) -> None:
    line = refused(*SMALL, LAYERBENCH_CACHE="/proc/cache")

    assert "LAYERBENCH_CACHE" in line
    assert "/proc/cache" in line


def failed_to_save(suite: Suite, *args: str) -> str:
    """Run, require exit code 1 and one line, and return that line."""
    before = suite.digests()
    result = suite.run(*SMALL, *args)
    assert result.returncode == 1, result.text
    assert "Traceback" not in result.text
    assert len(result.errors) == 1, result.text
    assert suite.digests() == before
    return result.errors[0]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_json_on_a_full_device_is_one_line_and_the_device_stays(history: Suite) -> None:
    link = history.root / "full.json"
    link.symlink_to("/dev/full")

    line = failed_to_save(history, "--benchmark-json=full.json")

    assert "not saved: No space left on device" in line
    assert link.is_symlink()
    assert Path("/dev/full").is_char_device()


def test_json_behind_a_link_goes_where_the_link_points(suite: Suite) -> None:
    (suite.root / "link.json").symlink_to("target.json")

    result = suite.run(*SMALL, "--benchmark-json=link.json")

    assert result.returncode == 0, result.text
    assert (suite.root / "link.json").is_symlink()
    assert len(suite.ids("target.json")) == 1


@pytest.fixture
def full_disk(history: Suite) -> Iterator[Path]:
    """A folder with a result in it and no room for another."""
    disk = history.root / "disk"
    disk.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small tmpfs is not allowed here")
    try:
        (disk / "earlier.json").write_text("{}")
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


XDIST = pytest.mark.skipif(importlib.util.find_spec("xdist") is None, reason="no pytest-xdist")
EMPTIED = pytest.mark.skipif(EMPTIES_JSON, reason="this pytest-benchmark empties the file before any of our code runs")


@pytest.mark.parametrize(
    "args",
    [
        pytest.param(["--benchmark-json=disk/x.json"], marks=EMPTIED),
        pytest.param(["--benchmark-json=disk/earlier.json"], marks=EMPTIED),
        ["--benchmark-autosave", "--benchmark-storage=disk"],
        ["--baseline=disk/x.json", "--baseline-accept=why"],
        *(
            pytest.param(["-p", "xdist", "-n", "2", *args], marks=XDIST)
            for args in (
                ["--benchmark-json=disk/x.json"],
                ["--benchmark-autosave", "--benchmark-storage=disk"],
                ["--baseline=disk/x.json", "--baseline-accept=why"],
            )
        ),
    ],
    ids=" ".join,
)
def test_a_full_disk_is_one_line_and_earlier_results_stay(history: Suite, full_disk: Path, args: List[str]) -> None:
    line = failed_to_save(history, "--steps=500", *args)

    assert "No space left on device" in line
    assert (full_disk / "earlier.json").read_text() == "{}"
