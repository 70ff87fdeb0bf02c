"""Intervals: over seeds, over clips, for mAP, and for a difference. Each says which method made it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evar.metrics import mean_average_precision

_DRAWS_AT_A_TIME = 1000
BIAS_FACTOR = 2**0.75 - 1  # mAP of n clips is too high by about n^-0.75: half of them by this much more


@dataclass(frozen=True)
class Interval:
    """A 95 % interval (unless said otherwise) around or beside ``point``; low and high are None where there is none."""

    point: float
    low: float | None
    high: float | None
    method: str

    @property
    def half_width(self) -> float | None:
        """Half the interval's length, None where there is none."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def bounded(interval: Interval) -> tuple[float | None, float | None, float | None]:
    """Return low and high cut to 0 … 1, as a share must lie, and the half-width before the cut."""
    if interval.low is None or interval.high is None:
        return None, None, None
    return max(interval.low, 0.0), min(interval.high, 1.0), interval.half_width


def student_t(scores: Sequence[float], level: float = 0.95) -> Interval:
    """Return mean ± t · s / √n over ``n`` runs, s with n − 1 (what the published ± are); none for one run."""
    values = np.asarray(scores, dtype=np.float64)
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return Interval(mean, None, None, "none: one run")
    half = float(stats.t.ppf(0.5 + level / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, f"Student t, {n} runs")


def welch_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Interval:
    """Return the interval of mean(a) − mean(b) for unequal variances (Welch 1947); both need two values.

    Where neither sample varies the interval is the difference itself.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if min(len(x), len(y)) < 2:
        raise ValueError("Welch's interval needs at least two values on both sides")
    difference = float(x.mean() - y.mean())
    parts = np.array([x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)])
    half = 0.0
    if parts.sum() > 0:
        freedom = parts.sum() ** 2 / (parts**2 / (len(x) - 1, len(y) - 1)).sum()
        half = float(stats.t.ppf(0.5 + level / 2, freedom) * np.sqrt(parts.sum()))
    return Interval(difference, difference - half, difference + half, f"Welch, {level:.0%}")


def bootstrap_accuracy(
    hits: NDArray[Any],
    *,
    groups: Sequence[Hashable] | None = None,
    strata: Sequence[Hashable] | None = None,
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the (expanded) percentile bootstrap interval of the share of ``hits [n]`` over clips.

    ``groups``: clips of a group are drawn together (clustered). ``strata``: as many clips (groups) are drawn from each
    stratum as it has; a group must lie in one stratum. The percentiles are those of :func:`tail_of`. Where all clips,
    or none, are right, nothing varies, and the end is the exact one of :func:`unseen`, over units.
    """
    right = np.asarray(hits, dtype=np.float64)
    unit = codes(groups, len(right))
    sizes, sums = np.bincount(unit), np.bincount(unit, weights=right)
    stratum = np.zeros(len(sizes), dtype=np.int64)
    if strata is not None:
        of_clip = codes(strata, len(right))
        stratum[unit] = of_clip
        if (stratum[unit] != of_clip).any():
            raise ValueError("a group lies in two strata")
    point, of_strata = float(right.mean()), [stratum == number for number in np.unique(stratum)]
    method = f"bootstrap over {len(sizes)} groups" if groups is not None else f"bootstrap over {len(right)} clips"
    if len(sizes) - len(of_strata) < 1:
        return Interval(point, None, None, f"none ({method})")
    if point in (0, 1):
        ends = (1 - unseen(len(sizes), level), 1.0) if point else (0.0, unseen(len(sizes), level))
        return Interval(point, *ends, f"exact, {'all' if point else 'none'} right: {method.removeprefix('bootstrap ')}")
    stream = np.random.default_rng(seed)
    total, count = np.sum([draw_sums(sums[here], sizes[here], draws, stream) for here in of_strata], axis=0)
    low, high = ends_of(total / count, len(sizes), len(of_strata), level)
    return Interval(point, low, high, method)


def draw_sums(sums: NDArray[Any], sizes: NDArray[Any], draws: int, stream: np.random.Generator) -> NDArray[np.float64]:
    """Return the sum and the size of as many units as there are, drawn with replacement, ``[2, draws]``.

    Units of equal sum and size are exchangeable, so counts of each kind of unit are drawn and not the units: the same
    distribution, far sooner.
    """
    kinds, amounts = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    out = np.empty((2, draws))
    for start in range(0, draws, _DRAWS_AT_A_TIME):
        piece = slice(start, min(start + _DRAWS_AT_A_TIME, draws))
        counts = stream.multinomial(amounts.sum(), amounts / amounts.sum(), size=piece.stop - piece.start)
        out[:, piece] = (counts @ kinds).T
    return out


def tail_of(units: int, level: float = 0.95, strata: int = 1) -> float:
    """Return the share of the draws to leave off at each end: less than (1 - level) / 2 where units are few.

    A draw of n units varies less than it should by √((n - 1) / n), and its percentiles ask a normal quantile where
    Student's is due; both together make six speakers' plain interval cover 85 times in 100. This is the expanded
    percentile interval (Hesterberg 2015, The American Statistician 69:371).
    """
    freedom = units - strata
    return float(stats.norm.cdf(np.sqrt(units / freedom) * stats.t.ppf((1 - level) / 2, freedom)))


def unseen(units: int, level: float = 0.95) -> float:
    """Return the largest share of something that none of ``units`` shows: Clopper and Pearson's (1934) end for 0."""
    return float(1 - ((1 - level) / 2) ** (1 / units))


def ends_of(values: NDArray[np.float64], units: int, strata: int = 1, level: float = 0.95) -> tuple[float, float]:
    """Return the quantiles of bootstrap ``values`` that make the interval; NaN is left out."""
    low, high = np.nanquantile(values, [tail_of(units, level, strata), 1 - tail_of(units, level, strata)])
    return float(low), float(high)


def bootstrap_score(
    score: Callable[[NDArray[np.int64]], float],
    groups: Sequence[Hashable],
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the bootstrap interval of any score of rows, over groups (patients) that are drawn together.

    The percentiles are those of :func:`tail_of`. ``score``: from row numbers (which may repeat) to the score. Draws in
    which it is not defined (NaN) are left out.
    """
    unit = codes(groups, len(groups))
    order = np.argsort(unit, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(unit))[:-1])
    point, method = score(np.arange(len(groups))), f"bootstrap over {len(members)} groups"
    if len(members) < 2:
        return Interval(point, None, None, f"none ({method})")
    stream = np.random.default_rng(seed)
    drawn = (stream.integers(len(members), size=len(members)) for _ in range(draws))
    values = np.array([score(np.concatenate([members[g] for g in draw])) for draw in drawn])
    return Interval(point, *ends_of(values, len(members), 1, level), method)


def map_interval(
    scores: NDArray[Any],
    targets: NDArray[Any],
    *,
    groups: Sequence[Hashable] | None = None,
    draws: int = 100,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return an interval of the mAP over clips: influence functions and a bias correction, not the bootstrap.

    A bootstrap draw repeats clips, and a repeated positive lifts average precision, so that the percentile interval of
    mAP covers the truth far too seldom (25 times in 100 with 20 positives a class). Here the standard error comes from
    the influence of each clip on the mAP (infinitesimal jackknife: Efron 1982), summed within ``groups``. The mAP of a
    sample is also too high, by about n^-0.75 in simulations (exponents 0.70 to 0.80, 5 to 80 positives a class, weak
    to strong scores); what random halves, drawn without replacement, lie above the whole tells how much. The interval
    is centred on the mAP less that bias, while ``point`` is the plain mAP, so with many clips the point may lie above
    it. The quantile is Student's with the harmonic mean of the classes' positives, less one, as degrees of freedom.
    ``tests/evar/test_statistics.py`` simulates the coverage.

    Args:
        scores: ``[n, C]``.
        targets: ``[n, C]``, positive where above 0.
        groups: clips of a group stay in one half.
        draws: pairs of halves.
        seed: of the halves.
        level: coverage.

    Returns:
        The interval; without low and high where fewer than two units have a positive in any class.
    """
    point = mean_average_precision(scores, targets)
    unit = codes(groups, len(scores))
    freedom = map_freedom(targets, unit)
    method = "influence functions, bias-corrected by halves"
    if freedom is None:
        return Interval(point, None, None, f"none ({method}): too few positives")
    halves = half_maps(scores, targets, unit, draws, seed)
    bias = (float(halves.mean()) - point) / BIAS_FACTOR
    influence = np.bincount(unit, weights=map_influences(scores, targets))
    error = float(np.sqrt(np.square(influence).sum() * len(influence) / (len(influence) - 1)))
    half = float(stats.t.ppf(0.5 + level / 2, freedom)) * error
    return Interval(point, point - bias - half, point - bias + half, method)


def map_freedom(targets: NDArray[Any], unit: NDArray[np.int64]) -> float | None:
    """Return the degrees of freedom of a mAP's interval; None where no class has positives in two units."""
    positives = np.array([len(np.unique(unit[column > 0])) for column in targets.T])
    if positives.max(initial=0) < 2:
        return None
    return max(float(1 / np.mean(1 / positives[positives > 0])) - 1, 1.0)


def probe_limited(adam: Interval, logistic: Interval) -> bool:
    """Return whether the two probes disagree beyond their intervals (both must have one), that is, are disjoint."""
    if adam.low is None or adam.high is None or logistic.low is None or logistic.high is None:
        return False
    return adam.high < logistic.low or logistic.high < adam.low


@dataclass(frozen=True, eq=False)
class _Ranked:
    """One class' rows by falling score; rows of equal score count together, up to the last of them."""

    order: NDArray[np.int64]
    positive: NDArray[np.int64]
    """Ranks (from 0) of the positives."""
    first: NDArray[np.int64]
    """For each rank, the first rank of equal score."""
    last: NDArray[np.int64]


def _ranked(scores: NDArray[Any], targets: NDArray[Any]) -> _Ranked:
    order = np.argsort(-scores, kind="stable")
    falling = -scores[order]
    first = np.searchsorted(falling, falling, side="left")
    last = np.searchsorted(falling, falling, side="right") - 1
    return _Ranked(order, np.flatnonzero(targets[order] > 0), first, last)


def map_influences(scores: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
    """Return the derivative of mAP by each clip's weight, ``[n]``; it sums to 0.

    AP is the mean over positives of precision = positives above / clips above. More weight on clip i shifts that mean
    (if i is positive), and the precision of every positive that scores no higher than i, by (is positive − precision)
    / clips above.
    """
    out, classes = np.zeros(len(scores)), 0
    for c in range(scores.shape[1]):
        r = _ranked(scores[:, c], targets[:, c])
        if not len(r.positive):
            continue
        y = np.zeros(len(out))
        y[r.positive] = 1
        clips = r.last + 1.0
        precision = np.cumsum(y)[r.last] / clips
        mean = precision[r.positive].mean()
        gain = np.cumsum((y / clips)[::-1])[::-1][r.first]
        loss = np.cumsum((y * precision / clips)[::-1])[::-1][r.first]
        out[r.order] += (y * (precision - mean) + y * gain - loss) / len(r.positive)
        classes += 1
    return out / max(classes, 1)


def half_maps(
    scores: NDArray[Any], targets: NDArray[Any], unit: NDArray[np.int64], draws: int, seed: int
) -> NDArray[np.float64]:
    """Return the mAP of random halves of the units and of their complements, ``[draws, 2]``."""
    stream = np.random.default_rng(seed)
    n_units = int(unit.max()) + 1
    chosen = np.zeros((n_units, draws), dtype=np.uint8)
    for draw in range(draws):
        chosen[stream.permutation(n_units)[: n_units // 2], draw] = 1
    inside = chosen[unit]  # [n, draws]
    total, present = np.zeros((draws, 2)), np.zeros((draws, 2))
    for c in range(scores.shape[1]):
        r = _ranked(scores[:, c], targets[:, c])
        if not len(r.positive):
            continue
        last = r.last[r.positive]
        last_positive = np.searchsorted(r.positive, last, side="right") - 1
        above = np.cumsum(inside[r.order], axis=0, dtype=np.int32)[last]
        here = inside[r.order[r.positive]].astype(bool)
        hits = np.cumsum(here, axis=0, dtype=np.int32)[last_positive]
        halves = [(above, hits, here), (last[:, None] + 1 - above, last_positive[:, None] + 1 - hits, ~here)]
        for side, (counts, found, member) in enumerate(halves):
            there = member.sum(axis=0)
            precision = np.where(member, found / np.maximum(counts, 1), 0.0).sum(axis=0)
            total[:, side] += precision / np.maximum(there, 1)
            present[:, side] += there > 0
    return total / np.maximum(present, 1)


def codes(names: Sequence[Hashable] | None, n: int) -> NDArray[np.int64]:
    """Return a number from 0 for each distinct name; each row its own where there are no names."""
    if names is None:
        return np.arange(n)
    if len(names) != n:
        raise ValueError(f"{len(names)} names for {n} rows")
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int64)
