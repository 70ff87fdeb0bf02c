"""What a batch needs on another host, whichever launcher brought it there.

All hosts must see the results folder at the same path. A worker that does not see it says so instead of leaving results
on a disk where nobody finds them.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import Timeout

import evar
from evar.errors import UserError
from evar.grid import journal
from evar.grid.cell import Outcome, RunSettings, run_batch, run_cell
from evar.grid.plan import Batch, Cell
from evar.results import now
from evar.store import look_again, write_atomically

PASSED = ("EVAR_", "HF_", "TRANSFORMERS_", "TORCH_", "OMP_", "MKL_")
"""Variables that begin so are handed to the workers: where things lie, whether hubs may be asked, threads."""
PATIENCE = 60.0
"""Seconds until a file that another host has written must be seen (NFS remembers for so long what was not there)."""


@dataclass(frozen=True)
class Launch:
    """One call of a launcher, as its workers must know it."""

    settings: RunSettings
    """With absolute paths."""
    before: Mapping[str, journal.Entry | None]
    """The cells' entries when it began: what has changed since is of this launch."""
    sign: Path
    """A file in the results folder by which a worker sees that it has the same folder before it."""


def launch_of(cells: Iterable[Cell], settings: RunSettings) -> Launch:
    """Prepare a launch: paths made absolute, the journal as it stands, the sign written."""
    folder = settings.folder.absolute()
    root = None if settings.root is None else folder / settings.root.expanduser()
    settings = replace(settings, folder=folder, results=folder / settings.results.expanduser(), root=root)
    before = {cell.key: entry_of(settings.results, cell) for cell in cells}
    sign = journal.journal_folder(settings.results) / f"launch-{uuid.uuid4().hex[:12]}"
    write_atomically(sign, f"{socket.gethostname()} {now()}\n")
    return Launch(settings, before, sign)


def still_to_do(batches: Sequence[Batch], launch: Launch) -> tuple[list[Outcome], list[Batch]]:
    """Return ``(outcomes of the cells that are done already, the batches without them)``."""
    done, rest = [], []
    for batch in batches:
        left = []
        for cell in batch:
            entry = None if launch.settings.force else launch.before[cell.key]
            if entry is not None and _is_done(cell, entry, launch.settings):
                done.append(replace(outcome_of(cell, entry, launch.settings.results), there=True))
            else:
                left.append(cell)
        if left:
            rest.append(tuple(left))
    return done, rest


def _is_done(cell: Cell, entry: journal.Entry, settings: RunSettings) -> bool:
    return journal.standing(settings.results, cell, entry, journal.stamp_of(cell, settings.root)) == "done"


def entry_of(results: Path, cell: Cell) -> journal.Entry | None:
    """Return the cell's entry in the journal, or None."""
    return journal.read_entry(journal.entry_path(results, cell.key))


def environment() -> dict[str, str]:
    """Return the variables that a worker on another host needs: this code's place, and those in :data:`PASSED`."""
    home = Path(evar.__file__).resolve().parent.parent
    own = [] if home.name in ("site-packages", "dist-packages") else [str(home)]
    given = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part not in own]
    secret = ("TOKEN", "SECRET", "PASSWORD", "KEY")  # not into a job's script, which others may read
    found = {n: text for n, text in os.environ.items() if n.startswith(PASSED) and not any(s in n for s in secret)}
    # A relative part of the path, or cache, means the folder of this process: a worker begins elsewhere.
    path = os.pathsep.join([*own, *(str(Path(part).absolute()) for part in given)])
    for name in ("EVAR_CACHE", "EVAR_DATA"):
        if name in found:
            found[name] = str(Path(found[name]).expanduser().absolute())
    return found | ({"PYTHONPATH": path} if path else {})


def run_there(batch: Batch, launch: Launch, stop: threading.Event | None = None) -> Iterator[Outcome]:
    """Run a batch in a worker's process, or what an earlier attempt of the same launch has left of it.

    The process moves into the folder of the launch.
    Raises :class:`UserError` if this host does not see the results folder of the launch.
    """
    check_folders(launch)
    settings, todo = launch.settings, []
    os.chdir(settings.folder)  # a checkpoint or a model's file may be named relative to it
    for cell in batch:
        entry = entry_of(settings.results, cell)
        if entry is not None and entry.state == "done" and entry != launch.before[cell.key]:
            yield run_cell(
                cell, replace(settings, force=False), stop=stop
            )  # --force was obeyed already: no second time
        else:
            todo.append(cell)
    for outcome in run_batch(todo, settings, stop=stop):
        if stop is not None and stop.is_set() and outcome.state == "failed":
            # The signal that stopped the worker met the command as well: that is no failure of the cell.
            journal.remove_entry(settings.results, outcome.cell)
            yield Outcome(outcome.cell, "interrupted")
        else:
            yield outcome


def check_folders(launch: Launch) -> None:
    """Raise :class:`UserError` if this host lacks the launch's results folder or the folder of its commands."""
    deadline = time.monotonic() + PATIENCE
    while not (launch.sign.exists() and launch.settings.folder.is_dir()):
        if time.monotonic() > deadline or not launch.sign.parent.parent.is_dir():
            raise UserError(
                f"{socket.gethostname()} does not see {launch.settings.results} (or {launch.settings.folder}) as the "
                "host that started the grid does: workers need one file system with the same paths"
            )
        look_again(launch.sign.parent)
        time.sleep(0.5)


def news(cells: Iterable[Cell], launch: Launch) -> list[Outcome]:
    """Return the outcomes of those cells that the launch's workers have finished, as the journal says."""
    results, found = launch.settings.results, []
    look_again(journal.journal_folder(results))
    for cell in cells:
        entry = entry_of(results, cell)
        if entry is not None and entry.state != "running" and entry != launch.before[cell.key]:
            found.append(outcome_of(cell, entry, results))
    return found


def outcome_of(cell: Cell, entry: journal.Entry, results: Path) -> Outcome:
    """Return the outcome that an entry of the journal stands for."""
    if entry.state == "failed":
        return Outcome(cell, "failed", entry.reason, entry.seconds)
    try:
        score = float(json.loads((results / entry.result).read_text(encoding="utf-8"))["mean"])
    except (OSError, ValueError, KeyError, TypeError):
        score = None
    return Outcome(cell, "done", "", entry.seconds, entry.result, score, entry.there)


def given_up(cell: Cell, launch: Launch, reason: str) -> Outcome:
    """Return what became of a cell whose worker is gone for good; if it is unfinished, write down that it failed."""
    results = launch.settings.results
    lock = journal.cell_lock(results, cell)
    with suppress(Timeout):
        lock.acquire(timeout=0)  # held: somebody is at it nevertheless, and will write the entry
    try:
        entry = entry_of(results, cell)
        if found := news([cell], launch):
            return found[0]
        if entry is not None and not launch.settings.force and _is_done(cell, entry, launch.settings):
            return outcome_of(cell, entry, results)
        if lock.is_locked:
            facts = (cell.words, cell.model, cell.weights, cell.task, cell.protocol, cell.options)
            stamp, host = journal.stamp_of(cell, launch.settings.root), socket.gethostname()
            failed = journal.Entry("failed", *facts, reason=reason, stamp=stamp, host=host, created=now())
            journal.write_entry(results, cell, failed)
        return Outcome(cell, "failed", reason)
    finally:
        lock.release()
