"""A table of percentages with intervals, written as text, Markdown, CSV or LaTeX.

What is said of a number in a word (best, quoted, …) is a *mark*: bold and underlined in Markdown and LaTeX, an arrow or
a dagger everywhere, with a legend below of the marks that the table has.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from evar.errors import UserError

FORMATS = ("text", "markdown", "csv", "latex")
BEST, SECOND, QUOTED, SEEN, APART = "best", "second", "quoted", "seen", "apart"
LEGEND = {
    BEST: "best of its column",
    SECOND: "second best",
    QUOTED: "quoted there from another paper",
    SEEN: "not zero-shot: the model saw data of this task in training",
    APART: "not compared: see the notes",
}
"""The marks, in words."""
SIGNS = {QUOTED: "↑", SEEN: "†", APART: "*"}
"""What stands behind a number with a mark."""


class Cell(NamedTuple):
    """A number in percent, the half-width of its interval (None: no interval), and what else is said of it."""

    value: float
    half_width: float | None = None
    marks: tuple[str, ...] = ()
    """Keys of :data:`LEGEND`."""
    papers_half: float | None = None
    """Of an average: the ± as the papers make it, the mean of the tasks' half-widths."""

    def number(self) -> str:
        """Return ``84.1``."""
        return f"{self.value:.1f}"

    def spread(self, plus_minus: str = "±") -> str:
        """Return ``±1.5``, with the papers' ± of an average in brackets; empty without an interval."""
        parts = [] if self.half_width is None else [f"{plus_minus}{self.half_width:.1f}"]
        if self.papers_half is not None:
            parts.append(f"({plus_minus}{self.papers_half:.1f})")
        return " ".join(parts)

    def signs(self) -> str:
        """Return the signs of its marks."""
        return "".join(sign for mark, sign in SIGNS.items() if mark in self.marks)

    def text(self, plus_minus: str = "±") -> str:
        """Return ``84.1 ±1.5``, and the signs of its marks."""
        return " ".join(filter(None, (self.number() + self.signs(), self.spread(plus_minus))))


Line = tuple[str, "list[Cell | None]", str]


@dataclass(frozen=True)
class Table:
    """Title, column heads (the first names the row, the last is for notes), rows, and a line below."""

    title: str
    heads: tuple[str, ...]
    rows: list[Line]
    note: str = ""
    published: frozenset[str] = frozenset()
    """Names of the rows that are not ours."""
    summaries: int = 0
    """How many columns before the notes are averages or ranks, not tasks."""

    def marks(self) -> tuple[str, ...]:
        """Return the marks that any number has, in the legend's order."""
        found = {mark for _, cells, _ in self.rows for cell in cells if cell for mark in cell.marks}
        return tuple(mark for mark in LEGEND if mark in found)


def render(table: Table, form: str) -> str:
    """Return the table in one of :data:`FORMATS`."""
    writers = {"text": _text, "markdown": _markdown, "csv": _csv, "latex": _latex}
    if form not in writers:
        raise UserError(f"there is no format '{form}'; there are {', '.join(FORMATS)}")
    return writers[form](table)


def legend(table: Table, samples: Mapping[str, str]) -> str:
    """Return what the marks mean, for those of ``samples`` (mark to how it looks) that the table has."""
    words = [f"{samples[mark]} {LEGEND[mark]}" for mark in table.marks() if mark in samples]
    words += ["[ ] published, not run here"] if table.published else []
    return "; ".join(words)


def _notes(table: Table, samples: Mapping[str, str]) -> list[str]:
    return [line for line in (table.note, legend(table, samples)) if line]


def _text(table: Table) -> str:
    grid = [[name, *(c.text() if c else "-" for c in cells), notes] for name, cells, notes in table.rows]
    lines = [list(table.heads), *grid]
    widths = [max(len(line[n]) for line in lines) for n in range(len(table.heads))]
    body = ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    rule = "-" * min(100, max(map(len, body)))
    return "\n".join([table.title, rule, body[0], rule, *body[1:], rule, *(_notes(table, SIGNS) or [""])])


