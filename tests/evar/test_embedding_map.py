"""A map of a task's clips: neighbours stay neighbours, one seed gives one map, and the file says what is where."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from golden import needs_shared, shared
from helpers import fold_clips, fold_rows, tiny_folder, tiny_task
from hypothesis import given, settings
from hypothesis import strategies as st

from evar.cli import run
from evar.clips import open_task
from evar.command import options_of_models
from evar.embedding_map import (
    LABEL_SETS,
    choose,
    embedding_map,
    embedding_map_command,
    expand_labels,
    read_map,
    save_map,
)
from evar.errors import UserError
from evar.map_plot import COLOURS, SHAPES, plot_map
from evar.results import read_results
from tasks.base import get_task

METHODS = ["tsne", pytest.param("umap", marks=pytest.mark.slow)]  # umap compiles itself for ten seconds


def groups(each: int = 12, count: int = 3, width: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings in well-separated groups, each feature on a scale of its own, and their groups."""
    rng = np.random.default_rng(0)
    centres = 5 * rng.normal(size=(count, width))
    rows = np.concatenate([centre + rng.normal(size=(each, width)) for centre in centres])
    return (rows * np.logspace(-3, 3, width) + 100).astype(np.float32), np.repeat(np.arange(count), each)


@pytest.mark.parametrize("method", METHODS)
def test_each_clips_nearest_neighbour_is_of_its_group_and_the_seed_decides_all(method):
    if method == "umap":
        pytest.importorskip("umap")
    rows, group = groups()
    points = embedding_map(rows, method, seed=1)
    assert points.shape == (36, 2) and np.isfinite(points).all()
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(36)
    assert (group[distances.argmin(1)] == group).all()
    np.random.seed(3)  # the state of numpy's global generator decides nothing
    np.testing.assert_array_equal(embedding_map(rows, method, seed=1), points)


def test_a_features_unit_does_not_matter():
    rows, _ = groups()
    other = embedding_map(rows * np.float32(2.0) ** np.arange(20, dtype=np.float32), seed=0)
    np.testing.assert_array_equal(other, embedding_map(rows, seed=0))


@settings(max_examples=8, deadline=None)
@given(n=st.integers(5, 12), width=st.integers(2, 6), seed=st.integers(0, 2**31 - 1))
def test_few_clips_have_a_map_too(n, width, seed):
    rows = np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)
    assert np.isfinite(embedding_map(rows, seed=seed)).all()


@pytest.mark.parametrize(
    ("rows", "method", "says"),
    [
        (np.zeros((4, 3), np.float32), "tsne", "at least 5 clips, there are 4"),
        (np.ones((9, 3), np.float32), "tsne", "of all clips are the same"),
        (np.full((9, 3), np.nan, np.float32), "tsne", "not finite"),
        (np.ones((9, 3), np.float32), "pca", "not one of its values"),
    ],
)
def test_what_cannot_be_mapped_is_said(rows, method, says):
    with pytest.raises(UserError, match=says):
        embedding_map(rows, method)


def test_all_clips_of_a_task_with_folds_or_a_seeded_sample(tmp_path):
    clips = fold_clips(tmp_path, 12)
    rows, names = choose(clips, (), 100, 0)
    assert rows.tolist() == list(range(12)) and names[:2] == ["low", "high"]
    low, only = choose(clips, ("low",), 100, 0)
    assert low.tolist() == list(range(0, 12, 2)) and set(only) == {"low"}
    some, _ = choose(clips, (), 5, 7)
    assert len(set(some.tolist())) == 5 and some.tolist() == sorted(some.tolist())
    assert choose(clips, (), 5, 7)[0].tolist() == some.tolist() != choose(clips, (), 5, 8)[0].tolist()


def test_of_several_labels_the_first_that_was_asked_for_colours_a_clip(tmp_path):
    rows = [{**row, "label": ("low;high", "high")[n % 2]} for n, row in enumerate(fold_rows(8))]
    task = tiny_task(metric="mAP", counts={1: 4, 2: 4})
    clips = open_task(task, data=tiny_folder(tmp_path, rows))
    assert choose(clips, (), 9, 0)[1] == ["high"] * 8  # the order of the task's list
    assert choose(clips, ("low", "high"), 9, 0)[1] == ["low", "high"] * 4
    captioned = replace(clips, task=replace(task, kind="retrieval"))
    with pytest.raises(UserError, match="has captions and no classes"):
        choose(captioned, (), 9, 0)


