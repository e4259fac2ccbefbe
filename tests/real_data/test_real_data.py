"""Cases of real images, by the command line: what is scored, and what bounds them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Dict, Tuple

import numpy as np
import pytest
import real_images
from real_images import COUNTS, Records, passed, records
from suite import Result, Suite, needs

needs("PIL", "torch", "onnxruntime")

# Not in workers, which would take seconds each to load frameworks.
REAL = (*real_images.REAL, "--in-process")
SMALL = (*real_images.SMALL, "--in-process")

# Hits.


@pytest.fixture(scope="module")
def parent(sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds nothing but a set."""
    folder = tmp_path_factory.mktemp("parent")
    (folder / "imagenet-data").symlink_to(sets / "colours")
    return folder


@pytest.fixture(scope="module")
def scored(shared: Suite, parent: Path, weights: Dict[str, str]) -> Tuple[Records, Result]:
    """The network that names colours, in batches that fill 24 images and in some that do not; in workers."""
    args = ("--backend=torch,onnxruntime", "--tuning=default", "--image-size=16", "--batch-size=6,7", "--classes=6")
    files = (f"--data-dir={parent}", f"--weights={weights['colour']}")
    result = shared.run(*real_images.REAL, *args, *files, "-k", "onnxruntime or b6")
    assert result.returncode == 0, result.text
    return records(shared), result


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_hits_of_given_weights_are_those_of_the_validation_images(scored: Tuple[Records, Result], backend: str) -> None:
    """1 + 1 + 4 + 0 + 0 + 3 stand where they belong. Told in the first five is all but the opposite: the two
    yellow ones among the blue."""
    found = scored[0][f"inference b6 {backend}"]

    assert found["top1_percent"] == pytest.approx(100 * 9 / 24)
    assert found["top5_percent"] == pytest.approx(100 * 22 / 24)
    assert found["images_scored"] == 24
    assert f"b6-fp32-x1-{backend}-cpu: top-1 37.50 %, top-5 91.67 % of 24 images" in scored[1].stdout


