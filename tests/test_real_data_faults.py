"""Cases of real images, by the command line: what goes wrong, and what is left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

import pytest
from real_images import (
    GONE_S,
    REAL,
    SMALL,
    outcome,
    passed,
    records,
    told_in_one_line,
)
from suite import Result, Suite, alive, finished, until

pytest.importorskip("PIL")
pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

# What is wrong with the images.


def test_a_bad_image_is_left_out_and_counted_on_request(shared: Suite, sets: Path) -> None:
    args = ("--backend=torch", "--tuning=default", "--image-size=16", "--batch-size=4", "--mode=training")

    (found,) = passed(shared, *REAL, *args, f"--data-dir={sets / 'one bad'}", "--data-errors=skip").values()

    assert found["images_skipped"] >= 1


def test_a_bad_image_fails_its_case_in_a_line_and_others_go_on(shared: Suite, sets: Path) -> None:
    args = ("--backend=torch", "--tuning=default", "--image-size=16", "--batch-size=4", "--mode=training,inference")

    result = shared.run(*REAL, *args, f"--data-dir={sets / 'one bad'}", "-rA")

    where = sets / "one bad" / "train" / "class5" / "012.jpg"
    assert result.returncode == 1, result.text
    assert outcome(result, "training") == "FAILED"
    assert outcome(result, "inference") == "PASSED"
    assert told_in_one_line(result, f"{where}: not a JPEG or PNG image"), result.text
    assert list(records(shared)) == ["inference b4 torch"]


@pytest.fixture(scope="module")
def too_many_classes(shared: Suite, sets: Path, weights: Dict[str, str]) -> Result:
    """Twelve classes for a network of six."""
    args = ("--backend=torch", "--tuning=default", "--image-size=16", "--batch-size=4", "--mode=inference,training")
    files = (f"--data-dir={sets / 'twelve classes'}", f"--weights={weights['colour without norms']}")
    return shared.run(*REAL, *args, "--classes=6", "--norm-type=none", *files, "-rA")


def test_training_refuses_a_label_that_the_network_has_no_class_for(too_many_classes: Result) -> None:
    assert outcome(too_many_classes, "training") == "FAILED"
    assert told_in_one_line(too_many_classes, "an image has label "), too_many_classes.text
    assert "and the network 6 classes; see --classes" in too_many_classes.text


def test_scoring_refuses_a_label_that_the_network_has_no_class_for(too_many_classes: Result) -> None:
    assert outcome(too_many_classes, "inference") == "FAILED"


def test_a_folder_that_is_not_there_is_refused_at_once(shared: Suite, sets: Path) -> None:
    result = shared.run(*SMALL, f"--data-dir={sets / 'nowhere'}")

    assert result.returncode == 4, result.text
    assert result.errors == [f"ERROR: --data-dir: no such file or folder: {sets / 'nowhere'}"]


@pytest.mark.parametrize(
    "name, what",
    [
        ("empty", "holds no images; allowed are <class>/*.jpg"),
        ("other format", "holds no images; allowed are <class>/*.jpg"),
        ("a file", "is not a folder; give the folder that holds <class>/*.jpg"),
    ],
)
def test_what_is_no_set_of_images_fails_in_a_line(shared: Suite, sets: Path, name: str, what: str) -> None:
    result = shared.run(*REAL, "--backend=numpy", "--image-size=8", "--batch-size=1", f"--data-dir={sets / name}")

    assert result.returncode == 1, result.text
    assert told_in_one_line(result, f"{sets / name} {what}"), result.text


def test_an_empty_folder_fails_a_pipeline_alone_in_a_line(shared: Suite, sets: Path) -> None:
    result = shared.run("-k", "host_pipeline", "--backend=torch", "--data=real", f"--data-dir={sets / 'empty'}")

    assert result.returncode == 1, result.text
    assert told_in_one_line(result, f"{sets / 'empty'} holds no images"), result.text


# Processes.


@contextlib.contextmanager
def timing(suite: Suite, *args: str) -> Iterator[Tuple[subprocess.Popen[str], List[int]]]:
    """A run in the middle of its case, and what its worker started to decode; it is killed at the end."""
    process = suite.start(*args)
    try:
        until(lambda: decoding(process.pid) and held(suite.cache / "locks" / "room.lock"))
        yield process, decoding(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def decoding(pid: int) -> List[int]:
    """The processes that the worker of a run started."""
    return [grandchild for child in children(pid) for grandchild in children(child)]


def children(pid: int) -> List[int]:
    found: List[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def held(path: Path) -> bool:
    """Whether somebody holds a lock alone, as one does who is timed."""
    with contextlib.suppress(FileNotFoundError), path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.fixture(scope="module")
def bereaved(new_suite: Callable[[], Suite], sets: Path) -> Tuple[Result, List[int]]:
    """A run one of whose two decoding processes was killed, and their pids. It ended within 30 s."""
    args = ("--data-workers=2", "--steps=1000000", f"--data-dir={sets / 'colours'}")
    with timing(new_suite(), *SMALL, *args, "-rA") as (process, pids):
        os.kill(pids[0], signal.SIGKILL)
        return finished(process, 30), pids


def test_a_case_whose_decoder_is_killed_fails_and_leaves_no_process(bereaved: Tuple[Result, List[int]]) -> None:
    result, pids = bereaved

    assert result.returncode == 1, result.text
    assert len(pids) == 2
    assert f"a worker of the torch input pipeline, process {pids[0]}, was killed by SIGKILL" in result.stdout
    until(lambda: not any(map(alive, pids)), GONE_S)


def test_a_case_whose_decoder_is_killed_says_so_in_a_line(bereaved: Tuple[Result, List[int]]) -> None:
    assert told_in_one_line(bereaved[0], "a worker of the torch input pipeline"), bereaved[0].text


@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_a_run_that_is_stopped_leaves_no_process(suite: Suite, sets: Path, name: str) -> None:
    args = ("--data-workers=2", "--steps=1000000", f"--data-dir={sets / 'colours'}")

    with timing(suite, *SMALL, *args) as (process, pids):
        workers = children(process.pid)
        # As a terminal does it: to every process of the foreground group.
        os.killpg(process.pid, getattr(signal, name))
        result = finished(process, 30)

    assert result.returncode == {"SIGINT": 2, "SIGKILL": -signal.SIGKILL}[name], result.text
    assert len(pids) == 2
    assert "Traceback" not in result.text
    until(lambda: not any(map(alive, [*workers, *pids])), GONE_S)
