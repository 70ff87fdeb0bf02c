"""The tables of scores and of ranks, and the bars of each task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from evar.html.charts import Bar, bars
from evar.html.entries import Entries, Entry, Section, by_task, chance_of, head_of
from evar.html.markup import Markup, empty, fold, join, scrolling, tag
from evar.report import PROTOCOLS
from evar.tables import APART, BEST, LEGEND, QUOTED, SECOND, SEEN, SIGNS, Cell, Table

MOST_PUBLISHED = 6
"""So many published bars at most beside ours in a task's chart: the best ones."""
DENSE = 10
"""A table of more columns has its intervals below the numbers, not beside them."""
OPEN_PANELS = 24
"""A protocol with more charts than that has them folded away."""


def table_section(tables: Sequence[Table]) -> Section:
    """Return the tables of all protocols with their legend."""
    body = join(score_table(number, table) for number, table in enumerate(tables))
    lead = "A click on a head sorts. Rows with a bar at the left were run here; the others are published numbers."
    return Section("scores", "Scores", "Scores", lead, body)


def score_table(number: int, table: Table) -> Markup:
    """Return a table of scores: sortable, our rows marked."""
    ranks = {head for head in table.heads[-1 - table.summaries : -1] if head.startswith("rank")}
    heads = [header(head, low_first=head in ranks) for head in table.heads[1:-1]]
    heads = [header(table.heads[0], "text"), *heads, header(table.heads[-1], "text")]
    sources: dict[str, int] = {}
    lines = [_line(table, name, cells, notes, sources) for name, cells, notes in table.rows]
    tools = None
    if table.published:
        box = tag("input", type="checkbox", checked=True, data_hides=f"table{number}")
        tools = tag("label", box, f" published rows ({len(table.published)})", class_="tools")
    grid = tag(
        "table",
        tag("caption", table.title, class_="unseen"),
        tag("thead", tag("tr", *heads)),
        tag("tbody", *lines),
        id=f"table{number}",
        class_="scores sortable dense" if len(table.heads) > DENSE else "scores sortable",
    )
    numbered = join([join([tag("b", number), f" {words}"]) for words, number in sources.items()], "; ")
    notes = [tag("p", line, class_="note") for line in (table.note, _legend(table), numbered) if line]
    return join([tag("h3", table.title), tools, scrolling(table.title, grid), *notes])


def header(words: str, kind: str = "number", *, low_first: bool = False) -> Markup:
    """Return a column's head that sorts the table, a column of numbers highest first unless said otherwise."""
    first = "ascending" if kind == "text" or low_first else "descending"
    button = tag("button", words, type="button", data_first=first)
    return tag("th", button, scope="col", class_=None if kind == "number" else kind, data_h=words)


def _line(table: Table, name: str, cells: Sequence[Cell | None], notes: str, sources: dict[str, int]) -> Markup:
    """Return a row; what is said of published rows is numbered in ``sources`` and stands below the table."""
    theirs = name in table.published
    said = tag("span", name[1:-1] if theirs else name)
    whose = None if theirs else tag("span", " (run here)", class_="unseen")
    numbers = [sources.setdefault(part, len(sources) + 1) for part in notes.split("; ") if part] if theirs else []
    last = (
        tag("td", ", ".join(map(str, numbers)), class_="text", title=notes)
        if theirs
        else tag("td", notes, class_="text")
    )
    row = [tag("th", said, whose, scope="row"), *map(number_cell, cells), last]
    return tag("tr", *row, class_="published" if theirs else "own", data_name=name)


def number_cell(cell: Cell | None) -> Markup:
    """Return a number with its interval and marks; the same digits as in the text table."""
    if cell is None:
        return tag("td", empty())
    number: object = cell.number()
    if BEST in cell.marks:
        number = join([tag("strong", number), tag("span", " best", class_="unseen")])
    elif SECOND in cell.marks:
        number = join([tag("u", number), tag("span", " second best", class_="unseen")])
    if SEEN in cell.marks:
        number = tag("span", number, class_="seen")
    signs = (
        tag("sup", cell.signs(), title="; ".join(LEGEND[m] for m in SIGNS if m in cell.marks)) if cell.signs() else None
    )
    spread = tag("small", cell.spread()) if cell.spread() else None
    dull = "apart" if APART in cell.marks else None
    return tag("td", number, signs, " " if spread else None, spread, data_v=f"{cell.value:.6g}", class_=dull)


def _legend(table: Table) -> Markup | None:
    looks = {
        BEST: tag("strong", "bold"),
        SECOND: tag("u", "underlined"),
        QUOTED: SIGNS[QUOTED],
        SEEN: join([tag("span", "dotted", class_="seen"), " ", SIGNS[SEEN]]),
        APART: SIGNS[APART],
    }
    words = [join([looks[mark], f" {LEGEND[mark]}"]) for mark in table.marks()]
    return join(words, "; ") if words else None


