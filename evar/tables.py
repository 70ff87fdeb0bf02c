"""A table of percentages with intervals, written as text, Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import NamedTuple

from evar.errors import UserError

FORMATS = ("text", "markdown", "csv", "latex")


class Cell(NamedTuple):
    """A number in percent and the half-width of its interval (None: no interval)."""

    value: float
    half_width: float | None = None

    def text(self, plus_minus: str = "±") -> str:
        """Return ``84.1 ±1.5``."""
        return f"{self.value:.1f}" + (f" {plus_minus}{self.half_width:.1f}" if self.half_width is not None else "")


@dataclass(frozen=True)
class Table:
    """Title, column heads (the first names the row, the last is for notes), rows, and a line below."""

    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, list[Cell | None], str]]
    note: str = ""


def render(table: Table, form: str) -> str:
    """Return the table in one of :data:`FORMATS`."""
    writers = {"text": _text, "markdown": _markdown, "csv": _csv, "latex": _latex}
    if form not in writers:
        raise UserError(f"there is no format '{form}'; there are {', '.join(FORMATS)}")
    return writers[form](table)


def _grid(table: Table, plus_minus: str = "±") -> list[list[str]]:
    return [[name, *(c.text(plus_minus) if c else "-" for c in cells), notes] for name, cells, notes in table.rows]


def _text(table: Table) -> str:
    lines = [list(table.heads), *_grid(table)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(table.heads))]
    body = ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    rule = "-" * min(100, max(map(len, body)))
    return "\n".join([table.title, rule, body[0], rule, *body[1:], rule, table.note])


def _markdown(table: Table) -> str:
    def line(words: list[str]) -> str:
        return "| " + " | ".join(word.replace("|", "\\|") for word in words) + " |"

    ruler = ["---", *["---:"] * (len(table.heads) - 2), "---"]
    rows = [line(list(table.heads)), line(ruler), *map(line, _grid(table))]
    return "\n".join([f"### {table.title}", "", *rows, "", table.note])


def _csv(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [word for head in table.heads[1:-1] for word in (head, f"{head} ci95")]
    writer.writerow(["protocol", table.heads[0], *heads, table.heads[-1]])
    for name, cells, notes in table.rows:
        numbers: list[float | str] = []
        for cell in cells:
            numbers += ["", ""] if cell is None else [cell.value, "" if cell.half_width is None else cell.half_width]
        writer.writerow([table.title, name, *numbers, notes])
    return text.getvalue().rstrip()


_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    c: "\\" + c for c in "&%$#_{}"
}


def _escape(text: str) -> str:
    return "".join(_SPECIAL.get(c, c) for c in text)


def _latex(table: Table) -> str:
    columns = "l" + "c" * (len(table.heads) - 2) + "l"
    heads = " & ".join(_escape(head) for head in table.heads)
    rows = []
    for name, cells, notes in table.rows:
        numbers = (
            c.text(r"{\scriptsize$\pm$") + ("}" if c.half_width is not None else "") if c else "--" for c in cells
        )
        rows.append(" & ".join([_escape(name), *numbers, _escape(notes)]) + r" \\")
    note = f" ({_escape(table.note)})".replace("±", r"$\pm$") if table.note else ""
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_escape(table.title)}{note}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            heads + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )
