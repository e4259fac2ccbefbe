"""The command of a row selects its case, and no other."""

from __future__ import annotations

import shlex
from dataclasses import fields

import pytest
from collecting import collect
from stored_files import record

from bench import workloads
from bench.cases.poplar import Poplar
from bench.cases.recipe import Recipe
from bench.report import command
from fixtures.options.table import OPTIONS

RECIPE = "optimiser=momentum, momentum=0.5, lr_schedule=stepped, lr_epoch_decay=(30.0, 60.0), lr_decay=0.1"
RECORDS = [
    record(workload="lstm", size="h128_t5"),
    record(workload="lstm", size="h32_t7_biasoff", batch_size=3),
    record(workload="conv", size=list(workloads.named_sizes(workloads.load("conv")))[-1], backend="onnxruntime"),
    record(workload="rnn", size="h16_t2_cell", backend="tensorflow"),
    record(workload="dense", size="u24_relu" if "activation" in workloads.load("dense").dimensions else "u24"),
    record(workload="dense", size="u1024", mode="training", replicas=2, recipe=RECIPE, precision="bf16"),
    record(workload="dense", size="u1024", data="generated", zero_values=True, tuning="default", all_reduce=False),
    record(workload="dense", size="u1024", batches_per_step=4, protocol="tensorflow_layers", min_latency=False),
    record(workload="resnet50", size=next(iter(workloads.named_sizes(workloads.load("resnet50")))), batch_size=16),
    record(workload="host_pipeline", size=next(iter(workloads.named_sizes(workloads.load("host_pipeline"))))),
    record(workload="conv", size=next(iter(workloads.named_sizes(workloads.load("conv"))))),
]


def test_each_command_collects_its_case_and_no_other(shared):
    """conv is a part of the name grouped_conv: a command for one must not select the other."""
    lines = {each["id"]: tuple(shlex.split(command.of(each))[2:]) for each in RECORDS}

    collected = collect(shared, lines.values())

    for name, line in lines.items():
        assert collected[line].ids == [name], collected[line].text


def test_a_command_has_every_setting_that_is_not_usual():
    line = command.of(RECORDS[5])

    assert line == (
        "pytest bench -k '[dense-u1024-training-b1-bf16-x2-torch-cpu]' --backend torch --batch-size 1 --mode training"
        " --precision bf16 --replicas 2 --threads 1 --optimiser momentum --momentum 0.5 --lr-schedule stepped"
        " --lr-epoch-decay 30.0,60.0 --lr-decay 0.1 --benchmark-only"
    )


def test_a_case_of_a_users_file_is_run_from_that_file():
    line = command.of(record(workload="mine", size="n3", workload_file="my tests/test_mine.py"))

    assert line.startswith("pytest 'my tests/test_mine.py' -k '[mine-n3-")


@pytest.mark.parametrize("kind", [Recipe, Poplar])
def test_the_fields_of_a_group_of_settings_are_names_of_options(kind):
    for field in fields(kind):
        if field.name in OPTIONS:
            names = (OPTIONS[field.name].spelling, *OPTIONS[field.name].spellings)
            assert command.option(field.name) in names or field.name in ("wait_s",)


def test_the_switches_are_options_without_a_value():
    spellings = {option.spelling: option for option in OPTIONS.values()}
    for name, (_, switch) in command.SWITCHES.items():
        assert spellings[switch].name == name
        assert spellings[switch].flag
    for name in command.FLAGS:
        assert OPTIONS[name].flag
    for name in command.USUAL:
        assert command.option(name) == OPTIONS[name].spelling


def test_a_hostile_record_does_not_leave_its_quotes():
    line = command.of(record(workload="a'; rm -rf ~; '", size="$(touch x)", recipe="x=`id`, y=$(id)"))

    words = shlex.split(line)
    assert words[0] == "pytest"
    assert not any(word in ("rm", ";") for word in words)
    for part in ("$(touch x)", "`id`", "$(id"):
        assert part in line
        assert any(part in word for word in words)
