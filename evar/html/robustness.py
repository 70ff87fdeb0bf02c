"""What frozen probes lose under corruption."""

from __future__ import annotations

from collections.abc import Sequence

from evar.html.entries import Entries, Entry, Section, by_task, head_of
from evar.html.markup import Markup, empty, join, scrolling, tag
from evar.html.scores import header
from evar.report import PROTOCOLS

WORST = 0.5
"""A drop that is coloured fully."""


def robustness_section(entries: Entries) -> Section | None:
    """Return a table for each task with corruptions; None without any."""
    parts = []
    for protocol, found in entries.items():
        measured = [entry for entry in found if entry.result.get("robustness")]
        parts += [_table(protocol, task, here) for task, here in by_task(measured).items()]
    if not parts:
        return None
    lead = (
        "The clean probe on corrupted test clips: the score in percent, and in small how many points below the clean "
        "score it is. Mean drop: over the corruptions of the row."
    )
    return Section("robustness", "Robustness", "Robustness", lead, join(parts))


def _table(protocol: str, task: str, here: Sequence[Entry]) -> Markup:
    kinds = list(dict.fromkeys(kind for entry in here for kind in entry.result["robustness"]["corruptions"]))
    heads = [header("model", "text"), header("clean"), *map(header, kinds), header("mean drop")]
    lines = []
    for entry in here:
        block = entry.result["robustness"]
        cells = [_number(block["clean"])]
        cells += [_corrupted(block["corruptions"].get(kind)) for kind in kinds]
        cells.append(_number(block["mean_drop"], block["mean_drop"]))
        lines.append(tag("tr", tag("th", entry.row, scope="row"), *cells, data_name=entry.row))
    title = f"{PROTOCOLS[protocol]}: {head_of(task, here[0].result['metric'])}"
    grid = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *lines), class_="sortable heat loss")
    return join([tag("h3", title), scrolling(title, grid)])


def _number(share: float, drop: float = 0.0) -> Markup:
    return tag("td", f"{100 * share:.1f}", data_v=f"{share:.6g}", style=f"--s:{_shade(drop)}")


def _corrupted(found: dict[str, float] | None) -> Markup:
    if found is None:
        return tag("td", empty())
    lost = tag("small", f"{-100 * found['drop']:+.1f}".replace("-", "−"))
    score = f"{100 * found['score']:.1f} "
    return tag("td", score, lost, data_v=f"{found['score']:.6g}", style=f"--s:{_shade(found['drop'])}")


def _shade(drop: float) -> int:
    return round(100 * min(max(drop / WORST, 0.0), 1.0))
