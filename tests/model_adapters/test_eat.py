"""EAT: recorded outputs of the official blocks, files in both published forms, padding and chunks."""

import pytest
import torch
from adapter_goldens import agrees, clips, filled, published_keys
from golden import needs_shared

from evar.errors import UserError
from model_adapters.eat import Eat
from model_adapters.networks.checkpoints import unfilled
from model_adapters.networks.eat import EatNetwork, EatSize, positions, size_of, tidy
from model_adapters.registry import load_model


def lengths_of(waves):
    return torch.full((len(waves),), waves.shape[1])


@pytest.fixture(scope="module")
def small():
    return Eat(weights="random:3", depth=1, embed_dim=64)


@pytest.fixture(scope="module")
def noise():
    return 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))


@needs_shared
def test_names_shapes_and_recorded_outputs():
    network = unfilled(lambda: EatNetwork(EatSize())).eval()
    assert {name: list(tensor.shape) for name, tensor in network.state_dict().items()} == published_keys(
        "eat_base_composite"
    )
    state = {name: tensor for name, tensor in network.state_dict().items() if name != "pos"}
    network.load_state_dict(filled(state) | {"pos": positions(EatSize())})
    agrees("eat.sincos_pos[0,9,:8]", network.pos[:, 9, :8].detach(), atol=1e-2)  # the deviation of eight numbers
    adapter = Eat(weights="random", depth=1, embed_dim=64)
    adapter.network = network
    with torch.inference_mode():
        for seconds in (2, 10):
            (tokens,) = adapter.tokens_of(adapter.log_mel(clips(16000, seconds)))
            agrees(f"eat.cls.{seconds}s", tokens[:, 0])
            agrees(f"eat.mean_all_tokens.{seconds}s", tokens.mean(1))


def test_positions_hold_the_frequency_first():
    table = positions(EatSize(dim=64))[0]
    assert torch.equal(table[1, 32:], table[0, 32:]) and not torch.equal(table[1, :32], table[0, :32])
    assert torch.equal(table[8, :32], table[0, :32]) and not torch.equal(table[8, 32:], table[0, 32:])


def test_the_embedding_is_the_mean_of_all_tokens_of_1024_frames(small, noise):
    with torch.inference_mode():
        log_mel = small.log_mel(noise)
        (tokens,) = small.tokens_of(log_mel)
        assert tokens.shape == (2, 513, 64) and log_mel.shape == (2, 1, 128, 98)
        assert torch.allclose(small.embed(noise, lengths_of(noise)), tokens.mean(1), atol=1e-6)
        alone = torch.cat([small.embed(wave[None], lengths_of(wave[None])) for wave in noise])
        assert torch.allclose(small.embed(noise, lengths_of(noise)), alone, atol=1e-4)
        frames, seconds = small.embed_frames(noise, lengths_of(noise))
    assert frames.shape == (2, 7, 64) and seconds == pytest.approx(0.16)
    padded = torch.nn.functional.pad(log_mel, (0, 1024 - 98), value=4.268 / (2 * 4.569))
    assert torch.allclose(small.encode(padded), tokens.mean(1), atol=1e-5)


def test_long_clips(small, noise):
    chunked = Eat(weights="random:3", depth=1, embed_dim=64, long_audio="chunks")
    wave = noise[:1].repeat(1, 12)  # 1198 frames
    with torch.inference_mode():
        log_mel = small.log_mel(wave)
        first, rest = small.encode(log_mel[..., :1024]), small.encode(log_mel[..., 1024:])
        assert torch.allclose(small.embed(wave, lengths_of(wave)), first, atol=1e-5)
        assert torch.allclose(chunked.embed(wave, lengths_of(wave)), (first + rest) / 2, atol=1e-5)
        frames, _ = chunked.embed_frames(wave, lengths_of(wave))
    assert frames.shape == (1, 75, 64)
    assert (small.long_audio, chunked.long_audio) == ("the first 1024 frames", "chunks of 1024 frames")


@pytest.mark.parametrize("samples", [100, 1600, 16000 * 60])
def test_silence_of_any_length(small, samples):
    with torch.inference_mode():
        assert small.embed(torch.zeros(1, samples), torch.tensor([samples])).isfinite().all()


def test_files_of_fairseq_and_of_the_hub(small, noise, tmp_path):
    state = small.network.state_dict()
    ours = {"pos": "fixed_positional_encoder.positions", "pre_norm.": "context_encoder.norm."}
    fairseq = {"decoder.proj.weight": torch.zeros(1), "_ema": torch.zeros(1)}
    for name, tensor in state.items():
        for old, new in ours.items():
            name = new + name.removeprefix(old) if name.startswith(old) else name
        fairseq[name if name.startswith("blocks.") else "modality_encoders.IMAGE." + name] = tensor
    fairseq["modality_encoders.IMAGE.decoder.blocks.0.weight"] = torch.zeros(1)
    hub = {"model." + name.replace("pos", ours["pos"]): tensor for name, tensor in state.items()}
    bare = {name: tensor for name, tensor in state.items() if name != "pos"}
    with torch.inference_mode():
        expected = small.embed(noise, lengths_of(noise))
        for content in ({"model": fairseq}, hub, bare):
            torch.save(content, tmp_path / "eat.pt")
            adapter = load_model("eat", str(tmp_path / "eat.pt")).adapter
            assert torch.equal(adapter.embed(noise, lengths_of(noise)), expected)


def test_what_is_wrong_is_said_in_one_line(small, tmp_path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    torch.save(small.network.state_dict() | {"head.weight": torch.zeros(2)}, tmp_path / "tuned.pt")
    for options, message in (
        ({"weights": str(tmp_path / "other.pt")}, "not those of EAT or SSLAM"),
        ({"weights": str(tmp_path / "tuned.pt")}, "unexpected: head.weight"),
        ({"weights": "random", "long_audio": "half"}, "long_audio must be"),
        ({"weights": "random", "embed_dim": 65}, "divisible by 64"),
    ):
        with pytest.raises(UserError, match=message) as error:
            Eat(**options)
        assert "\n" not in str(error.value)


def test_the_skeleton_takes_its_tensors(small, noise):
    skeleton = small.skeleton()
    other = load_model(skeleton.model, "random:9", skeleton.options).adapter
    other.load_state_dict(small.state_dict())
    with torch.inference_mode():
        assert torch.equal(other.embed(noise, lengths_of(noise)), small.embed(noise, lengths_of(noise)))
    assert size_of(tidy(small.network.state_dict())) == small.network.size
