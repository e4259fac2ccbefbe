"""The process in which one case is compiled, checked and timed.

`serve` runs in a worker, at the remote end of an execnet gateway. `answer` does the work, by `bench/run.py`; it is also
called with --in-process. Requests and replies are plain dictionaries.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional

from bench import calibration, parent, run, startup, workloads
from bench import environment as variables
from bench.cases.case import Settings
from bench.cases.errors import Broken, Invalid, Lost, Refused, Unavailable, Wrong
from bench.devices import cpu
from bench.group import ALONE, Group, Member
from bench.job import Pace

Reply = Dict[str, Any]
Tell = Callable[[str], None]


def serve(channel: Any, spec: Mapping[str, Any]) -> None:
    """Answer requests until the channel is closed."""
    _detach(spec)
    prepare(spec["environment"], spec["cores"])
    startup.ready()
    channel.send({"kind": "ready"})

    def tell(phase: str) -> None:
        channel.send({"kind": "phase", "phase": phase})

    def pace(block: List[float]) -> int:
        channel.send({"kind": "turn", "block": block})
        return int(channel.receive())

    for request in channel:
        channel.send(answer(request, tell, pace=pace if request.get("paced") else None))


def prepare(environment: Mapping[str, str], cores: List[int]) -> None:
    """Set the variables that a framework reads when it is imported, and bind this process to its cores."""
    variables.use(environment)
    if cores:
        # The description is cached. A bound process sees only its own cores, so its records would describe a
        # different machine.
        cpu.describe()
        cpu.bind(cores)


def answer(request: Mapping[str, Any], tell: Tell, launched: Group = ALONE, pace: Optional[Pace] = None) -> Reply:
    """Execute a request; every exception becomes a reply.

    launched   the group of a launcher's processes
    pace       the turns of one side of a pair
    """
    try:
        if request["do"] == "calibrate":
            tell("waiting")
            calibration.measure(**request["what"], begun=lambda: tell("calibrating"))
            return {"kind": "calibrated"}
        case, settings = workloads.received(request["case"]), Settings(**request["settings"])
        with contextlib.closing(Member(request["place"])) if request.get("place") else _unclosed(launched) as group:
            reply = run.run(case, settings, tell, request.get("canary_s"), group, pace)
            reasons = reply["record"]["invalid_reasons"] if reply["record"] else []
            return {"kind": "invalid" if reasons else "record", "text": "; ".join(reasons), **reply}
    except Lost as error:
        return {"kind": "lost", "text": str(error)}
    except Unavailable as error:
        return {"kind": "unavailable", "text": str(error)}
    except Refused as error:
        return {"kind": "wrong", "text": str(error)}
    except Wrong as error:
        return {"kind": "wrong", "text": f"wrong result, not recorded: {error}"}
    except Invalid as error:
        return {"kind": "invalid", "text": str(error), "record": None}
    except Broken as error:
        return {"kind": "wrong", "text": str(error)}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the harness reports it, with its traceback
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"kind": "error", "text": text, "traceback": traceback.format_exc()}


@contextlib.contextmanager
def _unclosed(group: Group) -> Iterator[Group]:
    yield group


def _detach(spec: Mapping[str, Any]) -> None:
    """Start a session, so that Ctrl-C does not reach this process; end with the parent; write errors to a file."""
    with contextlib.suppress(OSError):
        os.setsid()
    parent.end_with(spec["parent"])
    handle = os.open(spec["stderr"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(handle, 2)
