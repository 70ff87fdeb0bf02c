"""A comparison of two models as text, Markdown, CSV or LaTeX, with what each number is below the table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from evar.comparison import Line
from evar.report import PROTOCOLS

PAIRS = tuple(permutations(PROTOCOLS, 2))
"""Protocol of A and of B, where they are not one."""
HEADS = ("task", "A", "B", "A - B", "95 % interval", "p", "p McNemar", "p Holm", "verdict")


@dataclass(frozen=True)
class Comparison:
    """All that is printed."""

    a: str
    b: str
    lines: list[Line]
    notes: list[str]
    seeds: int

    def tables(self) -> list[tuple[str, list[Line]]]:
        """Return ``(title, lines)`` per protocol, in the report's order."""
        titles = PROTOCOLS | {"/".join(two): " against ".join(map(PROTOCOLS.__getitem__, two)) for two in PAIRS}
        return [
            (title, mine)
            for protocol, title in titles.items()
            if (mine := [line for line in self.lines if line.protocol == protocol])
        ]

    def explained(self, lines: Sequence[Line]) -> list[str]:
        """Return the lines below a table: what each number is."""
        intervals = _by_text({line.task: line.difference.interval.method for line in lines})
        tests = _by_text({line.task: line.mcnemar_method for line in lines if line.mcnemar is not None})
        said = [
            "percent; A - B in percentage points, of the scores as the report gives them; p two-sided",
            f"interval and p: {intervals}",
            *([f"p McNemar: {tests}"] if tests else []),
            f"p Holm: {_over(len(lines))}; the verdict is at 5 %",
        ]
        if self.seeds > 1:
            said.append(
                "several seeds: a clip counts with the mean of its hits over the seeds (mAP: the mean of the seeds' "
                "mAPs); the interval is over clips, for these trained classifiers"
            )
        notes = _by_text({line.task: line.note for line in lines if line.note})
        return said + ([notes] if notes else []) + self.notes


def _over(tasks: int) -> str:
    return f"p corrected over the {tasks} tasks above" if tasks > 1 else "one task, nothing to correct"


def _by_text(texts: dict[str, str]) -> str:
    """Return the texts once each, with the tasks where they differ."""
    tasks: dict[str, list[str]] = {}
    for task, text in texts.items():
        tasks.setdefault(text, []).append(task)
    if len(tasks) == 1:
        return next(iter(tasks))
    return "; ".join(f"{text} ({', '.join(where)})" for text, where in tasks.items())


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _words(line: Line) -> list[str]:
    interval = line.difference.interval
    ends = "-"
    if interval.low is not None and interval.high is not None:
        ends = f"{100 * interval.low:+.1f} … {100 * interval.high:+.1f}"
    task = line.task if line.metric == "accuracy" else f"{line.task} ({line.metric})"
    scores = f"{100 * line.score_a:.1f}", f"{100 * line.score_b:.1f}", f"{100 * interval.point:+.1f}"
    return [task, *scores, ends, _p(line.difference.p), _p(line.mcnemar), _p(line.holm), line.verdict]


def as_text(shown: Comparison) -> str:
    """Return a table per protocol for a terminal."""
    parts = []
    for title, lines in shown.tables():
        grid = [list(HEADS), *map(_words, lines)]
        widths = [max(len(row[n]) for row in grid) for n in range(len(HEADS))]
        rows = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in grid]
        rule = "-" * max(map(len, rows))
        head = [f"{title}, paired by clip", f"A: {shown.a}", f"B: {shown.b}", rule, rows[0], rule]
        parts.append("\n".join([*head, *rows[1:], rule, *shown.explained(lines)]))
    return "\n\n".join(parts)


def as_markdown(shown: Comparison) -> str:
    """Return a table per protocol in Markdown."""

    def row(words: Sequence[str]) -> str:
        return "| " + " | ".join(word.replace("|", "\\|").replace("<", "&lt;") for word in words) + " |"

    parts = []
    for title, lines in shown.tables():
        ruler = "| --- |" + " ---: |" * (len(HEADS) - 2) + " --- |"
        head = [f"### {title}, paired by clip", "", _plain(f"A: {shown.a}  \nB: {shown.b}"), ""]
        said = ["", *(f"- {_plain(text)}" for text in shown.explained(lines))]
        parts.append("\n".join([*head, row(HEADS), ruler, *(row(_words(line)) for line in lines), *said]))
    return "\n\n".join(parts)


def _plain(text: str) -> str:
    return text.replace("<", "&lt;")


def as_csv(shown: Comparison) -> str:
    """Return all lines as one CSV, numbers unrounded (scores in percent), each with its method."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = "protocol,task,metric,clips,a,b,score_a,score_b,difference,low,high,interval,p,p_mcnemar,mcnemar,p_holm"
    writer.writerow([*heads.split(","), "verdict", "note"])
    for line in shown.lines:
        interval = line.difference.interval
        numbers = (line.score_a, line.score_b, interval.point, interval.low, interval.high)
        writer.writerow(
            [line.protocol, line.task, line.metric, line.clips, shown.a, shown.b]
            + ["" if number is None else 100 * number for number in numbers]
            + [interval.method, line.difference.p, line.mcnemar, line.mcnemar_method, line.holm]
            + [line.verdict, line.note]
        )
    return text.getvalue().rstrip()


_SPECIAL = {c: "\\" + c for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    "…": r"\dots{}",
}


def _escape(text: str) -> str:
    plain = "".join(_SPECIAL.get(c, c) for c in text)
    return re.sub(r"(?<![\w-])-(?=\d|\s)", "$-$", plain)  # a minus, no hyphen


def as_latex(shown: Comparison) -> str:
    """Return a booktabs table per protocol."""
    parts = []
    for title, lines in shown.tables():
        said = "; ".join([f"A: {shown.a}, B: {shown.b}", *shown.explained(lines)])
        rows = [" & ".join(map(_escape, words)) + r" \\" for words in (HEADS, *map(_words, lines))]
        head = [r"\begin{table} % \usepackage{booktabs}", rf"\caption{{{_escape(f'{title}, paired by clip. {said}')}}}"]
        body = [rf"\begin{{tabular}}{{l{'r' * (len(HEADS) - 2)}l}}", r"\toprule", rows[0], r"\midrule", *rows[1:]]
        parts.append("\n".join([*head, *body, r"\bottomrule", r"\end{tabular}", r"\end{table}"]))
    return "\n\n".join(parts)


WRITERS = {"text": as_text, "markdown": as_markdown, "csv": as_csv, "latex": as_latex}
"""What writes each format."""
