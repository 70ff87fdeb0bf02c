"""Results in MTEB's schema: mteb reads them back, and nobody can take them for results of its own protocol."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from helpers import counting_model, fold_clips
from test_retrieval import THREE, caption_clips
from test_retrieval import evaluate as evaluate_small_retrieval

from evar.cli import run
from evar.lineareval import Machine, ProbeSettings, evaluate_linear
from evar.mteb_export import WARNING, entries, export_results, mteb_export
from evar.mteb_facts import CLASSIFICATION, RETRIEVAL, ZERO_SHOT, own_tasks, plain, task_name
from evar.results import read_results
from tasks.base import all_tasks

mteb = pytest.importorskip("mteb", reason="needs the extra mteb")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Return a folder with two results of linear evaluation, one per probe."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVAR_CACHE", str(folder / "cache"))
        clips = fold_clips(folder / "data", 24)
        for probe in ("adam", "logistic"):
            settings = ProbeSettings(probe, seeds=2, max_epochs=3)
            evaluate_linear(counting_model(), clips, settings, Machine(), folder / "runs")
    return folder / "runs"


def like(result: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """Return a copy of a result with other facts."""
    return {**json.loads(json.dumps(result)), **changed}


def test_mteb_reads_back_what_was_exported_but_only_as_an_experiment(tmp_path, runs):
    assert run(mteb_export, [f"--results={runs}", f"--out={tmp_path}"]) == 0
    results = {r["settings"]["probe"]: r for r in read_results(runs)[0]}
    cache = mteb.ResultCache(tmp_path)
    assert cache.load_results().model_results == []  # what mteb shows unasked
    found = cache.load_results(load_experiments="match_name").model_results
    assert {m.model_name for m in found} == {"evar-harness/counting"}
    by_probe = {"logistic" if "logistic" in m.experiment_name else "adam": m for m in found}
    assert set(by_probe) == {"adam", "logistic"}
    for probe, model in by_probe.items():
        (task,) = model.task_results
        assert task.task_name == "EVAR_tiny"
        assert task.get_score() == pytest.approx(results[probe]["mean"], abs=1e-6)
        (scores,) = task.scores["test"]
        assert scores["warning"] == WARNING and scores["protocol"].startswith("EVAR linear evaluation")
        assert scores["run_id"] == results[probe]["run_id"] and scores["ci_method"] == results[probe]["ci_method"]
        assert [s["accuracy"] for s in scores["scores_per_experiment"]] == pytest.approx(
            results[probe]["scores"], abs=1e-6
        )
        assert task.mteb_version is None and task.dataset_revision.startswith("evar:")
    exact = cache.load_results(experiment_kwargs={"protocol": "evar_lineareval"}).model_results
    assert [m.experiment_name for m in exact] == ["protocol_evar_lineareval"]


def test_the_names_are_mtebs_where_the_question_is_the_same():
    ours = all_tasks()
    for names, kind in ((CLASSIFICATION, "AudioClassification"), (ZERO_SHOT, "AudioZeroshotClassification")):
        for name, theirs in names.items():
            metadata = mteb.get_task(theirs).metadata
            assert (metadata.type, metadata.main_score, ours[name].metric) == (kind, "accuracy", "accuracy")
    for name, theirs in CLASSIFICATION.items():  # as many classes as we count
        statistics = next(iter(mteb.get_task(theirs).metadata.descriptive_stats.values()))
        assert len(statistics["label_statistics"]["labels"]) == len(ours[name].labels), name
    for name, both in RETRIEVAL.items():
        assert ours[name].kind == "retrieval"
        assert {mteb.get_task(theirs).metadata.main_score for theirs in both.values()} == {"hit_rate_at_5"}
    assert task_name("nsynth", "lineareval") == "EVAR_nsynth"  # MTEB's NSynth asks for the source, not the family
    assert task_name("esc50", "finetune") == "ESC50" and task_name("esc50", "zeroshot") == "ESC50_Zeroshot"
    assert own_tasks({"ESC50", "ClothoA2TRetrieval.v2", "STS12"}) == ("clotho", "esc50") and own_tasks(None) == ()


@pytest.mark.parametrize("task", ["esc50", "us8k", "nsynth", "of_your_own"])
@pytest.mark.parametrize("protocol", ["lineareval", "finetune", "zeroshot"])
def test_every_protocol_and_kind_of_name_goes_through_mtebs_reader(tmp_path, runs, task, protocol):
    first = read_results(runs)[0][0]
    settings = {"model_options": {"depth": 2}, "templates": ["a {label}: what?"], "precision": "bf16"}
    weights = {"given": "random", "sha256": "random:3", "licence": ""}
    result = like(
        first, model="hf:a/b c", task=task, protocol=protocol, metric="mAP", settings=settings, weights=weights,
        efficiency={"parameters": 7}, flags=["untrained"], ci95=None,
    )  # fmt: skip
    (path,) = export_results([result], tmp_path)
    assert path.relative_to(tmp_path).parts[:3] == ("results", "evar-harness__hf-a-b-c", "random-3")
    (model,) = mteb.ResultCache(tmp_path).load_results(load_experiments="match_name").model_results
    (read,) = model.task_results
    assert read.task_name == task_name(task, protocol) == path.stem
    assert read.get_score() == pytest.approx(result["mean"], abs=1e-6)
    assert read.scores["test"][0]["mAP"] == read.scores["test"][0]["main_score"]
    assert model.model_meta.n_parameters == 7
    assert model.model_meta.modalities == (["audio", "text"] if protocol == "zeroshot" else ["audio"])


def test_retrieval_is_two_tasks_and_recall_is_mtebs_hit_rate(tmp_path, monkeypatch):
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))
    result = evaluate_small_retrieval(tmp_path, caption_clips(tmp_path / "data", THREE))
    assert [e.task.task_name for e in entries(result)] == ["EVAR_tiny_T2ARetrieval", "EVAR_tiny_A2TRetrieval"]
    found = {e.task.task_name: e.task.scores["test"][0] for e in entries(like(result, task="clotho"))}
    assert set(found) == {"ClothoT2ARetrieval.v2", "ClothoA2TRetrieval.v2"}
    for name, way in (("ClothoT2ARetrieval.v2", "t2a"), ("ClothoA2TRetrieval.v2", "a2t")):
        assert found[name]["main_score"] == found[name]["hit_rate_at_5"] == result["also"][f"{way}_R@5"]
        assert found[name]["hit_rate_at_1"] == result["also"][f"{way}_R@1"]
        assert found[name]["intervals"]["R@1"] == result["intervals"][f"{way}_R@1"]
        assert found[name]["medR"] == result["also"][f"{way}_medR"]


def test_of_two_runs_with_one_place_the_later_stands_and_the_other_is_named(tmp_path, runs, capsys):
    first = read_results(runs)[0][0]
    later = like(first, mean=0.75, run_id="later", created="2999-01-01T00:00:00+00:00")
    (path,) = set(export_results([later, first], tmp_path))
    assert json.loads(path.read_text())["scores"]["test"][0]["main_score"] == 0.75
    assert f"left out: run {first['run_id']}" in capsys.readouterr().err
    assert not [p for p in tmp_path.rglob("*") if "part" in p.name]


def test_mistakes_are_one_line(tmp_path, capsys, monkeypatch):
    assert run(mteb_export, ["--out=x", f"--results={tmp_path / 'none'}"]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert run(mteb_export, ["--out=x", f"--results={tmp_path}"]) == 2
    assert "no results in" in capsys.readouterr().err
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "mteb":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert run(mteb_export, ["--out=x", f"--results={tmp_path}"]) == 2
    assert capsys.readouterr().err.endswith("pip install 'evar-harness[mteb]'\n")


def test_names_of_folders_are_plain():
    assert plain("path/mine.py:Ünder_2") == "path-mine.py--nder_2"
