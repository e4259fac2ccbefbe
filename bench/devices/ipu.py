"""Graphcore IPUs, by the command-line tools of Poplar's SDK. Nothing here imports a framework.

Every backend waits for a free device in the loop of `attach`, because frameworks wait in different ways and for
different times. `Program.release` releases a device. If the worker is killed, the driver does.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Optional, Sequence, Tuple, TypeVar

from bench import locks
from bench.cases import ipu_rules
from bench.cases.case import Case, Settings
from bench.cases.errors import Unavailable
from bench.cases.precision import PRECISIONS

T = TypeVar("T")

REPLICATES = True
BACKENDS = ("poptorch", "popart", "tensorflow_ipu")
SOURCE = "it comes with Graphcore's Poplar SDK: enable it"
# A call takes longer than a small batch, so the loop over batches runs on the device.
BATCHES_PER_STEP = 128
refusal = ipu_rules.refusal

POLL_S = 1.0
TOOL_TIMEOUT_S = 30.0
# Tiles of a chip, and floating-point operations of one tile in one cycle: 16-bit, 32-bit (Graphcore's datasheets).
CHIPS = {"ipu1": (1216, 64, 16), "ipu2": (1472, 128, 32), "ipu21": (1472, 128, 32)}
# The nominal clocks of the tiles in MHz. gc-info shows the present one, which is low while a C600 is idle.
# C600: 280 TFLOP/s of its datasheet / (1472 tiles x 128 FLOP).
CLOCKS_MHZ = {"ipu1": 1600.0, "ipu2": 1330.0, "ipu21": 1850.0, "c600": 1486.0}
_DEVICE = re.compile(r"^\s*-\+- Id:\s+\[(\d+)\],\s+(?:target|type):\s+\[([^\]]+)\]")
_MEMBER = re.compile(r"^\s*\|--- (?:PCIe )?Id:\s+\[(\d+)\],\s+DNC Id:\s+\[(\d+)\]")


@dataclass(frozen=True)
class Listed:
    """A device that `gc-info -l` lists: a chip, or a group of chips. `chips` are the ids of the chips."""

    id: int
    kind: str
    ipus: int
    chips: Tuple[int, ...] = ()


class NoneFree(Exception):
    """No device of the size is free now."""


def absent() -> Optional[str]:
    if not os.environ.get("POPLAR_SDK_ENABLED"):
        return "no IPU; POPLAR_SDK_ENABLED is not set: enable Graphcore's Poplar SDK first"
    if shutil.which("gc-info") is None:
        return "no IPU; the Poplar SDK's gc-info is not on the PATH"
    return None if listed() else "no IPU; gc-info -l lists none"


@contextlib.contextmanager
def lease(cores: Sequence[int] = ()) -> Iterator[None]:
    """Wait until no case is timed by the host's clock. The IPUs are held since the compilation, by `attached`."""
    with locks.timing_on_device():
        yield


def attached(case: Case, settings: Settings, blocked: Callable[[], None]) -> ContextManager[None]:
    if settings.poplar.compile_only:
        return contextlib.nullcontext()
    return reserved(max(0, ipu_rules.ipus(case, settings) - settings.ipus_held), blocked)


@contextlib.contextmanager
def reserved(ipus: int, blocked: Callable[[], None]) -> Iterator[None]:
    """Reserve a number of IPUs among this user's cases. A framework attaches when it compiles, and would not wait until
    another case releases its IPUs."""
    chips = len([device for device in listed() if device.ipus == 1])
    with locks.any_of("ipu", min(ipus, chips), chips, blocked):
        yield


@contextlib.contextmanager
def held(ipus: int, wait_s: float = 0.0, device_id: Optional[int] = None) -> Iterator[Listed]:
    """Reserve a device of `ipus` IPUs to which no process is attached. A framework then attaches to it by its id.

    Raises Unavailable as `attach` does.
    """
    with contextlib.ExitStack() as stack, reserved(ipus, lambda: None):
        yield attach(lambda: _free(stack, ipus, device_id), ipus, wait_s, device_id)


def _free(stack: contextlib.ExitStack, ipus: int, device_id: Optional[int]) -> Listed:
    """A free device, locked until `stack` ends. Raises NoneFree."""
    for device in listed():
        fits = device.ipus == ipus and device_id in (None, device.id)
        unused = fits and not any(_owner(chip) for chip in device.chips)
        if unused and locks.take_if_free(stack, [f"ipu-chip{chip}" for chip in device.chips]):
            return device
    raise NoneFree("each of this size is in use")


def describe() -> Dict[str, Any]:
    facts = _information()
    return {
        "model": f"IPU {facts.get('ipu architecture', '')}".strip(),
        "clock_mhz": clock_hz() / 1e6,
        "board": facts.get("board type", ""),
        "driver": facts.get("driver version", ""),
        "sdk": os.path.basename(os.environ.get("POPLAR_SDK_ENABLED", "").rstrip("/")),
        "count": len([device for device in listed() if device.ipus == 1]),
    }


