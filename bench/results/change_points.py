"""The change points of a series: where the level of the logarithm of a rate changed, from one run to the next.

Search      The statistic of an interval is the largest |CUSUM| over its splits. The intervals are seeded: at every
            length, from the whole series down to six values, they overlap by half and more. Of the intervals beyond the
            threshold, the narrowest gives a change point, and those that contain it are dropped. Then each change point
            moves to the best split between its neighbours, and the least ones below the threshold are dropped
Outliers    Values count at most four standard deviations from their interval's median (Huber's clipping), so that one
            run is no step. A level has at least three runs that are closer to it than to its neighbour
Noise       At first from differences of consecutive values, which a step hardly changes; then, with the correlation of
            consecutive runs, from the residuals of the levels that were found. Correlation increases the threshold to
            that of the long-run standard deviation
Threshold   Of flat series of independent normal values, a share of FALSE_ALARM has a change point (simulated:
            `python -m scripts.change_point_rates`)
Position    The splits whose likelihood ratio to the best one is at most 7.35: 95 % of such ranges hold the true one
Sources     S. Kovacs, P. Buehlmann, H. Li and A. Munk, Seeded binary segmentation, Biometrika 110 (2023): intervals
            R. Baranowski, Y. Chen and P. Fryzlewicz, Narrowest-over-threshold detection, JRSS B 81 (2019): choice
            P. Fearnhead and G. Rigaill, Changepoint detection in the presence of outliers, JASA 114 (2019): clipping
            B. E. Hansen, Sample splitting and threshold estimation, Econometrica 68 (2000): range of the position
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, List, Sequence, Tuple

import numpy as np

# A level has at least so many runs. Fewer runs than FEWEST have no change points: their noise is not known.
LEVEL_LEAST = 3
FEWEST = 8
# The share of flat series of independent normal values with a change point.
FALSE_ALARM = 0.005
# The threshold for that share, by the number of values.
THRESHOLDS = {8: 2.4, 12: 2.75, 20: 3.2, 30: 3.5, 50: 3.75, 100: 4.1, 200: 4.4, 500: 4.65, 1000: 4.8, 10000: 5.2}
# Values are clipped at so many standard deviations.
CLIP = 4.0
# Lengths of seeded intervals: each is the one before divided by this.
DECAY = math.sqrt(2.0)
# Differences are clipped at this quantile, so that a few outliers do not hide a step. The mean of |Z| clipped there:
QUANTILE, CLIPPED_MEAN = 0.9, 0.7582
# Smaller noise than this is not believed: a median has rounding and a machine has temperatures.
NOISE_LEAST = 1e-3
CORRELATION_MOST = 0.8
# The noise and the change points are computed in turns, since each needs the other.
PASSES = 3
# Of the likelihood ratio of a split that is not the best: (1 - exp(-x / 2))^2 = 95 %.
RATIO_MOST = 7.35
Array = Any


@dataclass(frozen=True)
class ChangePoint:
    """A step between two runs, by their indices in the series.

    index     the first value of the new level
    earliest  the first index that the step can have, and `latest` the last: 95 % of such ranges hold the true one
    size      the difference of the medians of the two levels: of logarithms of rates, so -0.05 is 5 % slower
    low, high an interval of the size: 95 % of such intervals hold the true one
    """

    index: int
    earliest: int
    latest: int
    size: float
    low: float
    high: float


@dataclass(frozen=True)
class Noise:
    """Standard deviation of a value, and the correlation of consecutive values, at least 0."""

    deviation: float
    correlation: float

    @property
    def inflation(self) -> float:
        """By how much correlation increases the standard deviation of the mean of many values."""
        return math.sqrt((1 + self.correlation) / (1 - self.correlation))


def change_points(values: Sequence[float], threshold: float = 0.0) -> List[ChangePoint]:
    """Return the change points of a series of logarithms, in the order of time.

    threshold   that of the statistic; 0: that of FALSE_ALARM

    Raises ValueError if a value is not finite.
    """
    series = np.asarray(values, dtype=np.float64)
    if not np.isfinite(series).all():
        raise ValueError("a value of the series is not finite")
    if len(series) < FEWEST:
        return []
    threshold = threshold or threshold_of(len(series))
    cuts: List[int] = []
    noise = Noise(_independent(series), 0.0)
    for _ in range(PASSES):
        cuts = _settled(series, _candidates(series, noise, threshold), noise, threshold)
        noise, former = noise_of(series, cuts), noise
        # The first noise is the smallest, so a series that is flat with it is flat.
        if not cuts or noise == former:
            break
    return [_described(series, before, cut, after, noise) for before, cut, after in _between(cuts, len(series))]


def threshold_of(count: int) -> float:
    """Return the threshold for a number of values, between the simulated ones."""
    logarithms = [math.log(known) for known in THRESHOLDS]
    return float(np.interp(math.log(count), logarithms, list(THRESHOLDS.values())))


def noise_of(series: Array, cuts: Sequence[int] = ()) -> Noise:
    """Return the noise of a series with change points at `cuts`."""
    residuals = np.concatenate([level - np.median(level) for level in np.split(series, list(cuts))])
    deviation = _independent(residuals)
    for _ in range(2):
        clipped = np.clip(residuals, -CLIP * deviation, CLIP * deviation)
        deviation = max(deviation, float(np.sqrt(np.mean(clipped**2))))
    squares = float(np.sum(clipped**2))
    correlation = float(np.sum(clipped[1:] * clipped[:-1])) / squares if squares else 0.0
    correlation = min(CORRELATION_MOST, max(0.0, correlation))
    return Noise(deviation, correlation)


def _independent(values: Array) -> float:
    """The standard deviation of values, if they are independent, from the differences of consecutive ones."""
    sizes = np.abs(np.diff(values))
    mean = float(np.minimum(sizes, np.quantile(sizes, QUANTILE)).mean())
    return max(NOISE_LEAST, mean / CLIPPED_MEAN / math.sqrt(2.0))


def _candidates(series: Array, noise: Noise, threshold: float) -> List[int]:
    """Change points by narrowest over threshold, in the order of time."""
    hits: List[Tuple[int, int, int]] = []
    for starts, length in _seeded(len(series)):
        values = series[starts[:, None] + np.arange(length)]
        splits, statistics = _best_splits(values, noise)
        hits += [(length, int(starts[row]), int(splits[row])) for row in np.flatnonzero(statistics > threshold)]
    cuts: List[int] = []
    for length, start, split in sorted(hits):
        if not any(start < cut < start + length for cut in cuts):
            cuts.append(start + split)
    return sorted(cuts)


def _seeded(count: int) -> List[Tuple[Array, int]]:
    """The seeded intervals of a series: the starts of those of each length, and the length."""
    layers = []
    factor = 1.0
    while count / factor >= 2 * LEVEL_LEAST:
        length = math.ceil(count / factor)
        number = 2 * math.ceil(factor) - 1
        layers.append((np.linspace(0, count - length, number).astype(int), length))
        factor *= DECAY
    return layers


def _best_splits(values: Array, noise: Noise) -> Tuple[Array, Array]:
    """The split of each row with the largest statistic, and the statistic."""
    length = values.shape[1]
    sums = np.cumsum(_clipped(values, noise), axis=1)
    splits = np.arange(LEVEL_LEAST, length - LEVEL_LEAST + 1)
    bridges = sums[:, splits - 1] - sums[:, -1:] * (splits / length)
    statistics = np.abs(bridges) * np.sqrt(length / (splits * (length - splits))) / noise.inflation
    best = statistics.argmax(axis=1)
    return splits[best], statistics[np.arange(len(values)), best]


def _clipped(values: Array, noise: Noise) -> Array:
    """The values from the median of their row, in standard deviations, clipped."""
    centred = values - np.median(values, axis=-1, keepdims=True)
    return np.clip(centred / noise.deviation, -CLIP, CLIP)


def _settled(series: Array, cuts: List[int], noise: Noise, threshold: float) -> List[int]:
    """Each change point at the best split between its neighbours, without those below the threshold."""
    while cuts:
        found = []
        for before, cut, after in _between(cuts, len(series)):
            splits, statistics = _best_splits(series[None, before:after], noise)
            split = before + int(splits[0])
            holds = _holds(series[before:split], series[split:after])
            found.append((float(statistics[0]) if holds else 0.0, cut, split))
        least, cut, _ = min(found)
        if least > threshold:
            return sorted({moved for _, _, moved in found})
        cuts = [other for other in cuts if other != cut]
    return []


def _holds(old: Array, new: Array) -> bool:
    """Whether enough values on each side are closer to its median than to that of the other: two outliers are no
    level."""
    middle = (np.median(old) + np.median(new)) / 2
    up = bool(np.median(new) > middle)
    return min(int(np.sum((old < middle) == up)), int(np.sum((new > middle) == up))) >= LEVEL_LEAST


def _between(cuts: Sequence[int], count: int) -> List[Tuple[int, int, int]]:
    """Each change point between the one before and the one after, or the ends."""
    edges = [0, *cuts, count]
    return list(zip(edges, edges[1:], edges[2:]))


def _described(series: Array, before: int, cut: int, after: int, noise: Noise) -> ChangePoint:
    """A change point with its size and its position, each with an interval."""
    old, new = series[before:cut], series[cut:after]
    size = float(np.median(new) - np.median(old))
    # The median of normal values has the error of their mean, times sqrt(pi / 2).
    error = noise.deviation * noise.inflation * math.sqrt(math.pi / 2 * (1 / len(old) + 1 / len(new)))
    earliest, latest = _positions(series[before:after], cut - before, noise)
    return ChangePoint(cut, before + earliest, before + latest, size, size - 1.96 * error, size + 1.96 * error)


def _positions(values: Array, cut: int, noise: Noise) -> Tuple[int, int]:
    """The first and the last split that the values allow."""
    levels = np.median(values[:cut]), np.median(values[cut:])
    scaled = [np.minimum(np.abs(values - level) / noise.deviation, 2 * CLIP) ** 2 for level in levels]
    # The cost of each split: the squares of all values, each from the level on its side.
    costs = np.concatenate([[0.0], np.cumsum(scaled[0] - scaled[1])]) / noise.inflation**2
    allowed = np.flatnonzero(costs <= costs.min() + RATIO_MOST)
    allowed = allowed[(allowed > 0) & (allowed < len(values))]
    return min(cut, int(allowed[0])), max(cut, int(allowed[-1]))
