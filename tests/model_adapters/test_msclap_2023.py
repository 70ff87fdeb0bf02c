"""MS-CLAP 2023 and Pengi's audio side: recorded values, windows of seven seconds, GPT-2's reading."""

import pytest
import torch
from adapter_goldens import agrees, clips
from golden import needs_shared
from htsat_files import decibels, names_and_shapes, recipe_state
from small_bert import VOCABULARY, save_tokenizer

from model_adapters.base import AudioLanguage
from model_adapters.msclap_2023 import READING, MsClap2023
from model_adapters.networks.text_sizes import TowerSize, build, size_of
from model_adapters.networks.windowed import MsProjection
from model_adapters.pengi import Pengi

SMALL = {"weights": "random", "depth": 1, "embed_dim": 16}
SECOND = 44100


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def lengths(x):
    return torch.full((len(x),), x.shape[1])


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return str(save_tokenizer(tmp_path_factory.mktemp("words"), ["!", *VOCABULARY]))  # number 0, MS-CLAP's padding


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Return a published file with the recipe's audio side and a small text side."""
    state = dict(recipe_state("msclap_2023", drop="caption_encoder."))
    with torch.random.fork_rng():
        torch.manual_seed(2)
        text = build("gpt2", TowerSize(1200, 128, 1, 2, 512, 80), pooler=False).state_dict()
        projection = MsProjection(128, 1024).state_dict()
    state |= {f"caption_encoder.base.{k}": v for k, v in text.items()}
    state["caption_encoder.base.h.0.attn.bias"] = torch.ones(1, 1, 80, 80)  # written by old versions of transformers
    state |= {f"caption_encoder.projection.{k}": v for k, v in projection.items()}
    path = tmp_path_factory.mktemp("msclap") / "CLAP_weights_2023.pth"
    torch.save({"model": state}, path)
    return str(path)


@needs_shared
def test_recorded_values(file, tmp_path):
    model, x = MsClap2023(weights=file, le_layer="encoder"), clips(SECOND, 7)
    agrees("msclap2023.logmel.7s", decibels(model, x))
    pooled = model.embed(x, lengths(x))
    agrees("msclap2023.base.7s", pooled)
    agrees("msclap2023.proj.7s", model.audio_proj(pooled))
    state = model.state_dict()
    audio = {k: v for k, v in torch.load(file)["model"].items() if k.startswith("audio_encoder.")}
    torch.save({"model": audio | {"caption_decoder.gpt.lm_head.weight": torch.ones(1)}}, tmp_path / "base.pth")
    pengi = Pengi(weights=str(tmp_path / "base.pth")).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in pengi.items())
    assert (model.embedding_dim, model.joint_dim) == (768, 1024)


def test_linear_evaluation_gets_the_projected_vector():
    model, x = MsClap2023(**SMALL), torch.randn(1, 4410)
    assert torch.equal(model.embed(x, lengths(x)), model.embed_audio(x, lengths(x)))
    assert model.embedding_dim == model.joint_dim == 1024


@needs_shared
def test_the_published_text_tower_has_these_names():
    listed = names_and_shapes("msclap_2023")
    prefix = "caption_encoder.base."
    state = {
        k.removeprefix(prefix): torch.empty(shape, device="meta") for k, shape in listed.items() if k.startswith(prefix)
    }
    size, _ = size_of("gpt2", state, pooler=False)
    assert size == TowerSize(50257, 768, 12, 12, 3072, 1024)
    with torch.device("meta"):
        own = build("gpt2", size, pooler=False).state_dict()
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in state.items()}


@needs_shared
def test_text_is_read_before_the_padding(file, words):
    model = MsClap2023(weights=file, tokenizer=words)
    tower = model._text.on(model.device)
    assert READING.suffix == " <|endoftext|>"
    for sentence, place in (("a dog barks", -1), ("a dog ! barks", -2)):  # number 0 counts as padding, as published
        ids = torch.tensor(tower.numbers([sentence]))
        hidden = tower.model(input_ids=ids).last_hidden_state[:, place]
        assert torch.allclose(model.embed_text([sentence]), model.text_proj(hidden), atol=1e-5)
    assert isinstance(model, AudioLanguage) and not isinstance(Pengi(**SMALL), AudioLanguage)


def test_short_clips_are_repeated_in_their_real_length():
    model, x = MsClap2023(**SMALL), torch.randn(2, 3 * SECOND)
    x[0, 2 * SECOND :] = 0
    found = model.embed(x, torch.tensor([2 * SECOND, 3 * SECOND]))
    whole = x[:1, : 2 * SECOND].repeat(1, 4)[:, : 7 * SECOND]
    assert torch.allclose(found[:1], model.embed(whole, lengths(whole)), atol=1e-5)
    assert torch.allclose(found[1:], model.embed(x[1:], lengths(x[1:])), atol=1e-4)


def test_a_long_clip_has_one_window_or_several():
    x = torch.randn(1, 16 * SECOND)
    first = MsClap2023(**SMALL, long_audio="first")
    assert torch.equal(first.embed(x, lengths(x)), first.embed(x[:, : 7 * SECOND], torch.tensor([7 * SECOND])))
    chunks = MsClap2023(**SMALL, long_audio="chunks")
    starts = [0, 7 * SECOND, 9 * SECOND]
    pieces = torch.stack([first.embed(x[:, at : at + 7 * SECOND], torch.tensor([7 * SECOND])) for at in starts])
    mixed = chunks.embed(x.repeat(2, 1), torch.tensor([16 * SECOND, 7 * SECOND]))
    assert torch.allclose(mixed[0], pieces.mean(0)[0], atol=1e-4)
    assert torch.allclose(mixed[1], pieces[0, 0], atol=1e-4)


@pytest.mark.parametrize("kind", [MsClap2023, Pengi])
def test_any_length_and_silence(kind):
    model, x = kind(**SMALL), torch.zeros(2, 4410)
    x[1] += 0.1 * torch.randn(x.shape[1])
    together = model.embed(x, lengths(x))
    assert together.isfinite().all() and torch.equal(together, model.embed(x, lengths(x)))
    alone = torch.cat([model.embed(clip[None], lengths(clip[None])) for clip in x])
    assert (together - alone).abs().max() < 1e-4
    minute = torch.zeros(1, SECOND * 60)
    assert torch.allclose(model.embed(minute, lengths(minute)), together[:1], atol=1e-4)