def test_labels_are_checked_and_sets_spelled_out():
    known = get_task("esc50").labels
    assert set(expand_labels(("esc10",), known)) == set(LABEL_SETS["esc10"])
    assert (
        expand_labels(("dog", "esc10", "cat"), known)[0] == "dog" and len(expand_labels(("esc10", "dog"), known)) == 10
    )
    with pytest.raises(UserError, match=r"no class 'dogs'\. Did you mean 'dog'"):
        expand_labels(("dogs",), known)
    with pytest.raises(UserError, match="no class 'chainsaw'"):
        expand_labels(("esc10",), ("high", "low"))


@needs_shared
def test_esc10_is_what_the_table_of_esc50_marks():
    with (shared() / "data" / "esc50" / "meta" / "esc50.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert {row["category"] for row in rows if row["esc10"] == "True"} == set(LABEL_SETS["esc10"])
    assert sum(row["category"] in LABEL_SETS["esc10"] for row in rows) == 400


def test_a_maps_file_is_read_as_it_was_written_and_a_broken_one_named(tmp_path):
    path = tmp_path / "x.map.json"
    points = np.array([[0.123456, 1], [-2e5, 3]])
    save_map(path, points, ["a.wav", "b.wav"], ["x", "y"], method="tsne", model="m", task="t")
    found = read_map(path)
    assert {key: found[key] for key in ("method", "model", "task", "files", "labels")} == {
        "method": "tsne",
        "model": "m",
        "task": "t",
        "files": ["a.wav", "b.wav"],
        "labels": ["x", "y"],
    }
    np.testing.assert_allclose(found["points"], points, atol=1e-4)
    with pytest.raises(ValueError, match="2 points, 1 files"):
        save_map(path, points, ["a.wav"], ["x", "y"], method="tsne", model="m", task="t")
    for text in (
        "{",
        "[]",
        '{"points": [[1, 2]], "files": [], "labels": []}',
        '{"points": [1], "files": [1], "labels": [1]}',
    ):
        path.write_text(text)
        with pytest.raises(UserError, match="is not a map of embeddings"):
            read_map(path)


def test_every_class_has_a_look_of_its_own():
    looks = {(n % len(COLOURS), n % len(SHAPES)) for n in range(len(COLOURS) * len(SHAPES))}
    assert len(looks) == len(COLOURS) * len(SHAPES) >= 50


@pytest.mark.parametrize("count", [2, 50, 80])
def test_a_picture_is_drawn_for_few_and_for_many_classes(tmp_path, count):
    pytest.importorskip("matplotlib")
    labels = [f"class_{n % count}" for n in range(2 * count)]
    rng = np.random.default_rng(0)
    path = tmp_path / "x.map.json"
    save_map(path, rng.normal(size=(len(labels), 2)), labels, labels, method="umap", model="m", task="t")
    plot_map(read_map(path), tmp_path / "deep" / "x.png")
    assert (tmp_path / "deep" / "x.png").stat().st_size > 10_000
    with pytest.raises(UserError, match="--plot="):
        plot_map(read_map(path), tmp_path / "x.nonsense")


def test_the_command_writes_the_map_and_the_picture(tmp_path, pocket_data, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EVAR_DATA", str(pocket_data))

    def command(*words):
        asked = ["log_mel_stats", "pocket_events", f"--results={tmp_path / 'runs'}", "--device=cpu", *words]
        code = run(embedding_map_command, asked, options_of_models)
        return code, capsys.readouterr()

    picture = tmp_path / "x.svg"
    assert command(f"--plot={picture}")[0] == 0
    assert picture.stat().st_size > 10_000
    (path,) = (tmp_path / "runs").iterdir()
    assert path.name.startswith("log_mel_stats__pocket_events__tsne__") and path.name.endswith(".map.json")
    found, task, before = read_map(path), get_task("pocket_events"), path.read_bytes()
    assert len(found["points"]) == task.counts["test"]
    assert set(found["labels"]) == set(task.labels) and found["title"] == task.title
    code, printed = command(f"--labels={task.labels[0]}", "--clips=6")
    assert code == 0 and "6 clips of 1 classes" in printed.err
    assert command()[0] == 0 and path.read_bytes() == before
    assert len(list((tmp_path / "runs").iterdir())) == 2
    code, printed = command("--labels=nonsense")
    assert code == 2 and printed.err.count("\n") == 1
    assert read_results(tmp_path / "runs") == ([], [])  # maps are no results, and nothing to complain about
