"""Facts of the machine and of the libraries, which a baseline has in its records."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import subprocess

import pytest
from suite import SMALL

from bench import machine
from bench.devices import cpu

X86 = {"model name": "AMD EPYC", "cpu family": "25", "model": "17", "stepping": "1"}
ARM = {"CPU implementer": "0x41", "CPU variant": "0x1", "CPU part": "0xd40", "CPU revision": "1"}


@pytest.mark.parametrize(
    "facts, told",
    [
        (X86, "AMD EPYC (family 25, model 17, stepping 1)"),
        ({**X86, "cpu family": "26", "model": "2"}, "AMD EPYC (family 26, model 2, stepping 1)"),
        (ARM, "aarch64 (implementer 0x41, variant 0x1, part 0xd40, revision 1)"),
        ({}, "aarch64"),
    ],
)
def test_processors_of_one_name_are_told_apart_by_their_numbers(monkeypatch, facts, told):
    monkeypatch.setattr(cpu, "cpuinfo", lambda name: facts.get(name, ""))
    monkeypatch.setattr(cpu.platform, "processor", lambda: "aarch64")

    assert cpu.describe()["model"] == told


def test_the_numbers_of_this_processor_are_those_that_lscpu_shows():
    if not shutil.which("lscpu") or not cpu.cpuinfo("stepping"):
        pytest.skip("no lscpu, or not an x86 processor under Linux")
    shown = subprocess.run(["lscpu"], env={"LC_ALL": "C"}, capture_output=True, text=True, check=True).stdout

    family, model, stepping = (
        re.search(rf"^{name}:\s*(\d+)$", shown, re.MULTILINE)[1] for name in ("CPU family", "Model", "Stepping")
    )

    assert cpu.describe()["model"].endswith(f"(family {family}, model {model}, stepping {stepping})")


def test_governors_are_named_once(tmp_path):
    for core, name in ((0, "powersave"), (1, "powersave"), (10, "performance")):
        (tmp_path / f"cpu{core}" / "cpufreq").mkdir(parents=True)
        (tmp_path / f"cpu{core}" / "cpufreq" / "scaling_governor").write_text(f"{name}\n")

    assert machine.governor(tmp_path) == "performance,powersave"
    assert machine.governor(tmp_path / "none") is None


def test_libraries_are_those_that_are_installed_and_numpy():
    assert machine.libraries(("pytest", "no-such-distribution")) == {
        "numpy": importlib.metadata.version("numpy"),
        "pytest": importlib.metadata.version("pytest"),
    }


def test_a_record_has_the_machine_of_its_worker(shared):
    result = shared.run(*SMALL, "--benchmark-json=run.json")

    assert result.returncode == 0, result.text
    record = shared.read("run.json")["benchmarks"][0]["extra_info"]
    assert record["machine"]["kernel"] == platform.release()
    assert record["machine"]["cores"] == record["device_cores"]
    assert record["machine"]["memory_gib"] >= 1
    assert record["libraries"] == {"numpy": importlib.metadata.version("numpy")}
