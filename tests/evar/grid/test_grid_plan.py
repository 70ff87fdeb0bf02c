"""Plans: the paper's tables, globs, what cannot be, cells and batches."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evar.cli import check
from evar.errors import UserError
from evar.grid.plan import PROTOCOLS, Cell, Entry, batches_of
from evar.grid.study import Wanted, merged, names_tasks, paper_tables, plan_of
from evar.paths import paper_dir
from tasks.base import all_tasks

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a machine with other work on it
TEXT = st.text("abc", min_size=1, max_size=2)
CELLS = st.builds(
    Cell,
    TEXT,
    st.none() | TEXT,
    TEXT,
    st.sampled_from(PROTOCOLS),
    st.lists(st.tuples(TEXT, TEXT), max_size=2).map(lambda pairs: tuple(sorted(dict(pairs).items()))),
)


def names(plan):
    return [(cell.model, cell.task, cell.protocol) for cell in plan.cells]


def test_the_tables_are_those_of_the_paper():
    with open(paper_dir() / "m2d_clap_2024.csv") as handle:
        rows = list(csv.DictReader(handle))
    tables = paper_tables()
    assert {number: protocol for number, (protocol, _) in tables.items()} == {
        3: "lineareval",
        4: "finetune",
        5: "zeroshot",
    }
    for number, (protocol, tasks) in tables.items():
        assert {r["task"] for r in rows if r["source"].endswith(f"Table {number}")} - {"Avg"} == set(tasks)
        assert {r["protocol"] for r in rows if r["source"].endswith(f"Table {number}")} == {protocol}


def test_a_language_model_gets_all_three_tables_and_an_audio_model_no_zero_shot():
    language, _ = plan_of(Wanted((Entry("m2d_clap", "random"),)))
    assert len(language.cells) == sum(len(tasks) for _, tasks in paper_tables().values())
    assert not language.left_out
    audio, _ = plan_of(Wanted((Entry("m2d", "random"),), tables=(3, 5)))
    assert {protocol for _, _, protocol in names(audio)} == {"lineareval"}
    assert {one.reason for one in audio.left_out} == {"the model has no text side"}
    assert len(audio.cells) + len(audio.left_out) == 16


def test_tasks_and_protocols_choose_among_the_tables():
    plan, _ = plan_of(Wanted((Entry("m2d_clap"),), tables=(3, 4, 5), tasks=("esc50",), protocols=("zeroshot",)))
    assert names(plan) == [("m2d_clap", "esc50", "zeroshot")]
    plan, _ = plan_of(Wanted((Entry("m2d_clap"),), protocols=("finetune",)))
    assert len(plan.cells) == 5


def test_tasks_alone_are_run_under_what_fits_them_but_fine_tuning():
    plan, _ = plan_of(Wanted((Entry("m2d_clap"),), tasks=("pocket_p*", "clotho")))
    assert [cell[1:] for cell in names(plan)] == [
        ("pocket_pitch", "lineareval"),
        ("pocket_pitch", "zeroshot"),
        ("clotho", "retrieval"),
    ]


def test_patterns_find_models_and_leave_out_those_that_need_a_name():
    plan, _ = plan_of(Wanted((Entry("h*"),), tasks=("esc50",), protocols=("lineareval",)))
    assert [cell.model for cell in plan.cells] == ["htsat", "hubert"]
    assert [(one.name, one.reason) for one in plan.left_out] == [("hf", "it needs a name after a colon: hf:…")]


def test_what_cannot_be_is_left_out_with_its_reason():
    wanted = Wanted(
        (Entry("caption_map"), Entry("log_mel_stats")), tasks=("esc50", "clotho"), protocols=("zeroshot", "finetune")
    )
    plan, _ = plan_of(wanted)
    reasons = {one.name: one.reason for one in plan.left_out}
    assert "every clip is a test clip" in reasons["caption_map · esc50 · zeroshot"]
    assert reasons["log_mel_stats · esc50 · finetune"] == "the model has nothing to train"
    assert reasons["caption_map · clotho · zeroshot"] == "the task has captions and no classes"


def test_options_go_to_whom_they_belong():
    options = {"": {"seeds": "1", "depth": "1", "precision": "bf16"}, "lineareval": {"probe": "both"}}
    plan, _ = plan_of(
        Wanted((Entry("m2d_clap", "random", {"lr": "0.1"}), Entry("gpvad")), tasks=("esc50",), options=options)
    )
    found = {(cell.model, cell.protocol, dict(cell.options).get("probe")): dict(cell.options) for cell in plan.cells}
    adam = {"seeds": "1", "precision": "bf16", "probe": "adam"}
    assert found["gpvad", "lineareval", "adam"] == adam
    assert found["m2d_clap", "lineareval", "adam"] == adam | {"depth": "1", "lr": "0.1"}
    assert found["m2d_clap", "zeroshot", None] == {"depth": "1", "precision": "bf16"}
    assert len(plan.cells) == 5


def test_a_cells_words_are_a_command_line_that_the_command_takes():
    from evar.command import options_of_models
    from evar.lineareval import lineareval

    cell = Cell("m2d", "random", "esc50", "lineareval", (("depth", "1"), ("seeds", "2")))
    assert cell.words[0] == "evar.lineareval"
    positional, options = check(lineareval, cell.words[1:], options_of_models)
    assert positional == {"model": "m2d", "task": "esc50"}
    assert options == {"weights": "random", "depth": "1", "seeds": "2"}


@PATIENT
@given(CELLS, CELLS)
def test_cells_have_one_key_each(one, other):
    assert (one.key == other.key) == (one == other)


@PATIENT
@given(st.lists(CELLS, unique=True, max_size=12))
def test_batches_hold_every_cell_once_and_share_embeddings(cells):
    batches = batches_of(cells)
    assert sorted(c.key for b in batches for c in b) == sorted(c.key for c in cells)
    for batch in batches:
        assert len({(c.model, c.weights, c.task) for c in batch}) == 1
        assert len(batch) == 1 or all(c.protocol != "finetune" for c in batch)
    sharing = [b for b in batches if b[0].protocol != "finetune"]
    assert len({(b[0].model, b[0].weights, b[0].task) for b in sharing}) == len(sharing)
    assert batches[: len(sharing)] == sharing  # fine-tuning comes last


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(), "give at least one model"),
        (Wanted((Entry("m2dd"),)), "no model is called 'm2dd'. Did you mean 'm2d'"),
        (Wanted((Entry("*xyz*"),)), r"no model fits '\*xyz\*'"),
        (Wanted((Entry("m2d"),), tables=(2,)), "the paper's tables are 3, 4, 5"),
        (Wanted((Entry("m2d"),), tasks=("esc51",)), "no task is called 'esc51'. Did you mean 'esc50'"),
        (Wanted((Entry("m2d"),), protocols=("zero",)), "there is no protocol 'zero'. Did you mean 'zeroshot'"),
        (Wanted((Entry("m2d"),), options={"": {"sead": "1"}}), "there is no option --sead. Did you mean 'seeds'"),
        (Wanted((Entry("m2d"),), options={"zeroshot": {"seeds": "1"}}), "no option --seeds of zeroshot"),
        (Wanted((Entry("m2d", None, {"dept": "1"}),)), "m2d has no option 'dept'. Did you mean 'depth'"),
        (Wanted((Entry("m2d"),), tables=(3,), tasks=("fsdd",)), "nothing in common"),
    ],
)
def test_mistakes_are_one_clear_line(wanted, message):
    with pytest.raises(UserError, match=message) as caught:
        plan_of(wanted)
    assert "\n" not in str(caught.value)


def test_the_second_argument_may_be_tasks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert names_tasks("esc50") and names_tasks("esc50,pocket_pitch") and names_tasks("csv:x.csv")
    assert not names_tasks("random") and not names_tasks("weights.pth") and not names_tasks("")
    (tmp_path / "esc50").touch()
    assert not names_tasks("esc50")


def test_the_command_line_chooses_among_a_plan_files_models():
    file = Wanted((Entry("m2d", "random"), Entry("gpvad")), tasks=("esc50",), options={"": {"seeds": "2"}})
    both = merged(file, Wanted((Entry("m2*"),), tasks=("fsdd",), options={"": {"probe": "adam"}}))
    assert both.models == file.models[:1] and both.tasks == ("fsdd",)
    assert both.options == {"": {"seeds": "2", "probe": "adam"}}
    with pytest.raises(UserError, match="no model of the plan file fits 'beats'"):
        merged(file, Wanted((Entry("beats"),)))


def test_planning_720_cells_loads_no_torch():
    code = (
        "import sys; from evar.grid.study import *; from evar.grid.plan import *; from evar.grid.run import lines_of;"
        "from evar.grid.cell import RunSettings; from pathlib import Path; from tasks.base import all_tasks;"
        "tasks = tuple(n for n, t in all_tasks().items() if t.kind == 'classification')[:12];"
        "wanted = Wanted(tuple(Entry(n, 'random') for n in model_names()[:20]), tasks=tasks,"
        " protocols=('lineareval', 'finetune', 'zeroshot'));"
        "plan, known = plan_of(wanted); lines = lines_of(plan.cells, RunSettings(Path('none'), Path('none')), known);"
        "print(len(plan.cells) + len(plan.left_out), len(lines) == len(plan.cells), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert (done.stdout, done.stderr) == ("720 True False\n", "")


def test_every_task_of_the_tables_is_there():
    ours = {name for task in all_tasks().values() for name in task.paper_name.split("|") if name}
    assert {task for _, tasks in paper_tables().values() for task in tasks} <= ours
