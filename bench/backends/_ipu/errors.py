"""What Poplar's SDK raises, as messages that say what to do: the same for all frameworks.

Each backend says which exceptions of its framework are which; the rest is told by their texts.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Type

from bench.cases import poplar
from bench.cases.case import Settings
from bench.cases.errors import Broken, Refused, Unavailable, Wrong

# What an exception of a class, or of several, means; BY_TEXT: what its text says.
Meanings = Sequence[Tuple[Any, str]]
BY_TEXT = "by text"
TEXTS = (
    ("unrecoverable", "unrecoverable_runtime_error"),
    ("recoverable", "recoverable_runtime_error|recovery action"),
    ("memory", "out of memory|graph_memory_allocation_error"),
    ("batches", "number of iterations of the pipeline must be"),
    ("timeout", "time.?out|sync timed out"),
    ("option", "invalid.option|unrecognised option|unknown option|bad partialstype"),
)
MESSAGES: Dict[str, Tuple[Type[Exception], str]] = {
    "unrecoverable": (Broken, "the IPU has a fault that only its owner can mend: {text}"),
    "recoverable": (Broken, "the IPU needs {action}, and trying again will not help: {text}"),
    "memory": (
        Refused,
        "out of memory on the IPU: {text}; lower --available-memory-proportion, --recompute auto, more IPUs by"
        " --pipeline-splits, a smaller --batch-size",
    ),
    "batches": (Refused, "{text}; in training that is --gradient-accumulation, else --batches-per-step"),
    "timeout": (
        Broken,
        "the IPU waited too long for the host: {text}; is its data too slow? else raise it by --runtime-options"
        ' \'{{"target.hostSyncTimeout": "600"}}\'',
    ),
    "option": (Refused, "an option is not taken by the SDK: {text}; see {options}"),
}
# Words of Poplar's texts that stand for options of ours.
WORDS = {
    "availablememoryproportion": "--available-memory-proportion",
    "partialstype": "--partials-type-conv or --partials-type-matmul",
    "internalexchangeoptimisationtarget": "--internal-exchange-target",
    "convdithering": "--conv-dithering",
}


@contextlib.contextmanager
def translated(meaning: Callable[[Exception], Optional[Exception]]) -> Iterator[None]:
    """Raise what is raised within as what it means, where that is known."""
    try:
        yield
    except (Broken, Refused, Unavailable, Wrong):
        raise
    except Exception as error:
        known = meaning(error)
        if known is None:
            raise
        raise known from error


def meaning(error: BaseException, meanings: Meanings, settings: Settings) -> Optional[Exception]:
    """What an error of the SDK is for a user, in one line; None: not known. The first class that fits decides."""
    whole = str(getattr(error, "message", "") or error)
    kind = next((kind for known, kind in meanings if isinstance(error, known)), "")
    if kind == BY_TEXT:
        kind = next((kind for kind, pattern in TEXTS if re.search(pattern, whole, re.IGNORECASE)), "")
    if not kind:
        return None
    raised, message = MESSAGES[kind]
    return raised(
        message.format(text=first_line(error), action=_action(error, whole), options=_options(whole, settings))
    )


def first_line(error: BaseException) -> str:
    text = str(getattr(error, "message", "") or error)
    return (text.splitlines() or [type(error).__name__])[0]


def _action(error: BaseException, text: str) -> str:
    """What the device needs: each framework has another way to tell."""
    action = getattr(error, "recovery_action", None) or getattr(error, "recoveryAction", None)
    written = re.search(r"Recovery action: (\w+)", text)
    return str(getattr(action, "name", action) or (written[1] if written else "a reset"))


def _options(text: str, settings: Settings) -> str:
    """The options that a text speaks of, or else all that are not at their defaults."""
    text = text.lower()
    named: List[str] = [option for word, option in WORDS.items() if word in text]
    named += [f"{key} in --engine-options" for key in settings.poplar.engine_options if key.lower() in text]
    named = named or [poplar.option(name) for name in settings.poplar.non_default_names]
    return ", ".join(named) or "POPLAR_ENGINE_OPTIONS"
