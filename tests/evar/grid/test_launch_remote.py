"""A batch on a worker: what an earlier attempt did is not done twice, what cannot be reached is said."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from quick_cells import cell, quick, runs, states

from evar.errors import UserError
from evar.grid import journal, remote
from evar.grid.cell import RunSettings, run_cell
from evar.grid.remote import given_up, launch_of, news, run_there, still_to_do


@pytest.fixture
def settings(tmp_path, monkeypatch):
    results = quick(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    return RunSettings(results.relative_to(tmp_path), device="cpu")


def test_paths_become_those_of_the_submitting_folder(settings, tmp_path):
    launch = launch_of([cell("esc50")], replace(settings, root=Path("data")))
    assert launch.settings.results == tmp_path / "results"
    assert launch.settings.root == tmp_path / "data"
    assert launch.sign.exists() and launch.before == {cell("esc50").key: None}


def test_a_second_attempt_runs_only_what_the_first_left_even_under_force(settings):
    batch = (cell("esc50", 1), cell("esc50", 2))
    for force in (False, True):
        time.sleep(1)  # entries of two launches differ by their second at the least
        launch = launch_of(batch, replace(settings, force=force))
        first = run_there(batch, launch)
        assert next(first).state == "done"
        first.close()  # the worker is killed
        assert [(o.cell, o.state) for o in run_there(batch, launch)] == [(one, "done") for one in batch]
    assert runs(settings.results) == ["esc50 1", "esc50 2"] * 2


def test_a_failure_is_an_outcome_with_its_reason_and_the_rest_goes_on(settings):
    batch = (cell("esc50", 1, fails=True), cell("esc50", 2))
    launch = launch_of(batch, settings)
    assert [(o.state, o.reason) for o in run_there(batch, launch)] == [
        ("failed", "it was told to fail"),
        ("done", ""),
    ]
    told = news(batch, launch)
    assert [(o.state, o.reason, o.score) for o in told] == [("failed", "it was told to fail", None), ("done", "", 0.5)]


def test_only_what_changed_since_the_launch_is_news(settings):
    batch = (cell("esc50", 1, fails=True), cell("esc50", 2))
    list(run_there(batch, launch_of(batch, settings)))
    assert news(batch, launch_of(batch, settings)) == []


def test_cells_that_are_done_need_no_worker(settings):
    one, two = cell("esc50", 1), cell("esc50", 2)
    run_cell(one, settings)
    done, rest = still_to_do([(one, two), (cell("fsdd"),)], launch_of([one, two, cell("fsdd")], settings))
    assert [(o.cell, o.state, o.score, o.there) for o in done] == [(one, "done", 0.5, True)]
    assert rest == [(two,), (cell("fsdd"),)]
    forced = replace(settings, force=True)
    assert still_to_do([(one, two)], launch_of([one, two], forced)) == ([], [(one, two)])
    (settings.results / "m2d__esc50__1.json").unlink()
    assert still_to_do([(one,)], launch_of([one], settings)) == ([], [(one,)])


def test_a_cell_whose_worker_is_gone_has_failed_unless_it_was_done(settings):
    cells = [cell("esc50", n) for n in range(3)]
    run_cell(cells[0], settings)
    launch = launch_of(cells, settings)
    run_cell(cells[1], settings)
    found = [given_up(one, launch, "the node burnt down") for one in cells]
    assert [(o.state, o.reason) for o in found] == [("done", ""), ("done", ""), ("failed", "the node burnt down")]
    assert states(settings.results) == ["done", "done", "failed"]
    entry = remote.entry_of(settings.results, cells[2])
    assert entry.reason == "the node burnt down" and tuple(entry.words) == cells[2].words


def test_a_cell_that_somebody_is_at_is_not_overwritten(settings):
    one = cell("esc50")
    launch = launch_of([one], settings)
    held = journal.cell_lock(settings.results, one)
    with held:
        assert given_up(one, launch, "gone").state == "failed"
        assert states(settings.results) == []


def test_a_stop_signal_that_meets_the_command_too_is_no_failure(settings):
    stop = threading.Event()
    batch = (cell("esc50", 1, 0.3, fails=True), cell("esc50", 2))
    threading.Timer(0.25, stop.set).start()
    found = list(run_there(batch, launch_of(batch, settings), stop))
    assert [o.state for o in found] == ["interrupted", "interrupted"]
    assert states(settings.results) == []


def test_a_host_that_does_not_see_the_results_says_so_and_writes_nothing(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "PATIENCE", 0.2)
    launch = launch_of([cell("esc50")], settings)
    elsewhere = replace(launch, sign=tmp_path / "other" / ".grid" / "sign")
    folder_only = replace(launch, sign=launch.sign.with_name("launch-nobody"))
    for wrong in (elsewhere, folder_only):
        with pytest.raises(UserError, match="one file system with the same paths"):
            next(run_there((cell("esc50"),), wrong))
    assert runs(settings.results) == [] and not (tmp_path / "other").exists()
