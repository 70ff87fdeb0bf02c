"""Zero-shot classification: captions, templates and ensembles, flags, and the real command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from commands import evar, results_in
from golden import needs_shared, shared
from helpers import CountingAdapter, counting_model, fold_clips, tiny_task
from torch import Tensor

from evar.errors import UserError
from evar.zeroshot import Settings, captions_of, evaluate_zeroshot, parse_templates, text_vectors
from model_adapters.base import ModelInfo
from model_adapters.registry import Model
from tasks.base import get_task


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))


class Knows(CountingAdapter):
    """Finds "low" or "high" by a clip's first sample (tests write it there) and says it in a two-dimensional space."""

    info: ClassVar[ModelInfo] = ModelInfo("Knows", "audio-language", "", "MIT", trained_on=("tiny",))
    joint_dim = 2

    def embed_audio(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        loud = waveforms.abs().mean(dim=1, keepdim=True)
        return torch.cat([loud, 0.25 * torch.ones_like(loud)], dim=1)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([[3.0, 0.0] if "high" in text else [0.0, 7.0] for text in texts])


def knows() -> Model:
    return Model("knows", Knows(), Knows.info)


class Reads(Knows):
    """Has its words from elsewhere."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words

    def text_facts(self) -> dict[str, str]:
        return {"tokenizer_sha256": self.words}


def test_text_from_elsewhere_is_in_the_result_and_decides_the_run(tmp_path: Path) -> None:
    clips = fold_clips(tmp_path / "data", 8)
    models = [Model("knows", Reads(words), Knows.info) for words in ("a", "a", "b")]
    one, again, other = (evaluate_zeroshot(m, clips, Settings(draws=10), tmp_path / "runs")[0] for m in models)
    assert one["settings"]["text_encoder"] == {"tokenizer_sha256": "a"}
    assert one["run_id"] == again["run_id"] != other["run_id"] and one["subject"] == other["subject"]


def test_templates_replace_the_tasks_captions_and_several_make_an_ensemble() -> None:
    task = tiny_task(labels=("car_horn", "dog"))
    assert captions_of(task, ()) == [["car horn can be heard", "dog can be heard"]]
    templates = parse_templates("a {label} | the sound of {label}")
    assert captions_of(task, templates) == [["a car horn", "a dog"], ["the sound of car horn", "the sound of dog"]]


@pytest.mark.parametrize("template", ["no place for the name", "{label} and {other}", "{labels}", ""])
def test_a_template_without_its_place_is_refused(template: str) -> None:
    with pytest.raises(UserError, match="label"):
        parse_templates(template)


def test_the_ensemble_is_the_mean_of_normalised_vectors() -> None:
    vectors = text_vectors(knows(), [["high", "low"], ["high", "low"]])
    assert np.allclose(vectors, np.eye(2))


def test_a_text_encoder_that_does_not_read_is_refused() -> None:
    with pytest.raises(UserError, match="same text vector"):
        text_vectors(knows(), [["something", "else"]])


def test_all_folds_are_pooled_and_training_data_are_flagged(tmp_path: Path) -> None:
    clips = fold_clips(tmp_path / "data", 20)
    result, _ = evaluate_zeroshot(knows(), clips, Settings(draws=200), tmp_path / "runs")
    predictions = (tmp_path / "runs" / result["files"]["predictions"]).read_text().splitlines()[1:]
    assert len(predictions) == 20
    hits = [line.split(",")[2] == line.split(",")[3] for line in predictions]
    assert result["mean"] == pytest.approx(np.mean(hits))
    assert result["ci_low"] <= result["mean"] <= result["ci_high"]
    assert result["flags"] == ["not_zero_shot"]
    assert result["settings"]["captions"] == [["high can be heard", "low can be heard"]]


def test_a_model_without_text_side_is_refused(tmp_path: Path) -> None:
    clips = fold_clips(tmp_path / "data", 20)
    with pytest.raises(UserError, match="no text side"):
        evaluate_zeroshot(counting_model(), clips, Settings(), tmp_path / "runs")


def test_a_model_fitted_on_training_captions_may_not_score_on_folds(tmp_path: Path) -> None:
    clips = fold_clips(tmp_path / "data", 20)
    model = knows()
    model.adapter.fitted_on_task = True  # type: ignore[assignment]
    with pytest.raises(UserError, match="every clip of tiny is a test clip"):
        evaluate_zeroshot(model, clips, Settings(), tmp_path / "runs")


def test_the_fitted_map_beats_chance_on_the_pocket_and_says_what_it_is(tmp_path: Path, pocket_data: Path) -> None:
    done = evar("zeroshot", "caption_map:log_mel_stats", "pocket_events", cache=tmp_path, data=pocket_data)
    assert done.returncode == 0, done.stderr
    assert "fitted on task" in done.stdout
    (result,) = results_in(tmp_path / "results" / "runs")
    assert result["flags"] == ["fitted_on_task"]
    assert result["mean"] > 1.5 / len(get_task("pocket_events").labels)


@needs_shared
def test_the_papers_captions_are_exact_to_the_character() -> None:
    folder = shared()
    assert folder is not None
    lines = (folder / "spec" / "metadata" / "zs_captions.csv").read_text().splitlines()[1:]
    published = [line.split(",")[3] for line in lines if line.startswith("esc50,")]
    assert get_task("esc50").captions() == published
