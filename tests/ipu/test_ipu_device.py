"""IPUs by the SDK's tools, with a fake gc-info."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bench import devices, locks
from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.cases.poplar import Poplar
from bench.devices import ipu

TOOLS = str(Path(__file__).resolve().parents[1] / "fakes" / "bin")


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine with four IPUs and an enabled SDK."""
    ipu._list_of_devices.cache_clear()
    monkeypatch.setenv("PATH", TOOLS + os.pathsep + os.environ["PATH"])
    monkeypatch.setenv("POPLAR_SDK_ENABLED", "/opt/poplar_sdk-ubuntu_20_04-3.4.0")
    monkeypatch.setattr(ipu, "POLL_S", 0.01)
    yield monkeypatch
    ipu._list_of_devices.cache_clear()


def fails(times):
    """An attempt that finds no free device a number of times, and counts its calls."""
    left = [times]

    def attempt():
        if left[0]:
            left[0] -= 1
            raise ipu.NoneFree("nothing to attach to")
        return "attached"

    return attempt


def test_four_ipus_are_seven_devices():
    """Four devices of one IPU, two of two, one of four."""
    assert [device.ipus for device in ipu.listed()] == [1, 1, 1, 1, 2, 2, 4]
    assert [device.id for device in ipu.listed()] == [0, 1, 2, 3, 4, 5, 6]


def test_a_description_has_what_a_baseline_must_match():
    assert ipu.describe() == {
        "model": "IPU ipu2",
        "clock_mhz": 1330.0,
        "board": "M2000",
        "driver": "",
        "sdk": "poplar_sdk-ubuntu_20_04-3.4.0",
        "count": 4,
    }


def test_the_peak_is_computed_from_tiles_and_clock_and_says_so():
    """1472 tiles x 1.33 GHz x 128 FLOP in 16 bits, and a quarter of that in 32 bits."""
    half, full = (ipu.computed_peak(replace(case_of(1), precision=name), Settings()) for name in ("fp16", "fp32"))

    assert half["flops"] == pytest.approx(250.6e12, rel=1e-3)
    assert full["flops"] == pytest.approx(62.65e12, rel=1e-3)
    assert half["sources"]["flops"] == "computed: 1472 tiles x 128 FLOP x 1330 MHz"


@pytest.mark.parametrize(
    "architecture, board, now, nominal",
    [
        ("ipu21", "C600", "20MHz", 1486e6),
        ("ipu21", "M2000", "1850MHz", 1850e6),
        ("ipu2", "M2000", "300MHz", 1330e6),
        ("ipu9", "Z1", "900MHz", 900e6),
    ],
)
def test_the_clock_is_the_nominal_one_whatever_an_idle_device_shows(monkeypatch, architecture, board, now, nominal):
    facts = {"ipu architecture": architecture, "board type": board, "clock": now}
    monkeypatch.setattr(ipu, "_information", lambda id=None: facts)

    assert ipu.clock_hz() == nominal


@pytest.mark.parametrize(
    "unset, path, count, told",
    [
        (True, TOOLS, "4", "POPLAR_SDK_ENABLED is not set"),
        (False, "", "4", "gc-info is not on the PATH"),
        (False, TOOLS, "0", "gc-info -l lists none"),
    ],
)
def test_what_is_missing_is_told(machine, unset, path, count, told):
    if unset:
        machine.delenv("POPLAR_SDK_ENABLED")
    machine.setenv("PATH", path + os.pathsep + "/usr/bin" if path else "/nowhere")
    machine.setenv("FAKE_IPU_COUNT", count)
    ipu._list_of_devices.cache_clear()

    assert told in ipu.absent()


def test_an_ipu_that_is_there_is_not_absent():
    assert ipu.absent() is None


@pytest.mark.parametrize("times", [0, 1, 3])
def test_a_device_that_is_let_go_in_time_is_attached(times):
    assert ipu.attach(fails(times), 1, 5.0) == "attached"


def test_without_a_wait_there_is_one_attempt():
    with pytest.raises(
        Unavailable, match=r"not present: a free device of 2 IPUs; gc-info -l lists .*wait longer with --wait"
    ):
        ipu.attach(fails(1), 2, 0.0)


def test_who_holds_the_devices_is_told(machine):
    machine.setenv("FAKE_IPU_BUSY", "2")

    with pytest.raises(Unavailable, match=r"after 0.05 s; .*held by 2: somebody, /usr/bin/other \(4242\)"):
        ipu.attach(fails(1000), 1, 0.05)


@pytest.mark.parametrize("ipus", [8, 3])
def test_a_size_that_no_device_has_is_not_waited_for(ipus):
    asked = []

    with pytest.raises(Unavailable, match=f"a device of {ipus} IPUs; gc-info -l lists 0: 1 IPU, .*6: 4 IPUs"):
        ipu.attach(lambda: asked.append(1), ipus, 60.0)
    assert asked == []


