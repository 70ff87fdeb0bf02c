"""Cells on real Ray clusters: one on this machine, and one of two nodes of which one is killed."""

import json
import logging
import os
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from quick_cells import cell, quick, runs, states

from evar.errors import UserError
from evar.grid import launch_ray, remote
from evar.grid.cell import RunSettings
from evar.grid.launchers import launcher_of
from evar.grid.plan import Cell, batches_of

pytest.importorskip("ray")
SMALL = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture(scope="module")
def one_node():
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level=logging.ERROR, **SMALL)
    yield
    ray.shutdown()


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return RunSettings(quick(tmp_path, monkeypatch).relative_to(tmp_path), device="cpu", cpus_per_cell=1)


def test_outcomes_come_as_cells_finish_and_only_failures_are_run_again(one_node, settings):
    batches = [(cell("esc50", 1), cell("esc50", 2, 2.0)), (cell("fsdd", 1, fails=True), cell("fsdd", 2))]
    found, times = [], []
    for outcome in launcher_of("ray")(batches, settings):
        found.append(outcome)
        times.append(time.monotonic())
    assert sorted((o.cell.task, o.state, o.reason) for o in found) == [
        ("esc50", "done", ""), ("esc50", "done", ""), ("fsdd", "done", ""), ("fsdd", "failed", "it was told to fail")
    ]  # fmt: skip
    assert found[-1].cell == batches[0][1] and times[-1] - times[0] > 1.0  # not all at the end of their batches
    again = list(launcher_of("ray")(batches, settings))
    assert sorted(runs(settings.results)) == ["esc50 1", "esc50 2", "fsdd 1", "fsdd 1", "fsdd 2"]
    assert sum(o.there for o in again) == 3
    assert not list((settings.results / ".grid").glob("launch-*"))


def test_a_caller_that_stops_leaves_nothing_running(one_node, settings):
    batches = [(cell("esc50", 1), cell("esc50", 2, 60.0)), (cell("fsdd", 1, 60.0),)]
    outcomes = launcher_of("ray")(batches, settings)
    assert next(outcomes).cell == batches[0][0]
    while len(runs(settings.results)) < 3:
        time.sleep(0.05)
    outcomes.close()  # what Ctrl-C comes to
    pids = [int(line.split()[-1]) for line in (settings.results / "runs.txt").read_text().splitlines()]
    assert not any(_runs(pid) for pid in pids)
    assert states(settings.results) == ["done"]  # the others are as if they had never begun
    assert runs(settings.results, "ended.txt") == ["esc50 1"]


def test_a_caller_that_stops_is_heard_where_rays_word_is_lost(one_node, settings, monkeypatch):
    monkeypatch.setattr("ray.cancel", lambda stream: None)
    outcomes = launcher_of("ray")([(cell("esc50", 1), cell("esc50", 2, 60.0))], settings)
    next(outcomes)
    while len(runs(settings.results)) < 2:
        time.sleep(0.05)
    outcomes.close()
    assert runs(settings.results, "ended.txt") == ["esc50 1"]
    assert states(settings.results) == ["done"]


def _runs(pid):
    with suppress(OSError):
        return b"evar.grid.child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def test_a_worker_that_does_not_see_the_folder_gives_the_reason(one_node, settings, monkeypatch):
    batch = (cell("esc50", 1), cell("esc50", 2))

    def launch_elsewhere(cells, given):
        launch = remote.launch_of(cells, given)
        return replace(launch, sign=launch.sign.parents[2] / "elsewhere" / ".grid" / "sign")

    monkeypatch.setattr(launch_ray, "launch_of", launch_elsewhere)
    found = list(launcher_of("ray")([batch], settings))
    assert [o.state for o in found] == ["failed", "failed"]
    assert all("one file system with the same paths" in o.reason for o in found)
    assert runs(settings.results) == []


def test_a_batch_that_fits_no_node_is_spoken_of(capsys, settings):
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0}}, {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 1.0}}]
    launch_ray._warn_if_too_large(nodes, replace(settings, cpus_per_cell=8))
    assert capsys.readouterr().err == ""
    launch_ray._warn_if_too_large(nodes, replace(settings, gpus_per_cell=0.5))
    assert "no node of the Ray cluster has 1 CPU and 0.5 GPU" in capsys.readouterr().err


def test_no_cluster_at_the_address_is_one_line(settings, monkeypatch):
    import ray

    def refuse(**_):
        raise ConnectionError("nobody there\nlong story")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(UserError, match=r"^no connection to Ray \(head:6379\): nobody there$"):
        list(launcher_of("ray")([(cell("esc50"),)], replace(settings, extra={"address": "head:6379"})))


def scores(results):
    found = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    return {one["run_id"]: (one["task"], one["mean"], one["scores"]) for one in found}


@pytest.mark.slow
def test_with_a_node_killed_in_the_middle_the_plan_is_finished_with_the_results_of_a_local_run(tmp_path, monkeypatch):
    """Real cells, two nodes; SIGKILL to one node's raylet while both are at work."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    options = (("max_epochs", "3"), ("seeds", "1"))
    short = [Cell("log_mel_stats", None, task, "lineareval", options) for task in ("pocket_pitch", "pocket_speech")]
    long = [replace(one, options=(("max_epochs", "4"), ("seeds", "1"))) for one in short]
    batches = batches_of([*short, *long])
    there = RunSettings(tmp_path / "there", device="cpu", workers=2)
    here = replace(there, results=tmp_path / "here")
    if ray.is_initialized():
        ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **SMALL})
    try:
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=SMALL["object_store_memory"]) for _ in range(2)]
        killed = threading.Event()

        def kill():
            while len(list(there.results.glob(".grid/*.json"))) < 2:
                time.sleep(0.05)
            time.sleep(1)  # both are at work
            cluster.remove_node(nodes[1], allow_graceful=False)
            killed.set()

        threading.Thread(target=kill, daemon=True).start()
        found = list(launcher_of("ray")(batches, replace(there, extra={"address": cluster.address})))
        assert killed.is_set()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert sorted(o.cell.key for o in found) == sorted(one.key for batch in batches for one in batch)
    assert {o.state for o in found} == {"done"}
    list(launcher_of("local")(batches, here))
    assert scores(there.results) == scores(here.results) != {}
