"""Text towers: each reading against the network itself, OpenAI's names, sizes from tensors, and empty tokenizers."""

import shutil
from pathlib import Path

import pytest
import torch
from small_bert import VOCABULARY, save_tokenizer
from torch import nn

from evar.errors import UserError
from model_adapters.networks.text import require_real
from model_adapters.networks.text_sizes import TowerSize, build, size_of
from model_adapters.networks.text_towers import LazyTower, Reading, random_tower, tower_from_state
from model_adapters.registry import build_adapter, model_options

SENTENCES = ["a dog barks", "rain", "a dog barks and rain on the roof can be heard", "music"]
KINDS = [("bert", "first"), ("roberta", "pooler"), ("gpt2", "before_pad"), ("clip", "last")]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return str(save_tokenizer(tmp_path_factory.mktemp("words"), ["<s>", *VOCABULARY]))


def reading(kind, at, max_tokens=20):
    return Reading(kind, "nobody/no-tokenizer", at=at, max_tokens=max_tokens)


def small(kind, at, seed=4):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        size = TowerSize(1200, 128, 2, 2, 512, 40, projection=96 if kind == "clip" else 0)
        return build(kind, size, pooler=at == "pooler").eval()


@pytest.mark.parametrize(("kind", "at"), KINDS)
def test_sentences_are_read_as_they_would_be_alone_and_padded(words, kind, at):
    model = small(kind, at)
    tower = tower_from_state(model.state_dict(), reading(kind, at), words)
    together = tower.encode(SENTENCES)
    assert together.shape == (4, tower.width) == (4, 96 if kind == "clip" else 128)
    assert torch.allclose(together, torch.cat([tower.encode([s]) for s in SENTENCES]), atol=1e-5)
    padding = 1 if kind != "gpt2" else 0
    rows = tower.numbers(SENTENCES)
    longest = max(map(len, rows))
    ids = torch.tensor([row + [padding] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask)
        last = out.last_hidden_state[range(4), [len(row) - 1 for row in rows]]
        expected = {
            "first": lambda: out.last_hidden_state[:, 0],
            "pooler": lambda: out.pooler_output,
            "before_pad": lambda: last,
            "last": lambda: model.text_projection(last),
        }[at]()
    assert torch.allclose(together, expected, atol=1e-5)


def test_text_is_cut_and_may_be_empty(words):
    tower = random_tower(reading("gpt2", "before_pad", 6), 0, words, depth=1)
    assert [len(row) for row in tower.numbers(["rain " * 50, "rain"])] == [6, 3]
    assert tower.encode([]).shape == (0, 128) and tower.encode([""]).isfinite().all()


def test_openais_names_of_clip():
    model, width = small("clip", "last"), 128
    hf = model.state_dict()
    theirs = {
        "token_embedding.weight": hf["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": hf["text_model.embeddings.position_embedding.weight"],
        "ln_final.weight": hf["text_model.final_layer_norm.weight"],
        "ln_final.bias": hf["text_model.final_layer_norm.bias"],
        "text_projection": hf["text_projection.weight"].T,
        "visual.conv1.weight": torch.ones(1),
    }
    attention = nn.MultiheadAttention(width, 2)
    for layer in range(2):
        ours, prefix = f"text_model.encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for end in ("weight", "bias"):
            parts = [hf[f"{ours}self_attn.{n}_proj.{end}"] for n in "qkv"]
            theirs[f"{prefix}attn.in_proj_{end}"] = torch.cat(parts)
            theirs[f"{prefix}attn.out_proj.{end}"] = hf[f"{ours}self_attn.out_proj.{end}"]
            names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
            for name, here in names.items():
                theirs[f"{prefix}{name}.{end}"] = hf[f"{ours}{here}.{end}"]
    assert attention.in_proj_weight.shape == theirs["transformer.resblocks.0.attn.in_proj_weight"].shape
    size, tidied = size_of("clip", theirs, pooler=False)
    assert size.projection == 96
    assert tidied.keys() == hf.keys() and all(torch.equal(tidied[k], hf[k]) for k in hf)


@pytest.mark.parametrize(("kind", "at"), KINDS)
def test_sizes_are_read_from_the_tensors(kind, at):
    state = small(kind, at).state_dict()
    size, tidied = size_of(kind, {**state, "embeddings.position_ids": torch.arange(3)}, pooler=at == "pooler")
    assert (size.words, size.width, size.layers, size.heads, size.inner, size.positions) == (1200, 128, 2, 2, 512, 40)
    assert tidied.keys() == state.keys()


@pytest.mark.parametrize("vocabulary", [VOCABULARY[:5], VOCABULARY[:5] + VOCABULARY[30:]], ids=["empty", "other words"])
def test_a_tokenizer_that_knows_no_words_is_refused(tmp_path, vocabulary):
    from transformers import AutoTokenizer

    folder = str(save_tokenizer(tmp_path, vocabulary))
    with pytest.raises(UserError, match="is empty"):
        random_tower(reading("bert", "first"), 0, folder, depth=1)
    with pytest.raises(UserError, match=r"the tokenizer of laion-clap is empty"):
        require_real(AutoTokenizer.from_pretrained(folder), "laion-clap")


def test_what_does_not_fit_is_named(words, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    state = small("bert", "first").state_dict()
    with pytest.raises(UserError, match=r"missing: encoder\.layer\.1\.output\.dense\.bias"):
        tower_from_state(
            {k: v for k, v in state.items() if k != "encoder.layer.1.output.dense.bias"},
            reading("bert", "first"),
            words,
        )
    with pytest.raises(UserError, match="not those of a GPT2"):
        tower_from_state(state, reading("gpt2", "last"), words)
    with pytest.raises(UserError, match="cannot be had"):
        tower_from_state(state, reading("bert", "first"))
    few = {**state, "embeddings.word_embeddings.weight": torch.zeros(1050, 128)}
    with pytest.raises(UserError, match="tokens, the text tower 1050"):
        tower_from_state(few, reading("bert", "first"), words)


def test_an_untrained_tower_depends_on_its_seed_and_is_built_once(words):
    made = []

    def make():
        made.append(random_tower(reading("roberta", "pooler"), 7, words, depth=1))
        return made[-1]

    lazy = LazyTower(make)
    first = lazy.on(torch.device("cpu")).encode(SENTENCES)
    assert torch.equal(first, lazy.on(torch.device("cpu")).encode(SENTENCES)) and len(made) == 1
    assert not torch.allclose(first, random_tower(reading("roberta", "pooler"), 8, words, depth=1).encode(SENTENCES))


def test_a_tower_says_which_tokenizer_it_has_whatever_else_is_the_same(words, tmp_path):
    def facts(folder, **more):
        return tower_from_state(small("bert", "first").state_dict(), reading("bert", "first"), folder, **more).facts

    again = shutil.copytree(words, tmp_path / Path(words).name)
    assert facts(words) == facts(str(again)) and len(facts(words)["tokenizer_sha256"]) == 64
    other = save_tokenizer(tmp_path / "other" / Path(words).name, ["<s>", *VOCABULARY[:-1], "meow"])
    assert facts(str(other))["tokenizer"] == facts(words)["tokenizer"]
    assert facts(str(other))["tokenizer_sha256"] != facts(words)["tokenizer_sha256"]
    assert facts(words, weights_sha256="abc")["sha256"] == "abc"


@pytest.mark.parametrize("name", ["msclap_2022", "msclap_2023", "wavcaps", "laion_clap", "audioclip", "wav2clip"])
def test_every_model_with_a_tower_says_whose_words_it_reads(words, name):
    small = {"depth": "1", "width": "16", "embed_dim": "16"}
    options = {option: text for option, text in small.items() if option in model_options(name)}
    options["text_encoder" if name == "wav2clip" else "tokenizer"] = words
    found = build_adapter(name, "random", options).text_facts()
    assert found["tokenizer"] == Path(words).name and len(found["tokenizer_sha256"]) == 64
