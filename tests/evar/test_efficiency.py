"""What an embedding costs: counted where it can be known beforehand, measured once, and never in the way of a score."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from commands import results_in
from helpers import RATE, CountingAdapter, counting_model, fold_clips
from torch import Tensor, nn

from evar import efficiency as module
from evar.cli import run
from evar.command import options_of_models
from evar.efficiency import FIGURES, count, efficiency, peak_memory
from evar.extract import embedder
from evar.lineareval import Machine, ProbeSettings, evaluate_linear, lineareval
from evar.results import schema
from model_adapters.registry import load_model

QUICK = ProbeSettings(seeds=1, max_epochs=3)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))


class Network(CountingAdapter):
    """Frames of 40 samples through any layers."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers.eval()
        self.head = nn.Linear(8, 1000)
        """Not used by embed."""

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        self.calls.append(len(waveforms))
        found = self.layers(waveforms.unflatten(1, (-1, 40)))
        return (found[0] if isinstance(found, tuple) else found).mean(1)[:, :4]


def counted(layers: nn.Module, frames: int = 100, batch: int = 2) -> tuple[int, int]:
    model = counting_model(Network(layers))
    return count(model.adapter, embedder(model, "clip", "cpu", "fp32"), torch.zeros(batch, 40 * frames))


def test_a_multiply_add_counts_as_two_and_only_what_is_used_as_a_parameter() -> None:
    assert counted(nn.Sequential(nn.Linear(40, 16), nn.ReLU(), nn.Linear(16, 8))) == (
        40 * 16 + 16 + 16 * 8 + 8,
        100 * 2 * (40 * 16 + 16 * 8),
    )


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_recurrent_networks_are_counted(kind: Any) -> None:
    gates = {nn.GRU: 3, nn.LSTM: 4}[kind]
    parameters, operations = counted(kind(40, 8, batch_first=True))
    assert parameters == gates * (40 * 8 + 8 * 8 + 2 * 8)
    assert operations == 100 * 2 * gates * (40 * 8 + 8 * 8)


def test_fused_attention_is_counted_and_the_fast_path_is_put_back() -> None:
    layer = nn.TransformerEncoderLayer(40, 4, dim_feedforward=80, batch_first=True)
    before = torch.backends.mha.get_fastpath_enabled()
    parameters, operations = counted(layer)
    assert parameters == sum(p.numel() for p in layer.parameters())
    assert operations == 2 * (100 * (4 * 40 * 40 + 2 * 40 * 80) + 2 * 100 * 100 * 40)
    assert torch.backends.mha.get_fastpath_enabled() == before
    assert all(p.requires_grad for p in layer.parameters())


def test_parametrised_layers_are_counted() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(40, 8))
    assert counted(layer) == (8 + 40 * 8 + 8, 100 * 2 * 40 * 8)


def test_a_tied_parameter_counts_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(40, 40, bias=False)
            self.two = nn.Linear(40, 40, bias=False)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x))

    assert counted(Tied())[0] == 1600


def test_memory_holds_weights_input_and_the_tensors_alive_at_once() -> None:
    layers = nn.Sequential(nn.Linear(40, 4000), nn.ReLU(), nn.Linear(4000, 8))
    model = counting_model(Network(layers))
    batch = torch.zeros(4, 4000)
    peak = peak_memory(model.adapter, embedder(model, "clip", "cpu", "fp32"), batch, torch.device("cpu"))
    weights = 4 * sum(p.numel() for p in model.adapter.parameters())
    hidden = 4 * 4 * 100 * 4000  # float32, clips, frames, units
    fixed = weights + 4 * batch.numel()
    assert fixed + 2 * hidden <= peak <= fixed + 2.1 * hidden, "before and after the ReLU"


def test_the_figures_agree_with_each_other_and_with_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 60.0)  # enough for a full batch on a machine with other work on it
    block = efficiency(counting_model(Network(nn.Linear(40, 8))), 0.5, batch_size=16)
    jsonschema.validate(block, schema()["properties"]["efficiency"])
    assert block["parameters"] == 328
    assert block["gflops_per_second"] == pytest.approx(2 * 40 * 8 * 100 / 0.5 / 1e9)
    assert block["real_time_factor"] * block["audio_seconds_per_second"] == pytest.approx(1.0)
    assert (block["batch_size"], block["clip_seconds"]) == (16, 0.5)
    assert block["device"].endswith(("thread", "threads"))


class Sleeping(CountingAdapter):
    """Takes ten milliseconds a clip."""

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        time.sleep(0.01 * len(waveforms))
        return super().embed(waveforms, lengths)


