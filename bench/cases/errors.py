"""What can go wrong with a case: six exceptions, each with a fate of its own."""

from __future__ import annotations


class Unavailable(Exception):
    """A case cannot run here. The text starts with one of three reasons: not installed, not present,
    not supported."""


class Broken(Exception):
    """A framework is installed and does not load."""


class Lost(Exception):
    """A replica cannot go on, since another one is gone."""


class Refused(Exception):
    """What a case was given to work on is at fault: its images, or its weights. One line."""


class Wrong(Exception):
    """A case ran and its numbers are not to be trusted: it fails, and nothing of it is recorded."""


class Invalid(Exception):
    """A case ran, and its time is not what the record would say: it fails, and nothing of it is recorded."""
