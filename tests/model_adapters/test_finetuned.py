"""A fine-tuned model as an adapter: what it gives, what it needs to be loaded again, and folders that are not one."""

import json
import shutil

import numpy as np
import pytest
import torch
from golden import golden, needs_shared
from tuning import RATE, SMALL, job, own_adapter, tones

from evar.errors import UserError
from evar.extract import model_facts
from evar.feed import open_feed
from evar.finetune import evaluate_finetune
from evar.finetune_fit import fit_fold
from evar.finetune_model import FineTuned, two_stage
from evar.finetuned_files import load_into, read_facts, save_model
from evar.lineareval import Machine, ProbeSettings, evaluate_linear
from evar.subject import weights_facts
from model_adapters.byol_a import ByolA
from model_adapters.networks.audio_ntt import AudioNTT, AudioNTTSize
from model_adapters.registry import build_adapter, load_model
from model_adapters.tag_text import Tagger


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path_factory.getbasetemp() / "cache-of-tones"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return tones(tmp_path_factory.mktemp("tones"), train=18, valid=6, test=9)


SPECS = {
    "m2d": {"options": SMALL},
    "byol_a": {"model": "byol_a", "options": {"feature_d": "8"}, "patchout": 0.0},
    "log_mel_stats": {"model": "log_mel_stats", "weights": None, "options": {}, "patchout": 0.0},
}


