"""Two models on the same clips: the interval and the test of their difference, McNemar's test, Holm's correction."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evar.metrics import mean_average_precision
from evar.statistics import (
    BIAS_FACTOR,
    Interval,
    codes,
    draw_sums,
    ends_of,
    half_maps,
    map_freedom,
    map_influences,
    unseen,
)

ENOUGH_UNITS = 15
"""Fewer clips or groups than this are too few for a bootstrap of a difference."""


@dataclass(frozen=True)
class Difference:
    """What is known of score A minus score B."""

    interval: Interval
    """``point`` is the plain difference; the method says how the ends were made."""
    p: float | None
    """Two-sided p of no difference, by the same method as the interval; None where there is no interval."""


def paired_bootstrap(
    a: NDArray[Any],
    b: NDArray[Any],
    *,
    groups: Sequence[Hashable] | None = None,
    weights: NDArray[Any] | None = None,
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Return the difference of two accuracies on the same clips, by the bootstrap over clips.

    Each draw takes clips with what both models made of them; the percentiles are those of
    :func:`evar.statistics.tail_of`. p is where that interval, made wider or narrower, would begin to touch 0. Fewer
    than 15 units (speakers) are too few to draw from (with 4 to 6, equal models are told apart 7 to 9 times in 100);
    for them it is Student's t over the units. Where no clip tells the models apart, the ends are the exact ones of
    :func:`evar.statistics.unseen`, over units.

    Args:
        a: ``[n]`` 1 where A is right, 0 where it is wrong; of several seeds the mean.
        b: The same for B, clip by clip.
        groups: clips of a group (a speaker, a recording) are drawn together.
        weights: ``[n]`` weight of each clip in both scores (folds of unequal size); equal by default.
        draws: of the bootstrap.
        seed: of the draws.
        level: coverage.
    """
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    weight = np.ones(len(difference)) if weights is None else np.asarray(weights, dtype=np.float64)
    unit = codes(groups, len(difference))
    sums, sizes = np.bincount(unit, weights=weight * difference), np.bincount(unit, weights=weight)
    point, units = float(sums.sum() / sizes.sum()), len(sizes)
    counted = f"over {units} {'groups' if groups is not None else 'clips'}"
    what = f"paired bootstrap {counted}"
    if units < 2:
        return Difference(Interval(point, None, None, f"none ({what})"), None)
    if not difference.any():
        bound = unseen(units, level)
        return Difference(Interval(point, -bound, bound, f"exact, no clip differs: {counted}"), 1.0)
    if units < ENOUGH_UNITS:
        return _student(sums, sizes, level, counted)
    kinds = np.stack([sums, sizes]).round(12)  # what differs by rounding alone is one kind
    total, count = draw_sums(kinds[0], kinds[1], draws, np.random.default_rng(seed))
    drawn = total / count
    low, high = ends_of(drawn, units, level=level)
    nearer = (1 + min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))) / (draws + 1)
    p = min(1.0, 2 * float(stats.t.cdf(stats.norm.ppf(nearer) * np.sqrt((units - 1) / units), units - 1)))
    return Difference(Interval(point, low, high, what), p)


def _student(sums: NDArray[Any], sizes: NDArray[Any], level: float, counted: str) -> Difference:
    """Return the difference by Student's t over the units, of the ratio made linear about its value."""
    units, point = len(sums), float(sums.sum() / sizes.sum())
    spread = np.square(sums - point * sizes).sum() * units / (units - 1)
    error = float(np.sqrt(spread) / sizes.sum())
    half = float(stats.t.ppf(0.5 + level / 2, units - 1)) * error
    if error < 1e-12:  # every unit differs by the same: the sign test is all there is
        return Difference(Interval(point, None, None, f"none, sign test {counted}"), min(1.0, 2 * 0.5**units))
    p = 2 * float(stats.t.sf(abs(point) / error, units - 1))
    return Difference(
        Interval(point, max(point - half, -1.0), min(point + half, 1.0), f"paired Student t {counted}"), p
    )