def _markdown(table: Table) -> str:
    def line(words: list[str]) -> str:
        return "| " + " | ".join(word.replace("|", "\\|").replace("\n", " ") for word in words) + " |"

    def shown(cell: Cell | None) -> str:
        if cell is None:
            return "-"
        return _framed(cell.number(), cell, "**{}**", "<u>{}</u>") + cell.text()[len(cell.number()) :]

    ruler = ["---", *["---:"] * (len(table.heads) - 2), "---"]
    grid = [line([_plain(name), *map(shown, cells), _plain(notes)]) for name, cells, notes in table.rows]
    rows = [line([_plain(head) for head in table.heads]), line(ruler), *grid]
    notes = _notes(table, {BEST: "**bold**", SECOND: "<u>underlined</u>", **SIGNS, APART: "\\*"})
    return "\n".join([f"### {table.title}", "", *rows, "", *("  \n".join(notes).splitlines() or [""])])


def _plain(text: str) -> str:
    """Return a name from outside so that Markdown shows it as it is, and a browser that shows Markdown runs nothing."""
    return text.replace("<", "&lt;")


def _framed(text: str, cell: Cell, best: str, second: str) -> str:
    frame = best if BEST in cell.marks else second if SECOND in cell.marks else "{}"
    return frame.replace("{}", text)


def _csv(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [_csv_fields(table, number) for number in range(len(table.heads) - 2)]
    heads = [head + words for head, fields in zip(table.heads[1:-1], columns, strict=True) for words in fields.values()]
    writer.writerow(["protocol", table.heads[0], *heads, table.heads[-1]])
    for name, cells, notes in table.rows:
        numbers = [
            "" if cell is None or (value := getattr(cell, field)) is None else value
            for cell, fields in zip(cells, columns, strict=True)
            for field in fields
        ]
        said = "; ".join(filter(None, [*_marks_in_words(table, cells), notes]))
        writer.writerow([table.title, name, *numbers, said])
    return text.getvalue().rstrip()


def _csv_fields(table: Table, number: int) -> dict[str, str]:
    """Return the fields of a column's cells that are written, with what is added to the column's head for each."""
    if number < len(table.heads) - 2 - table.summaries:
        return {"value": "", "half_width": " ci95"}
    cells = [cells[number] for _, cells, _ in table.rows]
    fields = {"value": "", "half_width": " ci95", "papers_half": " ci95 as in the papers"}
    return {f: w for f, w in fields.items() if f == "value" or any(c and getattr(c, f) is not None for c in cells)}


def _marks_in_words(table: Table, cells: list[Cell | None]) -> list[str]:
    """Return "quoted (esc50, us8k)" and the like: a number in CSV has no room for a sign."""
    words = {QUOTED: "quoted", SEEN: "not zero shot"}
    tasks = list(zip(table.heads[1:-1], cells, strict=True))[: len(cells) - table.summaries]
    found = {said: [head for head, cell in tasks if cell and mark in cell.marks] for mark, said in words.items()}
    return [f"{said} ({', '.join(heads)})" for said, heads in found.items() if heads]


_SPECIAL = {c: "\\" + c for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # after a line's end, a bare bracket would begin an argument
    "*": "{*}",
    "↑": r"$\uparrow$",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "…": r"\dots{}",
}


def _escape(text: str) -> str:
    return "".join(_SPECIAL.get(c, c) for c in text)


_LATEX_SIGNS = {QUOTED: r"$^{\uparrow}$", SEEN: r"$^{\dagger}$", APART: r"$^{*}$"}


def _latex_cell(cell: Cell | None) -> str:
    if cell is None:
        return "--"
    signs = "".join(sign for mark, sign in _LATEX_SIGNS.items() if mark in cell.marks)
    spread = cell.spread(r"$\pm$")
    number = _framed(cell.number(), cell, r"\textbf{{}}", r"\underline{{}}")
    return number + signs + (rf" {{\scriptsize{spread if spread[0] == '$' else ' ' + spread}}}" if spread else "")


def _latex(table: Table) -> str:
    columns = "l" + "c" * (len(table.heads) - 2) + "l"
    lines: list[str] = []
    for number, (name, cells, notes) in enumerate(table.rows):
        if number and name in table.published and table.rows[number - 1][0] not in table.published:
            lines.append(r"\midrule")
        lines.append(" & ".join([_escape(name), *map(_latex_cell, cells), _escape(notes)]) + r" \\")
    key = {BEST: r"\textbf{bold}", SECOND: r"\underline{underlined}", **_LATEX_SIGNS}
    said = "; ".join(filter(None, [_escape(table.note), legend(table, key)]))
    note = f" ({said})" if said else ""
    return "\n".join(
        [
            r"\begin{table} % \usepackage{booktabs}",
            r"\centering",
            rf"\caption{{{_escape(table.title)}{note}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(_escape(head) for head in table.heads) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )
