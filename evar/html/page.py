"""The page: all sections, the style and the script in one file, which loads nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path

import evar
from evar.html.classes import class_section
from evar.html.confusion import confusion_section
from evar.html.efficiency import efficiency_section
from evar.html.entries import Section, entries_of
from evar.html.learning import learning_section
from evar.html.maps import map_section
from evar.html.markup import Markup, tag
from evar.html.robustness import robustness_section
from evar.html.runs import run_section
from evar.html.scores import bar_section, rank_section, table_section
from evar.report import PROTOCOLS
from evar.results import Result, now
from evar.store import write_atomically
from evar.tables import Table


def write_page(
    path: Path,
    results: Sequence[Result],
    tables: Sequence[Table],
    folder: Path,
    problems: Sequence[str] = (),
    *,
    tasks: Sequence[str] = (),
    models: Sequence[str] = (),
) -> None:
    """Write the report on ``results`` to ``path``, atomically; see :func:`page`."""
    write_atomically(path, page(results, tables, folder, problems, tasks=tasks, models=models))


def page(
    results: Sequence[Result],
    tables: Sequence[Table],
    folder: Path,
    problems: Sequence[str] = (),
    *,
    tasks: Sequence[str] = (),
    models: Sequence[str] = (),
) -> str:
    """Return the report as one page of HTML.

    Args:
        results: what is reported.
        tables: the tables of these results, as :func:`evar.report.tables_of` makes them.
        folder: where the results lie, with the files beside them: confusion matrices, maps, tables of epochs.
        problems: a line for each file of the folder that is no result.
        tasks: only maps of these tasks; all if empty.
        models: only maps of these models; all if empty.
    """
    entries = entries_of(results)
    maps, no_maps = map_section(folder, tasks, models)
    sections: list[Section | None] = [
        table_section(tables),
        rank_section(tables),
        bar_section(entries, tables),
        robustness_section(entries),
        efficiency_section(entries),
        class_section(entries),
        confusion_section(entries, folder),
        maps,
        learning_section(entries, folder),
        run_section(results, [*problems, *no_maps]),
    ]
    return _document(results, [section for section in sections if section is not None])


def _document(results: Sequence[Result], sections: Sequence[Section]) -> str:
    style, script = part("style.css"), part("script.js")
    title = "Evaluation of audio representations"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    links = [tag("li", tag("a", section.name, href=f"#{section.key}")) for section in sections]
    chosen = tag(
        "input", type="search", id="filter", placeholder="filter models", aria_label="Show only rows with these words"
    )
    bar = tag("nav", tag("ul", *links), chosen, aria_label="Sections")
    top = tag("header", tag("h1", title), tag("p", _summary(results), class_="lead"))
    foot = tag("footer", f"evar-harness {evar.__version__}, {now()}")
    body = tag(
        "body", bar, tag("main", top, *(section.html() for section in sections), foot), tag("script", Markup(script))
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _summary(results: Sequence[Result]) -> str:
    def counted(number: int, one: str) -> str:
        return f"{number} {one}{'s' * (number != 1)}"

    models, tasks = {r["model"] for r in results}, {r["task"] for r in results}
    protocols = [PROTOCOLS[p].lower() for p in PROTOCOLS if any(r["protocol"] == p for r in results)]
    first, last = min(r["created"] for r in results)[:10], max(r["created"] for r in results)[:10]
    when = first if first == last else f"{first} to {last}"
    what = f"{counted(len(models), 'model')} on {counted(len(tasks), 'task')}"
    return f"{counted(len(results), 'result')} of {what}, {when}: {', '.join(protocols)}."


@lru_cache(maxsize=2)
def part(name: str) -> str:
    """Return a file of this package as text."""
    return resources.files("evar.html").joinpath(name).read_text(encoding="utf-8").strip()


def _policy(script: str) -> str:
    """Return what the browser may do with the page: run this one script, and load nothing from anywhere."""
    checksum = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"style-src 'unsafe-inline'; script-src 'sha256-{checksum}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
