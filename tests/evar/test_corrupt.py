"""--corrupt: clean scores stay as they are to the last bit, corrupted clips have keys of their own, drops are drops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import evar, results_in
from helpers import RATE, CountingAdapter, counting_model, fold_clips, noise, sine, tiny_task, write_audio, write_table
from torch import Tensor

from evar.audio.corruptions import parse_corruption
from evar.audio.decode import decode
from evar.clips import Clips, open_task
from evar.corrupt import corruption_names, embed_corrupted, robustness, robustness_table, scores_under
from evar.extract import embed_clips, model_facts
from evar.lineareval import Machine, ProbeSettings, evaluate_linear
from evar.probes import Fit
from evar.results import read_result
from evar.store import clip_key
from evar.tables import render
from evar.zeroshot import Settings, evaluate_zeroshot
from model_adapters.registry import Model

NAMES = corruption_names(("noise:0dB", "gain:-6dB", "mp3:32k"))
QUICK = ProbeSettings(seeds=2, max_epochs=15)
EVERY = ["scores", "fold_scores", "mean", "ci95", "ci_low", "ci_high", "per_class", "also", "details", "seeds", "flags"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))


class Keeping(CountingAdapter):
    """Remembers every window that it was given, with its length."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[np.ndarray, int]] = []

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        self.heard += [(w.numpy().copy(), int(n)) for w, n in zip(waveforms, lengths, strict=True)]
        return super().embed(waveforms, lengths)


def embed(model: Model, clips: Clips, word: str | None, **how: Any) -> Any:
    corruption = None if word is None else parse_corruption(word)
    rows = np.arange(len(clips))
    return embed_clips(model, clips, front=rows, training=rows[:0], corruption=corruption, **how)


@pytest.mark.parametrize("padding", ["zeros", "repeat"])
@pytest.mark.parametrize("seconds", [0.3, 0.5, 0.8])
def test_a_model_hears_the_corrupted_window_and_then_its_padding(tmp_path: Path, seconds: float, padding: Any) -> None:
    clips = fold_clips(tmp_path / "data", 8, seconds)
    clips = replace(clips, task=replace(clips.task, padding=padding))
    model = counting_model(Keeping())
    embed(model, clips, "noise:0dB", batch_size=3)
    for number, (window, length) in enumerate(model.adapter.heard):
        clean = decode(clips.paths[number], RATE)[: len(window)]
        key = clip_key(clips.identities[number].digest, "front")
        expected = parse_corruption("noise:0dB").apply(clean, RATE, key)
        np.testing.assert_array_equal(window[: len(clean)], expected)
        if padding == "repeat":
            np.testing.assert_array_equal(window, np.resize(expected, len(window)))
        else:
            assert not window[len(clean) :].any()
        assert length == (len(window) if padding == "repeat" else len(clean))


def test_neither_batches_nor_workers_nor_order_matter(tmp_path: Path) -> None:
    clips = fold_clips(tmp_path / "data", 8, 0.4)
    heard = []
    for size, workers in ((1, 1), (3, 2), (8, 4)):
        model = counting_model(Keeping())
        embed(model, clips, "reverb", batch_size=size, workers=workers, cache=tmp_path / f"{size}")
        heard.append([window for window, _ in model.adapter.heard])
    np.testing.assert_array_equal(heard[0], heard[1])
    np.testing.assert_array_equal(heard[0], heard[2])
    model = counting_model(Keeping())
    embed_clips(
        model, clips, front=np.array([5]), training=np.array([], int), corruption=parse_corruption("reverb"),
        cache=tmp_path / "alone",
    )  # fmt: skip
    np.testing.assert_array_equal(model.adapter.heard[0][0], heard[0][5])


def test_corrupted_embeddings_are_stored_apart_and_found_again(tmp_path: Path) -> None:
    clips, model = fold_clips(tmp_path / "data", 8), counting_model()
    clean = embed(model, clips, None)
    corrupted = {name: embed(model, clips, name) for name in (*NAMES, "noise:10dB")}
    assert [found.computed for found in corrupted.values()] == [8] * 4
    every = [clean.vectors.take(), *(found.vectors.take() for found in corrupted.values())]
    assert all(not np.array_equal(a, b) for n, a in enumerate(every) for b in every[:n])
    again = counting_model()
    for name, before in corrupted.items():
        found = embed(again, clips, name)
        assert found.computed == 0
        np.testing.assert_array_equal(found.vectors.take(), before.vectors.take())
    np.testing.assert_array_equal(embed(again, clips, None).vectors.take(), clean.vectors.take())
    assert again.adapter.calls == []
    assert len(list((tmp_path / "cache" / "embeddings").glob("*/*/facts.json"))) == 5


def test_the_facts_of_clean_embeddings_are_what_they_were(tmp_path: Path) -> None:
    facts = model_facts(counting_model(), 0.5, "fp32", "clip", "")
    assert "corruption" not in facts, "stored embeddings stay valid"
    other = model_facts(counting_model(), 0.5, "fp32", "clip", "", corruption=parse_corruption("mp3"))
    assert other == facts | {"corruption": parse_corruption("mp3").facts()}
    assert "libsndfile" in other["corruption"]["encoder"]


