"""One cell: run, skipped, failed, stopped, and by two at once."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from evar.grid import journal, process
from evar.grid.cell import Outcome, RunSettings, run_batch, run_cell, work_seconds
from evar.grid.plan import Cell

STUB = Path(__file__).with_name("grid_stub.py")


@pytest.fixture
def settings(tmp_path, monkeypatch) -> RunSettings:
    """Return settings under which a cell's command is the stand-in."""
    monkeypatch.setattr(
        process, "command_line", lambda record, words: [sys.executable, "-S", str(STUB), record, *words]
    )
    return RunSettings(tmp_path, root=tmp_path, device="cpu")


def cell(model="fine", task="t", protocol="lineareval"):
    return Cell(model, None, task, protocol)


def calls(settings):
    path = settings.results / "calls.txt"
    return path.read_text().splitlines() if path.is_file() else []


def test_a_cell_is_run_once_and_then_found(settings):
    first, second = run_cell(cell(), settings), run_cell(cell(), settings)
    assert (first.state, first.score, first.there) == ("done", 0.5, False)
    assert (second.state, second.there, second.result) == ("done", True, first.result)
    assert len(calls(settings)) == 1
    entry = journal.read_journal(settings.results)[cell().key]
    assert (entry.state, entry.work, entry.result) == ("done", 2.5, first.result)


def test_force_and_a_lost_result_run_it_again(settings):
    first = run_cell(cell(), settings)
    run_cell(cell(), replace(settings, force=True))
    (settings.results / first.result).unlink()
    assert not run_cell(cell(), settings).there
    assert len(calls(settings)) == 3


def test_a_result_made_by_hand_counts(settings):
    (settings.results / "fine__t__lineareval__0123456789.json").touch()
    assert run_cell(cell(), settings).there


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("refuses", "there is no such file"),
        ("raises", "ValueError: first line"),
        ("dies", "ended by SIGKILL (too little memory?)"),
        ("silent", "the command ended well but left no result"),
    ],
)
def test_a_failure_is_noted_with_its_reason(settings, model, reason):
    outcome = run_cell(cell(model), settings)
    assert (outcome.state, outcome.reason) == ("failed", reason)
    entry = journal.read_journal(settings.results)[cell(model).key]
    assert (entry.state, entry.reason) == ("failed", reason)
    assert run_cell(cell(model), settings).state == "failed"
    assert len(calls(settings)) == 2


def test_a_stale_entry_is_run_again(settings):
    journal.write_entry(settings.results, cell(), journal.Entry("running", cell().words, host="x", pid=1))
    assert run_cell(cell(), settings).state == "done"


def waiting(settings, task="t"):
    path, begin = settings.results / f"waiting-{task}", time.monotonic()
    while not (path.is_file() and path.read_text()):
        assert time.monotonic() - begin < 30
        time.sleep(0.02)
    return int(path.read_text())


def test_a_stop_ends_the_command_and_leaves_no_entry(settings):
    stop, found = threading.Event(), []
    thread = threading.Thread(target=lambda: found.append(run_cell(cell("waits"), settings, stop=stop)))
    thread.start()
    pid = waiting(settings)
    assert journal.read_journal(settings.results)[cell("waits").key].state == "running"
    stop.set()
    thread.join(30)
    assert [one.state for one in found] == ["interrupted"]
    assert journal.process_start(pid) is None
    assert journal.read_journal(settings.results) == {}


def test_a_command_that_will_not_end_is_made_to(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "GRACE", 0.2)
    code = "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; open('on', 'w'); time.sleep(60)"
    stop = threading.Event()

    def look():
        while not (tmp_path / "on").exists():
            time.sleep(0.02)
        stop.set()

    threading.Thread(target=look).start()
    begin = time.monotonic()
    assert process.run_command([sys.executable, "-c", code], tmp_path, tmp_path / "log", {}, stop) is None
    assert time.monotonic() - begin < 30


def test_two_at_once_run_a_cell_once(settings):
    batch = [cell(task=f"t{n}") for n in range(4)]
    found: list[Outcome] = []
    threads = [threading.Thread(target=lambda: found.extend(run_batch(batch, settings))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 12 and {one.state for one in found} == {"done"}
    assert sorted(calls(settings)) == sorted(f"fine t{n} evar.lineareval -" for n in range(4))


def test_a_cell_that_another_is_at_is_busy(settings):
    stop = threading.Event()
    thread = threading.Thread(target=run_cell, args=(cell("waits"), settings), kwargs={"stop": stop})
    thread.start()
    waiting(settings)
    assert run_cell(cell("waits"), settings, wait=False).state == "busy"
    stop.set()
    thread.join(30)


def test_the_settings_are_handed_to_the_command(tmp_path):
    settings = RunSettings(tmp_path / "r", tmp_path / "d", "cuda:1", cpus_per_cell=3, force=True)
    words = (f"--results={tmp_path / 'r'}", f"--root={tmp_path / 'd'}", "--device=cuda:1", "--workers=3", "--force")
    assert settings.words() == words


def test_the_work_of_a_result():
    assert work_seconds({"total": 3, "embedding": 1}) == 3
    assert work_seconds({"embedding": 1, "probe": 0.5, "probe_cpu": 9}) == 1.5
    assert work_seconds({}) is None


def test_an_orphan_leaves(tmp_path):
    """The cell's process ends by itself when the grid that started it was killed."""
    code = (
        "import os, sys, threading, time; from evar.grid import child; child.SECONDS_BETWEEN_LOOKS = 0.1;"
        "threading.Thread(target=child._leave_with_parent, args=(os.getppid(),), daemon=True).start();"
        "open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    )
    starter = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {code!r}]); time.sleep(60)"
    import subprocess

    parent = subprocess.Popen([sys.executable, "-c", starter], cwd=tmp_path, env=os.environ)
    path, begin = tmp_path / "pid", time.monotonic()
    while not (path.is_file() and path.read_text()):
        assert time.monotonic() - begin < 60
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while journal.process_start(int(path.read_text())) is not None:
        assert time.monotonic() - begin < 60
        time.sleep(0.05)