def test_speed_is_that_of_a_model_whose_speed_is_known_and_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.5)
    begin = time.perf_counter()
    block = efficiency(counting_model(Sleeping()), 0.5, batch_size=64)
    assert time.perf_counter() - begin < 5.0
    assert block["batch_size"] < 17, "a pass of 64 clips would take 0.64 s"
    assert 0.2 * 0.5 / 0.01 < block["audio_seconds_per_second"] <= 0.5 / 0.01, "other programs may delay, never hasten"


def test_a_measurement_is_kept_for_the_same_model_device_unit_and_batch(tmp_path: Path) -> None:
    def asked(*, seconds: float = 0.5, batch: int = 8, **facts: Any) -> tuple[dict[str, Any], list[int]]:
        adapter = CountingAdapter()
        return efficiency(counting_model(adapter, **facts), seconds, batch_size=batch), adapter.calls

    first, calls = asked()
    assert calls
    assert asked() == (first, [])
    for other in ({"seconds": 0.25}, {"batch": 4}, {"name": "other"}, {"weights_sha256": "1"}, {"options": {"a": "1"}}):
        assert asked(**other)[1], other
    for path in (tmp_path / "cache" / "efficiency").glob("*.json"):
        path.write_text("{broken")
    assert asked()[1], "an unreadable file costs time and nothing else"
    assert asked()[1] == [], "and is written anew"


class Failing(CountingAdapter):
    """Cannot be measured: fails on a batch that is no real clip."""

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        if waveforms.abs().max() < 0.45 or waveforms.abs().max() > 0.5:
            raise RuntimeError("out of memory\nat length")
        return super().embed(waveforms, lengths)


def test_what_cannot_be_measured_is_null_with_a_reason_and_ends_no_run(tmp_path: Path) -> None:
    clips = fold_clips(tmp_path / "data", 40)
    machine = Machine(efficiency=True)
    result, _ = evaluate_linear(counting_model(Failing()), clips, QUICK, machine, tmp_path / "runs")
    block = result["efficiency"]
    assert {block[name] for name in FIGURES} == {None}
    assert block["reason"] == "RuntimeError: out of memory"
    assert not list((tmp_path / "cache").glob("efficiency/*")), "it may be possible another time"


def test_a_model_that_was_not_prepared_is_not_measured() -> None:
    class Prepared(CountingAdapter):
        needs_prepare = True

    block = efficiency(counting_model(Prepared()), 0.5, batch_size=4, prepared=False)
    assert block["parameters"] is None
    assert "not prepared" in block["reason"]
    assert efficiency(counting_model(Prepared()), 0.5, batch_size=4, prepared=True)["parameters"] == 0
    assert efficiency(counting_model(Prepared()), 0.5, batch_size=4, prepared=False)["parameters"] == 0, "kept"


class Drawing(CountingAdapter):
    """Draws random numbers while it embeds."""

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        torch.rand(7)
        return super().embed(waveforms, lengths)


def test_measuring_changes_neither_scores_nor_random_numbers(tmp_path: Path) -> None:
    clips = fold_clips(tmp_path / "data", 40)
    results = []
    for on in (False, True):
        results.append(
            evaluate_linear(counting_model(Drawing()), clips, QUICK, Machine(efficiency=on), tmp_path / f"runs{on}")[0]
        )
    without, with_it = results
    assert "efficiency" not in without
    assert without["run_id"] == with_it["run_id"]
    for key in ("scores", "fold_scores", "per_class", "details"):
        assert without[key] == with_it[key]
    torch.manual_seed(0)
    state = torch.get_rng_state()
    efficiency(counting_model(Drawing()), 0.25, batch_size=4)
    assert torch.equal(torch.get_rng_state(), state)


def test_embeddings_are_the_same_before_and_after_a_measurement() -> None:
    model = load_model("m2d", "random", {"depth": "1", "embed_dim": "64"})
    waves = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 16000)).astype(np.float32)) * 0.1
    lengths = torch.tensor([16000, 16000])
    embed = embedder(model, "clip", "cpu", "fp32")
    before = embed(waves, lengths)
    block = efficiency(model, 1.0, batch_size=2)
    assert block["parameters"] > 0 and block["peak_memory_mib"] > 4 * block["parameters"] / 2**20
    assert torch.equal(embed(waves, lengths), before)
    assert model.adapter.sample_rate != RATE


def test_the_command_measures_by_itself(tmp_path: Path, pocket_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["log_mel_stats", "pocket_pitch", "--seeds=1", "--max_epochs=2", f"--root={pocket_data}"]
    assert run(lineareval, [*words, f"--results={tmp_path / 'runs'}"], options_of_models) == 0
    assert "arning" not in capfd.readouterr().err
    block = results_in(tmp_path / "runs")[0]["efficiency"]
    assert block["audio_seconds_per_second"] > 1
    assert block["gflops_per_second"] > 0
