"""Results as a table, with the papers' numbers beside them: text, Markdown, CSV or LaTeX, and a plot.

python -m evar.report [--results=DIR] [--format=text|markdown|csv|latex] [--out=FILE] [--plot=FILE.png]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from evar.cli import main
from evar.errors import UserError
from evar.paper import rows_for
from evar.paths import runs_dir
from evar.progress import say
from evar.results import Result, read_results
from evar.store import fingerprint_of, write_atomically
from evar.tables import Cell, Table, render
from model_adapters.registry import model_info
from tasks.base import Task, all_tasks

PROTOCOLS = {
    "lineareval": "Linear evaluation",
    "finetune": "Fine-tuning",
    "zeroshot": "Zero-shot classification",
    "retrieval": "Audio-text retrieval",
}
MAIN_PAPER = "M2D-CLAP, Interspeech 2024"
Format = Literal["text", "markdown", "csv", "latex"]


def report(
    *,
    results: Path | None = None,
    format: Format = "text",
    out: Path | None = None,
    plot: Path | None = None,
    tasks: tuple[str, ...] = (),
    models: tuple[str, ...] = (),
    paper: bool = True,
) -> None:
    """Print all results as tables, one per protocol, with the published numbers beside them.

    Values are percent, mean ± half-width of the 95 % interval. Published rows are marked with their source.

    Args:
        results: folder of result files (default results/runs)
        format: text, markdown, csv or latex
        out: write the tables to this file instead of printing them
        plot: draw the results with their intervals into this file (.png, .pdf or .svg; needs the extra 'plots')
        tasks: only these tasks, comma-separated
        models: only these models, comma-separated
        paper: show the published rows too (--nopaper leaves them out)
    """
    folder = runs_dir(results)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; run a protocol first, or name another with --results=DIR")
    found, problems = read_results(folder)
    for line in problems:
        say(f"left out: {line}")
    wanted = [r for r in found if (not tasks or r["task"] in tasks) and (not models or r["model"] in models)]
    if not wanted:
        raise UserError(f"no results in {folder} fit; run a protocol first, for example python -m evar.lineareval")
    text = "\n\n".join(render(table, format) for table in tables_of(wanted, paper="all" if paper else "none"))
    if out is not None:
        write_atomically(out, text + "\n")
    else:
        print(text)
    if plot is not None:
        from evar.plots import plot_results

        plot_results(wanted, plot)


def print_results(results: list[Result]) -> None:
    """Print the table that ends a protocol command."""
    print("\n\n".join(render(table, "text") for table in tables_of(results)))


IN_NAMES = ("untrained", "from_random")
"""Flags that tell one model's rows apart."""
FEW = 3


@dataclass(frozen=True)
class Row:
    """A row's name and what distinguishes it."""

    name: str
    notes: tuple[str, ...]


def row_of(result: Result) -> Row:
    """Return the row in which a result stands: model, and whatever is not the default."""
    settings = result["settings"]
    extra = [flag.replace("_", " ") for flag in IN_NAMES if flag in result["flags"]]
    extra += [f"{name}={value}" for name, value in settings.get("model_options", {}).items()]
    if settings.get("probe") == "logistic":
        extra.append("logistic probe")
    if settings.get("templates"):
        prompts = settings["templates"]
        extra.append(f"'{prompts[0]}'" if len(prompts) == 1 else f"{len(prompts)} prompts")
    if settings.get("precision") == "bf16":
        extra.append("bf16")
    if result["protocol"] == "finetune":
        extra += _own_settings(result)
    name = result["model"] + (f" ({', '.join(extra)})" if extra else "")
    return Row(name, tuple(f.replace("_", " ") for f in result["flags"] if f not in IN_NAMES))


def _own_settings(result: Result) -> list[str]:
    """Return in words how a fine-tuning differs from its task's usual settings; many settings by their checksum."""
    changed = result["settings"].get("changed", {})
    if len(changed) > FEW:
        return [f"{len(changed)} own settings {fingerprint_of(changed)[:6]}"]
    return [f"{name}={value}" for name, value in changed.items()]


