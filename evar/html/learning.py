"""Learning curves of fine-tuning, and after how many epochs the linear probes stopped."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evar.html.charts import Curve, curves
from evar.html.entries import Entries, Entry, Section, by_task, head_of
from evar.html.markup import Markup, fold, join, scrolling, tag
from evar.html.scores import header
from evar.results import Result, result_path

OPEN_RUNS = 12


def learning_section(entries: Entries, folder: Path) -> Section | None:
    """Return the curves of all fine-tunings and a table of the probes' epochs; None where there is neither."""
    parts = []
    tuned = by_task(entries.get("finetune", []))
    many = sum(map(len, tuned.values())) > OPEN_RUNS
    for task, here in tuned.items():
        panels = [panel for entry in here if (panel := _panel(entry, folder)) is not None]
        if panels:
            title = (
                f"Fine-tuning: {head_of(task, here[0].result['metric'])}, {len(panels)} run{'s' * (len(panels) > 1)}"
            )
            parts.append(fold(title, tag("div", *panels, class_="panels wide"), open=not many))
    probes = [entry for entry in entries.get("lineareval", []) if any(_fits(entry.result))]
    if probes:
        parts.append(
            fold(f"Linear probes: epochs of {len(probes)} runs", _probes(probes), open=len(probes) <= 2 * OPEN_RUNS)
        )
    if not parts:
        return None
    lead = (
        "The score by which the best epoch was chosen, and the loss of training where its table is still beside the "
        "results: each seed and fold thin, their mean thick, a dot where the best epoch is."
    )
    return Section("learning", "Learning", "Learning curves", lead, join(parts))


def _fits(result: Result) -> Iterator[Mapping[str, Any]]:
    """Yield the details of each seed and fold."""
    for of_seed in result.get("details", []):
        for fit in of_seed if isinstance(of_seed, list) else []:
            if isinstance(fit, Mapping):
                yield fit


def _panel(entry: Entry, folder: Path) -> Markup | None:
    lines = []
    for fit in _fits(entry.result):
        scores = fit.get("epoch_scores")
        if isinstance(scores, list) and scores and all(isinstance(v, int | float) for v in scores):
            lines.append(Curve([100 * v for v in scores], fit.get("best_epoch")))
    if not lines:
        return None
    name = f"{entry.row} on {entry.result['task']}"
    drawn = [curves(lines, f"{name}: score by epoch, {len(lines)} runs", "score (%)", percent=True)]
    losses = _losses(entry.result, folder)
    if losses:
        drawn.append(curves([Curve(values) for values in losses], f"{name}: loss by epoch", "loss", percent=False))
    return tag("figure", tag("figcaption", entry.row), *drawn, class_="learning", data_name=entry.row)


def _losses(result: Result, folder: Path) -> list[list[float]]:
    """Return the loss of each epoch of each seed and fold, from the tables that training leaves beside the results."""
    stem = result_path(folder, result["model"], result["task"], "finetune", result["run_id"]).stem
    found = []
    for path in sorted((folder / "finetuned" / stem).glob("*/epochs.csv")):
        try:
            with open(path, encoding="utf-8", newline="") as file:
                values = [float(row["loss"]) for row in csv.DictReader(file)]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if values and all(abs(v) < 1e30 for v in values):
            found.append(values)
    return found


def _probes(probes: Sequence[Entry]) -> Markup:
    heads = ["model", "task", "probe", "learning rate", "epochs", "best epoch", "at the limit"]
    kinds = ["text", "text", "text", "number", "number", "number", "number"]
    lines = []
    for entry in probes:
        settings, fits = entry.result["settings"], list(_fits(entry.result))
        epochs = [fit["epochs"] for fit in fits if isinstance(fit.get("epochs"), int)]
        best = [fit["best_epoch"] for fit in fits if isinstance(fit.get("best_epoch"), int)]
        most = settings.get("max_epochs")
        full = "–" if most is None else f"{sum(n >= most for n in epochs)} of {len(epochs)}"
        words = [
            entry.result["task"],
            settings.get("probe", "–"),
            settings.get("lr", "–"),
            _span(epochs),
            _span(best),
            full,
        ]
        values = [None, None, settings.get("lr"), _middle(epochs), _middle(best), None]
        cells = [
            tag("td", word, data_v=value, class_="text" if kind == "text" else None)
            for word, value, kind in zip(words, values, kinds[1:], strict=True)
        ]
        lines.append(tag("tr", tag("th", entry.row, scope="row"), *cells, data_name=entry.row))
    row = [header(head, kind) for head, kind in zip(heads, kinds, strict=True)]
    grid = tag("table", tag("thead", tag("tr", *row)), tag("tbody", *lines), class_="sortable")
    return scrolling("Epochs of the linear probes", grid)


def _middle(values: Sequence[int]) -> float | None:
    return float(statistics.median(values)) if values else None


def _span(values: Sequence[int]) -> str:
    """Return the median and, where they differ, the least and the most."""
    if not values:
        return "–"
    middle = f"{statistics.median(values):g}"
    return middle if min(values) == max(values) else f"{middle} ({min(values)} to {max(values)})"
