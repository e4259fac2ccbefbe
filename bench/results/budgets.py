"""Budgets: the loss of each metric that is accepted, by case.

A file of budgets is TOML. A table has a pattern of case ids as its name, and a budget for each metric:

    ["*"]
    rate = "5%"
    ["lstm*-onnxruntime-*"]
    rate = "3%"
    compile = "50%"

Of several patterns that fit a case, the last one counts, for each metric by itself.
"""

from __future__ import annotations

import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Tuple

from bench.registry import unknown
from bench.results.comparison import TAIL
from bench.results.pair import METRICS

Table = List[Tuple[str, Dict[str, float]]]


def percent(text: Any) -> float:
    """A budget in percent: 5, "5" or "5%". Raises ValueError if it is not above 0 and below 100."""
    try:
        number = re.sub(r"\s*%$", "", str(text).strip())
        value = float(number) if not isinstance(text, bool) else 0.0
    except ValueError:
        value = 0.0
    if not 0 < value < 100:
        raise ValueError(f"{text!r}: a number above 0 and below 100 is needed, such as 5%")
    return value


def load(path: Path) -> Table:
    """The patterns and budgets of a file, in order. Raises ValueError, in one line."""
    try:
        tables = _toml(path.read_text())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: not TOML: {error}") from None
    found = []
    for pattern, budgets in tables.items():
        if not isinstance(budgets, dict):
            raise ValueError(f'{path}: {pattern} stands outside of a table; ["*"] is for all cases')
        for metric in budgets:
            if metric not in METRICS:
                raise ValueError(f"{path}: [{pattern}]: metric {unknown(metric, tuple(METRICS))}")
        try:
            found.append((pattern, {metric: percent(value) for metric, value in budgets.items()}))
        except ValueError as error:
            raise ValueError(f"{path}: [{pattern}]: {error}") from None
    return found


def of_cases(cases: Iterable[str], rate_percent: float, table: Table) -> Dict[str, Dict[str, float]]:
    """The budgets of each case. The tail of the steps has that of the rate, unless the table says otherwise."""
    return {case: _of_case(case, rate_percent, table) for case in cases}


def unused(cases: Iterable[str], table: Table) -> List[str]:
    """The patterns that fit no case."""
    names = list(cases)
    return [pattern for pattern, _ in table if not any(fnmatchcase(name, pattern) for name in names)]


def _of_case(case: str, rate_percent: float, table: Table) -> Dict[str, float]:
    named: Dict[str, float] = {}
    for pattern, budgets in table:
        if fnmatchcase(case, pattern):
            named.update(budgets)
    rate = named.get("rate", rate_percent)
    return {"rate": rate, TAIL: rate, **named}


def _toml(text: str) -> Mapping[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)
