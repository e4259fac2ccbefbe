"""What pairs without a change, and with a known one, say of several gates: `python -m scripts.trust PAIRS [PAIRS ...]`.

PAIRS are files that runs with --self-check or --against same name. The gates of other tools hold one process against
another: this side's of one pair against the other side's of another pair, as two runs one after the other would.

min:5%, median:5%   of pytest-benchmark's --benchmark-compare-fail: the minimum or median is more than 5 % longer
Mann-Whitney        p below 0.05, one-sided, over the medians of the blocks of each process; needs scipy
benchmatrix         the package's own rule over the pairs of a comparison, with its defaults: 5 %, at least 5 pairs,
                    intervals of 95 % over all cases; only where the package is installed
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import itertools
import statistics
import sys
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Sequence, Tuple

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from bench.results import pair_file, self_check  # noqa: E402
from bench.results.comparison import Comparisons  # noqa: E402
from bench.results.pair import BASE, CANDIDATE, COUNTED, STATISTICS, Pair, Unit  # noqa: E402
from bench.results.verdict import FASTER, SLOWER  # noqa: E402

SLOWDOWNS = (0.0, *self_check.SLOWDOWNS)
Blocks = Dict[str, List[float]]
Gate = Callable[[Blocks, Blocks], bool]


def of_process(pair: Pair, side: str) -> Blocks:
    """The blocks of a process, by statistic."""
    return {
        name: [value for unit in pair.units for value in unit["blocks"][side][name]] for name in ("minimum", "median")
    }


def minimum(base: Blocks, now: Blocks) -> bool:
    return min(now["minimum"]) > 1.05 * min(base["minimum"])


def median(base: Blocks, now: Blocks) -> bool:
    return statistics.median(now["median"]) > 1.05 * statistics.median(base["median"])


def mann_whitney(base: Blocks, now: Blocks) -> bool:
    from scipy.stats import mannwhitneyu

    return bool(mannwhitneyu(now["median"], base["median"], alternative="greater").pvalue < 0.05)


GATES: Dict[str, Gate] = {"min:5%": minimum, "median:5%": median, "Mann-Whitney": mann_whitney}


def processes(pairs: Sequence[Pair], slowdown: float) -> Iterator[Tuple[Blocks, Blocks]]:
    """A process without a change and one with this slow-down, of the same case and of two pairs."""
    bases = [(pair, of_process(pair, BASE)) for pair in pairs]
    slowed = [(pair, of_process(pair, CANDIDATE)) for pair in pairs if pair.slowdown == slowdown]
    for (one, base), (other, now) in itertools.product(bases, slowed):
        if one is not other:
            yield base, now


def fired(gate: Gate, by_case: Sequence[Sequence[Pair]], slowdown: float) -> str:
    """How often a gate fires, in percent of the pairs of processes. `by_case`: the pairs of each case of each run."""
    results = [gate(base, now) for pairs in by_case for base, now in processes(pairs, slowdown)]
    return f"{100 * sum(results) / len(results):.1f} %" if results else "-"


def benchmatrix(run: Run, slowdown: float) -> Tuple[int, int]:
    """How many comparisons of a run benchmatrix calls regressed or, without a slow-down, regressed or improved; and of
    how many."""
    from benchmatrix import bench_compare
    from benchmatrix.bench_policy import default_benchmark_policy

    policy, pairs = default_benchmark_policy(), run.pairs
    kinds, cases = [], len({pair.case for pair in pairs})
    for part in sorted(
        {self_check.Part(pair.slowdown, pair.comparison) for pair in pairs if pair.slowdown == slowdown}
    ):
        ours = self_check.of_part(pairs, part)
        for case in sorted({pair.case for pair in ours}):
            processes = [[of_process(pair, side) for pair in ours if pair.case == case] for side in (BASE, CANDIDATE)]
            steps_s = [[statistics.median(blocks["median"]) for blocks in side] for side in processes]
            effect = bench_compare._infer_repeated_effect(
                (case, "", "median"),
                *steps_s,
                direction="lower_is_better",
                family_size=cases,
                evidence_adequate=len(steps_s[0]) >= policy.evidence.minimum_runs,
                policy=policy.inference,
                design="paired",
                pair_strata=None,
            )
            threshold = policy.regression.default_threshold_percent
            kinds.append(bench_compare._classify_inference(effect, threshold_percent=threshold))
    return sum(kind == "regressed" or (not slowdown and kind == "improved") for kind in kinds), len(kinds)


class Run(NamedTuple):
    """The pairs that count of one file, and what they were judged by."""

    pairs: List[Pair]
    budgets: Dict[str, Dict[str, float]]
    last: int


def judged(run: Run) -> List[Tuple[str, float, str]]:
    """Case, slow-down and verdict of each comparison of a run that has ended."""
    pairs, budgets, last = run
    found = []
    for part in sorted({self_check.Part(pair.slowdown, pair.comparison) for pair in pairs}):
        comparisons = Comparisons(budgets, last, self_check.store(pairs, part.before))
        for pair in self_check.of_part(pairs, part):
            comparisons.add(pair)
        wanting = comparisons.wanting()
        found += [
            (case, part.slowdown, verdict.kind)
            for case, verdict in comparisons.verdicts().items()
            if case not in wanting and comparisons.pairs[case]
        ]
    return found


def ours(verdicts: Sequence[Tuple[str, float, str]], slowdown: float) -> str:
    """The share of comparisons with a wrong verdict or, with a slow-down, of those that found it."""
    kinds = [kind for _, of, kind in verdicts if of == slowdown]
    return _rate(sum(kind == SLOWER or (not slowdown and kind == FASTER) for kind in kinds), len(kinds))


def _rate(hits: int, count: int) -> str:
    return f"{100 * hits / count:.1f} % ({hits} of {count})" if count else "-"


def _sums(counts: Iterable[Tuple[int, int]]) -> Tuple[int, int]:
    hits, trials = zip(*counts)
    return sum(hits), sum(trials)


def gates(runs: Sequence[Run]) -> str:
    """A table: how often each gate fires without a change, and with each slow-down."""
    by_case = [
        [pair for pair in run.pairs if pair.case == case] for run in runs for case in {pair.case for pair in run.pairs}
    ]
    verdicts = [verdict for run in runs for verdict in judged(run)]
    lines = [f"| gate | unchanged | {' | '.join(f'+{slowdown:g} %' for slowdown in SLOWDOWNS[1:])} |"]
    lines.append("|---" * (len(SLOWDOWNS) + 1) + "|")
    lines.append(f"| `--against` | {' | '.join(ours(verdicts, slowdown) for slowdown in SLOWDOWNS)} |")
    for name, gate in GATES.items():
        lines.append(f"| {name} | {' | '.join(fired(gate, by_case, slowdown) for slowdown in SLOWDOWNS)} |")
    if importlib.util.find_spec("benchmatrix"):
        cells = [_rate(*_sums(benchmatrix(run, slowdown) for run in runs)) for slowdown in SLOWDOWNS]
        lines.append(f"| benchmatrix | {' | '.join(cells)} |")
    return "\n".join(lines)


def spreads(pairs: Sequence[Pair]) -> str:
    """A table: the standard deviation over the pairs without a change, by the statistic of a block."""
    lines = [f"| case | pairs | {' | '.join(name.replace('_', ' ') for name in STATISTICS)} |"]
    lines.append("|---" * (len(STATISTICS) + 2) + "|")
    unchanged = [pair for pair in pairs if not pair.slowdown]
    found: List[List[float]] = []
    for case in sorted({pair.case for pair in unchanged}):
        units = [[Unit(**unit) for unit in pair.units] for pair in unchanged if pair.case == case]
        if len(units) < 2:
            continue
        found.append(
            [
                statistics.stdev(statistics.median(u.log_ratio(name) for u in pair) for pair in units)
                for name in STATISTICS
            ]
        )
        lines.append(_row(case, len(units), found[-1]))
    for name, of in (("median of the cases", statistics.median), ("largest", max)):
        lines += [_row(name, len(unchanged), [of(values) for values in zip(*found)])] if found else []
    return "\n".join(lines)


def _row(name: str, count: int, deviations: Sequence[float]) -> str:
    return f"| {name} | {count} | {' | '.join(f'{100 * each:.2f} %' for each in deviations)} |"


def write_csv(path: Path, runs: Sequence[Run]) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["run", "case", "slowdown_percent", "comparison", "pair", "rate", "mean_rate", "seconds"])
        for number, pair in ((number, pair) for number, run in enumerate(runs) for pair in run.pairs):
            ratios = [f"{pair.log_ratios[name]:.5f}" for name in ("rate", "mean_rate")]
            of = [number, pair.case, f"{pair.slowdown:g}", pair.comparison, pair.pair]
            rows.writerow([*of, *ratios, f"{pair.seconds:.2f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, nargs="+")
    parser.add_argument("--csv", type=Path, help="write the log ratios of the pairs to this file")
    arguments = parser.parse_args()
    runs, lost = [], 0
    for path in arguments.pairs:
        head, every = pair_file.head(path), pair_file.load(path)
        if head.get("spec") != "same":
            parser.error(f"{path}: not the pairs of --self-check or --against same")
        runs.append(Run([pair for pair in every if pair.outcome == COUNTED], head["budgets"], head["pairs"]))
        lost += len(every) - len(runs[-1].pairs)
    pairs = [pair for run in runs for pair in run.pairs]
    print(f"{len(pairs)} pairs; {lost} others were disturbed or failed\n")
    print(gates(runs), "\n")
    print(spreads(pairs))
    if arguments.csv:
        write_csv(arguments.csv, runs)


if __name__ == "__main__":
    main()