@pytest.fixture(scope="module")
def tuned(clips, tmp_path_factory):
    """A fine-tuned model of each kind: its fit, and the folder that holds it."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVAR_CACHE", str(tmp_path_factory.getbasetemp() / "cache-of-tones"))
        for name, spec in SPECS.items():
            folder = tmp_path_factory.mktemp(name)
            fit = fit_fold(job(clips, folder, epochs=2, **spec), 43, clips.parts()[0], folder)
            found[name] = fit, folder / "seed43-split" / "model"
    return found


@pytest.mark.parametrize("name", SPECS)
def test_it_names_the_classes_as_the_network_did_when_it_was_tested(tuned, clips, name):
    fit, folder = tuned[name]
    adapter = build_adapter("finetuned", str(folder))
    assert isinstance(adapter, Tagger) and not adapter.training
    assert (adapter.class_names, adapter.unit_seconds) == (("high", "low", "middle"), 0.5)
    batch = open_feed(clips, RATE).read(clips.parts()[0].test, 0, "front")
    found = adapter.tag_probabilities(batch.inputs, batch.lengths)
    assert not found.requires_grad
    np.testing.assert_allclose(found, fit.scores, atol=1e-5)


def test_the_encoders_version_and_options_are_in_the_key(tuned, monkeypatch):
    def key():
        return model_facts(load_model("finetuned", str(tuned["byol_a"][1])), 0.5, "fp32", "clip", "")

    before = key()
    assert before["made_of"]["encoder"]["options"]["feature_d"] == 8
    monkeypatch.setattr(ByolA, "version", ByolA.version + 1)
    assert key() != before


def test_the_licence_is_that_of_the_weights_it_began_with(tuned, tmp_path):
    folder = shutil.copytree(tuned["byol_a"][1], tmp_path / "model")
    assert weights_facts(load_model("finetuned", str(folder)))["licence"] == ""  # untrained ones are nobody's
    facts = json.loads((folder / "model.json").read_text())
    facts["began_as"]["weights"] = "/home/ada/byol_a.pth"
    (folder / "model.json").write_text(json.dumps(facts))
    assert weights_facts(load_model("finetuned", str(folder)))["licence"] == ByolA.info.weights.licence


@pytest.mark.parametrize("name", SPECS)
def test_its_embeddings_are_the_encoders(tuned, name):
    _, folder = tuned[name]
    adapter, x, lengths = build_adapter("finetuned", str(folder)), waves(3), torch.tensor([8000, 8000, 5000])
    inner = adapter.network.adapter
    with torch.no_grad():
        assert torch.equal(adapter.embed(x, lengths), inner.embed(x, lengths))
        if name != "log_mel_stats":
            begun = build_adapter(name, "random", {**SPECS[name]["options"], "norm_stats": "-7.1,4.2"})
            assert not torch.allclose(inner.embed(x, lengths), begun.embed(x, lengths), atol=1e-3)
    assert adapter.embedding_dim == inner.embedding_dim
    assert adapter.state()["fine_tuned_on"] == "tiny"


def test_linear_evaluation_takes_it_as_any_model(tuned, clips, tmp_path):
    model = load_model("finetuned", str(tuned["byol_a"][1]))
    result, _ = evaluate_linear(model, clips, ProbeSettings("logistic"), Machine(), tmp_path)
    assert result["weights"]["sha256"] == model.adapter.weights_sha256 and "untrained" not in result["flags"]
    assert result["mean"] > 0.6


@pytest.mark.parametrize("name", SPECS)
def test_it_can_be_fine_tuned_again_in_the_way_of_the_model_it_began_with(tuned, clips, tmp_path, name):
    _, folder = tuned[name]
    assert two_stage(build_adapter("finetuned", str(folder))) == (name != "log_mel_stats")
    again = job(clips, tmp_path, model="finetuned", weights=str(folder), options={}, epochs=1)
    result, _ = evaluate_finetune(again, 1)
    assert (result["settings"]["patchout"] > 0) == (name == "m2d")
    (model,) = tmp_path.glob("finetuned/*/seed43-split/model")
    twice = build_adapter("finetuned", str(model))
    assert twice.trained_on[-2:] == ("tiny", "tiny")


# Rebuilding


def waves(n, seconds=0.5):
    return 0.1 * torch.randn(n, int(seconds * RATE), generator=torch.Generator().manual_seed(n))


def kept(adapter, folder, task, model, weights="random", options=None):
    """Save a network around an adapter with changed weights, and return what it embeds and what was saved."""
    network = FineTuned(adapter, 3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    save_model(folder, network.eval(), task, model, weights, options or {})
    with torch.no_grad():
        x = waves(2, 7.0)
        return x, adapter.embed(x, torch.tensor([x.shape[1]] * 2)), network


def reloaded(folder, x):
    with torch.no_grad():
        adapter = build_adapter("finetuned", str(folder))
        return adapter, adapter.embed(x, torch.tensor([x.shape[1]] * 2))


def checkpoint(folder, **state):
    path = folder / "m2d_vit-80x608p16x16-test" / "checkpoint.pth"
    path.parent.mkdir(parents=True)
    torch.save({"model": {**build_adapter("m2d", "random", SMALL).encoder.vit.state_dict(), **state}}, path)
    return path


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("m2d", {"features": "flat"}),
        ("m2d", {"features": "stacked", "dur_frames": "501"}),
        ("m2d", {"layers": "all", "norm_stats": "-5.123456789,3.3", "heads": "2"}),
        ("m2d", {"input_size": "80x208", "patch_size": "80x2"}),
        ("msm_mae", {"padding_rule": "original"}),
        ("m2d_clap", {"dur_frames": "301"}),
        ("byol_a", {"norm_stats": "-5.123456789,3.3", "feature_d": "16"}),
    ],
)
def test_a_model_is_rebuilt_without_the_weights_it_began_with(model, options, clips, tmp_path):
    small = {} if model == "byol_a" else {"depth": "2", "embed_dim": "16", "heads": "4"}
    begun = build_adapter(model, "random:7", {**small, **options})
    x, embeddings, network = kept(begun, tmp_path, clips.task, model, "random:7", {**small, **options})
    facts = read_facts(tmp_path)
    assert facts["weights"] == "random" and facts["began_as"]["weights"] == "random:7"
    adapter, again = reloaded(tmp_path, x)
    assert torch.equal(again, embeddings)
    assert adapter.embedding_dim == embeddings.shape[1] and adapter.long_audio == begun.long_audio
    assert (adapter.short_audio, adapter.batch_matters) == (begun.short_audio, begun.batch_matters)
    load_into(network, tmp_path)  # the network that was saved takes it too, whatever was left out


def test_a_checkpoint_may_be_gone_afterwards(clips, tmp_path):
    path = checkpoint(tmp_path / "w", norm_stats=torch.tensor([-6.5, 3.25]))
    begun = build_adapter("m2d", str(path), {"heads": "2"})
    assert begun.encoder.norm_stats.tolist() == [-6.5, 3.25]
    x, embeddings, _ = kept(begun, tmp_path / "model", clips.task, "m2d", str(path), {"heads": "2"})
    shutil.rmtree(tmp_path / "w")
    assert torch.equal(reloaded(tmp_path / "model", x)[1], embeddings)


@needs_shared
def test_the_head_of_a_published_fine_tuned_checkpoint_is_left_out(clips, tmp_path):
    begun = build_adapter("m2d", str(golden("ckpt", "m2d_vit_base-80x608p16x16-golden_ft")))
    assert begun.has_head
    x, embeddings, network = kept(begun, tmp_path, clips.task, "m2d")
    adapter, again = reloaded(tmp_path, x)
    assert torch.equal(again, embeddings) and not adapter.network.adapter.has_head
    load_into(network, tmp_path)


def test_what_cannot_be_rebuilt_needs_its_weights_and_keeps_its_statistics(clips, tmp_path, monkeypatch):
    """The second BYOL-A has no random form."""
    torch.manual_seed(0)
    torch.save(AudioNTT(AudioNTTSize(blocks=2, hidden=16, out=16)).state_dict(), tmp_path / "v2.pth")
    monkeypatch.chdir(tmp_path)
    begun = build_adapter("byol_a", "v2.pth")
    begun.norm_stats = (-5.25, 3.5)  # as prepare() leaves them
    x, embeddings, _ = kept(begun, tmp_path / "model", clips.task, "byol_a", "v2.pth")
    monkeypatch.chdir("/")
    adapter, again = reloaded(tmp_path / "model", x)
    assert torch.equal(again, embeddings) and adapter.network.adapter.norm_stats == (-5.25, 3.5)
    (tmp_path / "v2.pth").unlink()
    with pytest.raises(UserError, match=r"v2\.pth"):
        reloaded(tmp_path / "model", x)


def test_a_users_own_file_is_found_again_and_never_taken_for_the_class_it_inherits_from(clips, tmp_path, monkeypatch):
    spec = own_adapter(tmp_path)
    begun = build_adapter(spec)
    monkeypatch.chdir(tmp_path)
    x, embeddings, _ = kept(begun, tmp_path / "model", clips.task, "mine.py:Mine", None)
    monkeypatch.chdir("/")
    assert torch.equal(reloaded(tmp_path / "model", x)[1], embeddings)

    class Louder(ByolA):
        def encode(self, log_mel):
            return 2 * super().encode(log_mel)

    kept(Louder(weights="random", feature_d=8, norm_stats="-5,4"), tmp_path / "other", clips.task, "x.py:Louder")
    assert read_facts(tmp_path / "other")["model"] == "x.py:Louder"


# Folders that are none


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: shutil.rmtree(folder), "not the folder of a fine-tuned model"),
        (lambda folder: (folder / "model.safetensors").unlink(), "there is no model.safetensors in it"),
        (lambda folder: (folder / "model.json").unlink(), "model.json cannot be read"),
        (lambda folder: (folder / "model.json").write_text("{"), "model.json cannot be read"),
        (lambda folder: (folder / "model.json").write_text('{"format": 9}'), "not of a format"),
        (lambda folder: (folder / "model.json").write_text('{"format": 1, "model": "m2d"}'), "does not say weights"),
        (lambda folder: cut_to(folder / "model.safetensors", 1000), "model.safetensors cannot be read"),
        (lambda folder: cut_to(folder / "model.safetensors", 0), "model.safetensors cannot be read"),
        (lambda folder: change(folder / "model.json", "labels", ["a", "b"]), "do not fit the model"),
    ],
)
def test_a_folder_that_is_none_is_one_clear_line(tuned, tmp_path, damage, says):
    folder = tmp_path / "model"
    shutil.copytree(tuned["byol_a"][1], folder)
    damage(folder)
    with pytest.raises(UserError, match=says) as error:
        build_adapter("finetuned", str(folder))
    assert "\n" not in str(error.value)


def cut_to(path, size):
    path.write_bytes(path.read_bytes()[:size])


def change(path, name, value):
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
