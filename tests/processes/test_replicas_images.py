"""Replicas that learn from real images, by the command line: they share them, and fall together."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Dict, List

import pytest
from real_images import REAL
from suite import Result, Suite, needs
from test_launchers import environments, rendezvous

from bench.devices import cpu

needs("PIL", "torch")
pytestmark = pytest.mark.skipif(len(cpu.usable_cores()) < 2, reason="one core here")

SMALL = (*REAL, "--mode=training", "--image-size=8", "--batch-size=3", "--classes=6", "--threads=1")
EPOCH = (*SMALL, "--epochs=1")


def entries(suite: Suite) -> List[Dict[str, Any]]:
    return [entry["extra_info"] for entry in suite.read("run.json")["benchmarks"]]


def ranks(suite: Suite, timeout_s: float, *args: str) -> List[Result]:
    """Two runs as `mpirun -n 2` starts them, by rank. Each computes in its own process."""
    return suite.run_together([*args, rendezvous()], environments(2, OMP_NUM_THREADS="1"), timeout_s)


@pytest.fixture(scope="module")
def set_of_both(sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parent of a set of TFRecords: 24 images, those of both splits."""
    pytest.importorskip("google_crc32c")
    parent = tmp_path_factory.mktemp("parent")
    shutil.copytree(str(sets / "tfrecord"), str(parent / "imagenet-data"))
    for path in list((parent / "imagenet-data").iterdir()):
        path.with_name(path.name.replace("validation", "train")).symlink_to(path.name)
    return parent


@pytest.mark.parametrize("engine", ["torch", pytest.param("tensorflow", marks=pytest.mark.thorough)])
def test_an_epoch_of_tfrecords_is_shared_and_its_hits_are_counted_once(
    shared: Suite, set_of_both: Path, engine: str
) -> None:
    """24 images in global batches of 6, and of 3: a step has so many items."""
    needs(engine)

    result = shared.run(*EPOCH, f"--backend={engine}", "--replicas=1,2", f"--data-dir={set_of_both}", "-rA")

    assert result.returncode == 0, result.text
    one, two = entries(shared)
    assert (one["items_per_step"], two["items_per_step"]) == (3, 6)
    assert (one["global_batch"], two["global_batch"]) == (3, 6)
    assert (one["epochs"], two["epochs"]) == (1, 1)
    assert (one["samples"], two["samples"]) == (7, 3)
    assert (one["images_scored"], two["images_scored"]) == (24, 24)
    assert (one["replica_items_per_s"], len(two["replica_items_per_s"])) == (None, 2)
    assert two["scaling_percent"] == pytest.approx(100 * two["items_per_s"] / (2 * one["items_per_s"]))
    assert f"x2-{engine}-cpu: top-1 " in result.stdout


def test_replicas_without_all_reduce_share_as_well_and_count_what_is_left_out_together(
    shared: Suite, sets: Path
) -> None:
    """13 images in batches of 3 and 3, one of them bad: three updates see 18, so that the bad one is left out at least
    once."""
    args = ("--backend=torch", "--replicas=2", "--no-all-reduce", "--data-errors=skip", "--data-workers=0")

    result = shared.run(*EPOCH, *args, f"--data-dir={sets / 'one bad'}")

    assert result.returncode == 0, result.text
    (found,) = entries(shared)
    assert found["images_skipped"] >= 1
    assert found["global_batch"] == 3
    assert found["epochs"] == pytest.approx(18 / 13)
    assert found["images_scored"] == 24


@pytest.mark.parametrize("mode", [["--epochs=2"], []], ids=["epochs", "timed"])
def test_a_replica_that_has_a_bad_image_ends_the_others(shared: Suite, sets: Path, mode: List[str]) -> None:
    args = ("--backend=torch", "--replicas=2", "--steps=50", "--case-timeout=100")

    result = shared.run(*SMALL, *mode, *args, f"--data-dir={sets / 'one bad'}")

    assert result.returncode == 1, result.text
    assert "of 2: " in result.text
    assert f"{sets / 'one bad' / 'train' / 'class5' / '012.jpg'}: not a JPEG or PNG image" in result.text
    assert "Traceback" not in result.text


# Replicas of torch without a launcher fall above: what a launcher changes is not the framework's.
@pytest.mark.parametrize("engine", [pytest.param("torch", marks=pytest.mark.thorough), "tensorflow"])
def test_a_rank_of_a_launcher_that_has_a_bad_image_ends_the_others(loaded: Suite, sets: Path, engine: str) -> None:
    """Within seconds: not when a case has taken its 600 s, which is how long one waits for another's gradients."""
    needs(engine)
    args = (f"--backend={engine}", "--epochs=2", "--case-timeout=600", f"--data-dir={sets / 'one bad'}")

    first, second = ranks(loaded, 100, *SMALL, *args)

    assert (first.returncode, second.returncode) == (1, 1), first.text + second.text
    assert f"{sets / 'one bad' / 'train' / 'class5' / '012.jpg'}: not a JPEG or PNG image" in first.text
    assert "rank " in first.text
    assert "Traceback" not in first.text


def test_an_epoch_runs_under_a_launcher(loaded: Suite, set_of_both: Path) -> None:
    args = ("--backend=torch", f"--data-dir={set_of_both}")

    first, second = ranks(loaded, 200, *EPOCH, *args)

    assert (first.returncode, second.returncode) == (0, 0), first.text + second.text
    (found,) = entries(loaded)
    assert (found["replicas"], found["epochs"], found["images_scored"], found["samples"]) == (2, 1, 24, 3)
    assert found["data_dir"] == os.path.join(str(set_of_both), "imagenet-data")


# What a backend is given, noted by each replica in a file of its own.
NOTED = """
feed = program.feed
def noting(batches):
    def noted():
        for batch in batches:
            (labels,) = [array for array in batch.values() if array.ndim == 1]
            with open(Path(__file__).parents[2] / f"labels-{os.getpid()}.txt", "a") as file:
                file.write(" ".join(map(str, labels)) + "\\n")
            yield batch
    feed(batches if isinstance(batches, list) else noted())
program.feed = noting
"""


def test_replicas_that_are_only_timed_read_different_images(suite: Suite, sets: Path) -> None:
    """Twelve images, each of a class of its own, in batches of 3 for two replicas: two batches of each are all."""
    suite.add_backend("noted", NOTED)
    args = ("--mode=eval", "--classes=12", "--replicas=2", "--data-workers=0", "--steps=4", "--image-size=8")

    result = suite.run(
        "--model=resnet8",
        "--backend=noted",
        "--data=real",
        "--batch-size=3",
        "--threads=1",
        *args,
        f"--data-dir={sets / 'twelve classes'}",
    )

    assert result.returncode == 0, result.text
    first, second = [path.read_text().splitlines()[:2] for path in suite.root.glob("labels-*.txt")]
    assert sorted(map(int, " ".join(first + second).split())) == list(range(12))
