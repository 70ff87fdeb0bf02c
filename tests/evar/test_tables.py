"""One small table in four formats, to the letter."""

import csv
import io

import pytest

from evar.errors import UserError
from evar.tables import BEST, FORMATS, QUOTED, SECOND, SEEN, Cell, Table, render

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

LATEX = r"""\begin{table} % \usepackage{booktabs}
\centering
\caption{Linear evaluation (percent; $\pm$ half-width)}
\begin{tabular}{lccl}
\toprule
model & esc50 & fsd50k (mAP) & notes \\
\midrule
m2d\_clap & 96.3 {\scriptsize$\pm$0.3} & -- &  \\
tag\_text\textbar{}x (50\%) & 56.0 & 7.2 {\scriptsize$\pm$12.0} & incomplete esc50 \& more \\
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


MARKED = Table(
    "T",
    ("model", "x", "average", "notes"),
    [
        ("mine", [Cell(90.0, 1.0, (BEST,)), Cell(80.0, 0.5, (), 1.5)], ""),
        ("[theirs]", [Cell(80.0, None, (SECOND, QUOTED)), None], ""),
        ("[others]", [Cell(70.0, None, (SEEN,)), None], "a note"),
    ],
    "percent",
    frozenset({"[theirs]", "[others]"}),
    1,
)


def test_the_marks_in_text():
    lines = render(MARKED, "text").splitlines()
    assert lines[4].split() == ["mine", "90.0", "±1.0", "80.0", "±0.5", "(±1.5)"]
    assert lines[5].split() == ["[theirs]", "80.0↑", "-"]
    assert lines[-1] == (
        "↑ quoted there from another paper; † not zero-shot: the model saw data of this task in training; "
        "[ ] published, not run here"
    )


def test_the_marks_in_markdown():
    lines = render(MARKED, "markdown").splitlines()
    assert lines[4:7] == [
        "| mine | **90.0** ±1.0 | 80.0 ±0.5 (±1.5) |  |",
        "| [theirs] | <u>80.0</u>↑ | - |  |",
        "| [others] | 70.0† | - | a note |",
    ]
    assert "**bold** best of its column; <u>underlined</u> second best" in lines[-1]


def test_markdown_shows_a_name_with_markup_as_it_is():
    table = Table("T", ("model", "x", "notes"), [("<script>alert(1)</script>", [Cell(1.0)], "")])
    assert "<script" not in render(table, "markdown")


def test_the_marks_in_latex():
    lines = render(MARKED, "latex").splitlines()
    assert r"mine & \textbf{90.0} {\scriptsize$\pm$1.0} & 80.0 {\scriptsize$\pm$0.5 ($\pm$1.5)} &  \\" in lines
    assert r"{[}theirs] & \underline{80.0}$^{\uparrow}$ & -- &  \\" in lines
    assert lines.count(r"\midrule") == 2, "one below the heads, one between our rows and the published"
    assert lines[0].endswith(r"\usepackage{booktabs}")
    assert not [line for line in lines if "hline" in line or "|" in line]


def test_csv_names_the_marks_and_has_both_intervals_of_an_average():
    head, mine, theirs, others = csv.reader(io.StringIO(render(MARKED, "csv")))
    assert head == [
        "protocol",
        "model",
        "x",
        "x ci95",
        "average",
        "average ci95",
        "average ci95 as in the papers",
        "notes",
    ]
    assert mine == ["T", "mine", "90.0", "1.0", "80.0", "0.5", "1.5", ""]
    assert theirs[-1] == "quoted (x)"
    assert others[-1] == "not zero shot (x); a note"
