"""What the grid prints: the plan, a line per finished cell, what failed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evar.grid.cell import Outcome
from evar.grid.plan import Cell, LeftOut
from evar.grid.timings import Expected
from evar.progress import say

HEADS = ("model", "task", "protocol", "state", "expected", "from")
STATES = ("done", "running", "failed", "no data", "missing")
NOT_THERE = "{} is not at "
"""How evar.index says that a data set is not there."""


@dataclass(frozen=True)
class Line:
    """A cell as the plan shows it."""

    cell: Cell
    state: str
    """One of :data:`STATES`."""
    expected: Expected
    reason: str = ""


def duration(seconds: float | None) -> str:
    """Return seconds as people say them: ``12 s``, ``3 min``, ``2 h 05``, ``3 d 4 h``."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    return f"{minutes // 60} h {minutes % 60:02d}" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def plan_text(lines: Sequence[Line], left_out: Sequence[LeftOut], at_once: int) -> str:
    """Return the plan as a table, what is left out, and what it comes to."""
    shared = shared_options([line.cell for line in lines])
    rows = [HEADS, *(_row(line, shared[line.cell.protocol]) for line in lines)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEADS))]
    text = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    failed = by_reason((line.cell.name, line.reason) for line in lines if line.state == "failed")
    parts = ["\n".join(text)]
    parts += [f"{protocol}: {_listed(options)}" for protocol, options in shared.items() if options]
    if failed:
        parts.append("\n".join(["failed before:", *failed]))
    if any(line.state == "no data" for line in lines):
        parts.append("\n".join(["data that are not here:", *no_data(lines)]))
    if left_out:
        parts.append("\n".join(["left out:", *left_out_lines(left_out)]))
    return "\n\n".join([*parts, summary(lines, at_once)])


def shared_options(cells: Iterable[Cell]) -> dict[str, frozenset[tuple[str, str]]]:
    """Return the options that all cells of a protocol have, by protocol: they need not stand in every row."""
    found: dict[str, frozenset[tuple[str, str]]] = {}
    for cell in cells:
        found[cell.protocol] = found.get(cell.protocol, frozenset(cell.options)) & frozenset(cell.options)
    return found


def _listed(options: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name}={text}" for name, text in sorted(options))


def _row(line: Line, shared: frozenset[tuple[str, str]]) -> tuple[str, ...]:
    cell = line.cell
    weights = "" if cell.weights is None else f" [{Path(cell.weights).name}]"
    own = _listed(set(cell.options) - shared)
    expected = duration(line.expected.seconds) if is_open(line) else "-"
    basis = line.expected.basis if is_open(line) and line.expected.seconds is not None else ""
    protocol = cell.protocol + (f" ({own})" if own else "")
    return cell.model + weights, cell.task, protocol, line.state, expected, basis


def summary(lines: Sequence[Line], at_once: int) -> str:
    """Return a line on how many cells stand how, and the time they take together."""
    count = Counter(line.state for line in lines)
    states = ", ".join(f"{count[state]} {state}" for state in STATES if count[state])
    return f"{_cells(len(lines))}: {states or 'none'}; {remaining([line for line in lines if is_open(line)], at_once)}"


def is_open(line: Line) -> bool:
    """Say whether the cell is still to be run."""
    return line.state in ("missing", "failed")


def remaining(lines: Sequence[Line], at_once: int) -> str:
    """Return the expected time of the cells in words."""
    known = [line.expected.seconds for line in lines if line.expected.seconds is not None]
    unknown = len(lines) - len(known)
    if not lines:
        return "nothing to do"
    if not known:
        return "how long it takes is not known yet"
    together = f" with {at_once} at once" if at_once > 1 else ""
    text = f"about {duration(sum(known) / max(1, min(at_once, len(lines))))} to go{together}"
    return text + (f", and {unknown} of unknown length" if unknown else "")


def no_data(lines: Iterable[Line]) -> list[str]:
    """Return what data are not here, how many cells they take along, and how to get them."""
    count = Counter(line.cell.task for line in lines if line.state == "no data")
    reasons = {line.cell.task: line.reason for line in lines if line.state == "no data"}
    absent = [task for task in count if reasons[task].startswith(NOT_THERE.format(task))]
    found = [f"  {reasons[task]} ({_cells(count[task])})" for task in count if task not in absent or len(absent) == 1]
    if len(absent) > 1:
        names = ", ".join(f"{task} ({_cells(count[task])})" for task in absent)
        found.append(
            f"  {names}: fetch them with `python -m evar.prepare {','.join(absent)}`, or say where: --root=DIR"
        )
    return found


def _cells(number: int) -> str:
    return f"{number} cell{'s' * (number != 1)}"


def left_out_lines(left_out: Iterable[LeftOut]) -> list[str]:
    """Return what is left out by reason, a line each, with some of the names."""
    return by_reason(((one.name, one.reason) for one in left_out), shown=3)


def by_reason(pairs: Iterable[tuple[str, str]], shown: int | None = None) -> list[str]:
    """Return ``(name, reason)`` pairs as a line for each reason, with all names or the first ``shown``."""
    names: dict[str, list[str]] = {}
    for name, reason in pairs:
        names.setdefault(reason, []).append(name)
    lines = []
    for reason, of_reason in names.items():
        more = len(of_reason) - (shown or len(of_reason))
        listed = ", ".join(of_reason[:shown]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"  {reason}: {listed}" if shown else f"  {listed}: {reason}")
    return lines


class Progress:
    """Says a line for each cell that ends, with what is left."""

    def __init__(self, lines: Sequence[Line], at_once: int) -> None:
        self.open: Mapping[str, Line] = {line.cell.key: line for line in lines}
        self.left = dict(self.open)
        self.at_once = at_once
        self.begin = time.monotonic()

    def tell(self, outcome: Outcome) -> None:
        """Say what became of a cell."""
        self.left.pop(outcome.cell.key, None)
        number = f"[{len(self.open) - len(self.left)}/{len(self.open)}]"
        if outcome.state == "failed":
            what = f"failed: {outcome.reason}"
        elif outcome.state == "done":
            score = "" if outcome.score is None else f"{100 * outcome.score:.2f} % "
            what = f"{score}({'already there' if outcome.there else duration(outcome.seconds)})"
        else:
            what = outcome.state
        say(f"{number} {outcome.cell.name}: {what}{f'; {self._rest()}' if self.left else ''}")

    def _rest(self) -> str:
        """Return the time to go: as expected, or where that is not known, as it went so far."""
        if all(line.expected.seconds is not None for line in self.left.values()):
            return remaining(list(self.left.values()), self.at_once)
        each = (time.monotonic() - self.begin) / (len(self.open) - len(self.left))
        return f"about {duration(each * len(self.left))} to go, if they are like those so far"
