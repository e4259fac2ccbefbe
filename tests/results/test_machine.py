"""Facts of the machine and of the libraries, which a baseline has in its records."""

from __future__ import annotations

import importlib.metadata
import platform

from suite import SMALL

from bench import machine


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
