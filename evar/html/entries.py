"""What the sections of the page share: the results by protocol, each with the name of its row in the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from evar.html.markup import Markup, tag
from evar.report import PROTOCOLS, row_names
from evar.results import Result
from tasks.base import Task, all_tasks


class Entry(NamedTuple):
    """A result and its row's name."""

    row: str
    result: Result


@dataclass(frozen=True)
class Section:
    """A part of the page: the word in the navigation, the heading, a sentence below it, and the rest."""

    key: str
    name: str
    title: str
    lead: str
    body: Markup

    def html(self) -> Markup:
        """Return the section."""
        heading = tag("h2", self.title)
        lead = tag("p", self.lead, class_="lead") if self.lead else None
        return tag("section", heading, lead, self.body, id=self.key)


Entries = dict[str, list[Entry]]


def entries_of(results: Sequence[Result]) -> Entries:
    """Return the results that stand in the tables, by protocol: of two in one cell, the later."""
    found: Entries = {}
    for protocol in PROTOCOLS:
        here = sorted((r for r in results if r["protocol"] == protocol), key=lambda r: r["created"])
        chosen = {(name, r["task"]): Entry(name, r) for name, r in zip(row_names(here), here, strict=True)}
        if chosen:
            found[protocol] = list(chosen.values())
    return found


def by_task(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Return the entries of each task, tasks in the order of the tables."""
    known = list(all_tasks())
    names = dict.fromkeys(entry.result["task"] for entry in entries)
    order = sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))
    return {name: [entry for entry in entries if entry.result["task"] == name] for name in order}


def chance_of(task: str, metric: str) -> float | None:
    """Return what guessing scores on a known single-label task, in percent."""
    known: Task | None = all_tasks().get(task)
    if known is None or metric != "accuracy" or known.multi_label or not known.labels:
        return None
    return 100 / len(known.labels)


def head_of(task: str, metric: str) -> str:
    """Return a task's name, with its metric where that is not accuracy."""
    return task if metric == "accuracy" else f"{task} ({metric})"
