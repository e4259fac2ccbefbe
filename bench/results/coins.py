"""The coins of a pair: seeded, so that a run can be repeated and resumed, and independent of each other.

The sign flips of `pairs` are exact because the roles of the two sides are given by a fair coin and not by a pattern.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import List, Sequence, Tuple

# An environment of another size moves the stack, and with it the layout of memory.
PADDING_BYTES = 4096
BLOCKS = ("ABBA", "BAAB")


@dataclass(frozen=True)
class Roles:
    """The roles of the sides of one pair.

    candidate_first   the candidate starts, compiles and warms up before the base
    padding           bytes that are added to the environment of the base and of the candidate, 0 to 4095
    """

    candidate_first: bool
    padding: Tuple[int, int]


def roles(seed: int, pair: int, attempt: int = 0) -> Roles:
    """Return the roles of a pair. A pair that is repeated is another attempt and has other coins."""
    coin = _coin("roles", seed, pair, attempt)
    return Roles(coin.random() < 0.5, (coin.randrange(PADDING_BYTES), coin.randrange(PADDING_BYTES)))


def order(seed: int, pair: int, cases: Sequence[str], attempt: int = 0) -> List[str]:
    """Return the cases of a pair in random order. It does not depend on the order in which they come."""
    return sorted(cases, key=lambda case: _coin("order", seed, pair, attempt, case).random())


def units(seed: int, pair: int, case: str, count: int, attempt: int = 0) -> List[str]:
    """Return the order of the blocks of each unit: A is the base, B the candidate."""
    coin = _coin("units", seed, pair, attempt, case)
    return [BLOCKS[coin.random() < 0.5] for _ in range(count)]


def _coin(*what: object) -> random.Random:
    # Random hashes a text with SHA-512, the same on every machine and version of Python.
    return random.Random(repr(what))
