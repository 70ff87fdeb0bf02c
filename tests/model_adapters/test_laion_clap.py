"""LAION-CLAP through transformers: recorded values, LAION's names, windows of long clips, folders and fusion models."""

import pytest
import torch
from adapter_goldens import agrees, clips
from golden import needs_shared
from htsat_files import decibels, names_and_shapes, recipe_state
from small_bert import VOCABULARY, save_tokenizer

from evar.errors import UserError
from model_adapters.base import AudioLanguage
from model_adapters.laion_clap import LaionClap
from model_adapters.networks.htsat import HtsatSize, size_of, under
from model_adapters.networks.laion_files import to_clap_names, untrained_clap
from model_adapters.networks.text_sizes import TowerSize, build
from model_adapters.networks.text_sizes import size_of as text_size_of

SMALL = {"weights": "random", "depth": 1, "embed_dim": 16}
SECOND = 48000


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def lengths(x):
    return torch.full((len(x),), x.shape[1])


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return save_tokenizer(tmp_path_factory.mktemp("words"), ["<s>", *VOCABULARY])  # number 1 pads, as in RoBERTa


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Return the path of LAION's file with the recipe's audio side and a small text side."""
    state = dict(recipe_state("laion_clap", drop="text_"))
    with torch.random.fork_rng():
        torch.manual_seed(2)
        text = build("roberta", TowerSize(1200, 128, 1, 2, 512, 514, types=1), pooler=True).state_dict()
        projection = torch.nn.Sequential(torch.nn.Linear(128, 512), torch.nn.ReLU(), torch.nn.Linear(512, 512))
    state |= {f"text_branch.{k}": v for k, v in text.items()}
    state["text_branch.embeddings.position_ids"] = torch.arange(514)[None]
    state |= {f"text_projection.{k}": v for k, v in projection.state_dict().items()}
    path = tmp_path_factory.mktemp("laion") / "630k-audioset-best.pt"
    torch.save({"epoch": 1, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    return path


@pytest.fixture(scope="module")
def published(file, words):
    return LaionClap(weights=str(file), tokenizer=str(words), le_layer="encoder")


@needs_shared
@pytest.mark.parametrize("seconds", [1, 5, 10])
def test_recorded_values(published, seconds):
    x = clips(SECOND, seconds)
    log_mel = published.log_mel(x)
    agrees(f"laionclap.hf_logmel.{seconds}s", decibels(published, x))
    pooled = published.encode(log_mel)
    agrees(f"laionclap.pooled768.{seconds}s", pooled)
    agrees(f"laionclap.emb512.{seconds}s", published.embed_audio(x, lengths(x)))


@needs_shared
def test_every_published_name_has_its_place():
    state = {k: torch.empty(s, device="meta") for k, s in names_and_shapes("laion_clap").items()}
    assert size_of(under(state, "audio_branch.")) == HtsatSize()
    size, _ = text_size_of("roberta", under(state, "text_branch."), pooler=True)
    assert size == TowerSize(50265, 768, 12, 12, 3072, 514, types=1)
    own = untrained_clap(HtsatSize(), 0).state_dict()
    constants = ("relative_position_index", "position_ids", "token_type_ids")
    shapes = {k: v.shape for k, v in own.items() if not k.endswith(constants)}
    assert {k: v.shape for k, v in to_clap_names(state).items()} == shapes


@needs_shared
def test_text_is_the_pooled_first_token_through_the_projection(published):
    tower = published._text.on(published.device)
    sentence = "a dog barks"
    ids = torch.tensor(tower.numbers([sentence]))
    pooled = tower.model(input_ids=ids).pooler_output
    expected = torch.nn.functional.normalize(published.text_proj(pooled), dim=-1)
    found = published.embed_text([sentence, "rain on the roof can be heard"])
    assert torch.allclose(found[:1], expected, atol=1e-6)
    assert torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-5)
    assert isinstance(published, AudioLanguage)
    assert not any("word_embeddings" in name for name in published.state_dict())


def test_a_folder_of_transformers(words, tmp_path):
    from transformers import AutoTokenizer

    clap = untrained_clap(HtsatSize(16, (1, 1, 1, 1)), 3, text_layers=1)
    clap.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(str(words)).save_pretrained(tmp_path)
    model, again = LaionClap(weights=str(tmp_path)), LaionClap(**{**SMALL, "weights": "random:3"})
    x = torch.randn(1, SECOND)
    assert torch.allclose(model.embed(x, lengths(x)), again.embed(x, lengths(x)), atol=1e-6)
    assert model.embed_text(["a dog barks"]).shape == (1, 512)  # with the tokenizer in the folder
    assert len(model.weights_sha256) == 64


def test_fusion_models_are_refused(tmp_path):
    from model_adapters.networks.htsat import Htsat, from_transformers

    state = from_transformers(Htsat(HtsatSize(32, (1, 1, 1, 1))).encoder.state_dict())
    state = {f"module.audio_branch.{k}": v for k, v in state.items()}
    state["module.audio_branch.patch_embed.fusion_model.weight"] = torch.ones(2)
    torch.save({"state_dict": state}, tmp_path / "630k-fusion-best.pt")
    with pytest.raises(UserError, match="fusion"):
        LaionClap(weights=str(tmp_path / "630k-fusion-best.pt"))


def test_a_long_clip_has_the_same_window_every_time():
    model, x = LaionClap(**SMALL), torch.randn(2, 12 * SECOND) / 10
    together = model.embed(x, lengths(x))
    assert torch.equal(together, model.embed(x, lengths(x)))
    alone = torch.cat([model.embed(clip[None], lengths(clip[None])) for clip in x])
    assert (together - alone).abs().max() < 1e-4
    assert model.long_audio == "one window of 10 s, its place drawn by the clip itself"
    other = LaionClap(**SMALL, window_seed=1)
    assert not torch.equal(together, other.embed(x, lengths(x)))


def test_chunks_are_averaged_to_length_one():
    model, x = LaionClap(**SMALL, long_audio="chunks"), torch.randn(1, 12 * SECOND) / 10
    pieces = torch.cat([model.embed(x[:, at : at + 10 * SECOND], lengths(x)) for at in (0, 2 * SECOND)])
    expected = torch.nn.functional.normalize(pieces.mean(0, keepdim=True), dim=-1)
    assert torch.allclose(model.embed(x, lengths(x)), expected, atol=1e-5)


def test_any_length_and_silence():
    model, x = LaionClap(**SMALL), torch.zeros(2, 4800)
    x[1] += 0.1 * torch.randn(x.shape[1])
    together = model.embed(x, lengths(x))
    assert together.isfinite().all() and torch.allclose(together.norm(dim=1), torch.ones(2), atol=1e-5)
    minute = torch.zeros(1, 60 * SECOND)
    assert torch.allclose(model.embed(minute, lengths(minute)), together[:1], atol=1e-4)


def test_what_cannot_be_had_is_one_line(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="cannot be had from the Hugging Face hub"):
        LaionClap(weights="nobody-at-all/no-such-clap")
    with pytest.raises(UserError, match="transformers or laion"):
        LaionClap(**SMALL, backend="other")
    with pytest.raises(UserError, match="--long_audio must be one of"):
        LaionClap(**SMALL, long_audio="all")
    with pytest.raises(UserError, match="backend=transformers"):
        LaionClap(weights="random", backend="laion", le_layer="encoder")


def test_the_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "laion_clap", None)
    with pytest.raises(UserError, match=r"evar-harness\[laion\]"):
        LaionClap(weights="random", backend="laion")


def test_an_encoders_vector_is_left_as_it_is_though_it_has_the_joint_ones_length():
    model = LaionClap(**SMALL, le_layer="encoder", long_audio="chunks")
    model.joint_dim = model.embedding_dim
    x = 0.1 * torch.randn(1, 12 * SECOND, generator=torch.Generator().manual_seed(2))
    pieces = [model.embed(x[:, at : at + 10 * SECOND], torch.tensor([10 * SECOND])) for at in (0, 2 * SECOND)]
    assert torch.allclose(model.embed(x, lengths(x)), torch.stack(pieces).mean(0), atol=1e-5)


@needs_shared
def test_a_folder_with_laions_file_in_it_is_taken(published, file, words):
    model = LaionClap(weights=str(file.parent), tokenizer=str(words), le_layer="encoder")
    assert model.weights_sha256 == published.weights_sha256