def test_nothing_is_trained_on_corrupted_clips(tmp_path: Path) -> None:
    clips = fold_clips(tmp_path / "data", 8)
    with pytest.raises(ValueError, match="nothing is trained"):
        embed_clips(
            counting_model(), clips, front=np.array([0]), training=np.array([1]), corruption=parse_corruption("clip")
        )


def test_a_model_is_prepared_once_however_many_corruptions(tmp_path: Path) -> None:
    class Prepared(CountingAdapter):
        needs_prepare = True
        times = 0

        def prepare(self, unit_seconds: float, training_clips: Any) -> None:
            self.times += 1

    clips, model = fold_clips(tmp_path / "data", 8), counting_model(Prepared())
    rows = np.arange(8)
    how: dict[str, Any] = {"device": "cpu", "precision": "fp32", "batch_size": 4, "workers": 1}
    clean = embed_clips(model, clips, front=rows, training=rows, **how)
    embed_corrupted(model, clips, rows, NAMES, clean, **how)
    assert model.adapter.times == 1
    late = counting_model(Prepared())
    stored = embed_clips(late, clips, front=rows, training=rows, **how)
    embed_corrupted(late, clips, rows, ("noise:5dB", "noise:6dB"), stored, **how)
    assert late.adapter.times == 1, "what is stored needs no preparing, the first corruption does"


@pytest.mark.parametrize("settings", [QUICK, ProbeSettings("logistic")])
def test_clean_scores_are_the_same_to_the_last_bit_with_and_without(tmp_path: Path, settings: ProbeSettings) -> None:
    clips = fold_clips(tmp_path / "data", 60)
    without, _ = evaluate_linear(counting_model(), clips, settings, Machine(), tmp_path / "runs")
    corrupt = replace(settings, corrupt=NAMES)
    with_it, there = evaluate_linear(counting_model(), clips, corrupt, Machine(), tmp_path / "runs")
    assert not there
    assert {key: without[key] for key in EVERY} == {key: with_it[key] for key in EVERY}
    for kind in ("predictions", "confusion"):
        a, b = ((tmp_path / "runs" / result["files"][kind]).read_bytes() for result in (without, with_it))
        assert a == b
    assert without["run_id"] != with_it["run_id"]
    assert without["subject"] == with_it["subject"]
    assert "robustness" not in without and "corrupt" not in without["settings"]
    block = with_it["robustness"]
    assert block["clean"] == with_it["mean"]
    assert list(block["corruptions"]) == list(NAMES) == with_it["settings"]["corrupt"]
    drops = [one["drop"] for one in block["corruptions"].values()]
    assert drops == [block["clean"] - one["score"] for one in block["corruptions"].values()]
    assert block["mean_drop"] == pytest.approx(np.mean(drops))
    written = read_result(next((tmp_path / "runs").glob(f"*{with_it['run_id']}.json")))
    assert written["robustness"] == block, "the schema has it"


class Pitch(CountingAdapter):
    """Energy in sixteen bands: hears pitch, and noise."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding_dim = 16

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        self.calls.append(len(waveforms))
        power = torch.fft.rfft(waveforms).abs().square()
        return torch.log10(1e-6 + power[:, :1600].unflatten(1, (16, -1)).mean(2))


def pitch_clips(folder: Path, count: int = 60) -> Clips:
    """Return tones of two heights in a little noise; every third is a test clip."""
    rows = [
        {
            "file": f"audio/{n:03d}.wav",
            "label": ("low", "high")[n % 2],
            "split": ("train", "valid", "test", "test")[n // 2 % 4],
        }
        for n in range(count)
    ]
    write_table(folder, rows)
    for n, row in enumerate(rows):
        wave = sine((300, 900)[n % 2] + 5 * (n // 2)) + 0.02 * noise(n)
        write_audio(folder / str(row["file"]), wave)
    counts = {name: sum(row["split"] == name for row in rows) for name in ("train", "valid", "test")}
    return open_task(tiny_task(counts=counts), data=folder)


@pytest.mark.parametrize("probe", ["adam", "logistic"])
def test_more_noise_costs_more_and_none_costs_nothing(tmp_path: Path, probe: Any) -> None:
    names = corruption_names(("noise:100dB", "noise:10dB", "noise:0dB", "noise:-30dB"))
    settings = ProbeSettings(probe, seeds=2, lr=0.01, max_epochs=60, corrupt=names)
    result, _ = evaluate_linear(
        counting_model(Pitch()), pitch_clips(tmp_path / "d"), settings, Machine(), tmp_path / "r"
    )
    scores = [one["score"] for one in result["robustness"]["corruptions"].values()]
    assert scores[0] == result["mean"] > 0.9
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < result["mean"] - 0.2


def test_the_score_under_a_corruption_is_that_of_the_clean_probe_on_its_embeddings(tmp_path: Path) -> None:
    """The slow, obvious twin: scikit-learn's probe with the strength that ours chose, on the corrupted vectors."""
    from sklearn.linear_model import LogisticRegression

    clips, model = pitch_clips(tmp_path / "d"), counting_model(Pitch())
    name = "noise:-10dB"
    result, _ = evaluate_linear(model, clips, ProbeSettings("logistic", corrupt=(name,)), Machine(), tmp_path / "r")
    (part,) = clips.parts()
    clean, bad = (embed(model, clips, word).vectors.take() for word in (None, name))
    mean, scale = clean[part.train].mean(0), clean[part.train].std(0)
    strength = result["details"][0][0]["strength"]
    probe = LogisticRegression(C=1 / (strength * len(part.train)), tol=1e-8, max_iter=5000)
    probe.fit((clean[part.train] - mean) / scale, clips.targets[part.train])
    expected = probe.score((bad[part.test] - mean) / scale, clips.targets[part.test])
    assert result["robustness"]["corruptions"][name]["score"] == pytest.approx(expected, abs=1.5 / len(part.test))


