"""--no-validation trains on images and computes no accuracy, which a network that is cut over IPUs does not support."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from contract_answers import environment
from suite import Result, Suite

pytest.importorskip("PIL")
TRAINED = (
    *("--model", "resnet8", "--mode", "training", "--batch-size", "2", "--epochs", "1", "--data", "real"),
    *("--data-workers", "1", "--image-size", "16", "--benchmark-only", "--benchmark-json=run.json", "-rA"),
)


@pytest.fixture
def images(suite: Suite) -> str:
    """A folder of images in the suite's folder."""
    from PIL import Image

    for number in range(8):
        folder = suite.root / "images" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (30 * number, 0, 0)).save(str(folder / f"{number}.png"))
    return str(suite.root / "images")


def require_trained(suite: Suite, done: Result, accuracy: bool) -> None:
    """The run trained for one epoch, with or without an accuracy."""
    assert done.returncode == 0, done.text
    (entry,) = suite.read("run.json")["benchmarks"]
    record = entry["extra_info"]
    assert record["epochs"] == 1
    assert record["loss_last"] > 0
    assert (record["top1_percent"] is not None) == accuracy
    assert ("top-1" in done.text) == accuracy


def test_the_accuracy_is_computed_by_default(suite: Suite, images: str) -> None:
    pytest.importorskip("torch")

    done = suite.run(*TRAINED, "--data-dir", images, "--backend", "torch")

    require_trained(suite, done, accuracy=True)


def test_a_set_without_validation_images_is_trained_without_accuracy_with_it_and_refused_without(
    suite: Suite, images: str
) -> None:
    pytest.importorskip("torch")
    parent = suite.root / "parted"
    parent.mkdir()
    (suite.root / "images").rename(parent / "train")

    refused = suite.run(*TRAINED, "--data-dir", str(parent), "--backend", "torch")
    done = suite.run(*TRAINED, "--data-dir", str(parent), "--backend", "torch", "--no-validation")

    assert refused.returncode == 4
    assert len(refused.errors) == 1
    assert "has train and no validation" in refused.errors[0]
    assert "--no-validation counts no hits" in refused.errors[0]
    require_trained(suite, done, accuracy=False)


def test_a_pipeline_of_tensorflow_on_ipus_trains_with_it(suite: Suite, images: str, tmp_path: Path) -> None:
    """With fakes. The READMEs' training commands have this form."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("tensorflow is not installed")
    pipeline = ["--pipeline-splits", "layer2.0", "--pipeline-schedule", "grouped", "--gradient-accumulation", "4"]
    command = [sys.executable, "-m", "pytest", "bench", *TRAINED, "--data-dir", images, "--device", "ipu"]
    command += ["--backend", "tensorflow_ipu", "--batches-per-step", "1", *pipeline, "--no-validation"]

    env = environment(LAYERBENCH_CACHE=str(tmp_path))
    done = subprocess.run(command, cwd=str(suite.root), env=env, stdout=-1, stderr=-1, text=True, timeout=240)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout, done.stdout
