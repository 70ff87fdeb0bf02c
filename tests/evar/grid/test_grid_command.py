"""The command as a user runs it: planned, run, interrupted, killed, gone on with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import environment, evar, results_in

from evar import cli
from evar.grid import journal
from evar.grid.__main__ import further_options, grid

PLAN = """
tasks = ["pocket_*"]
protocols = ["lineareval"]
models = [
  "log_mel_stats",
  {name = "m2d", weights = "random", depth = 1, embed_dim = 48, heads = 4, input_size = "80x208"},
  {name = "byol_a", weights = "random"},
  {name = "gpvad", weights = "random"},
]
[lineareval]
seeds = 2
max_epochs = 4
"""


def run(*words):
    """Run the command in this process and return its exit code."""
    return cli.run(grid, [str(word) for word in words], further_options)


def test_a_dry_run_prints_the_plan_and_does_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("EVAR_DATA", str(tmp_path / "data"))
    assert run("m2d_clap", "random", "--dry_run", f"--results={tmp_path / 'r'}", "--tables=3,5") == 0
    text = capsys.readouterr().out
    assert "esc50" in text and "fetch them with `python -m evar.prepare esc50," in text
    assert text.splitlines()[-1] == "16 cells: 16 no data; nothing to do"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["m2dd"], "no model is called 'm2dd'. Did you mean 'm2d'?"),
        ([], "give at least one model"),
        (["m2d", "--sead=3"], "there is no option --sead. Did you mean 'seeds'?"),
        (["m2d", "--seeds=0"], "--seeds=0: must be at least 1"),
        (["m2d", "--jobs=0"], "--jobs=0: must be at least 1"),
        (["m2d,gpvad", "random"], "--weights belongs to one model"),
        (["m2d", "--launcher=rai"], "--launcher=rai is not one of its values. Did you mean 'ray'?"),
        (["m2d", "--plan=none.toml"], "--plan=none.toml cannot be read"),
        (["m2d", "--protocols=zeroshot", "--dry_run", "--tasks=esc50", "--seeds=2"], "there is no option --seeds"),
        (["gpvad", "--protocols=zeroshot", "--tasks=esc50"], "no cell of this plan can be run"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_model_may_be_followed_by_weights_or_by_tasks(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("m2d", "pocket_pitch,pocket_speech", "--weights=random", "--dry_run") == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[:4] for row in rows[1:3]] == [
        ["m2d", "[random]", "pocket_pitch", "lineareval"],
        ["m2d", "[random]", "pocket_speech", "lineareval"],
    ]
    assert run("m2d", "random", "--tasks=pocket_pitch", "--dry_run") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["m2d", "[random]", "pocket_pitch"]


def test_help_names_the_options_of_the_model(capsys):
    assert run("m2d", "--help") == 0
    text = capsys.readouterr().out
    assert "--tables" in text and "--depth" in text and "--max_epochs" in text


def test_a_failing_cell_is_told_and_the_rest_is_tabulated(tmp_path, pocket_data):
    """One run by hand, one that fails, one that is found: the exit code says that something failed."""
    asked = ("--tasks=pocket_pitch", "--protocols=lineareval", "--seeds=1", "--max_epochs=2")
    done = evar("grid", "log_mel_stats,byol_a", *asked, "--results=r", "--device=cpu", cache=tmp_path, data=pocket_data)
    assert done.returncode == 1, done.stderr
    assert "log_mel_stats" in done.stdout and "Linear evaluation" in done.stdout
    assert (
        "failed, 1 of 2 (the same command tries again):\n  byol_a · pocket_pitch · lineareval: byol_a needs"
        in done.stderr
    )
    states = {entry.model: entry.state for entry in journal.read_journal(tmp_path / "r").values()}
    assert states == {"log_mel_stats": "done", "byol_a": "failed"}


def start(tmp_path, data, folder, *words):
    """Start the grid as the head of a process group of its own, as a shell would."""
    line = [sys.executable, "-m", "evar.grid", "--plan=plan.toml", f"--results={folder}", "--device=cpu", *words]
    (tmp_path / "plan.toml").write_text(PLAN)
    return subprocess.Popen(
        line, cwd=tmp_path, env=environment(tmp_path / f"cache-{folder}", data), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests run in the background ignore Ctrl-C
    )  # fmt: skip


def wait_for(folder: Path, process, done: int):
    """Wait until so many cells are done and another one has begun."""
    begin = time.monotonic()
    while process.poll() is None:
        states = [entry.state for entry in journal.read_journal(folder).values()]
        if states.count("done") >= done and "running" in states:
            return
        assert time.monotonic() - begin < 600
        time.sleep(0.1)
    pytest.fail(process.stderr.read())


def scores(folder: Path):
    return {(r["model"], r["task"]): (r["scores"], r["run_id"]) for r in results_in(folder)}


@pytest.mark.slow
def test_killed_twice_it_ends_with_the_same_tables(tmp_path, pocket_data):
    unbroken = start(tmp_path, pocket_data, "whole")
    table, errors = unbroken.communicate(timeout=900)
    assert unbroken.returncode == 0, errors
    for done in (2, 6):
        process = start(tmp_path, pocket_data, "broken", "--jobs=2")
        wait_for(tmp_path / "broken", process, done)
        time.sleep(1.5)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    last = start(tmp_path, pocket_data, "broken", "--jobs=2")
    again, errors = last.communicate(timeout=900)
    assert last.returncode == 0, errors
    assert again == table
    assert scores(tmp_path / "broken") == scores(tmp_path / "whole") and len(scores(tmp_path / "whole")) == 12
    found = re.search(r"12 cells: (\d+) done", errors)
    assert found and int(found[1]) >= 6, errors  # nothing that was done is done again


@pytest.mark.slow
def test_ctrl_c_ends_the_commands_and_keeps_what_is_done(tmp_path, pocket_data):
    process = start(tmp_path, pocket_data, "r", "--jobs=2")
    wait_for(tmp_path / "r", process, 1)
    os.kill(process.pid, signal.SIGINT)  # not to the whole group: the grid itself must end its commands
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == (
        "evar.grid: interrupted; what is done is kept, the same command goes on from here"
    )
    entries = journal.read_journal(tmp_path / "r").values()
    assert {entry.state for entry in entries} == {"done"}
    with pytest.raises(ProcessLookupError):  # nobody of the group is left
        os.killpg(process.pid, 0)


@pytest.mark.slow
def test_what_was_run_by_hand_is_found_and_a_failure_is_left_or_tried_again(tmp_path, pocket_data):
    asked = ("--seeds=1", "--max_epochs=2", "--results=r", "--device=cpu")
    places = {"cache": tmp_path, "data": pocket_data}
    evar("lineareval", "log_mel_stats", "pocket_pitch", *asked, **places)
    (own,) = results_in(tmp_path / "r")
    line = ("grid", "log_mel_stats,byol_a", "pocket_pitch", "--protocols=lineareval", *asked)
    first = evar(*line, **places)
    assert "already there" in first.stderr and first.returncode == 1
    assert results_in(tmp_path / "r") == [own]
    left = evar(*line, "--noretry", **places)
    assert "(before; not tried again)" in left.stderr and left.returncode == 1
    entry = next(e for e in journal.read_journal(tmp_path / "r").values() if e.state == "failed")
    assert json.dumps(entry.reason).startswith('"byol_a needs --weights')