def tables_of(results: list[Result], *, paper: Literal["all", "near", "none"] = "near") -> list[Table]:
    """Return one table per protocol: our rows first, then the published ones.

    ``paper``: all published rows of these tasks; those of the same models (for a model that no paper shows, those of
    the M2D-CLAP paper); or none.
    """
    known = all_tasks()
    tables = []
    for protocol, title in PROTOCOLS.items():
        of_protocol = sorted((r for r in results if r["protocol"] == protocol), key=lambda r: r["created"])
        if not of_protocol:
            continue
        names = [name for name in known if any(r["task"] == name for r in of_protocol)]
        names += sorted({r["task"] for r in of_protocol} - set(names))
        rows = _own_rows(of_protocol)
        if paper != "none":
            rows |= _paper_rows(protocol, [known[n] for n in names if n in known], of_protocol, near=paper == "near")
        metrics = {r["task"]: r["metric"] for r in of_protocol}
        heads = [n if metrics[n] == "accuracy" else f"{n} ({metrics[n]})" for n in names]
        intervals = sorted({r["ci_method"] for r in of_protocol if r["ci_method"]})
        note = "percent; ± half-width of the 95 % interval" + (f": {'; '.join(intervals)}" if intervals else "")
        tables.append(Table(title, ("model", *heads, "notes"), _as_lines(rows, names), note))
    return tables


@dataclass
class Line:
    """A row in the making: a number per task, what is to be said per task, and where a published row comes from."""

    cells: dict[str, Cell] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)

    def note(self, tasks: list[str]) -> str:
        """Return all notes, each with the tasks it holds for (left out where the table has one task)."""
        said: dict[str, list[str]] = {}
        for task in tasks:
            for text in self.notes.get(task, ()):
                said.setdefault(text, []).append(task)
        flags = [text if len(tasks) == 1 else f"{text} ({', '.join(where)})" for text, where in said.items()]
        return "; ".join([*flags, *dict.fromkeys(self.sources)])


Rows = dict[str, Line]


def _own_rows(results: list[Result]) -> Rows:
    rows: Rows = {}
    for result, name in zip(results, row_names(results), strict=True):
        row = row_of(result)  # sorted by time: where two results share a cell, the later one stands
        line, half = rows.setdefault(name, Line()), result["ci95"]
        line.cells[result["task"]] = Cell(100 * result["mean"], None if half is None else 100 * half)
        line.notes[result["task"]] = row.notes
    return rows


def row_names(results: list[Result]) -> list[str]:
    """Return the name of each result's row; those of several weights files of one model have the file's in it."""
    names = [row_of(result).name for result in results]
    files: dict[str, set[str]] = {}
    for name, result in zip(names, results, strict=True):
        files.setdefault(name, set()).add(str(result["weights"]["sha256"]))
    return [
        f"{name} {_weights_name(result)}" if len(files[name]) > 1 else name
        for name, result in zip(names, results, strict=True)
    ]


def _weights_name(result: Result) -> str:
    """Return a result's weights in a few characters: the file's name, and the start of its checksum."""
    return f"[{Path(str(result['weights']['given'] or '')).name} {str(result['weights']['sha256'])[:6]}]"


def _paper_rows(protocol: str, tasks: list[Task], results: list[Result], *, near: bool) -> Rows:
    rows: Rows = {}
    mine = {row for r in results for row in _paper_rows_of(r["model"])}
    published = rows_for(protocol, tasks, tuple(mine) if near and mine else None)
    if near and not mine:
        published = published[published["source"].str.startswith(MAIN_PAPER)]
    for entry in published.to_dict("records"):
        line = rows.setdefault(f"[{entry['model']}]", Line())
        half = None if pd.isna(entry["ci95"]) else float(entry["ci95"])
        line.cells[entry["name"]] = Cell(float(entry["value"]), half)
        line.notes[entry["name"]] = tuple(flag.replace("_", " ") for flag in entry["flags"].split("|") if flag)
        line.sources.append(entry["source"])
    return {name: rows[name] for name in sorted(rows, key=lambda name: name[1:-1] not in mine)}


def _paper_rows_of(model: str) -> tuple[str, ...]:
    try:
        return model_info(model.partition(":")[0]).paper_rows
    except UserError:
        return ()


def _as_lines(rows: Rows, tasks: list[str]) -> list[tuple[str, list[Cell | None], str]]:
    return [(name, [line.cells.get(task) for task in tasks], line.note(tasks)) for name, line in rows.items()]


if __name__ == "__main__":
    main(report)
