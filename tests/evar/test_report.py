"""The report: our rows, the papers' rows, every format, what is left out and said."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from helpers import counting_model, fold_clips

from evar.errors import UserError
from evar.lineareval import Machine, ProbeSettings, evaluate_linear
from evar.paper import published, rows_for
from evar.report import report, row_of, tables_of
from evar.results import Result, write_result
from tasks.base import get_task


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))
    clips = fold_clips(tmp_path / "data", 40)
    settings = ProbeSettings(seeds=2, max_epochs=5)
    return evaluate_linear(counting_model(), clips, settings, Machine(), tmp_path / "runs")[0]


def test_the_papers_rows_are_there_with_their_intervals() -> None:
    table = rows_for("lineareval", [get_task("esc50")])
    row = table[table["model"] == "M2D-CLAP/0.7"].iloc[0]
    assert (row["value"], row["ci95"], row["name"]) == (96.3, 0.3, "esc50")
    assert "Table 3" in row["source"]
    assert not table.duplicated(["model", "name"]).any()
    zero = rows_for("zeroshot", [get_task("esc50")], ("M2D-CLAP/0.7",))
    assert zero["value"].tolist() == [75.45]


def test_published_numbers_are_percentages_of_known_protocols() -> None:
    table = published()
    main = table["protocol"].isin(["lineareval", "finetune", "zeroshot"])
    assert set(table["protocol"][main]) == {"lineareval", "finetune", "zeroshot"}
    assert table["value"][main].between(0, 100).all()
    assert len(table) > 600


def test_a_table_of_esc50_shows_our_row_first_then_the_papers(result: Result) -> None:
    mine = result | {"task": "esc50"}
    (table,) = tables_of([mine])
    assert table.heads == ("model", "esc50", "notes")
    assert table.rows[0][0] == "counting"
    assert table.rows[0][1][0].value == pytest.approx(100 * result["mean"])
    assert ("[M2D-CLAP/0.7]", "96.3 ±0.3") in [(name, cells[0].text()) for name, cells, _ in table.rows]


def test_flags_stand_in_the_row(result: Result) -> None:
    flagged = result | {"flags": ["incomplete", "probe_limited"]}
    (table,) = tables_of([flagged], paper="none")
    assert table.rows[0][2] == "incomplete; probe limited"


def test_a_row_names_whatever_is_not_the_default(result: Result) -> None:
    settings = result["settings"] | {"probe": "logistic", "precision": "bf16", "model_options": {"depth": 2}}
    assert row_of(result | {"settings": settings}).name == "counting (depth=2, logistic probe, bf16)"
    assert row_of(result | {"flags": ["untrained"]}).name == "counting (untrained)"


def test_two_checkpoints_of_one_model_are_two_rows(result: Result) -> None:
    def trained(name: str, sha256: str) -> Result:
        return result | {"weights": result["weights"] | {"given": f"runs/{name}", "sha256": sha256}}

    (table,) = tables_of([trained("first.pth", "1" * 64), trained("second.pth", "2" * 64)], paper="none")
    assert [row[0] for row in table.rows] == ["counting [first.pth 111111]", "counting [second.pth 222222]"]
    (table,) = tables_of([trained("first.pth", "1" * 64), trained("copy.pth", "1" * 64)], paper="none")
    assert [row[0] for row in table.rows] == ["counting"], "the same weights under two names are one"


def test_fine_tunings_of_other_settings_are_other_rows(result: Result) -> None:
    def name(**changed: float) -> str:
        settings = result["settings"] | {"changed": changed}
        return row_of(result | {"protocol": "finetune", "flags": ["from_random"], "settings": settings}).name

    assert name() == "counting (from random)"
    assert name(lr=0.1, epochs=3) == "counting (from random, lr=0.1, epochs=3)"
    many, others = name(lr=0.1, epochs=3, mixup=0.0, patchout=0.0), name(lr=0.2, epochs=3, mixup=0.0, patchout=0.0)
    assert many.startswith("counting (from random, 4 own settings ") and many != others


@pytest.mark.parametrize("form", ["text", "markdown", "csv", "latex"])
def test_every_format_is_written(form, result: Result, tmp_path: Path) -> None:
    report(results=tmp_path / "runs", format=form, out=tmp_path / "table")
    text = (tmp_path / "table").read_text()
    if form != "csv":
        assert f"{100 * result['mean']:.1f}" in text
    else:
        head, row = list(csv.reader(io.StringIO(text)))
        assert head[:4] == ["protocol", "model", "tiny", "tiny ci95"]
        assert float(row[2]) == pytest.approx(100 * result["mean"])


def test_a_page_is_written_instead_of_printing(
    result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(results=tmp_path / "runs", html=tmp_path / "sub" / "page.html")
    page = (tmp_path / "sub" / "page.html").read_text()
    assert page.startswith("<!doctype html>") and f"{100 * result['mean']:.1f}" in page
    shown = capsys.readouterr()
    assert shown.out == "" and "page.html: 1 result," in shown.err


def test_a_map_beside_the_results_is_no_problem(
    result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs" / "x.map.json").write_text("{}")
    report(results=tmp_path / "runs")
    assert "left out" not in capsys.readouterr().err


def test_scores_under_corruption_have_a_table_of_their_own(
    result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    block = {"clean": result["mean"], "corruptions": {"noise:10dB": {"score": 0.25, "drop": 0.125}}, "mean_drop": 0.125}
    write_result(tmp_path / "runs" / "x.json", result | {"robustness": block, "task": "other"})
    report(results=tmp_path / "runs", paper=False)
    shown = capsys.readouterr().out
    assert "Robustness" in shown and "noise:10dB" in shown
    assert "counting · other" in shown and "12.5" in shown


def test_a_plot_is_drawn(result: Result, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report(results=tmp_path / "runs", out=tmp_path / "table", plot=tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"


def test_a_file_that_is_no_result_is_named_and_left_out(
    result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs" / "broken.json").write_text("{")
    (tmp_path / "runs" / "other.json").write_text('{"schema": 1}')
    report(results=tmp_path / "runs")
    shown = capsys.readouterr()
    assert "counting" in shown.out
    assert "broken.json is not JSON" in shown.err and "other.json is not a result file" in shown.err


def test_nothing_to_report_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        report(results=tmp_path / "nothing")
    with pytest.raises(UserError, match="no results"):
        report(results=tmp_path)
