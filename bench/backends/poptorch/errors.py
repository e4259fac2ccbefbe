"""What PopTorch raises, in the words of this suite."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Optional

from bench.cases.case import Case, Settings
from bench.cases.errors import Broken, Refused

NONE_FREE = (
    "Failed to acquire",
    "No IPU detected in the system",
    "No device found on the system with",
)
OUT_OF_MEMORY = ("out of memory", "graph_memory_allocation_error")
HOST_SYNC = ("host sync timeout", "hostsynctimeout", "host sync timed out")
WHAT_HELPS = "lower --available-memory-proportion, --recompute, more IPUs by --pipeline-splits, a smaller --batch-size"


def none_free(sdk: Any, error: BaseException) -> bool:
    return isinstance(error, sdk.Error) and any(text in str(error) for text in NONE_FREE)


@contextlib.contextmanager
def told(sdk: Any, case: Case, settings: Settings) -> Iterator[None]:
    """Whatever the SDK raises within is raised again as what it means, where that is known."""
    try:
        yield
    except Exception as error:
        found = meaning(sdk, _true(error), case, settings)
        if found is None:
            raise
        raise found from error


def meaning(sdk: Any, error: BaseException, case: Case, settings: Settings) -> Optional[Exception]:
    text = " ".join(str(error).split())
    lower = text.lower()
    if isinstance(error, sdk.RecoverableError):
        action = getattr(error, "recovery_action", "") or "a reset"
        return Broken(f"the IPU needs {action}; trying again will not help: {text}")
    if isinstance(error, sdk.UnrecoverableError):
        return Broken(f"a fault of the IPU's hardware; end this session and tell who runs the machine: {text}")
    if any(part in lower for part in OUT_OF_MEMORY):
        return Refused(f"out of memory on the IPU: {text}; {WHAT_HELPS}")
    if any(part in lower for part in HOST_SYNC):
        return Broken(
            f"the IPU waited too long for the host: {text}; is its data too slow? else raise it by"
            ' --runtime-options \'{"target.hostSyncTimeout": "600"}\''
        )
    if isinstance(error, AssertionError) and "batch dimension" in lower:
        accumulated = settings.recipe.gradient_accumulation if case.mode == "training" else 1
        rows = case.batch_size * settings.batches_per_step * accumulated * case.replicas
        return Refused(
            f"the rows of a call do not fit: --batch-size {case.batch_size} x --batches-per-step"
            f" {settings.batches_per_step} x --gradient-accumulation {accumulated} x --replicas {case.replicas}"
            f" = {rows}; PopTorch says: {text}"
        )
    if isinstance(error, AttributeError) and "frozen" in lower:
        return Broken(f"PopTorch's options were changed after their first use: {text}")
    return None


def _true(error: BaseException) -> BaseException:
    """Where tracing fails early, PopTorch's own clean-up fails as well, and its error hides the first."""
    while isinstance(error, UnboundLocalError) and error.__context__ is not None:
        error = error.__context__
    return error