def _peak(precision: str) -> Dict[str, Any]:
    """The peak arithmetic of one IPU, computed and not measured."""
    architecture = _information().get("ipu architecture", "")
    if architecture not in CHIPS or not clock_hz():
        return {}
    tiles, half, full = CHIPS[architecture]
    per_cycle = half if PRECISIONS[precision].bytes == 2 else full
    return {
        "flops": tiles * per_cycle * clock_hz(),
        "bandwidth_bytes_per_s": {},
        "limit": None,
        "sources": {"flops": f"computed: {tiles} tiles x {per_cycle} FLOP x {clock_hz() / 1e6:g} MHz"},
    }


def computed_peak(case: Case, settings: Settings) -> Dict[str, Any]:
    """The peak of all IPUs of a case."""
    per_ipu = _peak(case.precision)
    return {**per_ipu, "flops": per_ipu["flops"] * ipu_rules.ipus(case, settings)} if per_ipu else {}


def listed() -> List[Listed]:
    """All devices: single chips and groups."""
    devices: List[Tuple[int, str, List[int]]] = []
    for line in _list_of_devices(os.environ.get("PATH", "")).splitlines():
        device = _DEVICE.match(line)
        if device:
            devices.append((int(device[1]), device[2], []))
        member = _MEMBER.match(line)
        if member and devices:
            devices[-1][2].append(int(member[1]))
    return [Listed(id, kind, max(1, len(chips)), tuple(chips or [id])) for id, kind, chips in devices]


def clock_hz() -> float:
    """The nominal clock of the tiles; of an unknown chip the present one, and 0 if gc-info does not say."""
    facts = _information()
    for name in (facts.get("board type", "").lower(), facts.get("ipu architecture", "")):
        if name in CLOCKS_MHZ:
            return CLOCKS_MHZ[name] * 1e6
    clock = re.match(r"\s*(\d+(?:\.\d+)?)\s*MHz", facts.get("clock", ""))
    return float(clock[1]) * 1e6 if clock else 0.0


def attach(attempt: Callable[[], T], ipus: int, wait_s: float, device_id: Optional[int] = None) -> T:
    """Call `attempt` until it does not raise NoneFree, for at most `wait_s` seconds. Returns its result.

    Raises Unavailable, with the number of IPUs, the devices present, their owners, and what to do.
    """
    sizes = {device.id: device.ipus for device in listed()}
    if device_id is not None and sizes and sizes.get(device_id) != ipus:
        problem = f"has {sizes[device_id]} IPUs" if device_id in sizes else "is not there"
        raise Unavailable(f"not present: device {device_id} with {ipus} IPUs: it {problem} ({_sizes(sizes)})")
    if sizes and ipus not in sizes.values():
        raise Unavailable(f"not present: a device of {ipus} IPUs; gc-info -l lists {_sizes(sizes)}")
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return attempt()
        except NoneFree as error:
            if time.monotonic() >= deadline:
                waited = f" after {wait_s:g} s" if wait_s else ""
                raise Unavailable(
                    f"not present: a free device of {ipus} IPUs{waited}; gc-info -l lists {_sizes(sizes)};"
                    f" held by {_owners() or 'nobody that gc-info names'}; wait longer with --wait SECONDS ({error})"
                ) from None
        time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))


def _sizes(sizes: Dict[int, int]) -> str:
    return ", ".join(f"{id}: {ipus} IPU{'s' if ipus > 1 else ''}" for id, ipus in sizes.items()) or "none"


def _owners() -> str:
    """The owners of single chips: `device: user, program (pid)`."""
    singles = [device.id for device in listed() if device.ipus == 1]
    return "; ".join(f"{id}: {owner}" for id, owner in zip(singles, map(_owner, singles)) if owner)


def _owner(id: int) -> str:
    """The process attached to a chip; empty if it is free."""
    facts = _information(id)
    if facts.get("user process id", "") in ("", "0"):
        return ""
    return f"{facts.get('user name', '?')}, {facts.get('user executable', '?')} ({facts['user process id']})"


def _information(id: Optional[int] = None) -> Dict[str, str]:
    """The output of `gc-info -i` for a device, by default the first one, by lower-case name."""
    if id is None:
        id = next((device.id for device in listed()), 0)
    facts = {}
    for line in _run("gc-info", "-d", str(id), "-i").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            facts[key.strip().lower()] = value.strip()
    return facts


@functools.lru_cache(maxsize=4)
def _list_of_devices(path: str) -> str:
    """Cached, because the devices of a machine do not change while a process runs."""
    return _run("gc-info", "-l")


def _run(tool: str, *arguments: str) -> str:
    """The standard output of a tool; empty if the tool is missing, fails or hangs."""
    if shutil.which(tool) is None:
        return ""
    try:
        done = subprocess.run(
            [tool, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=TOOL_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
