"""The average column: every published one recomputed, the two intervals, what is missing, coverage by simulation."""

import csv
import math
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from golden import needs_shared, shared
from scipy import stats

from evar.averages import NINE, Term, average_of, average_of_printed, average_of_terms, term_of
from evar.paper import published
from evar.statistics import bootstrap_accuracy, bounded, map_interval, student_t
from tasks.base import all_tasks

TABLE3 = "M2D-CLAP, Interspeech 2024, Table 3"
COMPLETE = (
    "CED", "BEATs_iter3", "BEATs_iter3+", "ATST-Clip", "ATST-Frame", "HTS-AT", "LAION-CLAP", "CLAP_2022", "CLAP_2023",
    "WavCaps", "MSM-MAE/0.75", "M2D/0.6", "M2D/0.7", "M2D-CLAP/0.7",
)  # fmt: skip
"""The rows of Table 3 that have all nine tasks: all but Pengi's."""


def printed(value):
    """Return a number as a table prints it: one decimal, halves up (after the noise of binary sums)."""
    return float(Decimal(f"{value:.9f}").quantize(Decimal("0.1"), ROUND_HALF_UP))


def rows_with_average(table):
    """Yield ``(source, model, {task: score}, {task: ±}, average, its ±)`` of every row that has an average."""
    of_probe = table[(table["protocol"] == "lineareval") & table["value"].notna()]
    for (source, model), rows in of_probe.groupby(["source", "model"], sort=False):
        rows = rows.set_index("task")
        if "Avg" in rows.index:
            average = rows.loc["Avg"]
            rows = rows.drop("Avg")
            yield (
                source,
                model,
                rows["value"].to_dict(),
                rows["ci95"].dropna().to_dict(),
                average["value"],
                average["ci95"],
            )


def test_every_average_and_interval_of_table_3_is_recomputed():
    found = {}
    for source, model, scores, halves, average, half in rows_with_average(published()):
        if source == TABLE3:
            papers, _ = average_of_printed(scores, halves)
            assert len(scores) == 9
            found[model] = (printed(papers.point), printed(papers.half_width)) == (average, half)
    assert found == dict.fromkeys(COMPLETE, True)


def test_pengi_has_no_average_for_it_lacks_tasks():
    rows = published()
    pengi = rows[(rows["source"] == TABLE3) & (rows["model"] == "Pengi")]
    assert 0 < len(pengi) < 9 and "Avg" not in set(pengi["task"])


@needs_shared
def test_the_fact_sheet_says_the_same():
    with (shared() / "spec" / "paper_tables.csv").open() as handle:
        rows = [row for row in csv.DictReader(handle) if row["table"] == "Table3" and row["value"]]
    checked = []
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = {row["task"]: row for row in rows if row["model"] == model}
        if "Avg" in mine:
            average = mine.pop("Avg")
            halves = {task: float(row["ci"]) for task, row in mine.items() if row["ci"]}
            papers, _ = average_of_printed({task: float(row["value"]) for task, row in mine.items()}, halves)
            assert printed(papers.point) == float(average["value"]), model
            assert printed(papers.half_width) == float(average["ci"]), model
            checked.append(model)
    assert tuple(checked) == COMPLETE


def test_the_other_sources_agree_but_for_one_rounding():
    """EVAR's README prints 70.0 for EAT base; the mean of its nine printed figures is 70.06.

    Nine figures rounded to 0.1 leave their mean uncertain by 0.05, so that 70.0 can be the mean of the unrounded ones.
    """
    apart = {}
    for _source, model, scores, halves, average, _ in rows_with_average(published()):
        papers, _ = average_of_printed(scores, halves)
        assert abs(papers.point - average) <= 0.1 + 1e-9, model
        if printed(papers.point) != average:
            apart[model] = (average, round(papers.point, 3))
    assert apart == {"EAT base": (70.0, 70.056)}


def test_the_nine_are_the_papers_columns():
    names = {name: task.name for task in all_tasks().values() for name in task.paper_name.split("|") if name}
    rows = published()
    columns = rows[(rows["source"] == TABLE3) & (rows["task"] != "Avg")]["task"].drop_duplicates()
    assert tuple(names[column] for column in columns) == NINE


def test_a_quoted_score_has_no_interval_so_the_proper_average_has_none():
    papers, proper = average_of_printed({"a": 80.0, "b": 70.0}, {"a": 1.0})
    assert (papers.point, papers.half_width) == (75.0, 1.0) and "1 of 2 tasks" in papers.method
    assert proper.point == 75.0 and proper.half_width is None and "b" in proper.method


def test_the_published_intervals_of_averages_are_far_too_wide():
    ratios = []
    for source, _, scores, halves, *_ in rows_with_average(published()):
        papers, proper = average_of_printed(scores, halves)
        if source == TABLE3 and proper.half_width is not None:
            ratios.append(papers.half_width / proper.half_width)
    assert len(ratios) == 11
    assert min(ratios) > 1.2 and np.median(ratios) > 3


def seeds(task, scores, created="2026-01-01"):
    low, high, half = bounded(student_t(scores))
    method = f"Student t over {len(scores)} seeds" if half is not None else None
    return {
        "task": task, "mean": float(np.mean(scores)), "scores": list(scores), "ci95": half, "ci_low": low,
        "ci_high": high, "ci_method": method, "created": created,
    }  # fmt: skip


