"""Replicas: each a process of its own, which start together, average their gradients, and fall together."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import picture_sets
import pytest
from suite import SMALL, alive, finished, until

from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.devices import cpu
from bench.group import Hub
from bench.processes.replicas import cores

needs_two_cores = pytest.mark.skipif(len(cpu.usable_cores()) < 2, reason="one core here")


# The group.


def test_each_replica_has_cores_of_its_own():
    case = Case("dense", "u8", {}, "inference", 1, "fp32", 3, "numpy", "cpu")

    assert (
        cores(case, Settings(threads=2), None, [0, 1, 2, 3, 4, 5, 6])
        == cores(case, Settings(threads=2), [0, 1, 2, 3, 4, 5, 6], [0])
        == [[1, 2], [3, 4], [5, 6]]
    )
    assert cores(case, Settings(threads=2), [], [0]) == [[], [], []]
    with pytest.raises(Unavailable, match="not present: 6 cores for 3 replicas of 2 threads; there are 4"):
        cores(case, Settings(threads=2), None, [0, 1, 2, 3])


# Gradients.


# What each framework's replicas accumulate by default; --thorough has both with both. All train the network an epoch.
ACCUMULATED = {"torch": ("dense",), "tensorflow": ("resnet8",)}


@pytest.fixture(scope="module")
def answers(pytestconfig, tmp_path_factory):
    """Return a function from a framework to a folder with the answers of three processes: two replicas, 0 and 1, and
    `one` that does the work of both. They are forks of a process that has loaded the framework."""

    @functools.lru_cache(maxsize=None)
    def ask(engine):
        folder = tmp_path_factory.mktemp(engine)
        questions = {"0": [], "1": [], "one": []}
        hubs = []

        def add(arguments):
            hubs.append(Hub(2))
            places = {"0": hubs[-1].place(0), "1": hubs[-1].place(1), "one": {"rank": 0, "count": 1}}
            for name, place in places.items():
                questions[name].append(arguments(name, json.dumps(place)))

        for workload in ("dense", "resnet8") if pytestconfig.option.thorough else ACCUMULATED[engine]:
            add(partial(accumulating, folder, engine, workload))
        if importlib.util.find_spec("PIL") is not None:
            colours = [
                (number % 5, picture_sets.plain(picture_sets.COLOURS[number % 5], kind="JPEG")) for number in range(11)
            ]
            picture_sets.write_folder(folder / "set", colours)
            add(partial(learning, folder, engine))
        script, env = str(Path(__file__).with_name("answering.py")), {**os.environ, "LAYERBENCH_CACHE": str(folder)}
        command = [sys.executable, script, engine, json.dumps(list(questions.values()))]
        try:
            assert subprocess.run(command, env=env, timeout=300).returncode == 0
        finally:
            for hub in hubs:
                hub.close()
        return folder

    return ask


def accumulating(folder, engine, workload, name, place):
    return [
        "replica_answers",
        engine,
        workload,
        "6" if name == "one" else "3",
        place,
        f"{folder}/{workload}-{name}.npz",
    ]


def learning(folder, engine, name, place):
    batch_size = "4" if name == "one" else "2"
    return ["epoch_answers", engine, place, batch_size, f"{folder}/set", f"{folder}/epoch-{name}.npz"]


def require_equal_weights(folder, question):
    """Both replicas have the same weights, and those of the process that did the work of both."""
    first, second, one = (np.load(str(folder / f"{question}-{name}.npz")) for name in ("0", "1", "one"))
    for weight in one.files:
        size = max(np.linalg.norm(one[weight]), 1e-12)
        assert np.array_equal(first[weight], second[weight]), weight
        assert np.linalg.norm(first[weight] - one[weight]) / size < 1e-5, weight


@pytest.mark.parametrize(
    "name, engine",
    [
        pytest.param(name, engine, marks=() if name in chosen else pytest.mark.thorough)
        for engine, chosen in ACCUMULATED.items()
        for name in ("dense", "resnet8")
    ],
)
def test_replicas_that_accumulate_are_one_process_that_accumulates_all(engine, name, answers):
    """2 replicas x 3 batches of 2, and 1 process x 6 batches of 2: the same weights after two updates."""
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")

    require_equal_weights(answers(engine), name)


@pytest.mark.parametrize("engine", ["torch", "tensorflow"])
def test_an_epoch_of_two_replicas_is_one_of_a_process_with_twice_the_batch(engine, answers):
    """11 images in global batches of 4: three updates, at rates that fall, from the same start."""
    pytest.importorskip("PIL")
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")

    folder = answers(engine)

    require_equal_weights(folder, "epoch")
    learnt = [json.loads((folder / f"epoch-{name}.json").read_text()) for name in ("0", "1", "one")]
    assert [found["epochs"] for found in learnt] == [pytest.approx(12 / 11)] * 3
    assert [found["images_scored"] for found in learnt] == [11] * 3
    assert learnt[0]["loss_first"] == pytest.approx(learnt[2]["loss_first"], rel=1e-4)
    assert learnt[0]["top1_percent"] == learnt[1]["top1_percent"] == learnt[2]["top1_percent"]


# Whole runs. A replica knows its rank by the core that it is bound to.

AT_RANK_1 = """
if case.replicas == 2 and {rank} == 1:
    def wrong():
        (Path(__file__).parents[2] / "wrong").write_text(str(os.getpid()))
{fault}
    program.run_resident = wrong