def test_a_probe_that_came_out_differently_is_not_passed_off_as_the_same(tmp_path: Path) -> None:
    clips = fold_clips(tmp_path / "data", 8)
    fits = [[Fit(1.0, np.zeros((4, 2), np.float32), 5, 3, 0.9), Fit(1.0, np.zeros((4, 2), np.float32), 5, 3, 0.9)]]
    other = [[fits[0][0], replace(fits[0][1], best_valid=0.8)]]
    with pytest.raises(RuntimeError, match="came out differently"):
        scores_under(clips, clips.parts(), ("clip:10%",), fits, other)


class Tones(Pitch):
    """A joint space: how high the low and the high tones stand."""

    joint_dim = 2

    def embed_audio(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        power = torch.fft.rfft(waveforms).abs().square()
        return torch.stack([power[:, 100:300].mean(1), power[:, 350:600].mean(1)], 1).log1p()

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([[0.0, 1.0] if "high" in text else [1.0, 0.0] for text in texts])


def test_zero_shot_scores_stay_as_they_are_and_drop_under_noise(tmp_path: Path) -> None:
    clips = pitch_clips(tmp_path / "d")
    model = counting_model(Tones())
    without, _ = evaluate_zeroshot(model, clips, Settings(), tmp_path / "r")
    names = corruption_names(("gain:-6dB", "noise:-40dB"))
    found, _ = evaluate_zeroshot(model, clips, Settings(corrupt=names), tmp_path / "r")
    kept = [key for key in EVERY if key in without]
    assert {key: without[key] for key in kept} == {key: found[key] for key in kept}
    assert "corrupt" not in without["settings"]
    assert found["run_id"] != without["run_id"]
    quiet, noisy = found["robustness"]["corruptions"].values()
    assert quiet["score"] == found["mean"] > 0.9
    assert noisy["score"] < 0.8


def test_the_table_has_a_column_for_each_corruption(tmp_path: Path) -> None:
    clips = pitch_clips(tmp_path / "d")
    settings = ProbeSettings("logistic", corrupt=corruption_names(("clip",)))
    result, _ = evaluate_linear(counting_model(Pitch()), clips, settings, Machine(), tmp_path / "r")
    table = robustness_table([result])
    assert table is not None
    assert table.heads == ("model", "clean", "clip:10%", "mean drop", "notes")
    assert render(table, "text").splitlines()[4].startswith("counting (logistic probe) · tiny")
    del result["robustness"]
    assert robustness_table([result]) is None


def test_the_mean_drop_is_the_mean_of_the_drops() -> None:
    block = robustness(0.75, {"a": 0.5, "b": 0.875})
    assert block == {
        "clean": 0.75,
        "corruptions": {"a": {"score": 0.5, "drop": 0.25}, "b": {"score": 0.875, "drop": -0.125}},
        "mean_drop": 0.0625,
    }


def test_the_command_prints_both_tables_and_a_bad_severity_is_one_line(tmp_path: Path, pocket_data: Path) -> None:
    words = ("log_mel_stats", "pocket_pitch", "--probe=logistic")
    done = evar(
        "lineareval", *words, "--corrupt=noise:10dB,lowpass:4k", "--noefficiency", cache=tmp_path, data=pocket_data
    )
    assert done.returncode == 0, done.stderr
    assert "clean  noise:10dB  lowpass:4k  mean drop" in done.stdout
    (result,) = results_in(tmp_path / "results" / "runs")
    assert set(result["robustness"]["corruptions"]) == {"noise:10dB", "lowpass:4k"}
    assert "efficiency" not in result
    wrong = evar("lineareval", *words, "--corrupt=noise:loud", cache=tmp_path, data=pocket_data)
    assert wrong.returncode == 2
    (line,) = wrong.stderr.strip().splitlines()
    assert "noise:10dB" in line
