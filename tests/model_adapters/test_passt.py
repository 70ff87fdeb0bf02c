"""PaSST: recorded outputs of the official network, windows of long clips, tags."""

from dataclasses import replace

import pytest
import torch
from adapter_goldens import agrees, clips, filled, published_keys
from golden import needs_shared

from evar.errors import UserError
from model_adapters.networks.checkpoints import unfilled
from model_adapters.networks.passt import PasstNetwork, PasstSize, initialise_passt
from model_adapters.passt import Passt
from model_adapters.registry import load_model

RATE = 32000


def lengths_of(waves):
    return torch.full((len(waves),), waves.shape[1])


@pytest.fixture(scope="module")
def small():
    return Passt(weights="random:3", depth=1, embed_dim=64)


@pytest.fixture(scope="module")
def noise():
    return 0.1 * torch.randn(2, RATE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def recorded():
    """Return the adapter at its published size, with the recipe's weights."""
    network = unfilled(lambda: PasstNetwork(PasstSize())).eval()
    network.load_state_dict(filled(network.state_dict()))
    adapter = Passt(weights="random", depth=1, embed_dim=64)
    adapter.network = network
    return adapter


@needs_shared
@pytest.mark.parametrize("seconds", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_recorded_outputs(recorded, seconds):
    waves = clips(RATE, seconds)
    with torch.inference_mode():
        embeddings = recorded.embed(waves, lengths_of(waves))
        agrees(f"passt.feat768.{seconds}s", embeddings)
        agrees(f"passt.logits.{seconds}s", recorded.network.head(embeddings), atol=1.5e-3)  # deviation, as above


@needs_shared
def test_names_and_shapes_are_the_published_ones(recorded):
    ours = {name: list(tensor.shape) for name, tensor in recorded.network.state_dict().items()}
    assert ours == published_keys("passt_s_swa")
    assert sum(p.numel() for p in recorded.network.parameters()) == 86153758
    assert (PasstSize().bands, PasstSize().frames) == (126, 996)


def test_alone_and_in_a_batch_and_twice_are_the_same(small, noise):
    with torch.inference_mode():
        both = small.embed(noise, lengths_of(noise))
        assert both.shape == (2, 64) and torch.equal(both, small.embed(noise, lengths_of(noise)))
        alone = torch.cat([small.embed(wave[None], lengths_of(wave[None])) for wave in noise])
        assert torch.allclose(both, alone, atol=1e-4)
        frames, seconds = small.embed_frames(noise, lengths_of(noise))
        assert frames.shape == (2, 9, 64) and seconds == pytest.approx(0.1)
    assert torch.allclose(small.encode(small.log_mel(noise)), both, atol=1e-5)


def test_hear_puts_the_scores_beside_the_tokens(small, noise):
    hear = Passt(weights="random:3", depth=1, embed_dim=64, output="hear")
    with torch.inference_mode():
        found = hear.embed(noise, lengths_of(noise))
        assert found.shape == (2, 64 + 527) and hear.embedding_dim == 64 + 527
        assert torch.allclose(found[:, :64], small.embed(noise, lengths_of(noise)), atol=1e-6)
        tags = small.tag_probabilities(noise, lengths_of(noise))
    assert torch.allclose(found[:, 64:].sigmoid(), tags, atol=1e-6)
    assert len(small.class_names) == 527 and small.class_names[0] == "Speech"


def test_long_clips_are_heard_in_windows_around_every_two_and_a_half_seconds(small, noise):
    wave = noise[:1].repeat(1, 11)
    mirrored = torch.cat([wave[:, 1 : 5 * RATE + 1].flip(1), wave, wave[:, -5 * RATE - 1 : -1].flip(1)], dim=1)
    windows = [mirrored[:, start : start + 10 * RATE] for start in range(0, 11 * RATE + 1, int(2.5 * RATE))]
    with torch.inference_mode():
        expected = torch.cat([small.embed(w, lengths_of(w)) for w in windows]).mean(0)
        assert len(windows) == 5
        assert torch.allclose(small.embed(wave, lengths_of(wave))[0], expected, atol=1e-5)
        frames, _ = small.embed_frames(wave, lengths_of(wave))
    assert frames.shape == (1, 109, 64)


def test_chunks_weigh_what_they_hear(noise):
    adapter = Passt(weights="random:3", depth=1, embed_dim=64, long_audio="chunks")
    wave = noise[:1].repeat(1, 11)
    with torch.inference_mode():
        log_mel = adapter.log_mel(wave)
        first, rest = adapter.encode(log_mel[..., :1000]), adapter.encode(log_mel[..., 1000:])
        assert torch.allclose(adapter.embed(wave, lengths_of(wave)), (1000 * first + 100 * rest) / 1100, atol=1e-5)


@pytest.mark.parametrize("samples", [10, 3200, RATE * 10])
def test_silence_of_any_length(small, samples):
    with torch.inference_mode():
        assert small.embed(torch.zeros(1, samples), torch.tensor([samples])).isfinite().all()


def test_files_and_what_is_wrong_with_them(small, noise, tmp_path):
    path = tmp_path / "passt.pt"
    torch.save({"net." + name: tensor for name, tensor in small.network.state_dict().items()}, path)
    with torch.inference_mode():
        adapter = load_model("passt", str(path)).adapter
        assert torch.equal(adapter.embed(noise, lengths_of(noise)), small.embed(noise, lengths_of(noise)))
    network = PasstNetwork(replace(small.network.size, classes=20))
    initialise_passt(network, 0)
    torch.save(network.state_dict(), path)
    assert not hasattr(Passt(weights=str(path)), "class_names")
    torch.save(PasstNetwork(replace(small.network.size, rows=9)).state_dict(), path)
    with pytest.raises(UserError, match="9 rows of patches"):
        Passt(weights=str(path))
    torch.save({"fc.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(UserError, match="not those of PaSST"):
        Passt(weights=str(path))
    for options, message in (
        ({"output": "x"}, "output"),
        ({"long_audio": "x"}, "long_audio"),
        ({"depth": 0}, "64"),
    ):
        with pytest.raises(UserError, match=message):
            Passt(weights="random", **options)


def test_the_skeleton_takes_its_tensors(small, noise):
    skeleton = small.skeleton()
    other = load_model(skeleton.model, "random:9", skeleton.options).adapter
    other.load_state_dict(small.state_dict())
    with torch.inference_mode():
        assert torch.equal(other.embed(noise, lengths_of(noise)), small.embed(noise, lengths_of(noise)))
