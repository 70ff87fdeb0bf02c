"""BYOL-A: golden vectors, the fast path against the plain network, and the task's statistics."""

import json
import zlib

import numpy as np
import pytest
import torch
from golden import arrays, golden, needs_shared, recipe
from hypothesis import given, settings
from hypothesis import strategies as st

from evar.errors import UserError
from model_adapters.base import ClipBatch
from model_adapters.byol_a import ByolA, exact_statistics, moments, reference_statistics
from model_adapters.networks.audio_ntt import AudioNTT, AudioNTTSize

SIZES = {"v1": AudioNTTSize(), "v2": AudioNTTSize(blocks=2)}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def lively(size, seed=0):
    """A network whose batch norms do something."""
    torch.manual_seed(seed)
    network = AudioNTT(size).eval()
    for layer in network.features:
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2.0)
            layer.weight.normal_(1, 0.3)
            layer.bias.normal_(0, 0.3)
    return network


@pytest.fixture
def d512(tmp_path):
    shapes = json.loads(golden("byola_d512_shapes.json").read_text())
    state = {
        key: torch.from_numpy(recipe().tensor_for(key, tuple(shape), 51)) for key, shape in shapes.items() if shape
    }
    state |= {key: torch.tensor(7) for key, shape in shapes.items() if not shape}
    torch.save(state, tmp_path / "AudioNTT2020-BYOLA-64x96d512.pth")
    return tmp_path / "AudioNTT2020-BYOLA-64x96d512.pth"


@needs_shared
def test_golden_embeddings(d512):
    model, stored = ByolA(weights=str(d512), norm_stats="-5.0,4.5"), arrays("byola_d512.npz")
    for name, wave in arrays("waveforms_16k.npz").items():
        clip, length = torch.from_numpy(wave)[None], torch.tensor([len(wave)])
        frames, seconds = model.embed_frames(clip, length)
        np.testing.assert_allclose(model.embed(clip, length)[0], stored[f"{name}.embedding"], atol=1e-4)
        np.testing.assert_allclose(frames[0].mean(0), stored[f"{name}.mean"], atol=1e-4)
        if name == "w1s":
            np.testing.assert_allclose(frames[0].T, stored["w1s.frames_BDT"], atol=1e-4)
            assert seconds == pytest.approx(0.08)
    assert model.embedding_dim == 512


def adapters_recipe(state):
    """Weights and clips by the rule of ADAPTERS 3."""
    filled = {}
    for key, tensor in state.items():
        z = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(tuple(tensor.shape)).astype(np.float32)
        if key.endswith("running_var"):
            z = 1 + 0.1 * np.abs(z)
        elif key.endswith("running_mean"):
            z = 0.1 * z
        elif tensor.ndim == 1:
            z = 0.02 * z + (not key.endswith("bias"))
        elif tensor.ndim > 1:
            z = z / np.sqrt(np.prod(tensor.shape[1:]))
        filled[key] = torch.as_tensor(np.asarray(z, np.float32)) if tensor.is_floating_point() else tensor
    return filled


def adapters_clips(seconds):
    t = np.arange(int(16000 * seconds)) / 16000
    tremolo = 0.5 + 0.5 * np.sin(2 * np.pi * 1.7 * t)
    clips = [
        0.05 * np.random.RandomState(k).standard_normal(len(t)) + 0.3 * np.sin(2 * np.pi * f * t) * tremolo
        for k, f in enumerate((440, 1234.5))
    ]
    return torch.from_numpy(np.stack(clips).astype(np.float32))


@needs_shared
@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("seconds", [2, 10])
def test_adapters_goldens(version, seconds, tmp_path):
    stored = json.loads(golden("adapters", "goldens.json").read_text())[f"byola_{version}.meanmax.{seconds}s"]
    weights = adapters_recipe(AudioNTT(SIZES[version]).state_dict())
    torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, tmp_path / "w.pth")
    model = ByolA(weights=str(tmp_path / "w.pth"), norm_stats="-3.7112076,3.5103734")
    ours = model.embed(adapters_clips(seconds), torch.tensor([1, 1]))
    assert list(ours.shape) == stored["shape"]
    np.testing.assert_allclose(ours.flatten()[:8], stored["first8"], atol=1e-4)
    np.testing.assert_allclose(ours.flatten()[-4:], stored["last4"], atol=1e-4)
    assert float(ours.norm()) == pytest.approx(stored["l2"], rel=1e-5)


@pytest.mark.parametrize("version", ["v1", "v2"])
@settings(max_examples=12, deadline=None)
@given(frames=st.integers(8, 90), batch=st.integers(1, 5))
def test_the_fast_path_equals_the_plain_network(version, frames, batch):
    network, x = lively(SIZES[version]), torch.randn(batch, 64, frames)
    with torch.enable_grad():
        plain = network(x).detach()
    fast = network(x)
    assert fast.shape == plain.shape == (batch, frames >> SIZES[version].blocks, SIZES[version].dim)
    assert torch.allclose(fast, plain, atol=1e-5)