def test_hits_do_not_depend_on_the_batch_size(scored: Tuple[Records, Result]) -> None:
    six, seven = (scored[0][f"inference b{size} onnxruntime"] for size in (6, 7))

    assert seven["images_scored"] == six["images_scored"]
    assert seven["top1_percent"] == six["top1_percent"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_not_scored(loaded: Suite, sets: Path, weights: Dict[str, str], workers: int) -> None:
    args = (f"--data-dir={sets / 'two bad'}", f"--weights={weights['colour']}", "--classes=6", "--batch-size=5")

    (found,) = passed(loaded, *SMALL, *args, "--data-errors=skip", f"--data-workers={workers}").values()

    assert found["images_scored"] == 24
    assert found["top1_percent"] == pytest.approx(100 * 9 / 24)


@pytest.mark.parametrize("kind", ["tfrecord", "webdataset"])
def test_hits_are_counted_in_every_format(loaded: Suite, sets: Path, weights: Dict[str, str], kind: str) -> None:
    if kind == "tfrecord":
        needs("google_crc32c")
    args = (f"--data-dir={sets / kind}", f"--weights={weights['colour']}", "--classes=6", "--batch-size=5")

    (found,) = passed(loaded, *SMALL, *args).values()

    assert found["images_scored"] == 24
    assert found["top1_percent"] == pytest.approx(100 * 9 / 24)


def test_labels_from_another_number_and_weights_of_a_wrapper_are_read_as_stated(
    loaded: Suite, sets: Path, weights: Dict[str, str], tmp_path: Path
) -> None:
    """The same hits as with labels from 1 and the network's own names."""
    needs("google_crc32c")
    colour = np.load(weights["colour"])
    np.savez(str(tmp_path / "wrapped.npz"), **{f"module.{name}": colour[name] for name in colour.files})
    args = (f"--weights={tmp_path / 'wrapped.npz'}", "--classes=6", "--batch-size=5", "--first-label=0")

    (found,) = passed(loaded, *SMALL, f"--data-dir={sets / 'tfrecord from 0'}", *args).values()

    assert found["top1_percent"] == pytest.approx(100 * 9 / 24)
    assert found["weights_note"] == "weights are those of wrapped.npz, without the prefix module. of its names"


def test_a_network_that_always_says_class_2_hits_its_share(loaded: Suite, sets: Path, weights: Dict[str, str]) -> None:
    args = (f"--data-dir={sets / 'colours'}", f"--weights={weights['two']}", "--classes=6")

    (found,) = passed(loaded, *SMALL, *args).values()

    assert found["top1_percent"] == pytest.approx(100 * COUNTS[2] / 24)
    assert found["top5_percent"] == pytest.approx(100 * (24 - COUNTS[3]) / 24)


def test_pictures_without_classes_are_timed_and_not_scored(loaded: Suite, sets: Path, weights: Dict[str, str]) -> None:
    args = (f"--data-dir={sets / 'pictures'}", f"--weights={weights['colour']}", "--classes=6")

    (found,) = passed(loaded, *SMALL, *args).values()

    assert found["items_per_s"] > 0
    assert found["bound_by"]
    assert (found["top1_percent"], found["top5_percent"], found["images_scored"]) == (None, None, None)


def test_the_parent_of_a_set_serves_and_the_record_says_which_it_is(
    scored: Tuple[Records, Result], parent: Path
) -> None:
    assert {one["data_dir"] for one in scored[0].values()} == {str(parent / "imagenet-data")}


# Training on blended images.


@pytest.fixture(scope="module")
def blended(loaded: Suite, sets: Path, weights: Dict[str, str]) -> Records:
    """One epoch of mixup and cutmix that leaves the weights, which name colours, as they are."""
    needs("tensorflow")
    recipe = ("--mixup-alpha=0.8", "--cutmix-lambda=0.4", "--epochs=1", "--learning-rate=1e-12")
    args = ("--backend=torch,tensorflow", "--image-size=16", "--batch-size=6", "--classes=6", "--norm-type=none")
    files = (f"--data-dir={sets / 'colours'}", f"--weights={weights['colour without norms']}")
    return passed(loaded, *REAL, *args, "--mode=training", *recipe, *files)


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_mixup_and_cutmix_of_real_images_give_a_finite_loss(blended: Records, backend: str) -> None:
    found = blended[f"training b6 {backend}"]

    assert math.isfinite(found["loss_first"])
    assert math.isfinite(found["loss_last"])
    assert found["epochs"] == 1
    assert "mixup_alpha=0.8" in found["recipe"]


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_validation_images_are_not_blended(blended: Records, backend: str) -> None:
    found = blended[f"training b6 {backend}"]

    assert found["top1_percent"] == pytest.approx(100 * 9 / 24)
    assert found["top5_percent"] == pytest.approx(100 * 22 / 24)


# What bounds a case.


def bounding(found: Dict[str, Any]) -> str:
    return str(found["bound_by"].partition(":")[0].split()[-1])


def test_a_case_of_huge_pictures_is_bound_by_the_pipeline(loaded: Suite, sets: Path) -> None:
    (found,) = passed(loaded, *SMALL, "--batch-size=2", f"--data-dir={sets / 'huge'}").values()

    assert bounding(found) == "pipeline"
    assert 1 / found["pipeline_items_per_s"] > 10 * found["compute_s_per_item"]


def test_a_case_of_a_big_network_is_bound_by_compute(loaded: Suite, sets: Path) -> None:
    """One of 1.8 GFLOP an image, and pictures of 5 kB."""
    args = ("--backend=onnxruntime", "--image-size=192", "--batch-size=2", f"--data-dir={sets / 'colours'}")

    (found,) = passed(loaded, *REAL, *args).values()

    assert bounding(found) == "compute"
    assert found["compute_s_per_item"] > 1 / found["pipeline_items_per_s"]
