"""Pairs made by hand."""

from __future__ import annotations

from bench.results.pair import COUNTED, Pair

# Nine pairs that lie between -11 and -9 %, and nine between -1 and 1 %.
SLOWER = (-0.10, -0.11, -0.09, -0.105, -0.095, -0.10, -0.108, -0.092, -0.101)
SAME = (0.001, -0.01, 0.009, -0.002, 0.004, -0.006, 0.0, 0.003, -0.003)


def pair(case, index, ratio=0.0, outcome=COUNTED, attempt=0, **fields):
    ratios = {"rate": ratio, "mean_rate": fields.pop("mean", ratio), **fields.pop("others", {})}
    return Pair(case, index, attempt, outcome, log_ratios=ratios if outcome == COUNTED else {}, **fields)


def of_ratios(case, ratios, **fields):
    return [pair(case, index, ratio, **fields) for index, ratio in enumerate(ratios)]
