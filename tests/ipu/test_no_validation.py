"""--no-validation: images are trained on, and no hits are counted, which a network cut over IPUs could not count."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest
from contract_answers import environment
from suite import Suite

pytest.importorskip("PIL")
TRAINED = (
    *("--model", "resnet8", "--mode", "training", "--batch-size", "2", "--epochs", "1", "--data", "real"),
    *("--data-workers", "1", "--image-size", "16", "--benchmark-only", "--benchmark-json=run.json", "-rA"),
)


@pytest.fixture
def images(suite: Suite) -> str:
    """A folder of pictures beside the suite."""
    from PIL import Image

    for number in range(8):
        folder = suite.root / "images" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (30 * number, 0, 0)).save(str(folder / f"{number}.png"))
    return str(suite.root / "images")


@pytest.mark.parametrize("more, counted", [((), True), (("--no-validation",), False)])
def test_hits_are_counted_unless_it_is_given(suite: Suite, images: str, more: List[str], counted: bool) -> None:
    pytest.importorskip("torch")

    done = suite.run(*TRAINED, "--data-dir", images, "--backend", "torch", *more)

    assert done.returncode == 0, done.text
    (entry,) = suite.read("run.json")["benchmarks"]
    found = entry["extra_info"]
    assert found["epochs"] == 1
    assert found["loss_last"] > 0
    assert (found["top1_percent"] is not None) == counted
    assert ("top-1" in done.text) == counted


def test_a_set_without_validation_images_is_trained_on_with_it_and_refused_without(suite: Suite, images: str) -> None:
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
    assert done.returncode == 0, done.text


def test_a_pipeline_of_tensorflow_on_ipus_trains_with_it(suite: Suite, images: str, tmp_path: Path) -> None:
    """On fakes; the READMEs' training commands are of this form."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("tensorflow is not installed")
    pipeline = ["--pipeline-splits", "layer2.0", "--pipeline-schedule", "grouped", "--gradient-accumulation", "4"]
    command = [sys.executable, "-m", "pytest", "bench", *TRAINED, "--data-dir", images, "--device", "ipu"]
    command += ["--backend", "tensorflow_ipu", "--batches-per-step", "1", *pipeline, "--no-validation"]

    env = environment(LAYERBENCH_CACHE=str(tmp_path))
    done = subprocess.run(command, cwd=str(suite.root), env=env, stdout=-1, stderr=-1, text=True, timeout=240)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout, done.stdout