def test_groups_of_clips_give_what_the_whole_batch_gives(monkeypatch):
    network, x = lively(AudioNTTSize(hidden=256, out=256)), torch.randn(7, 64, 101)
    whole = network(x)
    monkeypatch.setattr("model_adapters.networks.audio_ntt._CONV_NUMBERS", 64 * 101 * 64 * 2)
    monkeypatch.setattr("model_adapters.networks.audio_ntt._DENSE_NUMBERS", 256 * 10)
    assert torch.allclose(network(x), whole, atol=1e-5)
    assert torch.allclose(torch.cat([network(clip[None]) for clip in x]), whole, atol=1e-5)


def test_one_thread_takes_another_product_and_gets_the_same(monkeypatch):
    network, x = lively(AudioNTTSize()), torch.randn(8, 64, 500)
    several = network(x)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.allclose(network(x), several, atol=1e-5)
    finally:
        torch.set_num_threads(threads)


def test_training_mode_uses_batch_statistics_and_gradients():
    network = lively(AudioNTTSize(hidden=64, out=64)).train()
    before = network.features[1].running_mean.clone()
    with torch.enable_grad():
        network(torch.randn(2, 64, 32)).sum().backward()
    assert not torch.equal(network.features[1].running_mean, before)
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("samples", [1, 500, 1119, 1120, 1300])
def test_very_short_clips_still_have_an_embedding(samples):
    model = ByolA(weights="random", norm_stats="-5,4", feature_d=64)
    assert torch.isfinite(model.embed(torch.randn(2, samples), torch.tensor([samples] * 2))).all()


class Clips:
    """Training clips in two loudnesses, in batches of two."""

    batch_size = 2
    has_captions = False

    def __init__(self, n):
        self.waves = (
            torch.randn(n, 4000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 0, n)[:, None]
        )
        self.asked = {}

    def __len__(self):
        return len(self.waves)

    def batches(self, sample_rate, batch_size, *, shuffle_seed=None, limit=None):
        self.asked = {"rate": sample_rate, "size": batch_size, "seed": shuffle_seed, "limit": limit}
        for waves in self.waves.split(batch_size):
            yield ClipBatch(waves, torch.full((len(waves),), 4000))


def test_reference_statistics_lose_the_first_batch():
    clips, model = Clips(6), ByolA(weights="random", feature_d=64)
    assert model.needs_prepare and model.state() == {"norm_stats": None}
    model.prepare(0.25, clips)
    log_mels = [model.front_end(waves) for waves in clips.waves.split(2)]
    means, deviations = [float(x.mean()) for x in log_mels], [float(x.std()) for x in log_mels]
    assert model.state()["norm_stats"] == pytest.approx([np.mean(means[1:]), np.mean(deviations[1:])], rel=1e-5)
    assert clips.asked == {"rate": 16000, "size": 2, "seed": 42, "limit": 5000}


def test_exact_statistics_are_those_of_all_values():
    clips, model = Clips(5), ByolA(weights="random", feature_d=64, statistics="exact")
    model.prepare(0.25, clips)
    values = model.front_end(clips.waves)
    assert model.state()["norm_stats"] == pytest.approx([float(values.mean()), float(values.std())], rel=1e-5)


def test_two_batches_give_the_second_and_one_gives_itself():
    first, second = moments(torch.randn(2, 64, 10)), moments(torch.randn(2, 64, 10) * 3 + 1)
    assert reference_statistics([first, second]) == reference_statistics([second]) == exact_statistics([second])
    for take in (reference_statistics, exact_statistics):
        with pytest.raises(UserError, match="no training clips"):
            take([])


def test_given_statistics_need_no_task():
    clips, model = Clips(4), ByolA(weights="random", feature_d=64, norm_stats="-5,4")
    model.prepare(0.25, clips)
    assert not model.needs_prepare and clips.asked == {} and model.state() == {"norm_stats": [-5.0, 4.0]}


def test_without_statistics_it_says_what_to_do():
    with pytest.raises(UserError, match="--norm_stats=MEAN,STD"):
        ByolA(weights="random", feature_d=64).embed(torch.zeros(1, 16000), torch.tensor([16000]))


def test_wrong_files_and_options(tmp_path):
    torch.save({"blocks.0.weight": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="not those of BYOL-A"):
        ByolA(weights=str(tmp_path / "w.pth"))
    with pytest.raises(UserError, match="--statistics"):
        ByolA(weights="random", statistics="some")


def test_random_weights_are_seeded():
    clip = torch.randn(1, 16000)
    a, b, c = (
        ByolA(weights=w, norm_stats="-5,4", feature_d=64).embed(clip, None) for w in ("random", "random:0", "random:1")
    )
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)
