"""The published numbers: equal to the sheets they were taken from, flagged, and shown where they belong."""

from __future__ import annotations

import csv
import re
from inspect import signature
from pathlib import Path

import pandas as pd
import pytest
from golden import needs_shared, shared

from evar.errors import UserError
from evar.finetune import finetune
from evar.lineareval import lineareval
from evar.paper import COLUMNS, FLAGS, SAME_MODEL, SOURCES, published, rows_for
from evar.paths import paper_dir
from evar.prepare import prepare
from evar.retrieval import retrieval
from evar.zeroshot import zeroshot
from model_adapters.registry import model_info, model_names, model_options
from tasks.base import all_tasks, get_task

PROTOCOL = {
    "Table3": "lineareval",
    "Table4": "finetune",
    "Table5": "zeroshot",
    "TASLP2024_TableV_LE": "lineareval",
    "TASLP2024_TableVI_FT": "finetune",
    "linear_eval": "lineareval",
    "": "lineareval",
}
METRIC = {"accuracy_pct": "accuracy", "mAP_x100": "mAP"}
TABLE = {"m2d_clap_2024": "Table 3 4 5", "m2d_as_2024": "Table V VI"}
NO_ADAPTER = {
    "ATST-C2F", "COALA", "JMLA", "LTU/LTU-AS", "OWSM v3.1 ebf base", "OpenL3-E", "OpenL3-M", "Proto-LC", "QWEN2.5 3B",
    "QWEN2.5 7B", "SupMAM-CLAP", "TRILL",
}  # fmt: skip
"""Models of the papers' tables that have no adapter here: their rows are shown beside ours all the same."""


def sheet(name: str) -> list[dict[str, str]]:
    folder = shared()
    assert folder is not None
    return read(folder / "spec" / f"{name}.csv")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def ours(name: str) -> list[dict[str, str]]:
    return read(paper_dir() / f"{name}.csv")


def as_ours(row: dict[str, str]) -> tuple[str, ...]:
    flags = "quoted" if row["flags"] == "no_ci_in_readme(quoted)" else row["flags"]
    if not row["value"] and "unavailable" not in flags:
        flags += "|unavailable"
    protocol = PROTOCOL[row.get("table", "")]
    metric = METRIC[row["metric"]]
    return protocol, row["model"], row.get("model_group", ""), row["task"], metric, row["value"], row["ci"], flags


@needs_shared
@pytest.mark.parametrize(
    ("name", "sheet_name", "count"),
    [
        ("m2d_clap_2024", "paper_tables", 302),
        ("m2d_as_2024", "paper_tables_m2d_as_taslp2024", 75),
        ("evar_readme", "evar_readme_lineareval", 340),
    ],
)
def test_every_row_of_a_table_is_there_as_it_was_printed(name: str, sheet_name: str, count: int) -> None:
    mine = [tuple(row[column] for column in COLUMNS[:-1]) for row in ours(name)]
    theirs = [as_ours(row) for row in sheet(sheet_name)]
    assert mine == theirs, "row by row, in the printed order, digits and flags included"
    assert len(mine) == len({row[:4] for row in mine}) == count


@needs_shared
def test_every_figure_of_the_2025_paper_is_there_and_second_hand_where_it_is() -> None:
    mine = ours("m2d_clap_2025")
    for row in sheet("paper_tables_2025"):
        tasks = (row["task"].split()[0], "AS2M")
        same = [m for m in mine if m["value"] == row["value"] and m["task"] in tasks]
        assert same, row
        checked = row["table"] != "third_party_listing" or "agrees" in row["source"]
        assert any(("second_hand" in m["flags"]) == (not checked) for m in same), row
        assert all(m["group"] == row["model_group"] and m["model"] == row["model"] for m in same)
        if row["table"] == "linear_eval":
            assert (same[0]["protocol"], same[0]["ci95"], same[0]["flags"]) == ("lineareval", row["ci"], "")


@needs_shared
@pytest.mark.parametrize("sheet_name", ["RUNNERS.md", "MODELS.md"])
def test_figures_given_in_words_stand_in_the_sheets(sheet_name: str) -> None:
    folder = shared()
    assert folder is not None
    text = (folder / "spec" / sheet_name).read_text(encoding="utf-8")
    wanted = {
        "RUNNERS.md": [row["value"] for row in ours("other_figures") if row["protocol"] == "retrieval"],
        "MODELS.md": [r["value"] for r in ours("other_figures") if r["model"] == "MSM-MAE_2022"]
        + [r["value"] for r in ours("m2d_clap_2025") if r["protocol"] in ("retrieval", "zeroshot", "captioning")],
    }
    assert [value for value in wanted[sheet_name] if value not in text] == []


def test_columns_flags_and_sources_are_as_the_readme_says() -> None:
    readme = (paper_dir() / "README.md").read_text(encoding="utf-8")
    assert {path.stem for path in paper_dir().glob("*.csv")} == set(SOURCES)
    for name in SOURCES:
        assert f"`{name}.csv`" in readme
        for row in ours(name):
            assert tuple(row) == COLUMNS
            flags = [flag for flag in row["flags"].split("|") if flag]
            assert set(flags) <= set(FLAGS)
            assert (row["value"] == "") == ("unavailable" in flags)
            assert row["source"]
            assert not row["ci95"] or float(row["ci95"]) >= 0
            if name in TABLE:
                assert row["source"].split()[-1] in TABLE[name].split()
    for flag in FLAGS:
        assert f"`{flag}`" in readme


