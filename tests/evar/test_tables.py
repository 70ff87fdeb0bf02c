"""One small table in four formats, to the letter."""

import csv
import io

import pytest

from evar.errors import UserError
from evar.tables import FORMATS, Cell, Table, render

TABLE = Table(
    "Linear evaluation",
    ("model", "esc50", "fsd50k (mAP)", "notes"),
    [
        ("m2d_clap", [Cell(96.34, 0.27), None], ""),
        ("tag_text|x (50%)", [Cell(56.0), Cell(7.25, 12.04)], "incomplete esc50 & more"),
    ],
    "percent; ± half-width",
)

TEXT = """\
Linear evaluation
------------------------------------------------------------------
model             esc50      fsd50k (mAP)  notes
------------------------------------------------------------------
m2d_clap          96.3 ±0.3  -
tag_text|x (50%)  56.0       7.2 ±12.0     incomplete esc50 & more
------------------------------------------------------------------
percent; ± half-width"""

MARKDOWN = """\
### Linear evaluation

| model | esc50 | fsd50k (mAP) | notes |
| --- | ---: | ---: | --- |
| m2d_clap | 96.3 ±0.3 | - |  |
| tag_text\\|x (50%) | 56.0 | 7.2 ±12.0 | incomplete esc50 & more |

percent; ± half-width"""

CSV = """\
protocol,model,esc50,esc50 ci95,fsd50k (mAP),fsd50k (mAP) ci95,notes
Linear evaluation,m2d_clap,96.34,0.27,,,
Linear evaluation,tag_text|x (50%),56.0,,7.25,12.04,incomplete esc50 & more"""

LATEX = r"""\begin{table}
\caption{Linear evaluation (percent; $\pm$ half-width)}
\begin{tabular}{lccl}
\toprule
model & esc50 & fsd50k (mAP) & notes \\
\midrule
m2d\_clap & 96.3 {\scriptsize$\pm$0.3} & -- &  \\
tag\_text|x (50\%) & 56.0 & 7.2 {\scriptsize$\pm$12.0} & incomplete esc50 \& more \\
\bottomrule
\end{tabular}
\end{table}"""


@pytest.mark.parametrize(("form", "expected"), zip(FORMATS, (TEXT, MARKDOWN, CSV, LATEX), strict=True))
def test_a_table_in_each_format(form, expected):
    assert render(TABLE, form) == expected


def test_csv_survives_commas_quotes_and_lines():
    awkward = 'a "quoted", name\nof two lines'
    table = Table("T", ("model", "x", "notes"), [(awkward, [Cell(1.0)], "n")])
    assert list(csv.reader(io.StringIO(render(table, "csv"))))[1] == ["T", awkward, "1.0", "", "n"]


def test_latex_escapes_what_has_a_meaning_there():
    table = Table("T", ("model", "notes"), [("a\\b~c^d&e%f$g#h_i{j}", [], "")])
    escaped = r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d\&e\%f\$g\#h\_i\{j\}"
    assert escaped + r" &  \\" in render(table, "latex").splitlines()


def test_a_table_without_a_note_has_no_empty_brackets():
    assert r"\caption{T}" in render(Table("T", ("model", "notes"), []), "latex").splitlines()


def test_another_format_is_refused():
    with pytest.raises(UserError, match="there is no format 'html'; there are text, markdown, csv, latex"):
        render(TABLE, "html")
