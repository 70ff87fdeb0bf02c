"""How long a cell is expected to take, from what past cells took."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

from evar.grid.cell import work_seconds
from evar.grid.journal import Entry
from evar.grid.plan import Cell, Options
from tasks.base import Task

START = 5.0
"""Seconds to start a command, until one was measured: Python, torch, the model's file."""


class Expected(NamedTuple):
    """Seconds, None where nothing is known; and what they rest on."""

    seconds: float | None
    basis: str


@dataclass(frozen=True)
class Past:
    """What one cell took: seconds of the work itself, without the start."""

    model: str
    task: str
    protocol: str
    options: Options | None
    """None where only the result is there, which does not say how it was asked for."""
    work: float


class Timings:
    """Past cells, ready to be asked."""

    def __init__(self, past: list[Past], starts: list[float], tasks: Mapping[str, Task]) -> None:
        self.start = median(starts) if starts else START
        self.tasks = tasks
        self.exact: dict[tuple[str, str, str, Options | None], list[float]] = defaultdict(list)
        self.same: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        self.rates: dict[tuple[str, str], list[float]] = defaultdict(list)
        for one in past:
            self.exact[one.model, one.task, one.protocol, one.options].append(one.work)
            self.same[one.model, one.task, one.protocol].append(one.work)
            if (audio := self.audio(one.task, one.protocol)) > 0:
                self.rates[one.model, one.protocol].append(one.work / audio)
                self.rates["", one.protocol].append(one.work / audio)

    def audio(self, task: str, protocol: str) -> float:
        """Return the seconds of audio that a protocol looks at; 0 where they are not known."""
        facts = self.tasks.get(task)
        if facts is None:
            return 0.0
        tests_only = protocol in ("zeroshot", "retrieval") and not facts.has_folds
        clips = facts.counts.get("test", 0) if tests_only else sum(facts.counts.values())
        return clips * facts.unit_seconds

    def expected(self, cell: Cell) -> Expected:
        """Return what the cell is expected to take.

        The same cell; else the same model, task and protocol; else the model's usual seconds per second of audio under
        this protocol; else those of all models.
        """
        for found, basis in (
            (self.exact.get((cell.model, cell.task, cell.protocol, cell.options)), "as before"),
            (self.same.get((cell.model, cell.task, cell.protocol)), "other settings"),
        ):
            if found:
                return Expected(self.start + median(found), basis)
        audio = self.audio(cell.task, cell.protocol)
        for model, basis in ((cell.model, "by its audio"), ("", "other models")):
            if audio > 0 and (rates := self.rates.get((model, cell.protocol))):
                return Expected(self.start + median(rates) * audio, basis)
        return Expected(None, "?")


def timings_of(results: Path, journal: Mapping[str, Entry], tasks: Mapping[str, Task]) -> Timings:
    """Return the timings of a results folder: its journal, and results that no entry of the journal names."""
    done = [entry for entry in journal.values() if entry.state == "done" and entry.work is not None]
    past = [
        Past(e.model, e.task, e.protocol, tuple((name, text) for name, text in e.options), e.work or 0.0) for e in done
    ]
    starts = [max(0.0, e.seconds - (e.work or 0.0)) for e in done if not e.there]
    known = {entry.result for entry in journal.values()}
    return Timings([*past, *_from_results(results, known)], starts, tasks)


def _from_results(folder: Path, known: set[str]) -> Iterator[Past]:
    # Not read by evar.results: checking hundreds of files against the schema takes longer than the plan may.
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        if path.name in known:
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            work = work_seconds(found["timings"])
            if work is not None:
                yield Past(str(found["model"]), str(found["task"]), str(found["protocol"]), None, work)
        except (OSError, ValueError, KeyError, TypeError):
            continue