def test_each_adapter_names_rows_that_exist_and_each_row_has_its_adapter() -> None:
    rows = set(published()["model"])
    named: dict[str, list[str]] = {}
    for name in model_names():
        try:
            found = model_info(name).paper_rows
        except UserError:  # a model whose own package is not installed
            continue
        for row in found:
            named.setdefault(row, []).append(name)
    assert set(named) <= rows, f"not in results/paper: {sorted(set(named) - rows)}"
    assert {row: names for row, names in named.items() if len(names) > 1} == {}
    assert rows - set(named) == NO_ADAPTER


def test_every_column_of_the_papers_is_a_task_here() -> None:
    table = published()
    named = [name for task in all_tasks().values() for name in task.paper_name.split("|") if name]
    assert len(named) == len(set(named))
    shown = table[table["protocol"].isin(["lineareval", "finetune", "zeroshot", "retrieval"])]
    assert set(shown["task"]) - set(named) == {"Avg", "MECAT"}
    assert set(named) <= set(shown["task"])


@pytest.mark.parametrize(
    ("protocol", "task", "model", "value", "flags"),
    [
        ("lineareval", "gtzan", "CED", 42.3, ""),
        ("lineareval", "us8k", "ATST-Clip", 85.8, "quoted"),
        ("lineareval", "gtzan", "BYOL-A", 70.1, ""),
        ("lineareval", "vc1", "M2D-AS/0.7", 68.3, "read_from_image"),
        ("lineareval", "vc1", "M2D-AS", 52.7, ""),
        ("finetune", "as2m", "M2D-CLAP_2025", 49.0, ""),
        ("finetune", "as20k", "CED", 44.0, "quoted|distilled"),
        ("zeroshot", "as2m", "M2D-CLAP/0.7", 27.24, "not_zero_shot"),
        ("zeroshot", "gtzan", "M2D-CLAP/0.7", 75.17, "underlined_in_seed_text_only"),
        ("zeroshot", "esc50", "WavCaps", 94.8, "quoted"),
        ("retrieval", "audiocaps", "WavCaps", 37.43, ""),
        ("retrieval", "audiocaps", "M2D-CLAP_2025", 41.9, "second_hand"),
    ],
)
def test_a_row_is_shown_where_it_belongs(protocol: str, task: str, model: str, value: float, flags: str) -> None:
    (row,) = rows_for(protocol, [get_task(task)], (model,)).to_dict("records")
    assert (row["value"], row["flags"], row["name"]) == (value, flags, task)


def test_other_figures_of_retrieval_are_asked_for_by_name() -> None:
    tasks = [get_task("audiocaps"), get_task("clotho")]
    assert rows_for("retrieval", [tasks[1]]).empty
    found = rows_for("retrieval", tasks, metric="a2t_R@1")
    assert dict(zip(found["model"], found["value"], strict=True)) == {"WavCaps": 50.99, "M2D-CLAP_2025": 24.9}


def test_a_figure_without_protocol_is_in_no_table() -> None:
    for protocol in ("lineareval", "finetune", "zeroshot"):
        assert 98.5 not in rows_for(protocol, [get_task("esc50")], ("M2D-CLAP_2025",))["value"].tolist()


def test_one_model_under_two_names_has_equal_numbers_and_one_row() -> None:
    tables = pd.concat([pd.read_csv(paper_dir() / f"{name}.csv") for name in SOURCES])
    tables = tables[(tables["protocol"] == "lineareval") & (tables["task"] != "Avg")]
    for alias, name in SAME_MODEL.items():
        a, b = (tables[tables["model"] == n].drop_duplicates("task").set_index("task") for n in (alias, name))
        assert len(a) == 9
        assert (a["value"] == b["value"].reindex(a.index)).all()
        assert (a["ci95"] == b["ci95"].reindex(a.index)).all()
    assert not set(SAME_MODEL) & set(published()["model"])


def test_no_model_stands_twice_in_a_table() -> None:
    for protocol in ("lineareval", "finetune", "zeroshot", "retrieval"):
        found = rows_for(protocol, list(all_tasks().values()))
        assert len(found)
        assert not found.duplicated(["model", "name"]).any()


def protocol_page() -> str:
    return (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def test_the_protocol_page_has_every_known_deviation() -> None:
    cells = re.findall(r"^\| ([0-9, ]+) \|", protocol_page(), flags=re.MULTILINE)
    assert {int(number) for cell in cells for number in cell.split(",")} == set(range(1, 43))


def test_every_switch_that_the_protocol_page_names_exists() -> None:
    commands = (lineareval, finetune, zeroshot, retrieval, prepare)
    options = {name for command in commands for name in signature(command).parameters}
    for name in model_names():
        try:
            options |= set(model_options(name))
        except UserError:  # a model that needs another one's name, or a package that is not installed
            continue
    text, benchmark = protocol_page(), {"root", "weights"}
    named = set(re.findall(r"--([a-z_]+)", text))
    assert named - options - benchmark == set()