def rank_section(tables: Sequence[Table]) -> Section | None:
    """Return, for each protocol, the rank of every row on every task and their mean; None where no two rows compare."""
    parts = [part for table in tables for part in _rank_tables(table)]
    if not parts:
        return None
    lead = "The rank on each task and their mean, of all rows that have every task of the table. 1 is best."
    return Section("ranks", "Ranks", "Ranks", lead, join(parts))


def _rank_tables(table: Table) -> list[Markup]:
    tasks = len(table.heads) - 2 - table.summaries
    return [
        _rank_table(table, column, tasks)
        for column, head in enumerate(table.heads[1:-1])
        if column >= tasks and head.startswith("rank")
    ]


def _rank_table(table: Table, column: int, tasks: int) -> Markup:
    rows = sorted((line for line in table.rows if line[1][column]), key=lambda line: _value(line[1][column]))
    shared = [n for n in range(tasks) if all(cells[n] is not None for _, cells, _ in rows)]
    ranks = rankdata([[-_value(cells[n]) for n in shared] for _, cells, _ in rows], axis=0)
    names = ["mean rank", *(table.heads[1 + n] for n in shared)]
    heads = [header("model", "text"), *(header(name, low_first=True) for name in names)]
    lines = []
    for (name, cells, _), places in zip(rows, np.atleast_2d(ranks), strict=True):
        shades = [tag("td", f"{p:g}", data_v=p, style=f"--s:{_shade(p, len(rows))}") for p in places.tolist()]
        mean = tag("td", tag("strong", f"{_value(cells[column]):.1f}"), data_v=_value(cells[column]))
        whose = "published" if name in table.published else "own"
        shown = name[1:-1] if name in table.published else name
        lines.append(tag("tr", tag("th", shown, scope="row"), mean, *shades, class_=whose, data_name=name))
    title = f"{table.title}: {table.heads[1 + column]}"
    grid = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *lines), class_="sortable heat")
    return fold(f"{title}, {len(rows)} rows on {len(shared)} tasks", scrolling(title, grid), open=len(rows) <= 40)


def _value(cell: Cell | None) -> float:
    assert cell is not None
    return cell.value


def _shade(place: float, rows: int) -> int:
    """Return how strong a rank's cell is coloured, 0 to 100: the best most."""
    return round(100 * (1 - (place - 1) / max(rows - 1, 1)))


def bar_section(entries: Entries, tables: Sequence[Table]) -> Section:
    """Return a chart for each task of each protocol, with intervals, the best published numbers beside ours."""
    of_title = {table.title: table for table in tables}
    parts = []
    for protocol, found in entries.items():
        table = of_title.get(PROTOCOLS[protocol])
        groups = by_task(found)
        panels = [_panel(task, here, table, protocol) for task, here in groups.items()]
        box = tag("div", *panels, class_="panels")
        words = f"{PROTOCOLS[protocol]}: {len(panels)} task{'s' * (len(panels) > 1)}"
        parts.append(fold(words, box, open=len(panels) * len(found) <= OPEN_PANELS * 20))
    lead = (
        f"With 95 % intervals; grey: the best published numbers, at most {MOST_PUBLISHED}; dotted line: chance. "
        "The axes run from 0 to 100 %."
    )
    return Section("tasks", "By task", "Scores by task", lead, join(parts))


def _panel(task: str, here: Sequence[Entry], table: Table | None, protocol: str) -> Markup:
    metric = here[0].result["metric"]
    items = [bar_of(entry) for entry in here]
    if table is not None:
        column = table.heads.index(head_of(task, metric)) - 1 if head_of(task, metric) in table.heads else None
        items += [] if column is None else _published(table, column)
    items.sort(key=lambda bar: -bar.value)
    title = head_of(task, metric)
    chart = bars(items, f"{title}, {PROTOCOLS[protocol]}: {len(items)} bars", chance=chance_of(task, metric))
    return tag("figure", tag("figcaption", title), chart)


def bar_of(entry: Entry) -> Bar:
    """Return a result as a bar, in percent."""
    result = entry.result
    low, high = (None if end is None else 100 * end for end in (result.get("ci_low"), result.get("ci_high")))
    return Bar(entry.row, 100 * result["mean"], low, high)


def _published(table: Table, column: int) -> list[Bar]:
    found = [(name, cells[column]) for name, cells, _ in table.rows if name in table.published and cells[column]]
    best = sorted(found, key=lambda pair: -_value(pair[1]))[:MOST_PUBLISHED]
    out = []
    for name, cell in best:
        assert cell is not None
        half = cell.half_width
        low, high = (None, None) if half is None else (cell.value - half, cell.value + half)
        out.append(Bar(name[1:-1] + cell.signs(), cell.value, low, high, "published"))
    return out
