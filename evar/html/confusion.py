"""Confusion matrices: read from the files beside the results, kept sparse in the page, drawn when asked for."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from evar.html.entries import Entries, Entry, Section, by_task
from evar.html.markup import join, tag
from evar.html.viewer import viewer
from evar.report import PROTOCOLS
from evar.results import Result

MOST_CLASSES = 200
"""A larger matrix would be a grey square; its file is named instead."""
MOST_ENTRIES = 300_000
"""Counts above zero in the whole page, about 3 MB."""


def confusion_section(entries: Entries, folder: Path) -> Section | None:
    """Return a viewer of all confusion matrices in ``folder``; None without any."""
    shown: list[dict[str, Any]] = []
    choices: list[tuple[str, str]] = []
    left_out: list[str] = []
    labels: dict[tuple[str, ...], int] = {}
    room = MOST_ENTRIES
    for protocol, found in entries.items():
        for task, here in by_task(found).items():
            for entry in here:
                matrix = read_confusion(folder, entry.result)
                if matrix is None:
                    continue
                names, counts = matrix
                if len(names) > MOST_CLASSES or len(counts) > room:
                    left_out.append(_file(entry.result))
                    continue
                room -= len(counts)
                number = labels.setdefault(names, len(labels))
                flat = [value for triple in counts for value in triple]
                shown.append({"l": number, "m": flat, "n": _words(entry)})
                choices.append((f"{PROTOCOLS[protocol]}: {task}", entry.row))
    if not shown and not left_out:
        return None
    lead = (
        "Rows are true classes, columns predicted ones; the shade is the share of the row. Counts are over all seeds."
    )
    parts = []
    if shown:
        content = [{"labels": [list(names) for names in labels]}, *shown]
        parts.append(viewer("confusion", "Run", choices, content))
    if left_out:
        why = f"Not drawn (more than {MOST_CLASSES} classes, or too many matrices for one page): {', '.join(left_out)}"
        parts.append(tag("p", why, class_="note"))
    return Section("confusion", "Confusions", "Confusion matrices", lead, join(parts))


def read_confusion(folder: Path, result: Result) -> tuple[tuple[str, ...], list[tuple[int, int, int]]] | None:
    """Return ``(labels, (true, predicted, count) of every count above zero)``; None if there is no such file.

    The name of the file is taken from the result, its place is not: nothing outside ``folder`` is read. Of a matrix
    of more than :data:`MOST_CLASSES` the labels alone are returned.
    """
    name = _file(result)
    if not name:
        return None
    try:
        with open(folder / name, encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            labels = tuple(next(lines)[1:])
            if len(labels) > MOST_CLASSES:
                return labels, []
            rows = [line[1:] for line in lines]
            counts = [(n, k, int(v)) for n, row in enumerate(rows) for k, v in enumerate(row) if v != "0"]
    except (OSError, ValueError, StopIteration, csv.Error):
        return None
    size = len(labels)
    fits = size > 0 and len(rows) == size and all(len(row) == size for row in rows)
    return (labels, counts) if fits else None


def _file(result: Result) -> str:
    return Path(result.get("files", {}).get("confusion", "")).name


def _words(entry: Entry) -> str:
    return f"{entry.row} on {entry.result['task']}, {PROTOCOLS[entry.result['protocol']].lower()}"
