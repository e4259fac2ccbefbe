"""Input pipelines alone, and the sets that are made for them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Tuple

import pytest
from real_images import (
    SMALL,
    Records,
    passed,
    records,
)
from suite import ROOT, Result, Suite, finished, needs

from bench.images import find
from bench.images.dataset import FORMATS

needs("PIL", "torch", "onnxruntime")

# The generated set, by two runs at once.


@pytest.fixture(scope="module")
def pair(new_suite: Callable[[], Suite], calibrated: Suite, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two runs that start without the generated set, one with images as bytes; and the folder that both made."""
    cache = tmp_path_factory.mktemp("cache")
    for path in calibrated.cache.glob("calibration-*.json"):
        shutil.copy(str(path), str(cache))
    suites = [new_suite(), new_suite()]
    both = [
        suite.start(*SMALL, "--in-process", "--benchmark-max-time=0.05", *more, LAYERBENCH_CACHE=str(cache))
        for suite, more in zip(suites, ([], ["--eight-bit-io"]))
    ]
    results = [finished(process) for process in both]
    assert [result.returncode for result in results] == [0, 0], results
    return [next(iter(records(suite).values())) for suite in suites], cache


def test_real_data_without_a_folder_is_the_generated_set(pair: Any) -> None:
    floats, _ = pair[0]

    assert floats["data"] == "real"
    assert floats["images_skipped"] == 0
    assert floats["bound_by"]


def test_images_as_bytes_give_the_same_fields(pair: Any) -> None:
    floats, integers = pair[0]

    assert integers.keys() == floats.keys()
    # A percentile is null if there are few samples.
    nulls = [{key for key, value in fields.items() if value is None and "_p9" not in key} for fields in pair[0]]
    assert nulls[0] == nulls[1]
    assert integers["size"] == "i16_uint8"


def test_two_runs_at_once_share_one_generated_set(pair: Any) -> None:
    from PIL import Image

    (folder,) = [path for path in pair[1].iterdir() if path.is_dir() and path.name != "locks"]
    found = find(folder)

    assert (found.count, found.classes) == (64, 8)
    for file in found.files:
        with Image.open(found.path(file)) as image:
            image.load()


# Pipelines alone.

PIPELINE = ("-k", "host_pipeline", "--image-size=16", "--batch-size=4", "--data=real", "--benchmark-json=run.json")
# Not in workers, which would take seconds each to load frameworks.
HERE = (*PIPELINE, "--in-process")


@pytest.fixture(scope="module")
def found_of_all(loaded: Suite, sets: Path) -> Tuple[Records, Result]:
    """Every mode and backend, with two workers."""
    needs("tensorflow")
    args = ("--backend=torch,tensorflow,onnxruntime", "--mode=inference,training,eval", "--data-workers=2")
    result = loaded.run(*HERE, *args, f"--data-dir={sets / 'colours'}", "-rs")
    assert result.returncode == 0, result.text
    return records(loaded), result


def test_a_pipeline_alone_has_a_rate_of_images(found_of_all: Tuple[Records, Result]) -> None:
    found = found_of_all[0]

    assert sorted(found) == [f"{mode} b4 {of}" for mode in ("inference", "training") for of in ("tensorflow", "torch")]
    for one in found.values():
        assert (one["item"], one["data"], one["images_skipped"]) == ("image", "real", 0)
        assert (one["batches_per_step"], one["items_per_step"]) == (4, 16)
        assert one["items_per_s"] == pytest.approx(one["items_per_step"] / one["step_median_s"])
        assert one["items_per_s"] > 10


def test_a_pipeline_alone_has_no_check_no_cost_and_no_share_of_a_peak(found_of_all: Tuple[Records, Result]) -> None:
    """Nothing is computed that could be right, or be held against a roofline."""
    checks = ("relative_error", "gradient_error", "tolerance", "checked_rows", "checked_size", "compile_s")
    costs = ("parameters", "flops_per_item", "bytes_per_item", "tflops", "gbytes_per_s")
    peaks = ("percent_of_peak", "peak_tflops", "peak_gbytes_per_s", "peak_library", "peak_raised")

    for one in found_of_all[0].values():
        assert {name: one[name] for name in (*checks, *costs, *peaks)} == dict.fromkeys((*checks, *costs, *peaks))


def test_what_has_no_pipeline_of_its_own_skips_and_says_so(found_of_all: Tuple[Records, Result]) -> None:
    said = [line for line in found_of_all[1].stdout.splitlines() if line.startswith("SKIPPED")]

    assert any("onnxruntime has no input pipeline of its own, as torch and tensorflow have" in line for line in said)
    assert any("eval is like inference" in line for line in said)


# A baseline takes new workers. What compares is not the framework's.
@pytest.mark.parametrize(
    "backend, mode",
    ["torch training".split(), pytest.param("torch,tensorflow", "inference,training", marks=pytest.mark.thorough)],
)
def test_a_pipeline_is_compared_with_its_baseline(shared: Suite, sets: Path, backend: str, mode: str) -> None:
    args = (f"--backend={backend}", f"--mode={mode}", f"--data-dir={sets / 'colours'}", "--data-workers=2")
    pipeline = (*PIPELINE, *args, "--processes=1", f"--baseline=./{backend}.json")
    passed(shared, *pipeline, "--baseline-accept=the first")

    result = shared.run(*pipeline, "--require-baseline", "--undecided=pass")

    assert result.returncode == 0, result.text
    assert f"{len(records(shared))} passed" in result.stdout


@pytest.mark.parametrize("backend, workers", [("torch,tensorflow", 0), ("torch", 1)], ids=["0", "1"])
def test_a_pipeline_runs_with_any_number_of_workers(loaded: Suite, sets: Path, backend: str, workers: int) -> None:
    needs("tensorflow")
    args = (f"--backend={backend}", f"--data-workers={workers}", f"--data-dir={sets / 'colours'}")

    found = passed(loaded, *HERE, *args)

    assert {(one["data"], one["tuned_workers"]) for one in found.values()} == {("real", workers)}


def test_a_pipeline_takes_pictures_without_classes(loaded: Suite, sets: Path) -> None:
    (found,) = passed(loaded, *HERE, "--backend=torch", "--data-workers=0", f"--data-dir={sets / 'pictures'}").values()

    assert found["tuned_images"] == "folder 24"
    assert found["data_dir"] == str(sets / "pictures")


# Sets that scripts/make_images.py makes.


@pytest.mark.parametrize("kind", FORMATS)
def test_a_case_takes_what_make_images_makes(loaded: Suite, tmp_path: Path, kind: str) -> None:
    needs({"folder": "PIL", "tfrecord": "google_crc32c", "webdataset": "webdataset"}[kind])
    size = ("--images", "12", "--classes", "4", "--size", "64x48")
    run(sys.executable, "-m", "scripts.make_images", *size, "--format", kind, "--out", str(tmp_path / kind))

    (found,) = passed(loaded, *SMALL, "--in-process", f"--data-dir={tmp_path / kind}").values()

    assert found["tuned_images"].split()[0] == kind
    assert found["images_skipped"] == 0
    assert found["items_per_s"] > 0


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
