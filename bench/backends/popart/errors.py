"""PopART's exceptions as the suite's."""

from __future__ import annotations

from typing import Any, ContextManager

from bench.backends._ipu import errors
from bench.cases.case import Settings


def translated(popart: Any, settings: Settings) -> ContextManager[None]:
    meanings = (
        (popart.OutOfMemoryException, "memory"),
        (popart.poplar_recoverable_runtime_error, "recoverable"),
        (popart.poplar_unrecoverable_runtime_error, "unrecoverable"),
        ((popart.popart_exception, popart.poplar_exception, popart.poplibs_exception), errors.BY_TEXT),
    )
    return errors.translated(lambda error: errors.meaning(error, meanings, settings))
