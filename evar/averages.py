"""The average column of the papers' tables: its interval the papers' way, and by propagating the tasks' errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from evar.results import Result
from evar.statistics import Interval

NINE = ("esc50", "us8k", "spcv2", "vc1", "voxforge", "cremad", "gtzan", "nsynth", "surge")
"""The tasks of the papers' linear evaluation, over which their average is taken."""
PAPER_RUNS = 3
"""Runs behind each ± of the papers' tables."""
_NORMAL = float(stats.norm.ppf(0.975))


@dataclass(frozen=True)
class Term:
    """One task's part in an average, in the unit of the scores (fractions, or percent for printed figures)."""

    task: str
    score: float
    half_width: float | None
    """Half-width of the 95 % interval as reported; None where there is none."""
    centre: float
    """The middle of that interval; the score itself but for an interval with a bias correction (mAP)."""
    variance: float | None
    """Variance of the score; None where there is no interval."""
    freedom: float
    """Degrees of freedom of the variance; infinite for an interval over clips."""
    over: str
    """What the interval is over: seeds or clips; empty where there is none."""


def average_of(results: Sequence[Result], tasks: Sequence[str] = NINE) -> tuple[Interval, Interval]:
    """Return the average over ``tasks`` of one row's results, its interval ``(the papers' way, properly)``.

    Both have the same point: the plain mean of the tasks' scores. The papers' ± is the plain mean of the tasks'
    half-widths, those without one left out; it is no interval of the average. The proper one takes the tasks as
    independent: the variances add up, and Student's quantile has the Welch-Satterthwaite degrees of freedom (normal
    for intervals over clips). It needs an interval for every task, all over seeds or all over clips.

    Args:
        results: results of one model, one protocol; of several on one task the latest stands, as in the report.
        tasks: names of the tasks; the papers' nine.

    Returns:
        Fractions. Where a task has no result there is no average: the point is NaN, low and high are None, and the
        method names what is missing.
    """
    if not tasks:
        raise ValueError("an average needs at least one task")
    latest = {r["task"]: r for r in sorted(results, key=lambda r: r["created"])}
    missing = [name for name in tasks if name not in latest]
    if missing:
        none = Interval(math.nan, None, None, f"no average: no result of {', '.join(missing)}")
        return none, none
    return average_of_terms([term_of(latest[name]) for name in tasks])


def average_of_printed(
    scores: Mapping[str, float], half_widths: Mapping[str, float | None], runs: int = PAPER_RUNS
) -> tuple[Interval, Interval]:
    """Return what :func:`average_of` does for printed figures: task to score, task to ± (None or left out: none).

    A printed ± is taken for Student's over ``runs`` runs. Printed figures are rounded, so that ± 0.0 counts as no
    error at all; a mean of nine is off by less than the last digit.
    """
    terms = []
    for name, score in scores.items():
        half = half_widths.get(name)
        error = None if half is None else half / float(stats.t.ppf(0.975, runs - 1))
        variance = None if error is None else error**2
        terms.append(Term(name, score, half, score, variance, runs - 1, "" if half is None else "seeds"))
    return average_of_terms(terms)


def term_of(result: Result) -> Term:
    """Return a result's part in an average.

    A Student interval's variance comes from the runs themselves. Of an interval over clips it is the square of the
    half-width over the normal quantile (a little too large for mAP, whose interval has a Student quantile).
    """
    task, score, half = result["task"], float(result["mean"]), result["ci95"]
    if half is None:
        return Term(task, score, None, score, None, math.inf, "")
    if str(result["ci_method"]).startswith("Student"):
        runs = np.asarray(result["scores"], dtype=np.float64)
        return Term(task, score, half, score, float(runs.var(ddof=1) / len(runs)), len(runs) - 1, "seeds")
    return Term(task, score, half, _centre(result), (half / _NORMAL) ** 2, math.inf, "clips")


def _centre(result: Result) -> float:
    """Return the middle of a result's interval before its ends were cut to 0 … 1."""
    low, high, half = result["ci_low"], result["ci_high"], result["ci95"]
    if high < 1:
        return float(high - half)
    return float(low + half) if low > 0 else (low + high) / 2


def average_of_terms(terms: Sequence[Term]) -> tuple[Interval, Interval]:
    """Return ``(the papers' way, properly)``; see :func:`average_of`."""
    return _papers(terms), _propagated(terms)


def _papers(terms: Sequence[Term]) -> Interval:
    point = float(np.mean([term.score for term in terms]))
    halves = [term.half_width for term in terms if term.half_width is not None]
    if not halves:
        return Interval(point, None, None, "none: no task has an interval")
    half = float(np.mean(halves))
    which = f"{len(halves)} of {len(terms)} tasks" if len(halves) < len(terms) else f"{len(terms)} tasks"
    return Interval(point, point - half, point + half, f"mean of the ± of {which}, as in the papers")


def _propagated(terms: Sequence[Term]) -> Interval:
    point, count = float(np.mean([term.score for term in terms])), len(terms)
    without = [term.task for term in terms if term.variance is None]
    if without:
        return Interval(point, None, None, f"none: no interval for {', '.join(without)}")
    if len({term.over for term in terms}) > 1:
        kinds = {over: ", ".join(t.task for t in terms if t.over == over) for over in ("seeds", "clips")}
        return Interval(point, None, None, f"none: over seeds ({kinds['seeds']}) and over clips ({kinds['clips']})")
    variances = np.array([term.variance for term in terms], dtype=np.float64)
    centre, half = float(np.mean([term.centre for term in terms])), 0.0
    if variances.sum() > 0:
        doubt = float((variances**2 / [term.freedom for term in terms]).sum())
        quantile = float(stats.t.ppf(0.975, variances.sum() ** 2 / doubt)) if doubt > 0 else _NORMAL
        half = quantile * float(np.sqrt(variances.sum())) / count
    return Interval(point, centre - half, centre + half, f"{count} tasks' errors propagated, over {terms[0].over}")