@pytest.mark.parametrize("id, told", [(4, "it has 2 IPUs"), (9, "it is not there")])
def test_a_device_id_of_another_size_is_refused(id, told):
    with pytest.raises(Unavailable, match=told):
        ipu.attach(lambda: "attached", 1, 0.0, device_id=id)


def test_any_other_error_of_an_attempt_is_not_waited_for():
    def broken():
        raise RuntimeError("of another kind")

    with pytest.raises(RuntimeError, match="of another kind"):
        ipu.attach(broken, 1, 60.0)


def test_a_tool_that_hangs_or_fails_tells_nothing(machine, tmp_path):
    tool = tmp_path / "gc-info"
    tool.write_text("#!/bin/sh\nsleep 60\n")
    tool.chmod(0o755)
    machine.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    machine.setattr(ipu, "TOOL_TIMEOUT_S", 0.2)
    ipu._list_of_devices.cache_clear()

    assert ipu.listed() == []
    tool.write_text("#!/bin/sh\nexit 3\n")
    ipu._list_of_devices.cache_clear()
    assert ipu.listed() == []


def test_a_held_device_has_no_chip_of_another_that_is_held(machine, tmp_path):
    """Device 4 is chips 0 and 1, device 5 is chips 2 and 3."""
    machine.setenv("LAYERBENCH_CACHE", str(tmp_path))

    with ipu.held(1) as one, ipu.held(2) as two, ipu.held(1) as third:
        held = [(device.id, device.chips) for device in (one, two, third)]

    assert held == [(0, (0,)), (5, (2, 3)), (1, (1,))]
    with ipu.held(4) as every:
        assert every.chips == (0, 1, 2, 3)


def test_a_held_device_can_be_named_and_is_refused_where_it_is_in_use(machine, tmp_path):
    machine.setenv("LAYERBENCH_CACHE", str(tmp_path))
    machine.setenv("FAKE_IPU_BUSY", "3")

    with ipu.held(2, device_id=4) as found:
        assert found.id == 4
    with pytest.raises(Unavailable, match="held by 3: somebody"), ipu.held(2, device_id=5):
        pass


def test_several_locks_are_taken_all_or_none(machine, tmp_path):
    machine.setenv("LAYERBENCH_CACHE", str(tmp_path))

    with contextlib.ExitStack() as other, contextlib.ExitStack() as own:
        assert locks.take_if_free(other, ["b"])
        assert not locks.take_if_free(own, ["a", "b"])
        assert locks.take_if_free(own, ["a"])
        other.close()
        assert locks.take_if_free(own, ["b"])


def case_of(replicas=1):
    return Case("resnet8", "tiny", {}, "inference", 2, "fp16", replicas, "poptorch", "ipu")


def test_an_ipu_replicates_by_itself_and_has_options_and_backends_of_its_own():
    assert devices.replicate(["ipu"])
    assert not devices.replicate(["ipu", "cpu"])
    assert devices.take(["cpu", "ipu"], "poplar")
    assert not devices.take(["cpu", "cuda"], "poplar")
    others = [name for name in devices.names() if name != "ipu"]
    assert {"cpu", "cuda"} <= set(others)
    assert [devices.taken_by_default("torch", name) for name in [*others, "ipu"]] == [True] * len(others) + [False]
    assert [devices.taken_by_default("popart", name) for name in [*others, "ipu"]] == [False] * len(others) + [True]


def test_only_an_ipu_refuses_what_its_sdk_does():
    assert "devices come in powers of two" in devices.load("ipu").refusal(case_of(replicas=3), Settings())
    assert devices.load("cpu").refusal(case_of(replicas=3), Settings()) == ""


def test_the_peak_of_a_case_is_that_of_its_ipus_together():
    alone, four = (
        devices.load("ipu").computed_peak(case_of(replicas), Settings(pipeline_splits=splits))
        for replicas, splits in ((1, ""), (2, "layer2.0"))
    )

    assert four == {**alone, "flops": 4 * alone["flops"]}
    assert devices.load("cpu").computed_peak is None


def test_a_program_that_is_compiled_without_a_device_waits_for_none(monkeypatch):
    asked = []
    monkeypatch.setattr(ipu, "reserved", lambda ipus, blocked: contextlib.nullcontext(asked.append(ipus)))
    for poplar, held in ((Poplar(), 0), (Poplar(), 2), (Poplar(compile_only="ipu2"), 0)):
        with devices.load("ipu").attached(case_of(replicas=2), Settings(poplar=poplar, ipus_held=held), lambda: None):
            pass

    assert asked == [2, 0]
