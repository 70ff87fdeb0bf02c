"""Jobs through submitit's local executor: the whole way but for sbatch and squeue, which a stand-in plays."""

import json
import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path

import pytest
from quick_cells import cell, quick, runs, states

from evar.errors import UserError
from evar.grid import launch_slurm
from evar.grid.cell import RunSettings
from evar.grid.launchers import launcher_of

pytest.importorskip("submitit")
LOCAL = {"cluster": "local", "poll": "1", "time": "2"}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    return RunSettings(quick(tmp_path, monkeypatch), device="cpu", extra=LOCAL)


def test_batches_run_as_jobs_and_their_outcomes_come_back(settings):
    batches = [(cell("esc50", 1), cell("esc50", 2)), (cell("fsdd", 1, fails=True), cell("fsdd", 2))]
    found = {(o.cell.task, dict(o.cell.options)["seeds"]): o for o in launcher_of("slurm")(batches, settings)}
    assert {name: o.state for name, o in found.items()} == {
        ("esc50", "1"): "done", ("esc50", "2"): "done", ("fsdd", "1"): "failed", ("fsdd", "2"): "done"
    }  # fmt: skip
    assert found["fsdd", "1"].reason == "it was told to fail"
    assert found["esc50", "1"].score == 0.5
    again = list(launcher_of("slurm")(batches, settings))  # only what failed goes into the queue once more
    assert sorted(runs(settings.results)) == ["esc50 1", "esc50 2", "fsdd 1", "fsdd 1", "fsdd 2"]
    assert sum(o.there for o in again) == 3
    assert not list((settings.results / ".grid").glob("launch-*"))


def test_a_job_told_to_requeue_goes_on_with_what_is_missing(settings):
    """The signal that Slurm sends before the time limit, to a real job of submitit's."""
    batches = [(cell("esc50", 1), cell("esc50", 2, 60.0, once=True))]
    folder = settings.results / ".grid" / "slurm"

    def interrupt():
        while runs(settings.results) != ["esc50 1", "esc50 2"]:
            time.sleep(0.05)
        (log,) = (path for path in folder.iterdir() if path.name.isdigit())
        os.kill(_child_of(int(log.name)), signal.SIGUSR2)

    thread = threading.Thread(target=interrupt)
    thread.start()
    found = list(launcher_of("slurm")(batches, settings))
    thread.join()
    assert [o.state for o in found] == ["done", "done"]
    assert runs(settings.results) == ["esc50 1", "esc50 2", "esc50 2"]  # the first cell is not run again
    assert runs(settings.results, "ended.txt").count("esc50 2") == 1


def _child_of(pid):
    """Return the process that runs the job: the child of submitit's controller."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0])


SQUEUE = """#!{python}
import json, os
print("\\n".join(json.load(open({path!r}))))
"""


@pytest.fixture
def cluster(settings, tmp_path, monkeypatch):
    """A queue as ``squeue`` shows it; jobs are those that the test says are there."""
    tools, queued = tmp_path / "tools", tmp_path / "queue.json"
    tools.mkdir()
    for name in ("squeue", "srun"):
        path = tools / name
        path.write_text(SQUEUE.format(python=sys.executable, path=str(queued)))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", "")  # the stand-ins for Slurm's programs begin without the stand-in for cells
    queued.write_text("[]")
    slow = RunSettings(settings.results, device="cpu", extra={"poll": "1"})
    return slow, lambda *lines: queued.write_text(json.dumps(lines))


def record(settings, jobs):
    folder = settings.results / ".grid" / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    sign = folder.parent / "launch-earlier"
    sign.write_text("")
    (folder / "jobs-7.json").write_text(json.dumps({"sign": sign.name, "jobs": jobs}))
    return folder, sign


def test_a_second_call_waits_for_the_jobs_that_are_still_queued(cluster, monkeypatch):
    settings, queue = cluster
    one, two, three = (cell("esc50", n) for n in (1, 2, 3))
    record(settings, {"7_0": {one.key: ""}, "7_1": {two.key: ""}})
    queue("7 0 8", "7 1 7", "12 N/A 12")
    submitted = []
    monkeypatch.setattr(launch_slurm, "_submit", lambda batches, *_: submitted.extend(batches) or [])
    outcomes = launcher_of("slurm")([(one, two), (three,)], settings)

    def finish():
        time.sleep(0.5)
        from evar.grid.cell import run_cell

        run_cell(one, settings)
        queue("12 N/A 12")  # the other job is gone without a word

    monkeypatch.setenv("PYTHONPATH", str(settings.results.parent / "site"))
    thread = threading.Thread(target=finish)
    thread.start()
    found = list(outcomes)
    thread.join()
    assert submitted == [(three,)]
    assert [(o.cell, o.state) for o in found] == [(one, "done"), (two, "failed")]
    assert "Slurm job 7_1 ended early" in found[1].reason


def test_records_of_jobs_that_are_over_are_cleared_away(cluster, monkeypatch):
    settings, queue = cluster
    folder, sign = record(settings, {"7_0": {cell("esc50").key: ""}})
    (folder / "jobs-8.json").write_text("{half")
    queue("9 N/A 9")
    submitted = []
    monkeypatch.setattr(launch_slurm, "_submit", lambda batches, *_: submitted.extend(batches) or [])
    assert list(launcher_of("slurm")([(cell("esc50"),)], settings)) == []
    assert submitted == [(cell("esc50"),)]
    assert not sign.exists() and not (folder / "jobs-7.json").exists()


def test_what_sbatch_refuses_is_one_line(settings, tmp_path, monkeypatch):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (
        ("srun", ""),
        ("squeue", ""),
        ("sbatch", "echo 'sbatch: error: invalid partition: x' >&2; exit 1"),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    asked = RunSettings(settings.results, extra={"partition": "x"})
    with pytest.raises(UserError, match=r"sbatch did not take the job: .*invalid partition: x"):
        list(launcher_of("slurm")([(cell("esc50"),)], asked))


def test_an_interrupted_command_leaves_its_jobs_and_says_how_to_end_them(cluster, monkeypatch, capsys):
    settings, queue = cluster
    record(settings, {"7_0": {cell("esc50").key: ""}})
    queue("7 0 7")
    monkeypatch.setattr(launch_slurm, "news", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))  # Ctrl-C
    with pytest.raises(KeyboardInterrupt):
        list(launcher_of("slurm")([(cell("esc50"),)], settings))
    assert "scancel 7" in capsys.readouterr().err
    assert (settings.results / ".grid" / "slurm" / "jobs-7.json").exists()
    assert states(settings.results) == []