"""


def at_rank_1(fault):
    rank = f"{cpu.usable_cores()[-2:]}.index(min(os.sched_getaffinity(0)))"
    return AT_RANK_1.format(rank=rank, fault="\n".join("        " + line for line in fault.splitlines()))


@needs_two_cores
def test_two_replicas_count_twice_the_items_and_scale_against_one(suite):
    result = suite.run(*SMALL, "--replicas=1,2", "--threads=1", "--benchmark-json=out.json", "-rA")

    assert result.returncode == 0, result.text
    one, two = (entry["extra_info"] for entry in suite.read("out.json")["benchmarks"])
    assert (one["items_per_step"], two["items_per_step"]) == (32, 64)
    assert (one["replica_items_per_s"], len(two["replica_items_per_s"])) == (None, 2)
    assert one["scaling_percent"] is None
    assert two["scaling_percent"] == pytest.approx(100 * two["items_per_s"] / (2 * one["items_per_s"]))
    assert two["items_per_s"] <= sum(two["replica_items_per_s"]) * 1.001
    assert "-x2-numpy-cpu" in two["id"]


@needs_two_cores
@pytest.mark.parametrize(
    "fault, told",
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "replica 1 of 2: the worker was killed by SIGKILL"),
        ("os._exit(3)", "replica 1 of 2: the worker exited with 3"),
        ('raise RuntimeError("the oven is too hot")', "replica 1 of 2: RuntimeError: the oven is too hot"),
        ("while True: time.sleep(1)", "replica 1 of 2: no result after 3 s"),
    ],
    ids=["killed", "exits", "raises", "hangs"],
)
def test_a_replica_that_falls_is_named_and_takes_the_others_along(new_suite, fault, told):
    suite = new_suite()
    suite.add_backend("faulty", at_rank_1(fault))

    start = time.monotonic()
    result = suite.run(
        *SMALL,
        "--backend=faulty",
        "--replicas=2,1",
        "--threads=1",
        "--case-timeout=3",
        "--benchmark-json=o.json",
        "-rA",
    )

    assert result.returncode == 1
    assert told in result.text
    assert suite.ids("o.json") == ["dense-u8-inference-b32-fp32-x1-faulty-cpu"]
    pids = [pid for owners in suite.workers().values() for pid in owners]
    assert len(pids) >= 3
    until(lambda: not any(alive(pid) for pid in pids), 10)
    assert time.monotonic() - start < 60


@needs_two_cores
def test_ctrl_c_ends_every_replica(new_suite):
    suite = new_suite()
    suite.add_backend("slow", "def slow():\n    run()\n    time.sleep(0.2)\nprogram.run_resident = slow")

    process = suite.start(*SMALL, "--backend=slow", "--replicas=2", "--threads=1", "--steps=10000")
    try:
        until(lambda: len([pid for owners in suite.workers().values() for pid in owners]) == 2)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
    finally:
        result = finished(process, 60)

    assert result.returncode == 2
    assert re.search("KeyboardInterrupt|Interrupted", result.stdout)
    pids = [pid for owners in suite.workers().values() for pid in owners]
    until(lambda: not any(alive(pid) for pid in pids), 10)


def test_more_replicas_than_cores_skip_and_say_so(suite):
    result = suite.run(*SMALL, "--replicas=512", "--threads=1", "-rs")

    assert result.returncode == 0
    assert re.search(r"not present: 512 cores for 512 replicas of 1 thread; there are \d+", result.stdout)
