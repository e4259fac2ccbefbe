"""What PopART raises, as messages that say what to do."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator

from bench.cases import poplar
from bench.cases.case import Settings
from bench.cases.errors import Broken, Refused

# Poplar and its libraries say so of an option that they do not know, or of its value.
OPTION = ("invalid_option", "invalid option", "unrecognised option", "unknown option", "bad partialstype")
TIMEOUT = ("hostsynctimeout", "host sync timed out", "host sync timeout")
# Options of ours, and a word of Poplar's text that stands for them.
WORDS = {
    "availablememoryproportion": "--available-memory-proportion",
    "partialstype": "--partials-type-conv or --partials-type-matmul",
    "internalexchangeoptimisationtarget": "--internal-exchange-target",
    "convdithering": "--conv-dithering",
}


@contextlib.contextmanager
def told(popart: Any, settings: Settings) -> Iterator[None]:
    """Turn what the SDK raises within into Refused or Broken; what is neither stays what it is."""
    try:
        yield
    except popart.OutOfMemoryException as error:
        raise Refused(
            f"out of memory on the IPU: {_line(error)}; lower --available-memory-proportion, --recompute auto, more"
            f" IPUs by --pipeline-splits, a smaller --batch-size"
        ) from error
    except popart.poplar_recoverable_runtime_error as error:
        action = getattr(error.recoveryAction, "name", error.recoveryAction)
        raise Broken(f"the IPU needs {action}, and trying again will not help: {_line(error)}") from error
    except popart.poplar_unrecoverable_runtime_error as error:
        raise Broken(f"the IPU has a fault that only its owner can mend: {_line(error)}") from error
    except (popart.popart_exception, popart.poplar_exception, popart.poplibs_exception) as error:
        text = str(error).lower()
        if any(word in text for word in TIMEOUT):
            raise Broken(
                f"the IPU waited for its data in vain: {_line(error)}; the host is too slow, or stands still: raise"
                f" target.hostSyncTimeout by --runtime-options"
            ) from error
        if any(word in text for word in OPTION):
            raise Refused(f"an option is not taken by the SDK: {_line(error)}; {_options(text, settings)}") from error
        raise


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _options(text: str, settings: Settings) -> str:
    """The options that a text speaks of, or else all that are given."""
    found = [name for word, name in WORDS.items() if word in text]
    found += [f"{key} in --engine-options" for key in settings.poplar.engine_options if key.lower() in text]
    names = found or [poplar.option(name) for name in poplar.given(settings.poplar)]
    return f"see {', '.join(names)}" if names else "see POPLAR_ENGINE_OPTIONS"
