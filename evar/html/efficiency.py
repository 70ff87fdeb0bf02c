"""Quality against cost: scores over throughput and over size, and a table of what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from evar.html.charts import Dot, quantity, scatter
from evar.html.entries import Entries, Entry, Section
from evar.html.markup import Markup, empty, join, scrolling, tag
from evar.html.scores import header
from evar.report import PROTOCOLS

COLUMNS = {
    "parameters": "parameters",
    "gflops_per_second": "GFLOPs per s of audio",
    "real_time_factor": "real-time factor",
    "audio_seconds_per_second": "s of audio per s",
    "peak_memory_mib": "peak memory (MiB)",
}
AXES = {"audio_seconds_per_second": "seconds of audio per second", "parameters": "parameters"}


def efficiency_section(entries: Entries) -> Section | None:
    """Return charts of score over throughput and size for each protocol, and the table; None without measurements."""
    measured = {p: [e for e in found if e.result.get("efficiency")] for p, found in entries.items()}
    measured = {protocol: found for protocol, found in measured.items() if found}
    if not measured:
        return None
    parts = [chart for protocol, found in measured.items() for chart in _charts(protocol, found)]
    every = [entry for found in measured.values() for entry in found]
    body = join([tag("div", *parts, class_="panels wide") if parts else None, _table(every)])
    lead = (
        "Scores are means over the tasks that all models of a chart have; cost is the median over a model's runs. "
        "The x axes are logarithmic. Figures of different devices do not compare."
    )
    return Section("efficiency", "Efficiency", "Quality against cost", lead, body)


def _charts(protocol: str, found: Sequence[Entry]) -> list[Markup]:
    rows = list(dict.fromkeys(entry.row for entry in found))
    tasks = shared_tasks(found)
    charts = []
    for field, axis in AXES.items():
        dots = []
        for row in rows:
            here = [e for e in found if e.row == row and e.result["task"] in tasks]
            cost = figure_of([e for e in found if e.row == row], field)
            if here and cost:
                dots.append(_dot(row, here, cost, axis))
        if len(dots) > 1:
            over = tasks[0] if len(tasks) == 1 else f"mean of {len(tasks)} tasks"
            title = f"{PROTOCOLS[protocol]}: {over}, over {axis}"
            chart = scatter(dots, f"{title}: {len(dots)} models", axis, "score (%)")
            charts.append(tag("figure", tag("figcaption", title, title=", ".join(tasks)), chart))
    return charts


def _dot(row: str, here: Sequence[Entry], cost: float, axis: str) -> Dot:
    mean = 100 * statistics.fmean(entry.result["mean"] for entry in here)
    low, high = None, None
    if len(here) == 1:
        low, high = (None if here[0].result.get(k) is None else 100 * here[0].result[k] for k in ("ci_low", "ci_high"))
    return Dot(row, cost, mean, low, high, f"{row}: {mean:.1f} %, {quantity(cost)} {axis}")


def shared_tasks(found: Sequence[Entry]) -> list[str]:
    """Return the tasks that every row has; where there are none, the one that most rows have."""
    rows: dict[str, set[str]] = {}
    for entry in found:
        rows.setdefault(entry.row, set()).add(entry.result["task"])
    names = list(dict.fromkeys(entry.result["task"] for entry in found))
    shared = [name for name in names if all(name in tasks for tasks in rows.values())]
    return shared or [max(names, key=lambda name: sum(name in tasks for tasks in rows.values()))]


def figure_of(found: Sequence[Entry], field: str) -> float | None:
    """Return the median of a measured figure over a row's runs; None if none has it."""
    values = [value for entry in found if (value := entry.result["efficiency"].get(field)) is not None]
    return float(statistics.median(values)) if values else None


def _table(found: Sequence[Entry]) -> Markup:
    rows: dict[str, list[Entry]] = {}
    for entry in found:
        rows.setdefault(entry.row, []).append(entry)
    heads = [header("model", "text"), *(header(words) for words in COLUMNS.values()), header("measured on", "text")]
    lines = []
    for row, here in rows.items():
        cells = [_cell(figure_of(here, field)) for field in COLUMNS]
        lines.append(
            tag("tr", tag("th", row, scope="row"), *cells, tag("td", _where(here), class_="text"), data_name=row)
        )
    grid = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *lines), class_="sortable")
    return scrolling("Cost of each model", grid)


def _cell(value: float | None) -> Markup:
    return tag("td", empty()) if value is None else tag("td", quantity(value), data_v=f"{value:.9g}")


def _where(here: Sequence[Entry]) -> str:
    """Return the device, batch size and clip length of the measurements, in words."""

    def words(block: dict[str, Any]) -> str:
        why = f" ({block['reason']})" if block.get("reason") else ""
        return f"{block['device']}, batch {block['batch_size']}, {block['clip_seconds']:g} s{why}"

    return "; ".join(dict.fromkeys(words(entry.result["efficiency"]) for entry in here))
