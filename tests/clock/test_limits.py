"""What a processor cannot exceed, by hand from its flags, and the measured clock of a core."""

from __future__ import annotations

import pytest

from bench.clock import frequency
from bench.devices import cpu


@pytest.fixture
def processor(monkeypatch):
    """Return a function that takes the place of /proc/cpuinfo."""

    def be(flags, vendor="GenuineIntel", family="6"):
        facts = {"flags": flags, "vendor_id": vendor, "cpu family": family}
        monkeypatch.setattr(cpu, "cpuinfo", lambda name: facts.get(name, ""))

    return be


# Two fused multiply-adds over 8 (AVX2) or 16 (AVX-512) numbers are 32 or 64 FLOP a cycle; times 2 cores and 6.2 GHz.
@pytest.mark.parametrize(
    "flags, dtype, flops",
    [
        ("fma avx2", "float32", 2 * 32 * 6.2e9),
        ("fma avx2", "float16", 2 * 32 * 6.2e9),
        ("fma avx512f", "float32", 2 * 64 * 6.2e9),
        ("fma avx512f avx512_bf16", "bfloat16", 2 * 128 * 6.2e9),
        ("fma avx512f avx512_bf16", "float16", 2 * 64 * 6.2e9),
        ("fma avx512f avx512_bf16 avx512_fp16 amx_bf16", "float16", 2 * 128 * 6.2e9),
        ("fma avx512f avx512_bf16 avx512_fp16 amx_bf16", "bfloat16", 2 * 1024 * 6.2e9),
    ],
)
def test_the_arithmetic_limit_follows_from_the_processors_flags(processor, flags, dtype, flops):
    processor(flags)

    assert cpu.limit(dtype, 2, None) == {"flops": flops, "bytes": 2 * 192 * 6.2e9}


def test_a_measured_clock_takes_the_place_of_the_highest_with_half_to_spare(processor):
    processor("fma avx2")

    assert cpu.limit("float32", 1, 3e9) == {"flops": pytest.approx(32 * 4.5e9), "bytes": pytest.approx(192 * 4.5e9)}


@pytest.mark.parametrize(
    "family, flags, flops", [("25", "fma avx512f", 32), ("25", "fma", 32), ("26", "fma avx512f", 64)]
)
def test_zen_4_needs_two_cycles_for_a_vector_of_512_bits(processor, family, flags, flops):
    processor(flags, "AuthenticAMD", family)

    assert cpu.limit("float32", 1, None)["flops"] == flops * 6.2e9


def test_an_unknown_processor_has_no_limit(processor):
    processor("asimd")

    assert cpu.limit("float32", 1, None) is None


def test_the_clock_of_a_core_is_between_half_a_gigahertz_and_the_highest_that_is_sold():
    hz = frequency.hz()
    if hz is None:
        pytest.skip("this machine or system has no such code")

    assert 0.5e9 < hz < cpu.HIGHEST_CLOCK_HZ


def test_twice_the_chain_takes_twice_the_time(monkeypatch):
    """The code runs as often as it is told: the clock that follows from a longer chain is the same."""
    if frequency.hz() is None:
        pytest.skip("this machine or system has no such code")
    short = [frequency.hz() for _ in range(5)]
    monkeypatch.setattr(frequency, "LOOPS", 4 * frequency.LOOPS)

    assert max(frequency.hz() for _ in range(5)) == pytest.approx(max(short), rel=0.25)


def test_another_processor_has_no_measured_clock(monkeypatch):
    monkeypatch.setattr(frequency.platform, "machine", lambda: "aarch64")

    assert frequency.hz() is None


def test_a_system_that_lets_no_process_run_such_code_has_no_measured_clock(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("execution is not allowed")

    monkeypatch.setattr(frequency.mmap, "mmap", refuse)

    assert frequency.hz() is None
