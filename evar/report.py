"""Results as a table, with the papers' numbers beside them: text, Markdown, CSV or LaTeX, a plot, a page of HTML.

python -m evar.report [--results=DIR] [--format=text|markdown|csv|latex] [--out=FILE] [--html=FILE] [--plot=FILE]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from evar.averages import term_of
from evar.cli import main
from evar.errors import UserError
from evar.paper import rows_for
from evar.paper_rows import paper_rows_of
from evar.paths import runs_dir
from evar.progress import say
from evar.results import Result, read_results
from evar.standings import AVERAGE_NOTE, MARKS, Line, Rows, marks_of, summaries, with_best
from evar.store import fingerprint_of, write_atomically
from evar.tables import Cell, Table, render
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
    html: Path | None = None,
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
        html: write a page with tables, plots and every run's settings into this file (instead of printing), for a
            browser
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
    tables = tables_of(wanted, paper="all" if paper else "none")
    text = "\n\n".join(render(table, format) for table in [*tables, *_robustness(wanted)])
    if out is not None:
        write_atomically(out, text + "\n")
    elif html is None:
        print(text)
    if html is not None:
        from evar.html.page import write_page

        write_page(html, wanted, tables, folder, problems, tasks=tasks, models=models)
        results_said = f"{len(wanted)} result{'s' * (len(wanted) > 1)}"
        say(f"{html}: {results_said}, {html.stat().st_size / 1e6:.1f} MB; open it in a browser")
    if plot is not None:
        from evar.plots import plot_results

        plot_results(wanted, plot)


def _robustness(results: list[Result]) -> list[Table]:
    """Return the table of scores under corruption, if any result has them."""
    if not any("robustness" in result for result in results):
        return []
    from evar.corrupt import robustness_table

    table = robustness_table(results)
    return [] if table is None else [table]


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
        ours = set(rows)
        if paper != "none":
            rows |= _paper_rows(protocol, [known[n] for n in names if n in known], of_protocol, near=paper == "near")
        metrics = {r["task"]: r["metric"] for r in of_protocol}
        heads = {n: n if metrics[n] == "accuracy" else f"{n} ({metrics[n]})" for n in names}
        intervals = sorted({r["ci_method"] for r in of_protocol if r["ci_method"]})
        note = "percent; ± half-width of the 95 % interval" + (f": {'; '.join(intervals)}" if intervals else "")
        tables.append(_table(title, heads, rows, frozenset(set(rows) - ours), note))
    return tables


def _table(title: str, heads: dict[str, str], rows: Rows, published: frozenset[str], note: str) -> Table:
    """Return the table of ``rows``: a column per task (``heads``: task to head), averages, ranks, notes."""
    tasks = list(heads)
    of_tasks = {
        head: {name: line.cells[t] for name, line in rows.items() if t in line.cells} for t, head in heads.items()
    }
    added = summaries(tasks, rows, published)
    marked = {head: with_best(column) for head, column in of_tasks.items()}
    marked |= {head: with_best(column, lowest=head.startswith("rank")) for head, column in added.items()}
    lines = [(name, [c.get(name) for c in marked.values()], line.note(tasks)) for name, line in rows.items()]
    note = f"{note}; {AVERAGE_NOTE}" if added else note
    return Table(title, ("model", *marked, "notes"), lines, note, published, len(added))


def _own_rows(results: list[Result]) -> Rows:
    rows: Rows = {}
    for result, name in zip(results, row_names(results), strict=True):
        row = row_of(result)  # sorted by time: where two results share a cell, the later one stands
        line, half = rows.setdefault(name, Line()), result["ci95"]
        half = None if half is None else 100 * half
        line.cells[result["task"]] = Cell(100 * result["mean"], half, marks_of(result["flags"]))
        line.notes[result["task"]] = tuple(note for note in row.notes if note.replace(" ", "_") not in MARKS)
        line.terms[result["task"]] = term_of(result)
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
    mine = {row for model in {r["model"] for r in results} for row in paper_rows_of(model)}
    published = rows_for(protocol, tasks, tuple(mine) if near and mine else None)
    if near and not mine:
        published = published[published["source"].str.startswith(MAIN_PAPER)]
    for entry in published.to_dict("records"):
        line = rows.setdefault(f"[{entry['model']}]", Line())
        half = None if pd.isna(entry["ci95"]) else float(entry["ci95"])
        flags = [flag for flag in entry["flags"].split("|") if flag]
        line.cells[entry["name"]] = Cell(float(entry["value"]), half, marks_of(flags))
        line.notes[entry["name"]] = tuple(flag.replace("_", " ") for flag in flags if flag not in MARKS)
        line.sources.append(entry["source"])
    return {name: rows[name] for name in sorted(rows, key=lambda name: name[1:-1] not in mine)}


if __name__ == "__main__":
    main(report)
