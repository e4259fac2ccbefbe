"""Training for real, by a program that learns nothing: the rates that it is given, and the updates that are timed."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import ClassVar

import pytest

from bench import workloads
from bench.cases.case import Case, Settings
from bench.cases.recipe import Recipe
from bench.job import Job
from bench.program import Program
from bench.real_data import epochs, feeding

IMAGES = 40


class Nothing:
    """Batches that nobody reads."""

    skipped = 0
    facts: ClassVar[dict] = {}

    def __iter__(self):
        return iter(())


class Idle(Program):
    """What learns nothing, and notes its learning rates."""

    def __init__(self, graph, case, settings):
        super().__init__(graph, case, settings)
        self.rates = []

    def feed(self, batches):
        pass

    def run_resident(self):
        pass

    def outputs(self):
        return {"loss": 1.0}

    def load(self, weights):
        pass

    def set_learning_rate(self, rate):
        self.rates.append(rate)


@pytest.fixture
def train(monkeypatch):
    """A function that trains on 40 images in batches of 4, and returns the rates and the samples."""
    images = dict.fromkeys(("train", "validation"), SimpleNamespace(root="here", count=IMAGES))
    monkeypatch.setattr(feeding, "images", lambda *args, **changed: contextlib.nullcontext(Nothing()))
    monkeypatch.setattr(feeding, "named", lambda *args, **changed: dict)
    monkeypatch.setattr(epochs, "score", lambda *args: {})

    def run(recipe, **changed):
        module = workloads.load("resnet8")
        size = next(iter(workloads.named_sizes(module).values()))
        case = Case(
            "resnet8", "i32", {key: size[key] for key in module.dimensions}, "training", 4, "fp32", 1, "n", "cpu"
        )
        settings = Settings(recipe=recipe, **changed)
        graph = workloads.of_case(case, recipe)
        program = Idle(graph, case, settings)
        samples, _ = epochs.train(program, Job(case, settings, images=images))
        return program.rates, samples

    return run


def test_a_run_that_steps_cut_short_has_the_rates_of_the_whole_run(train):
    """Two epochs are 20 updates: 5 drops come with updates 4, 8, 12 and 16, and two of them within 10 updates."""
    recipe = Recipe(epochs=2.0, learning_rate=1.0, lr_schedule="exponential", lr_decay=0.5, lr_drops=5)

    whole, _ = train(recipe)
    short, _ = train(recipe, steps=10)

    assert whole == 4 * [1] + 4 * [0.5] + 4 * [0.25] + 4 * [0.125] + 4 * [0.0625]
    assert short == whole[:10]


@pytest.mark.parametrize(
    "name, dropped", [("median", 1), ("tensorflow_layers", 1), ("popart_layers", 0), ("tensorflow_cnns", 0)]
)
def test_the_updates_that_are_no_samples_are_the_protocol_s(train, name, dropped):
    _, samples = train(Recipe(epochs=1.0, learning_rate=1.0), protocol=name)

    assert samples.warmup_steps == dropped
    assert len(samples.seconds) == 10 - dropped
