"""Resident memory, as the kernel counts it: a case's is not that of the cases before."""

from __future__ import annotations

from pathlib import Path

import pytest
from suite import SMALL

from bench.clock import memory

needs_linux = pytest.mark.skipif(memory.floor_bytes() is None, reason="the kernel does not tell")
MIB = 1 << 20


@needs_linux
def test_a_peak_is_of_what_comes_after_it_was_forgotten():
    earlier = bytearray(200 * MIB)
    del earlier
    floor = memory.floor_bytes()

    assert memory.forget_peak()
    before = memory.peak_bytes()
    later = bytearray(50 * MIB)
    del later

    assert 0 <= before - floor < 20 * MIB
    assert 45 * MIB < memory.peak_bytes() - floor < 80 * MIB


def test_where_the_kernel_forgets_no_peak_it_is_not_known(monkeypatch):
    def refuse(path, text):
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)

    assert not memory.forget_peak()


@needs_linux
def test_what_an_earlier_case_left_is_not_a_cases_memory(suite):
    """The first case never gives its 300 MiB back; the second has none of its own."""
    suite.add_backend("hoarder", "if case.batch_size == 1:\n    sys.modules['hoard'] = bytearray(300 << 20)\n    run()")

    suite.run(*SMALL, "--backend", "hoarder", "--batch-size", "1,2", "--benchmark-json=out.json")

    first, second = (entry["extra_info"] for entry in suite.read("out.json")["benchmarks"])
    assert (first["batch_size"], second["batch_size"]) == (1, 2)
    assert first["memory_case_bytes"] > 300 * MIB
    assert second["memory_peak_bytes"] > 300 * MIB
    assert second["memory_case_bytes"] < 20 * MIB
