"""Expected times from past ones, and how they are said."""

from __future__ import annotations

import json

import pytest

from evar.grid.cell import Outcome
from evar.grid.journal import Entry
from evar.grid.plan import Cell, LeftOut
from evar.grid.show import Line, Progress, by_reason, duration, no_data, plan_text
from evar.grid.timings import START, Expected, timings_of
from tasks.base import all_tasks

TASKS = all_tasks()


def entry(model, task, protocol="lineareval", *, work, seconds, options=(), there=False):
    cell = Cell(model, None, task, protocol, options)
    measured = {"work": work, "seconds": seconds, "there": there}
    return Entry("done", cell.words, model, None, task, protocol, options, result=f"{model}.json", **measured)


def test_nothing_is_known_at_first(tmp_path):
    assert timings_of(tmp_path, {}, TASKS).expected(Cell("m2d", None, "esc50", "lineareval")) == (None, "?")
    assert timings_of(tmp_path / "none", {}, TASKS).start == START


def test_from_the_same_cell_to_other_models(tmp_path):
    seeds = (("seeds", "3"),)
    journal = {
        "a": entry("m2d", "esc50", work=100.0, seconds=104.0, options=seeds),
        "b": entry("m2d", "esc50", work=50.0, seconds=54.0),
        "c": entry("gpvad", "esc50", work=10.0, seconds=14.0),
        "d": entry("gpvad", "fsdd", work=0.0, seconds=90.0, there=True),
    }
    timings = timings_of(tmp_path, journal, TASKS)
    assert timings.start == 4.0  # the run that found its result there says nothing of it

    def expected(model, task, options=()):
        return timings.expected(Cell(model, None, task, "lineareval", options))

    assert expected("m2d", "esc50", seeds) == (104.0, "as before")
    assert expected("m2d", "esc50", (("seeds", "9"),)) == (79.0, "other settings")
    esc50, us8k = 2000 * 5.0, sum(TASKS["us8k"].counts.values()) * 4.0
    seconds, basis = expected("m2d", "us8k")
    assert (seconds, basis) == (pytest.approx(4 + 75 / esc50 * us8k), "by its audio")
    assert expected("beats", "us8k").basis == "other models"
    assert timings.expected(Cell("m2d", None, "esc50", "finetune")).seconds is None


def test_a_protocol_without_training_looks_at_the_test_part(tmp_path):
    timings = timings_of(tmp_path, {}, TASKS)
    assert timings.audio("fsdd", "zeroshot") == 300 and timings.audio("fsdd", "lineareval") == 3000
    assert timings.audio("esc50", "zeroshot") == 10000  # with folds every clip is a test clip


def test_results_made_by_hand_count_and_damaged_files_do_not(tmp_path):
    result = {"model": "m2d", "task": "esc50", "protocol": "zeroshot", "timings": {"total": 7.0}}
    (tmp_path / "a.json").write_text(json.dumps(result))
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.json").write_text("[1]")
    expected = timings_of(tmp_path, {}, TASKS).expected(Cell("m2d", None, "esc50", "zeroshot"))
    assert expected == (START + 7.0, "other settings")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (3.4, "3 s"), (89, "89 s"), (120, "2 min"), (5400, "1 h 30"), (7260, "2 h 01"), (200000, "2 d 8 h")],
)
def test_durations_in_words(seconds, text):
    assert duration(seconds) == text


def line(model="m2d", state="missing", seconds=60.0, reason="", task="esc50", options=()):
    return Line(Cell(model, "a/b/w.pth", task, "lineareval", options), state, Expected(seconds, "as before"), reason)


def test_the_plan_in_words():
    lines = [
        line(options=(("depth", "1"), ("seeds", "2"))),
        line("gpvad", "done", options=(("seeds", "2"),)),
        line("ced", "failed", None, "no memory", options=(("seeds", "2"),)),
        line("ced", "no data", None, "us8k is not at /x; fetch it", "us8k", (("seeds", "2"),)),
    ]
    text = plan_text(lines, [LeftOut("x", "why"), LeftOut("y", "why")], 2)
    rows = text.splitlines()
    assert " ".join(rows[1].split()) == "m2d [w.pth] esc50 lineareval (depth=1) missing 60 s as before"
    assert " ".join(rows[2].split()) == "gpvad [w.pth] esc50 lineareval done -"
    assert "\nlineareval: seeds=2\n" in text
    assert "failed before:\n  ced [w.pth] · esc50 · lineareval: no memory\n" in text
    assert "data that are not here:\n  us8k is not at /x; fetch it (1 cell)\n" in text
    assert "left out:\n  why: x, y\n" in text
    assert rows[-1] == (
        "4 cells: 1 done, 1 failed, 1 no data, 1 missing; about 30 s to go with 2 at once, and 1 of unknown length"
    )


def test_data_that_are_not_here_are_named_once():
    lines = [line(state="no data", task=t, reason=f"{t} is not at /x; fetch it") for t in ("us8k", "us8k", "gtzan")]
    (text,) = no_data(lines)
    assert text.startswith("  us8k (2 cells), gtzan (1 cell): fetch them with `python -m evar.prepare us8k,gtzan`")


def test_reasons_are_said_once():
    assert by_reason([("a", "x"), ("b", "y"), ("c", "x")]) == ["  a, c: x", "  b: y"]
    assert by_reason(((n, "x") for n in "abcde"), shown=2) == ["  x: a, b and 3 more"]


def test_progress_says_what_is_left(capsys):
    lines = [line(task=t) for t in ("esc50", "fsdd", "us8k")]
    progress = Progress(lines, 1)
    progress.tell(Outcome(lines[0].cell, "done", seconds=12.2, score=0.5))
    progress.tell(Outcome(lines[1].cell, "failed", "no memory"))
    progress.tell(Outcome(lines[2].cell, "done", there=True))
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "[1/3] m2d [w.pth] · esc50 · lineareval: 50.00 % (12 s); about 2 min to go",
        "[2/3] m2d [w.pth] · fsdd · lineareval: failed: no memory; about 60 s to go",
        "[3/3] m2d [w.pth] · us8k · lineareval: (already there)",
    ]
