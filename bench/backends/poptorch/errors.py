"""PopTorch's exceptions as the suite's."""

from __future__ import annotations

from typing import Any, ContextManager, Optional

from bench.backends._ipu import errors
from bench.cases.case import Case, Settings
from bench.cases.errors import Broken, Refused

NONE_FREE = (
    "Failed to acquire",
    "No IPU detected in the system",
    "No device found on the system with",
)


def none_free(sdk: Any, error: BaseException) -> bool:
    return isinstance(error, sdk.Error) and any(text in str(error) for text in NONE_FREE)


def translated(sdk: Any, case: Case, settings: Settings) -> ContextManager[None]:
    meanings = (
        (sdk.RecoverableError, "recoverable"),
        (sdk.UnrecoverableError, "unrecoverable"),
        (Exception, errors.BY_TEXT),
    )

    def meaning(error: BaseException) -> Optional[Exception]:
        error = _cause(error)
        return _of_python(error, case, settings) or errors.meaning(error, meanings, settings)

    return errors.translated(meaning)


def _of_python(error: BaseException, case: Case, settings: Settings) -> Optional[Exception]:
    """The suite's exception for one of PopTorch's Python layer; None if it is unknown."""
    text = errors.first_line(error)
    if isinstance(error, AssertionError) and "batch dimension" in text.lower():
        accumulated = settings.recipe.batches_per_update(case.mode)
        rows = case.batch_size * settings.batches_per_step * accumulated * case.replicas
        return Refused(
            f"the rows of a call do not fit: --batch-size {case.batch_size} x --batches-per-step"
            f" {settings.batches_per_step} x --gradient-accumulation {accumulated} x --replicas {case.replicas}"
            f" = {rows}; PopTorch says: {text}"
        )
    if isinstance(error, AttributeError) and "frozen" in text.lower():
        return Broken(f"PopTorch's options were changed after their first use: {text}")
    return None


def _cause(error: BaseException) -> BaseException:
    """The first exception. If tracing fails early, PopTorch's clean-up fails too, with an exception of its own."""
    while isinstance(error, UnboundLocalError) and error.__context__ is not None:
        error = error.__context__
    return error
