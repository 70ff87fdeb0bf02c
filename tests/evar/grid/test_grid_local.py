"""Cells on this machine: all of them, several at once, one process per GPU, and ended with the caller."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from evar.grid import journal, process
from evar.grid import local as here
from evar.grid.cell import RunSettings
from evar.grid.local import environments, local, visible_gpus, with_workers
from evar.grid.plan import Cell, batches_of

STUB = Path(__file__).with_name("grid_stub.py")


@pytest.fixture
def settings(tmp_path, monkeypatch) -> RunSettings:
    monkeypatch.setattr(
        process, "command_line", lambda record, words: [sys.executable, "-S", str(STUB), record, *words]
    )
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return RunSettings(tmp_path, root=tmp_path, device="cpu", workers=2)


def cells(*models, tasks=("a", "b")):
    return [Cell(m, None, t, p) for m in models for t in tasks for p in ("lineareval", "zeroshot")]


def test_every_cell_is_run_and_a_failure_stops_nothing(settings):
    asked = cells("fine", "refuses", "other")
    outcomes = list(local(batches_of(asked), settings))
    assert {one.cell.key for one in outcomes} == {one.key for one in asked} and len(outcomes) == len(asked)
    assert Counter((o.cell.model, o.state) for o in outcomes) == {
        ("fine", "done"): 4, ("refuses", "failed"): 4, ("other", "done"): 4
    }  # fmt: skip


def test_a_batch_is_run_in_its_order(settings):
    outcomes = list(local(batches_of(cells("fine", "other")), settings))
    for model in ("fine", "other"):
        for task in ("a", "b"):
            order = [o.cell.protocol for o in outcomes if (o.cell.model, o.cell.task) == (model, task)]
            assert order == ["lineareval", "zeroshot"]


def test_two_grids_at_once_run_every_cell_once(settings):
    asked = cells("fine", "other", tasks=("a", "b", "c"))
    found: list[list] = [[], []]

    def go(mine):
        mine.extend(local(batches_of(asked), settings))

    threads = [threading.Thread(target=go, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [len(mine) for mine in found] == [len(asked)] * 2
    assert {o.state for mine in found for o in mine} == {"done"}
    assert len((settings.results / "calls.txt").read_text().splitlines()) == len(asked)


class Interrupted(Exception):
    pass


def test_when_the_caller_stops_the_commands_are_ended(settings, monkeypatch):
    def get(queue):
        """Stand for Ctrl-C while the caller waits: both commands are at work."""
        begin = time.monotonic()
        while len([p for p in settings.results.glob("waiting-*") if p.read_text()]) < 2:
            assert time.monotonic() - begin < 30
            time.sleep(0.02)
        raise Interrupted

    monkeypatch.setattr(here.queue.Queue, "get", get)
    with pytest.raises(Interrupted):
        next(local(batches_of(cells("waits", tasks=("a", "b", "c"))), settings))
    pids = [int(path.read_text()) for path in settings.results.glob("waiting-*")]
    assert len(pids) == 2 and [journal.process_start(pid) for pid in pids] == [None, None]
    assert journal.read_journal(settings.results) == {}


def test_an_error_of_our_own_reaches_the_caller(settings, monkeypatch):
    def broken(*args, **options):
        raise OSError("the disk is full")

    monkeypatch.setattr(here, "run_cell", broken)
    with pytest.raises(OSError, match="the disk is full"):
        list(local(batches_of(cells("fine")), settings))


def test_one_process_per_gpu(settings, monkeypatch):
    from dataclasses import replace

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    many = replace(settings, device="auto", workers=3)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments(many)] == ["2", "5", "2"]
    assert with_workers(replace(many, device="cuda"), None).workers == 2
    assert environments(replace(many, device="cpu")) == [{}, {}, {}]
    assert environments(replace(many, device="cuda:1")) == [{}, {}, {}]
    list(local(batches_of(cells("fine", "other")), replace(many, workers=2)))
    seen = {line.split()[-1] for line in (settings.results / "calls.txt").read_text().splitlines()}
    assert seen == {"2", "5"}


def test_gpus_are_counted_by_their_tool(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: one (UUID: GPU-a)'\necho 'GPU 1: two (UUID: GPU-b)'\necho '  MIG 1g'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []


def test_cores_are_shared(settings, monkeypatch):
    monkeypatch.setattr(here, "cores", lambda: 16)
    assert (with_workers(settings, None).workers, with_workers(settings, None).cpus_per_cell) == (4, 4)
    assert (with_workers(settings, 5).workers, with_workers(settings, 5).cpus_per_cell) == (5, 3)
    monkeypatch.setattr(here, "cores", lambda: 1)
    assert (with_workers(settings, None).workers, with_workers(settings, 4).cpus_per_cell) == (1, 1)