def paired_map(
    a: NDArray[Any],
    b: NDArray[Any],
    targets: NDArray[Any],
    *,
    groups: Sequence[Hashable] | None = None,
    draws: int = 100,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Return the difference of two mAPs on the same clips: influence functions, not the bootstrap.

    The percentile bootstrap of a mAP does not cover (:func:`evar.statistics.map_interval` says why), and that of a
    difference covers 80 to 85 times in 100 where one model is much better. So each clip's influence on mAP A less
    that on mAP B, summed within groups, makes the standard error. What the mAP of a sample has too much cancels but
    for a rest where the models differ much; random halves tell how much, and it counts as error and shifts nothing
    (to take it off would make the test of equal models reject 6 to 8 times in 100). The quantile is Student's with
    the degrees of freedom of ``map_interval``. ``tests/evar/test_paired.py`` simulates coverage and false positives.

    Args:
        a: ``[seeds, n, C]`` scores of A; the mAP is the mean over seeds.
        b: ``[seeds, n, C]`` those of B; it may have another number of seeds.
        targets: ``[n, C]``, positive where above 0.
        groups: clips of a group stay together.
        draws: pairs of halves.
        seed: of the halves.
        level: coverage.
    """
    unit = codes(groups, len(targets))
    method = "influence functions of the paired mAPs, bias counted as error"
    (map_a, half_a, influence_a), (map_b, half_b, influence_b) = (
        _of_seeds(scores, targets, unit, draws, seed) for scores in (a, b)
    )
    point = map_a - map_b
    freedom = map_freedom(targets, unit)
    if freedom is None:
        return Difference(Interval(point, None, None, f"none ({method}): too few positives"), None)
    bias = (half_a - half_b - point) / BIAS_FACTOR
    influence = np.bincount(unit, weights=influence_a - influence_b)
    error = float(np.sqrt(np.square(influence).sum() * len(influence) / (len(influence) - 1) + bias**2))
    half = float(stats.t.ppf(0.5 + level / 2, freedom)) * error
    p = 2 * float(stats.t.sf(abs(point) / error, freedom)) if error > 0 else 1.0
    return Difference(Interval(point, point - half, point + half, method), p)


def _of_seeds(
    scores: NDArray[Any], targets: NDArray[Any], unit: NDArray[np.int64], draws: int, seed: int
) -> tuple[float, float, NDArray[np.float64]]:
    """Return ``(mAP, mAP of random halves, influence of each clip [n])``, each the mean over the seeds."""
    maps = [mean_average_precision(of_seed, targets) for of_seed in scores]
    halves = [float(half_maps(of_seed, targets, unit, draws, seed).mean()) for of_seed in scores]
    influences = [map_influences(of_seed, targets) for of_seed in scores]
    return float(np.mean(maps)), float(np.mean(halves)), np.mean(influences, axis=0)


def mcnemar(only_a: int, only_b: int, method: Literal["midp", "exact", "chi2"] = "midp") -> float:
    """Return the two-sided p of McNemar's test from the clips that only A, and only B, gets right.

    ``exact``: binomial, conservative. ``midp``: half the probability of what was seen is taken off each tail, which
    keeps the level in practice with more power (Fagerland, Lydersen, Laake 2013, BMC Med Res Methodol 13:91).
    ``chi2``: (|b - c| - 1)² / (b + c) against χ² with one degree of freedom (continuity-corrected).
    """
    discordant, fewer = only_a + only_b, min(only_a, only_b)
    if discordant == 0:
        return 1.0
    if method == "chi2":
        return float(stats.chi2.sf(max(abs(only_a - only_b) - 1, 0) ** 2 / discordant, 1))
    tail = float(stats.binom.cdf(fewer, discordant, 0.5))
    if method == "midp":
        tail -= float(stats.binom.pmf(fewer, discordant, 0.5)) / 2
    return min(1.0, 2 * tail)


def clustered_mcnemar(a: NDArray[Any], b: NDArray[Any], groups: Sequence[Hashable] | None = None) -> float:
    """Return the two-sided p of McNemar's test for clips in groups, or with several seeds a clip.

    With S the sum of A's hits less B's within a group (``a``, ``b``: hits, of several seeds the mean), (ΣS)² / ΣS² is
    χ² with one degree of freedom if no model is better: for single clips and one seed, (b - c)² / (b + c), McNemar's
    statistic without the continuity correction.
    """
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    sums = np.bincount(codes(groups, len(difference)), weights=difference)
    spread = float(np.square(sums).sum())
    return float(stats.chi2.sf(sums.sum() ** 2 / spread, 1)) if spread > 0 else 1.0


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Return Holm's adjusted p values (1979): below α, the chance of any false one among them is below α.

    None (no test) stays None and does not count.
    """
    there = sorted((value, n) for n, value in enumerate(p) if value is not None)
    out: list[float | None] = [None] * len(p)
    worst = 0.0
    for rank, (value, n) in enumerate(there):
        worst = max(worst, min(1.0, (len(there) - rank) * value))
        out[n] = worst
    return out
