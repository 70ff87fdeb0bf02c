"""One cell, run by its protocol's command in a process of its own, and what became of it written down.

A crash, a kill or a lack of memory takes that cell alone. Whoever runs a cell holds its lock, so that several grids on
one results folder never run one cell twice.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from evar.grid import journal, process
from evar.grid.plan import Cell
from evar.progress import say
from evar.results import now

GRACE = process.GRACE
"""Seconds that an interrupted command has to end by itself."""
State = Literal["done", "failed", "busy", "interrupted"]


@dataclass(frozen=True)
class RunSettings:
    """Where and with what the cells are run; nothing here changes a score."""

    results: Path
    root: Path | None = None
    device: str = "auto"
    workers: int = 1
    """How many cells (batches) at once."""
    cpus_per_cell: int = 1
    gpus_per_cell: float = 0.0
    extra: Mapping[str, str] = field(default_factory=dict)
    """What a launcher takes beside (partition, address …)."""
    force: bool = False
    """Run again what is there."""
    folder: Path = field(default_factory=Path.cwd)
    """The folder in which the commands run: paths on the command line are relative to it."""

    def words(self) -> tuple[str, ...]:
        """Return the options that every command gets."""
        root = () if self.root is None else (f"--root={self.root}",)
        force = ("--force",) if self.force else ()
        return (
            f"--results={self.results}",
            *root,
            f"--device={self.device}",
            f"--workers={self.cpus_per_cell}",
            *force,
        )


@dataclass(frozen=True)
class Outcome:
    """What became of a cell."""

    cell: Cell
    state: State
    reason: str = ""
    seconds: float = 0.0
    result: str = ""
    """Name of the result file in the results folder."""
    score: float | None = None
    there: bool = False
    """It was done already."""


def run_batch(
    batch: Sequence[Cell],
    settings: RunSettings,
    environment: Mapping[str, str] | None = None,
    *,
    stop: threading.Event | None = None,
) -> Iterator[Outcome]:
    """Run the cells of a batch one after the other; those that another grid is at come last and are waited for."""
    busy = []
    for cell in batch:
        outcome = run_cell(cell, settings, environment, stop=stop, wait=False)
        if outcome.state == "busy":
            busy.append(cell)
        else:
            yield outcome
    for cell in busy:
        yield run_cell(cell, settings, environment, stop=stop)


def run_cell(
    cell: Cell,
    settings: RunSettings,
    environment: Mapping[str, str] | None = None,
    *,
    stop: threading.Event | None = None,
    wait: bool = True,
) -> Outcome:
    """Run a cell unless it is done, and return what became of it; a failure is an outcome, not an exception.

    Args:
        cell: what to run.
        settings: where.
        environment: further variables for the command (``CUDA_VISIBLE_DEVICES``).
        stop: once set, the command is ended and the outcome is ``interrupted``.
        wait: wait for a cell that another grid is at; else its outcome is ``busy``.

    A ``KeyboardInterrupt`` ends the command too, and goes on.
    """
    lock = journal.cell_lock(settings.results, cell)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            return Outcome(cell, "busy")
        say(f"another grid is at {cell.name}; waiting for it")
        if not _waited(lock, stop):
            return Outcome(cell, "interrupted")
        settings = replace(settings, force=False)  # what the other one has just done is fresh
    try:
        return _run(cell, settings, environment or {}, stop or threading.Event())
    finally:
        lock.release()


def _waited(lock: FileLock, stop: threading.Event | None) -> bool:
    while stop is None or not stop.is_set():
        with suppress(Timeout):
            lock.acquire(timeout=1)
            return True
    return False


def _run(cell: Cell, settings: RunSettings, environment: Mapping[str, str], stop: threading.Event) -> Outcome:
    results, stamp = settings.results, journal.stamp_of(cell, settings.root)
    before = journal.read_entry(journal.entry_path(results, cell.key))
    if before is not None and not settings.force and journal.standing(results, cell, before, stamp) == "done":
        return Outcome(cell, "done", seconds=before.seconds, result=before.result, there=True)
    if stop.is_set():
        return Outcome(cell, "interrupted")
    entry = journal.Entry(
        "running", cell.words, cell.model, cell.weights, cell.task, cell.protocol, cell.options, stamp=stamp,
        host=socket.gethostname(), pid=os.getpid(), process_start=journal.process_start(os.getpid()) or "",
        created=now(),
    )  # fmt: skip
    journal.write_entry(results, cell, entry)
    begin = time.monotonic()
    try:
        code = _command(cell, settings, environment, stop)
    except BaseException:
        journal.remove_entry(results, cell)
        raise
    if code is None:
        journal.remove_entry(results, cell)
        return Outcome(cell, "interrupted")
    outcome = _outcome(cell, results, code, round(time.monotonic() - begin, 3))
    work = _work(results / outcome.result) if outcome.result else None
    kept = replace(entry, seconds=outcome.seconds, reason=outcome.reason, result=outcome.result, there=outcome.there)
    state: Any = outcome.state
    journal.write_entry(results, cell, replace(kept, state=state, work=work))
    return outcome


def record_path(results: Path, cell: Cell) -> Path:
    """Return where the cell's process says which result file is its own."""
    return journal.journal_folder(results) / f"{cell.key}.record"


def log_path(results: Path, cell: Cell) -> Path:
    """Return where the command's stderr is kept."""
    return journal.journal_folder(results) / f"{cell.key}.log"


def _command(cell: Cell, settings: RunSettings, environment: Mapping[str, str], stop: threading.Event) -> int | None:
    """Run the cell's command to its end and return its exit code; None if it was stopped."""
    record = record_path(settings.results, cell).absolute()
    record.unlink(missing_ok=True)
    line = process.command_line(record, [*cell.words, *settings.words()])
    threads = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(settings.cpus_per_cell)}
    log = log_path(settings.results, cell)
    return process.run_command(line, settings.folder, log, {**threads, **environment}, stop)


def _outcome(cell: Cell, results: Path, code: int, seconds: float) -> Outcome:
    if code != 0:
        return Outcome(cell, "failed", process.reason_of(code, log_path(results, cell)), seconds)
    try:
        record = json.loads(record_path(results, cell).read_text(encoding="utf-8"))
        name, score, there = Path(record["path"]).name, float(record["mean"]), bool(record["there"])
    except (OSError, ValueError, KeyError, TypeError):
        return Outcome(cell, "failed", "the command ended well but left no result", seconds)
    finally:
        record_path(results, cell).unlink(missing_ok=True)
    return Outcome(cell, "done", seconds=seconds, result=name, score=score, there=there)


def _work(path: Path) -> float | None:
    """Return the seconds of the work itself, as a result's timings say."""
    try:
        timings = json.loads(path.read_text(encoding="utf-8"))["timings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return work_seconds(timings)


def work_seconds(timings: Mapping[str, Any]) -> float | None:
    """Return the wall-clock seconds that a result's ``timings`` add up to."""
    if "total" in timings:
        return float(timings["total"])
    parts = [timings[name] for name in ("embedding", "probe") if name in timings]
    return float(sum(parts)) if parts else None
