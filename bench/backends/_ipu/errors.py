"""The exceptions of Poplar's SDK as messages that say what to do, the same for all frameworks.

Each backend maps the exception classes of its framework to kinds of errors. Other classes are classified by their text.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Type

from bench.cases import poplar
from bench.cases.case import Settings
from bench.cases.errors import Broken, Refused, Unavailable, Wrong

# A class of exceptions, or several, with the kind of error; BY_TEXT: its text decides.
Meanings = Sequence[Tuple[Any, str]]
BY_TEXT = "by text"
TEXTS = (
    ("unrecoverable", "unrecoverable_runtime_error"),
    ("recoverable", "recoverable_runtime_error|recovery action"),
    (
        "memory",
        "out of memory|graph_memory_allocation_error|receives more data than it has total memory"
        "|_poplar_start must be 0",
    ),
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
# Words in Poplar's texts, and the options of this suite that set them.
WORDS = {
    "availablememoryproportion": "--available-memory-proportion",
    "partialstype": "--partials-type-conv or --partials-type-matmul",
    "internalexchangeoptimisationtarget": "--internal-exchange-target",
    "convdithering": "--conv-dithering",
}


@contextlib.contextmanager
def translated(meaning: Callable[[Exception], Optional[Exception]]) -> Iterator[None]:
    """Replace an exception raised within by what `meaning` returns for it, unless that is None."""
    try:
        yield
    except (Broken, Refused, Unavailable, Wrong):
        raise
    except Exception as error:
        translation = meaning(error)
        if translation is None:
            raise
        raise translation from error


def meaning(error: BaseException, meanings: Meanings, settings: Settings) -> Optional[Exception]:
    """The exception for the user, in one line; None if the error is unknown. The first class that fits decides."""
    text = str(getattr(error, "message", "") or error)
    kind = next((kind for types, kind in meanings if isinstance(error, types)), "")
    if kind == BY_TEXT:
        kind = next((kind for kind, pattern in TEXTS if re.search(pattern, text, re.IGNORECASE)), "")
    if not kind:
        return None
    exception, message = MESSAGES[kind]
    return exception(
        message.format(text=first_line(error), action=_action(error, text), options=_options(text, settings))
    )


def first_line(error: BaseException) -> str:
    text = str(getattr(error, "message", "") or error)
    return (text.splitlines() or [type(error).__name__])[0]


def _action(error: BaseException, text: str) -> str:
    """The recovery action that the device needs: an attribute of the exception, or part of its text."""
    action = getattr(error, "recovery_action", None) or getattr(error, "recoveryAction", None)
    in_text = re.search(r"Recovery action: (\w+)", text)
    return str(getattr(action, "name", action) or (in_text[1] if in_text else "a reset"))


def _options(text: str, settings: Settings) -> str:
    """The options that a text mentions, or else all that are not at their defaults."""
    text = text.lower()
    named: List[str] = [option for word, option in WORDS.items() if word in text]
    named += [f"{key} in --engine-options" for key in settings.poplar.engine_options if key.lower() in text]
    named = named or [poplar.option(name) for name in settings.poplar.non_default_names]
    return ", ".join(named) or "POPLAR_ENGINE_OPTIONS"
