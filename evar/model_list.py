"""What the commands that list models share: names with wildcards, and a table in three formats."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from model_adapters.registry import adapter_class, model_names

Format = Literal["table", "markdown", "csv"]


def chosen_models(patterns: Sequence[str]) -> list[str]:
    """Return the models whose names fit one of the patterns (``*clap*``), each once; all without patterns.

    Raises :class:`UserError`, with the nearest name, for a pattern that fits none.
    """
    known = model_names()
    found: dict[str, None] = {} if patterns else dict.fromkeys(known)
    for pattern in patterns:
        fitting = [name for name in known if fnmatchcase(name, pattern)]
        if not fitting:
            adapter_class(pattern)  # a user's own file, a name with an argument; else says what the nearest name is
            fitting = [pattern]
        found |= dict.fromkeys(fitting)
    return list(found)


def formatted(
    heads: Sequence[str], rows: Sequence[Sequence[str]], how: Format, clip: Mapping[int, int] | None = None
) -> str:
    """Return rows of texts as columns side by side, as a Markdown table or as CSV.

    clip: in the table for the eye, the most letters of a column (by number).
    """
    if how == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([heads, *rows])
        return text.getvalue().rstrip("\n")
    if how == "markdown":
        cells = [[text.replace("|", "\\|") for text in row] for row in (heads, ["---"] * len(heads), *rows)]
        return "\n".join(f"| {' | '.join(row)} |" for row in cells)
    limits = clip or {}
    shown = [
        [text if len(text) <= limits.get(n, len(text)) else text[: limits[n]] + "…" for n, text in enumerate(row)]
        for row in (heads, *rows)
    ]
    widths = [max(len(row[n]) for row in shown) for n in range(len(heads))]
    return "\n".join(
        "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in shown
    )
