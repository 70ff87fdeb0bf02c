"""WavCaps: recorded values, pieces of ten seconds, both sides of the joint space."""

import pytest
import torch
from adapter_goldens import agrees, clips
from golden import needs_shared
from htsat_files import recipe_state
from small_bert import save_bert

from evar.errors import UserError
from model_adapters.base import AudioLanguage
from model_adapters.networks.text import load_text_encoder
from model_adapters.wavcaps import WavCaps

SMALL = {"weights": "random", "depth": 1, "embed_dim": 16}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def lengths(x):
    return torch.full((len(x),), x.shape[1])


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(save_bert(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="module")
def file(tmp_path_factory, bert):
    """Return a published file with the recipe's audio side and a small text side."""
    state = dict(recipe_state("wavcaps_audio"))
    text = load_text_encoder(bert, pooling="cls").model.state_dict()
    state |= {f"text_encoder.text_encoder.{k}": v for k, v in text.items()}
    state["text_encoder.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    generator = torch.Generator().manual_seed(1)
    for name, shape in (
        ("0.weight", (1024, 128)),
        ("0.bias", (1024,)),
        ("2.weight", (1024, 1024)),
        ("2.bias", (1024,)),
    ):
        state[f"text_proj.{name}"] = torch.randn(shape, generator=generator) / 10
    path = tmp_path_factory.mktemp("wavcaps") / "HTSAT-BERT-PT.pt"
    torch.save({"config": {"embed_size": 1024}, "model": {**state, "temp": torch.tensor(0.07)}}, path)
    return str(path)


@needs_shared
def test_recorded_values(file):
    x = clips(32000, 5)
    model = WavCaps(weights=file, le_layer="encoder")
    agrees("wavcaps.latent768.5s_padded10s", model.embed(x, lengths(x)))
    assert (model.embedding_dim, model.joint_dim) == (768, 1024)
    agrees("wavcaps.emb1024.5s_padded10s", model.embed_audio(x, lengths(x)))


def test_linear_evaluation_gets_the_joint_vector():
    model, x = WavCaps(**SMALL), torch.randn(1, 3200)
    assert torch.equal(model.embed(x, lengths(x)), model.embed_audio(x, lengths(x)))
    assert model.embedding_dim == model.joint_dim == 1024


@needs_shared
def test_text_is_the_first_token_through_the_projector(file, bert):
    model, sentences = WavCaps(weights=file, tokenizer=bert), ["a dog barks", "rain " * 60]
    reference = load_text_encoder(bert, pooling="cls")
    cut = [sentences[0], " ".join(["rain"] * 28)]  # 30 tokens with [CLS] and [SEP]
    assert torch.allclose(model.embed_text(sentences), model.text_proj(reference.encode(cut)), atol=1e-5)
    assert isinstance(model, AudioLanguage)
    assert not any("text_encoder" in name for name in model.state_dict())


def test_a_long_clip_is_the_mean_of_padded_pieces_of_length_one():
    model, x = WavCaps(**SMALL), torch.randn(1, 32000 * 13)
    padded = torch.nn.functional.pad(x[:, 320000:], (0, 320000 - 96000))
    pieces = torch.cat([model.embed(piece, lengths(piece)) for piece in (x[:, :320000], padded)])
    assert torch.allclose(pieces.norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.allclose(model.embed(x, lengths(x))[0], pieces.mean(0), atol=1e-5)


def test_any_length_and_silence():
    model, x = WavCaps(**SMALL), torch.zeros(2, 3200)
    x[1] += 0.1 * torch.randn(x.shape[1])
    together = model.embed(x, lengths(x))
    assert together.isfinite().all() and torch.equal(together, model.embed(x, lengths(x)))
    alone = torch.cat([model.embed(clip[None], lengths(clip[None])) for clip in x])
    assert (together - alone).abs().max() < 1e-4
    minute = torch.zeros(1, 32000 * 60)
    assert torch.allclose(model.embed(minute, lengths(minute)), together[:1], atol=1e-4)


def test_untrained_text_side_takes_any_real_tokenizer(bert):
    model = WavCaps(**SMALL, tokenizer=bert)
    dog, rain = model.embed_text(["a dog barks", "rain on the roof"])
    assert dog.shape == (1024,) and not torch.allclose(dog, rain)
    with pytest.raises(UserError, match="no/such/folder"):
        WavCaps(**SMALL, tokenizer="/no/such/folder").embed_text(["rain"])


def test_the_layer_must_be_known():
    with pytest.raises(UserError, match="joint or encoder"):
        WavCaps(**SMALL, le_layer="middle")
