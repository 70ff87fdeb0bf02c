"""What became of every cell: one small JSON per cell in ``<results>/.grid/``, written atomically."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from evar.grid.plan import Cell
from evar.paths import cache_dir, data_root
from evar.store import write_atomically

FOLDER = ".grid"
State = Literal["done", "failed", "running"]
Standing = Literal["done", "failed", "running", "missing"]


@dataclass(frozen=True)
class Entry:
    """A line of the journal."""

    state: State
    words: tuple[str, ...]
    """The cell's command line, without ``python -m``."""
    model: str = ""
    weights: str | None = None
    task: str = ""
    protocol: str = ""
    options: tuple[tuple[str, str], ...] = ()
    reason: str = ""
    """Of a failure: the last line of stderr, or the signal."""
    seconds: float = 0.0
    """From start to end, with the start of Python."""
    work: float | None = None
    """Seconds of the work itself, as the result's timings say; None if they do not."""
    there: bool = False
    """The command found its result there already: ``seconds`` says nothing of the work."""
    result: str = ""
    """Name of the result file in the results folder."""
    stamp: Mapping[str, Any] = field(default_factory=dict)
    """See :func:`stamp_of`."""
    host: str = ""
    pid: int = 0
    process_start: str = ""
    """Tells a process from a later one with the same number."""
    created: str = ""


def journal_folder(results: Path) -> Path:
    """Return the journal's folder."""
    return results / FOLDER


def entry_path(results: Path, key: str) -> Path:
    """Return where the cell's entry lies."""
    return journal_folder(results) / f"{key}.json"


def read_entry(path: Path) -> Entry | None:
    """Return an entry; None if there is none, or nothing that could be one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name for f in fields(Entry)}
        entry = Entry(**{name: value for name, value in found.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return entry if entry.state in ("done", "failed", "running") else None


def write_entry(results: Path, cell: Cell, entry: Entry) -> None:
    """Write the cell's entry, atomically."""
    write_atomically(entry_path(results, cell.key), json.dumps(asdict(entry), indent=1, ensure_ascii=False) + "\n")


def remove_entry(results: Path, cell: Cell) -> None:
    """Forget the cell: it is as if it had never begun."""
    entry_path(results, cell.key).unlink(missing_ok=True)


def read_journal(results: Path) -> dict[str, Entry]:
    """Return all entries by the key of their cell."""
    found = {path.stem: read_entry(path) for path in sorted(journal_folder(results).glob("*.json"))}
    return {key: entry for key, entry in found.items() if entry is not None}


def standing(results: Path, cell: Cell, entry: Entry | None, stamp: Mapping[str, Any]) -> Standing:
    """Return how the cell stands now: an entry alone is not enough.

    Done needs the result file and the same weights, source and data root; a run that is under way needs its process.
    """
    if entry is None:
        return "missing"
    if entry.state == "done":
        there = bool(entry.result) and (results / entry.result).is_file()
        return "done" if there and dict(entry.stamp) == dict(stamp) else "missing"
    if entry.state == "running":
        return "running" if is_alive(results, cell, entry) else "missing"
    return "failed"


def is_alive(results: Path, cell: Cell, entry: Entry) -> bool:
    """Say whether the process that wrote a ``running`` entry is still at it (a killed one leaves the entry behind).

    Here: the process's number and start time. On another host: whether the cell's lock is held.
    """
    if entry.host == socket.gethostname():
        return process_start(entry.pid) == entry.process_start
    lock = cell_lock(results, cell)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def cell_lock(results: Path, cell: Cell) -> FileLock:
    """Return the lock that whoever runs the cell holds."""
    folder = journal_folder(results)
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{cell.key}.lock")


def process_start(pid: int) -> str | None:
    """Return what tells a process from a later one of the same number; None if there is no such process.

    On Linux the time of its start in ticks since boot (field 22 of ``/proc/<pid>/stat``), elsewhere ``alive``.
    """
    try:
        if Path("/proc/self/stat").exists():
            text = Path(f"/proc/{pid}/stat").read_text()
            after_name = text.rpartition(")")[2].split()  # the name in brackets may hold anything
            return None if after_name[0] == "Z" else after_name[19]
        os.kill(pid, 0)
    except (OSError, IndexError):
        return None
    return "alive"


def stamp_of(cell: Cell, root: Path | None) -> dict[str, Any]:
    """Return what a cell's result depends on beside its words: an entry with another stamp is asked about anew.

    Then the protocol's command decides, by checksums: it finds an equal run's result at once.
    """
    source, _, _ = cell.model.rpartition(":")
    own_table = cell.task.partition(":")[2] if cell.task.startswith(("csv:", "folder:")) else ""
    return {
        "weights": _state_of(cell.weights) or _state_of(_in_weights_folder(cell.weights)) if cell.weights else None,
        "source": _sha(source) if source.endswith(".py") else None,
        "table": _state_of(own_table) if own_table else None,
        "root": str(data_root(root).absolute()),
    }


def _in_weights_folder(name: str) -> str:
    """Return where a weights file named without its folder lies (as evar.fetch.published has it, without torch)."""
    given = os.environ.get("EVAR_WEIGHTS")
    return str((Path(given).expanduser() if given else cache_dir() / "weights") / name)


def _state_of(name: str) -> list[Any] | None:
    path = Path(name).expanduser()
    if not path.exists():
        return None
    facts = path.stat()
    return [str(path.absolute()), facts.st_size if path.is_file() else 0, facts.st_mtime_ns]


def _sha(source: str) -> str | None:
    path = Path(source)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None
