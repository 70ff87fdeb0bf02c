"""What a table says across its rows and columns: averages, average ranks, the best number of a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import rankdata

from evar.averages import PAPER_RUNS, Term, average_of_printed, average_of_terms
from evar.statistics import Interval
from evar.tables import APART, BEST, QUOTED, SECOND, SEEN, Cell

MARKS = {"quoted": QUOTED, "not_zero_shot": SEEN}
"""Flags that stand at the number itself."""
NOT_COMPARED = {"incomplete", "not_comparable", "fitted_on_task"}
"""Flags of numbers that are neither best nor second: they are not of the same task, or not of the same protocol."""
AVERAGE_NOTE = (
    "average: ± by propagating the tasks' errors, in brackets the mean of the tasks' ± as in the papers; "
    "average and rank (1 is best) are of rows that have every task"
)


@dataclass
class Line:
    """A row in the making: a number per task, what is to be said per task, and where a published row comes from."""

    cells: dict[str, Cell] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    terms: dict[str, Term] = field(default_factory=dict)
    """Of a row of ours: each task's part in an average."""

    def note(self, tasks: Sequence[str]) -> str:
        """Return all notes, each with the tasks it holds for (left out where the table has one task)."""
        said: dict[str, list[str]] = {}
        for task in tasks:
            for text in self.notes.get(task, ()):
                said.setdefault(text, []).append(task)
        flags = [text if len(tasks) == 1 else f"{text} ({', '.join(where)})" for text, where in said.items()]
        return "; ".join([*flags, *dict.fromkeys(self.sources)])

    def average(self, tasks: Sequence[str]) -> Cell | None:
        """Return the average over ``tasks`` with both intervals; None if a task has no number."""
        if not all(task in self.cells for task in tasks):
            return None
        if self.terms:
            both, scale = average_of_terms([self.terms[task] for task in tasks]), 100.0
        else:
            cells = {task: self.cells[task] for task in tasks}
            scores = {task: cell.value for task, cell in cells.items()}
            both, scale = average_of_printed(scores, {t: c.half_width for t, c in cells.items()}, PAPER_RUNS), 1.0
        papers, proper = both
        marks = {mark for task in tasks for mark in self.cells[task].marks if mark in (SEEN, APART)}
        return Cell(scale * proper.point, _half(proper, scale), tuple(sorted(marks)), _half(papers, scale))


Rows = dict[str, Line]


def _half(interval: Interval, scale: float) -> float | None:
    return None if interval.half_width is None else scale * interval.half_width


def marks_of(flags: Sequence[str]) -> tuple[str, ...]:
    """Return the marks that a number has from its flags."""
    found = [mark for flag, mark in MARKS.items() if flag in flags]
    return tuple(found + [APART] * bool(NOT_COMPARED & set(flags)))


def groups_of_tasks(tasks: Sequence[str], rows: Rows, published: frozenset[str]) -> dict[str, list[str]]:
    """Return over which tasks averages are taken, by what is added to their columns' heads.

    All tasks; and where some of them, two at least, have a published number, those: a published row has no others.
    """
    papers = [task for task in tasks if any(task in rows[name].cells for name in published)]
    groups = {"": list(tasks)} if len(tasks) > 1 else {}
    if 1 < len(papers) < len(tasks):
        groups[f" of the papers' {len(papers)}"] = papers
    return groups


def summaries(tasks: Sequence[str], rows: Rows, published: frozenset[str]) -> dict[str, dict[str, Cell]]:
    """Return the columns that follow the tasks, head to row's name to number: averages and average ranks.

    A row that lacks one of the tasks has neither, since it would be compared over others; a column without any number
    is left out.
    """
    columns: dict[str, dict[str, Cell]] = {}
    for words, group in groups_of_tasks(tasks, rows, published).items():
        averages = {name: cell for name, line in rows.items() if (cell := line.average(group)) is not None}
        if averages:
            columns[f"average{words}"] = averages
        if len(averages) > 1:
            ranks = ranks_of({name: rows[name] for name in averages}, group)
            columns[f"rank{words}"] = {
                name: Cell(float(ranks[n].mean()), marks=cell.marks) for n, (name, cell) in enumerate(averages.items())
            }
    return columns


def ranks_of(rows: Rows, tasks: Sequence[str]) -> np.ndarray:
    """Return the rank of each row on each task, ``[rows, tasks]``, 1 the best; equal numbers share the mean rank."""
    values = np.array([[line.cells[task].value for task in tasks] for line in rows.values()])
    return np.asarray(rankdata(-values, axis=0))


def with_best(column: Mapping[str, Cell], *, lowest: bool = False) -> dict[str, Cell]:
    """Return a column with its best and second number marked.

    Numbers that look the same share the mark. What may not be compared (incomplete data, not zero-shot, …) is not
    marked, unless nothing else is there. One number alone is not the best, nor is the second of two marked.
    """
    fair = {name for name, cell in column.items() if not {SEEN, APART} & set(cell.marks)} or set(column)
    order = sorted({float(column[name].number()) for name in fair}, reverse=not lowest)
    marks = {order[0]: BEST} if len(fair) > 1 else {}
    if len(fair) > 2 and len(order) > 1:
        marks[order[1]] = SECOND

    def marked(name: str, cell: Cell) -> Cell:
        mark = marks.get(float(cell.number())) if name in fair else None
        return cell if mark is None else cell._replace(marks=(mark, *cell.marks))

    return {name: marked(name, cell) for name, cell in column.items()}
