"""Scores of each class: a table per task, made by the page's script when it is asked for."""

from __future__ import annotations

from typing import Any

from evar.html.entries import Entries, Section, by_task, head_of
from evar.html.markup import join, tag
from evar.html.viewer import viewer
from evar.report import PROTOCOLS


def class_section(entries: Entries) -> Section | None:
    """Return a viewer of recall or average precision per class, a column per row; None where no result has classes."""
    shown: list[dict[str, Any]] = []
    for protocol, found in entries.items():
        for task, every in by_task(found).items():
            here = [entry for entry in every if len(entry.result["per_class"]) > 1]
            if not here:
                continue
            classes = list(dict.fromkeys(name for entry in here for name in entry.result["per_class"]))
            values = [[_tenths(entry.result["per_class"].get(name)) for name in classes] for entry in here]
            what = "average precision" if here[0].result["metric"] == "mAP" else "recall"
            title = f"{head_of(task, here[0].result['metric'])}: {what}"
            group = PROTOCOLS[protocol]
            shown.append({"t": title, "g": group, "c": classes, "r": [entry.row for entry in here], "v": values})
    if not shown:
        return None
    lead = "Recall of each class in percent (average precision where the task's metric is mAP), the hardest first."
    body = join([viewer("classes", "Task", [(item["g"], item["t"]) for item in shown], shown)])
    return Section("classes", "Per class", "Scores per class", lead, tag("div", body))


def _tenths(value: float | None) -> int | None:
    """Return a share in tenths of a percent, which is what is shown and takes few letters."""
    return None if value is None else round(1000 * value)