def over_clips(task, interval):
    low, high, half = bounded(interval)
    return seeds(task, [interval.point]) | {
        "ci95": half, "ci_low": low, "ci_high": high, "ci_method": interval.method
    }  # fmt: skip


def test_two_tasks_over_seeds_are_welchs_interval():
    x, y = [0.81, 0.84, 0.80], [0.55, 0.70, 0.61]
    papers, proper = average_of([seeds("x", x), seeds("y", y)], ("x", "y"))
    welch = stats.ttest_ind(x, -np.array(y), equal_var=False).confidence_interval(0.95)
    assert (proper.low, proper.high) == pytest.approx((welch.low / 2, welch.high / 2))
    assert papers.half_width == pytest.approx((student_t(x).half_width + student_t(y).half_width) / 2)
    assert proper.method == "2 tasks' errors propagated, over seeds"
    assert papers.method == "mean of the ± of 2 tasks, as in the papers"
    one = average_of([seeds("x", x)], ("x",))
    assert one[0].half_width == pytest.approx(student_t(x).half_width) == pytest.approx(one[1].half_width)


def test_over_clips_variances_add_up_and_the_maps_correction_stays():
    stream = np.random.default_rng(0)
    hits = stream.random(500) < 0.7
    targets = stream.random((300, 10)) < 0.1
    maps = map_interval(stream.normal(size=targets.shape) + targets, targets)
    found = [over_clips("a", bootstrap_accuracy(hits)), over_clips("m", maps)]
    _, proper = average_of(found, ("a", "m"))
    assert proper.half_width == pytest.approx(np.hypot(found[0]["ci95"], found[1]["ci95"]) / 2)
    centre = (maps.low + maps.high) / 2
    assert term_of(found[1]).centre == pytest.approx(centre) and centre < maps.point
    high = over_clips("h", bootstrap_accuracy(np.arange(100) > 1))
    assert high["ci_high"] == 1 or term_of(high).centre == pytest.approx((high["ci_low"] + high["ci_high"]) / 2)


def test_a_missing_task_means_no_average():
    for interval in average_of([seeds("x", [0.8, 0.9])], ("x", "y", "z")):
        assert math.isnan(interval.point) and interval.half_width is None
        assert interval.method == "no average: no result of y, z"
    with pytest.raises(ValueError, match="at least one task"):
        average_of([], ())


def test_intervals_over_seeds_and_over_clips_are_not_mixed():
    found = [seeds("x", [0.8, 0.9, 0.85]), over_clips("y", bootstrap_accuracy(np.arange(100) < 70))]
    papers, proper = average_of(found, ("x", "y"))
    assert papers.half_width is not None and proper.half_width is None
    assert proper.method == "none: over seeds (x) and over clips (y)"


def test_of_two_results_the_later_one_stands_and_one_run_has_no_interval():
    found = [seeds("x", [0.9, 0.8], "2026-02-01"), seeds("x", [0.1, 0.2], "2026-01-01"), seeds("y", [0.5])]
    papers, proper = average_of(found, ("x", "y"))
    assert papers.point == pytest.approx((0.85 + 0.5) / 2)
    assert proper.half_width is None and "y" in proper.method
    none = average_of(found[2:], ("y",))
    assert none[0].half_width is None and none[0].method == "none: no task has an interval"


def test_runs_without_any_spread_have_an_interval_of_no_length():
    _, proper = average_of_printed({"a": 97.6, "b": 32.8}, {"a": 0.0, "b": 0.0})
    assert proper.half_width == 0.0


@pytest.mark.parametrize("spread", ["equal", "one large"])
def test_the_proper_interval_covers_and_the_papers_is_far_too_wide(spread):
    """Nine tasks of three runs: the deviations of CED in Table 3 (GTZAN ± 15.4), and equal ones."""
    halves = [0.5, 0.2, 0.3, 0.2, 0.1, 1.3, 15.4, 0.5, 0.6]
    deviations = np.array(halves) / 2.484 / 100 if spread == "one large" else np.full(9, 0.004)
    truth = np.linspace(0.4, 0.9, 9)
    stream = np.random.default_rng(1)
    covered = {"papers": [], "proper": []}
    for _ in range(2000):
        runs = truth[:, None] + deviations[:, None] * stream.normal(size=(9, 3))
        spreads = runs.std(axis=1, ddof=1) / np.sqrt(3)
        half_widths = stats.t.ppf(0.975, 2) * spreads
        terms = [
            Term(f"t{k}", m, h, m, s**2, 2, "seeds")
            for k, (m, h, s) in enumerate(zip(runs.mean(axis=1), half_widths, spreads, strict=True))
        ]
        for name, interval in zip(covered, average_of_terms(terms), strict=True):
            covered[name].append(interval.low <= truth.mean() <= interval.high)
    assert 0.93 <= np.mean(covered["proper"]) <= 0.97
    if spread == "equal":
        assert np.mean(covered["papers"]) > 0.999


def test_the_average_of_clip_intervals_covers():
    stream = np.random.default_rng(2)
    truth = np.array([0.6, 0.8, 0.95])
    covered = []
    for trial in range(400):
        found = [
            over_clips(f"t{k}", bootstrap_accuracy(stream.random(n) < p, draws=500, seed=trial))
            for k, (n, p) in enumerate(zip((100, 300, 800), truth, strict=True))
        ]
        _, proper = average_of(found, ("t0", "t1", "t2"))
        covered.append(proper.low <= truth.mean() <= proper.high)
    assert 0.93 <= np.mean(covered) <= 0.97
