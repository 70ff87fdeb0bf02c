"""A plan against what is there: how each cell stands, the open ones run, the tables and the failures told."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path

from evar.errors import UserError
from evar.grid import journal
from evar.grid.cell import Outcome, RunSettings
from evar.grid.plan import Batch, Cell, batches_of
from evar.grid.show import Line, Progress, by_reason, no_data
from evar.grid.timings import timings_of
from evar.index import locate
from evar.progress import say
from evar.results import Result, read_result
from tasks.base import Task


def lines_of(cells: Sequence[Cell], settings: RunSettings, tasks: Mapping[str, Task]) -> list[Line]:
    """Return how every cell stands, and how long it is expected to take."""
    entries = journal.read_journal(settings.results)
    timings = timings_of(settings.results, entries, tasks)
    absent = {name: missing_data(task, settings.root) for name, task in tasks.items()}
    lines = []
    for cell in cells:
        entry = entries.get(cell.key)
        stamp = journal.stamp_of(cell, settings.root)
        state: str = journal.standing(settings.results, cell, entry, stamp)
        reason = entry.reason if entry is not None and state == "failed" else ""
        if state in ("missing", "failed") and absent[cell.task]:
            state, reason = "no data", absent[cell.task]
        lines.append(Line(cell, state, timings.expected(cell), reason))
    return lines


def missing_data(task: Task, root: Path | None) -> str:
    """Return where a task's data are expected and how to get them; empty if they are there (or are made)."""
    if task.generate is not None:
        return ""
    try:
        locate(task, root)
    except UserError as error:
        return str(error)
    return ""


def run(
    lines: Sequence[Line],
    settings: RunSettings,
    launcher: Callable[[Sequence[Batch], RunSettings], Iterator[Outcome]],
    *,
    retry: bool = True,
) -> dict[str, Outcome]:
    """Run what is open, say a line for each cell that ends, and return the outcomes by the cells' keys."""
    states = {"missing", "running"} | ({"failed"} if retry else set()) | ({"done"} if settings.force else set())
    to_do = [line for line in lines if line.state in states]
    found: dict[str, Outcome] = {}
    if not to_do:
        return found
    progress = Progress(to_do, settings.workers)
    outcomes = launcher(batches_of(line.cell for line in to_do), settings)
    try:
        for outcome in outcomes:
            found[outcome.cell.key] = outcome
            progress.tell(outcome)
    finally:  # on Ctrl-C the launcher ends its commands now, and not when it is collected
        if isinstance(outcomes, Generator):
            outcomes.close()
    return found


def tell(lines: Sequence[Line], outcomes: Mapping[str, Outcome], folder: Path) -> bool:
    """Print the tables of the plan's results and say what failed; return whether anything did."""
    entries = journal.read_journal(folder)
    results: list[Result] = []
    failed = []
    for line in lines:
        entry, outcome = entries.get(line.cell.key), outcomes.get(line.cell.key)
        if outcome is not None and outcome.state != "done":
            failed.append((line.cell.name, outcome.reason or outcome.state))
        elif line.state == "failed" and outcome is None:
            failed.append((line.cell.name, f"{line.reason} (before; not tried again)"))
        elif line.state != "no data" and entry is not None and entry.result:
            try:
                results.append(read_result(folder / entry.result))
            except UserError as error:  # damaged since; the other tables are no less worth showing
                failed.append((line.cell.name, str(error)))
    if results:
        from evar.report import print_results  # it loads torch, which a plan does without

        print_results(list({result["run_id"]: result for result in results}.values()))
    absent = no_data(lines)
    if failed:
        say("\n".join([f"failed, {len(failed)} of {len(lines)} (the same command tries again):", *by_reason(failed)]))
    if absent:
        say("\n".join(["not run, the data are not here:", *absent]))
    return bool(failed or absent)
