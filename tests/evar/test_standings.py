"""Averages, ranks and the best of a column, on small tables that can be reckoned by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evar.averages import term_of
from evar.report import tables_of
from evar.standings import Line, marks_of, ranks_of, summaries, with_best
from evar.tables import APART, BEST, QUOTED, SECOND, SEEN, Cell


def marks(column):
    return {name: tuple(cell.marks) for name, cell in with_best(column).items()}


def test_the_best_and_the_second_are_marked():
    found = marks({"a": Cell(70.0), "b": Cell(90.0), "c": Cell(80.0)})
    assert found == {"a": (), "b": (BEST,), "c": (SECOND,)}


def test_numbers_that_look_the_same_share_a_mark():
    found = marks({"a": Cell(90.04), "b": Cell(90.01), "c": Cell(80.0)})
    assert found == {"a": (BEST,), "b": (BEST,), "c": (SECOND,)}


def test_one_number_is_not_the_best_nor_is_the_other_of_two_the_second():
    assert marks({"a": Cell(70.0)}) == {"a": ()}
    assert marks({"a": Cell(70.0), "b": Cell(60.0)}) == {"a": (BEST,), "b": ()}


def test_what_may_not_be_compared_is_not_marked():
    seen, apart = Cell(99.0, marks=(SEEN,)), Cell(98.0, marks=(APART,))
    assert marks({"a": seen, "b": apart, "c": Cell(50.0), "d": Cell(40.0)}) == {
        "a": (SEEN,), "b": (APART,), "c": (BEST,), "d": ()
    }  # fmt: skip
    assert marks({"a": seen, "b": apart})["a"] == (BEST, SEEN), "unless nothing else is there"


def test_of_ranks_the_lowest_is_the_best():
    found = with_best({"a": Cell(1.5), "b": Cell(3.0), "c": Cell(1.4)}, lowest=True)
    assert found["c"].marks == (BEST,) and found["a"].marks == (SECOND,)


@given(st.dictionaries(st.text(min_size=1), st.floats(0, 100), min_size=1, max_size=8))
def test_marking_changes_no_number_and_marks_the_highest(values):
    column = {name: Cell(value) for name, value in values.items()}
    found = with_best(column)
    assert {name: cell.value for name, cell in found.items()} == values
    best = [name for name, cell in found.items() if BEST in cell.marks]
    assert (max(values, key=values.__getitem__) in best) == (len(values) > 1)


def test_flags_become_marks():
    assert marks_of(["quoted", "distilled"]) == (QUOTED,)
    assert marks_of(["not_zero_shot", "incomplete"]) == (SEEN, APART)


def line(**values):
    return Line({task: Cell(value, 1.0) for task, value in values.items()})


def test_averages_and_ranks_are_of_rows_that_have_every_task():
    rows = {"a": line(x=80.0, y=40.0), "b": line(x=60.0, y=70.0), "c": line(x=99.0)}
    found = summaries(["x", "y"], rows, frozenset())
    assert {name: cell.value for name, cell in found["average"].items()} == {"a": 60.0, "b": 65.0}
    assert {name: cell.value for name, cell in found["rank"].items()} == {"a": 1.5, "b": 1.5}
    assert found["average"]["a"].papers_half == pytest.approx(1.0), "the papers' ±: the mean of the tasks'"


def test_where_the_papers_have_only_some_tasks_these_have_an_average_of_their_own():
    rows = {"mine": line(x=80.0, y=40.0, z=10.0), "[theirs]": line(x=60.0, y=70.0)}
    found = summaries(["x", "y", "z"], rows, frozenset({"[theirs]"}))
    assert set(found) == {"average", "average of the papers' 2", "rank of the papers' 2"}
    assert set(found["average of the papers' 2"]) == {"mine", "[theirs]"}


def test_equal_numbers_share_the_mean_rank():
    ranks = ranks_of({"a": line(x=80.0), "b": line(x=80.0), "c": line(x=90.0)}, ["x"])
    assert ranks.ravel().tolist() == [2.5, 2.5, 1.0]


def result(model, task, mean, **others):
    base = {"model": model, "task": task, "protocol": "lineareval", "metric": "accuracy", "mean": mean, "ci95": 0.02}
    base |= {"ci_low": mean - 0.02, "ci_high": mean + 0.02, "ci_method": "Student t over 3 seeds", "flags": []}
    base |= {"scores": [mean - 0.01, mean, mean + 0.01], "settings": {}, "weights": {"given": None, "sha256": ""}}
    return base | {"created": "2026-01-01"} | others


def test_the_average_of_our_rows_comes_from_the_runs_themselves():
    results = [result("m", "esc50", 0.8), result("m", "us8k", 0.6)]
    (table,) = tables_of(results, paper="none")
    assert table.heads == ("model", "esc50", "us8k", "average", "notes")
    average = table.rows[0][1][2]
    assert average is not None and average.value == pytest.approx(70.0)
    variance = term_of(results[0]).variance
    assert variance == pytest.approx(0.01**2 / 3)
    # two equal variances, 4 degrees of freedom: 2.776 sqrt(2 v) / 2
    assert average.half_width == pytest.approx(100 * 2.7764451 * (2 * variance) ** 0.5 / 2)


def test_published_rows_are_known_as_such_and_quoted_ones_marked():
    (table,) = tables_of([result("m", "esc50", 0.8)], paper="all")
    names = [name for name, _, _ in table.rows]
    assert table.published == {name for name in names if name != "m"} and len(names) > 20
    assert any(cells[0] and QUOTED in cells[0].marks for _, cells, _ in table.rows)
