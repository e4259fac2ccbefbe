"""Ends this process when its parent ends, even when the parent is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with(parent: int, by: int = signal.SIGKILL) -> None:
    """Let the kernel send the signal `by` to this process when the process `parent`, which started it, ends. Elsewhere
    than on Linux: do nothing."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, by)
        if os.getppid() != parent:
            os._exit(1)
