"""Cases of real images, by the command line: what goes wrong, and what is left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Callable, Iterator, List, Tuple

import numpy as np
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
from suite import Result, Suite, alive, finished, needs, until

needs("PIL", "torch", "onnxruntime")

# What is wrong with the images.


def test_a_bad_image_is_left_out_and_counted_on_request(loaded: Suite, sets: Path) -> None:
    args = ("--backend=torch", "--tuning=default", "--image-size=16", "--batch-size=4", "--mode=training")
    options = ("--data-errors=skip", "--in-process", f"--data-dir={sets / 'one bad'}")

    (found,) = passed(loaded, *REAL, *args, *options).values()

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


# What is refused before a framework is loaded, in one line, and with no case run.


def refused(shared: Suite, *args: str) -> str:
    result = shared.run(*args)
    assert result.returncode == 4, result.text
    assert len(result.errors) == 1, result.text
    assert "Traceback" not in result.text
    return result.errors[0]


@pytest.mark.parametrize("mode", ["training", "inference"])
def test_more_class_folders_than_classes_are_refused(shared: Suite, sets: Path, mode: str) -> None:
    line = refused(shared, *SMALL, f"--mode={mode}", "--classes=6", f"--data-dir={sets / 'twelve classes'}")

    where = sets / "twelve classes"
    assert line == f"ERROR: --data-dir: {where} has 12 class folders; at most 6 are allowed here (--classes)"


def test_a_folder_that_is_not_there_is_refused_at_once(shared: Suite, sets: Path) -> None:
    line = refused(shared, *SMALL, f"--data-dir={sets / 'nowhere'}")

    assert line == f"ERROR: --data-dir: no such file or folder: {sets / 'nowhere'}"


@pytest.mark.parametrize(
    "name, what",
    [
        ("empty", "holds no images; allowed are <class>/*.jpg"),
        ("other format", "holds no images; allowed are <class>/*.jpg"),
        ("a file", "is not a folder; give the folder that holds <class>/*.jpg"),
    ],
)
def test_what_is_no_set_of_images_is_refused(shared: Suite, sets: Path, name: str, what: str) -> None:
    line = refused(shared, *REAL, "--backend=numpy", "--image-size=8", "--batch-size=1", f"--data-dir={sets / name}")

    assert line.startswith(f"ERROR: --data-dir: {sets / name} {what}")


def test_the_split_that_a_mode_needs_is_missed(shared: Suite, sets: Path) -> None:
    """There are validation TFRecords only."""
    line = refused(shared, *SMALL, "--mode=training", "--classes=6", f"--data-dir={sets / 'tfrecord'}")

    assert "tfrecord has no train-*-of-*, only validation-00000-of-00002" in line


def test_an_empty_folder_is_refused_for_a_pipeline_alone(shared: Suite, sets: Path) -> None:
    line = refused(shared, "-k", "host_pipeline", "--backend=torch", "--data=real", f"--data-dir={sets / 'empty'}")

    assert f"{sets / 'empty'} holds no images" in line


@pytest.mark.parametrize("args", [["--mode=training"], ["--mode=training", "--epochs=1"], ["--mode=eval"]], ids=str)
def test_pictures_without_classes_are_refused_for_what_needs_labels(shared: Suite, sets: Path, args: List[str]) -> None:
    line = refused(shared, *SMALL, *args, f"--data-dir={sets / 'pictures'}")

    assert "holds images without classes; put them into a folder per class" in line


@pytest.fixture(scope="module")
def noting(new_suite: Callable[[], Suite]) -> Suite:
    """A copy with a backend that notes what it compiles."""
    suite = new_suite()
    suite.add_backend("noted")
    return suite


@pytest.mark.parametrize(
    "files, told",
    [
        (["--weights=other.npz"], "other.npz lacks conv1.weight"),
        (["--weights=damaged.npz"], "damaged.npz cannot be read"),
    ],
    ids=["other", "damaged"],
)
def test_weights_that_do_not_fit_fail_before_anything_is_compiled(noting: Suite, files: List[str], told: str) -> None:
    noting.add("damaged.npz", "no weights")
    np.savez(str(noting.root / "other.npz"), other=np.zeros(3, np.float32))

    result = noting.run("--model=resnet8", "--backend=noted", "--batch-size=1", *files)

    assert result.returncode == 1, result.text
    assert told in result.text
    assert "Traceback" not in result.text
    assert noting.workers() == {}


def test_a_damaged_file_of_images_fails_before_anything_is_compiled(noting: Suite, sets: Path) -> None:
    needs("google_crc32c")
    shutil.copytree(str(sets / "tfrecord"), str(noting.root / "set"))
    with (noting.root / "set" / "validation-00001-of-00002").open("r+b") as file:
        file.truncate(30)

    result = noting.run("--model=resnet8", "--data=real", "--data-dir=set", "--backend=noted", "--batch-size=1")

    assert result.returncode == 1, result.text
    assert "validation-00001-of-00002, record 0: cut off at byte 30" in result.text
    assert "Traceback" not in result.text
    assert noting.workers() == {}


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


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_a_killed_worker_of_an_input_pipeline_is_noticed_within_seconds(
    new_suite: Callable[[], Suite], sets: Path, backend: str
) -> None:
    """Its decoding processes have the ends of its pipes, so they have to end before anybody sees that it is dead."""
    needs(backend)
    suite = new_suite()
    args = ("-k", "host_pipeline", "--data=real", "--image-size=16", "--batch-size=4", "--data-workers=2")

    process = suite.start(*args, "--steps=1000000", f"--backend={backend}", f"--data-dir={sets / 'colours'}")
    try:
        until(lambda: held(suite.cache / "locks" / "room.lock") and children(process.pid))
        (worker,) = children(process.pid)
        pids = children(worker)
        os.kill(worker, signal.SIGKILL)
        result = finished(process, 30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    assert f"{backend}-cpu: the worker was killed by SIGKILL" in result.stdout, result.text
    assert len(pids) == (2 if backend == "torch" else 0)
    until(lambda: not any(map(alive, pids)), GONE_S)


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
