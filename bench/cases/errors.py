"""The six exceptions of a case. Each has a different outcome in pytest."""

from __future__ import annotations


class Unavailable(Exception):
    """A case cannot run on this machine. The text starts with one of three reasons: not installed, not present, not
    supported."""


class Broken(Exception):
    """A framework is installed but does not load."""


class Lost(Exception):
    """A replica cannot continue, because another one ended."""


class Refused(Exception):
    """An input of a case is at fault: its images, its weights or its file. The text is one line."""


class Wrong(Exception):
    """A case ran and its results are wrong: it fails and is not recorded."""


class Invalid(Exception):
    """A case ran, and the clock shows no time at all: it is measured once more, and fails if that is so again."""
