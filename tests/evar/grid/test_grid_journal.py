"""The journal: what is done, failed, still running, and what a killed run left behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from evar.grid import journal
from evar.grid.journal import Entry
from evar.grid.plan import Cell

CELL = Cell("m2d", "random", "esc50", "lineareval", (("seeds", "2"),))
STAMP = {"weights": None, "source": None, "table": None, "root": "/data"}


def entry(state, **facts):
    return replace(
        Entry(
            state, CELL.words, stamp=STAMP, host=socket.gethostname(), pid=os.getpid(),
            process_start=journal.process_start(os.getpid()) or "",
        ),
        **facts,
    )  # fmt: skip


def standing(tmp_path, one):
    return journal.standing(tmp_path, CELL, one, STAMP)


def test_an_entry_comes_back(tmp_path):
    one = entry("failed", reason="größer", seconds=1.5, model="m2d")
    journal.write_entry(tmp_path, CELL, one)
    (key, back), *_ = journal.read_journal(tmp_path).items()
    assert key == CELL.key and back.reason == "größer" and back.seconds == 1.5 and tuple(back.words) == CELL.words
    journal.remove_entry(tmp_path, CELL)
    assert journal.read_journal(tmp_path) == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "done"}', '{"state": "odd", "words": []}', "null"])
def test_a_damaged_entry_is_none(tmp_path, text):
    journal.journal_folder(tmp_path).mkdir()
    journal.entry_path(tmp_path, CELL.key).write_text(text)
    assert journal.read_journal(tmp_path) == {}


def test_unknown_facts_of_a_later_version_are_left_out(tmp_path):
    journal.journal_folder(tmp_path).mkdir()
    journal.entry_path(tmp_path, CELL.key).write_text('{"state": "failed", "words": [], "news": 1}')
    assert journal.read_journal(tmp_path)[CELL.key].state == "failed"


def test_done_needs_the_result_and_the_same_stamp(tmp_path):
    one = entry("done", result="r.json")
    assert standing(tmp_path, None) == "missing"
    assert standing(tmp_path, one) == "missing"
    (tmp_path / "r.json").touch()
    assert standing(tmp_path, one) == "done"
    assert standing(tmp_path, replace(one, stamp=STAMP | {"root": "/elsewhere"})) == "missing"
    assert standing(tmp_path, entry("done")) == "missing"
    assert standing(tmp_path, entry("failed")) == "failed"


def test_a_killed_runs_entry_is_recognised(tmp_path):
    assert standing(tmp_path, entry("running")) == "running"
    assert standing(tmp_path, entry("running", process_start="12")) == "missing"  # another process has the number now
    ended = subprocess.Popen([sys.executable, "-c", ""])
    start = journal.process_start(ended.pid)
    ended.wait()
    assert standing(tmp_path, entry("running", pid=ended.pid, process_start=start or "x")) == "missing"


def test_on_another_host_the_lock_tells(tmp_path):
    away = entry("running", host="another-host", pid=1)
    assert standing(tmp_path, away) == "missing"
    lock = journal.cell_lock(tmp_path, CELL)
    held, release = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            release.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    assert standing(tmp_path, away) == "running"
    release.set()
    thread.join()


def test_the_stamp_changes_with_weights_source_and_root(tmp_path, monkeypatch):
    weights, source = tmp_path / "w.pth", tmp_path / "mine.py"
    weights.write_bytes(b"1"), source.write_text("a = 1")
    cell = Cell(f"{source}:Mine", str(weights), "esc50", "lineareval")
    before = journal.stamp_of(cell, tmp_path)
    assert before == journal.stamp_of(cell, tmp_path)
    weights.write_bytes(b"22")
    assert journal.stamp_of(cell, tmp_path)["weights"] != before["weights"]
    source.write_text("a = 2")
    assert journal.stamp_of(cell, tmp_path)["source"] != before["source"]
    assert journal.stamp_of(cell, tmp_path / "other")["root"] != before["root"]
    monkeypatch.setenv("EVAR_WEIGHTS", str(tmp_path))
    assert journal.stamp_of(replace(cell, weights="w.pth"), None)["weights"][0] == str(weights)
    assert journal.stamp_of(replace(cell, weights="random"), None)["weights"] is None
