"""wav2vec 2.0, HuBERT, WavLM, data2vec-audio: equal to transformers' own pipeline, layer by layer and clip by clip."""

import json
import socket
import time

import numpy as np
import pytest
import soundfile
import torch
from adapter_goldens import published_keys
from golden import needs_shared
from small_speech import CONFIGS, DEPTH, heard, reference, save_speech, tones
from transformers import AutoModel

from evar.errors import UserError
from evar.fetch import hub
from evar.pretrain.corpus import corpus as make_corpus
from evar.pretrain.feature_store import read_about
from evar.pretrain.features import features, open_features
from model_adapters.networks.hf_models import default_config
from model_adapters.registry import build_adapter, load_model, model_info

NAMES = sorted(CONFIGS)
LARGE = [(name, large) for name in NAMES for large in (False, True) if not (large and name == "data2vec_audio")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of tiny models by name and whether they are built like the large ones."""
    base = tmp_path_factory.mktemp("speech")
    return {(name, large): save_speech(base / f"{name}{large}", name, large=large) for name, large in LARGE}


def built(folder, name, **options):
    return build_adapter(name, str(folder), options)


def refusal(name, weights, **options):
    with pytest.raises(UserError) as caught:
        build_adapter(name, weights, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- equal to transformers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "large"), LARGE)
def test_the_embedding_is_the_mean_of_transformers_last_hidden_state(folders, name, large):
    clips = tones(12000, 12000)
    adapter = built(folders[name, large], name)
    expected = [reference(folders[name, large], clip.numpy()).last_hidden_state[0].mean(0) for clip in clips]
    assert torch.allclose(heard(adapter, clips), torch.stack(expected), atol=1e-5)


@pytest.mark.parametrize(("name", "large"), LARGE)
def test_layers_are_transformers_hidden_states(folders, name, large):
    (clip,) = tones(9000)
    output = reference(folders[name, large], clip.numpy())
    for layer in (0, 1, 2):
        adapter = built(folders[name, large], name, layers=str(layer))
        frames, step = adapter.embed_frames(clip[None], torch.tensor([9000]))
        assert step == 0.02 and frames.shape == (1, (9000 - 400) // 320 + 1, 32)
        assert torch.allclose(frames, output.hidden_states[layer], atol=1e-5)


def test_several_layers_are_put_side_by_side_or_averaged(folders):
    clip, folder = tones(6000), folders["hubert", True]
    one = [heard(built(folder, "hubert", layers=str(n)), clip) for n in range(1, DEPTH + 1)]
    every = built(folder, "hubert", layers="all")
    assert every.embedding_dim == 96 and torch.allclose(heard(every, clip), torch.cat(one, 1), atol=1e-6)
    mean = built(folder, "hubert", layers="all", combine="mean")
    assert mean.embedding_dim == 32 and torch.allclose(heard(mean, clip), torch.stack(one).mean(0), atol=1e-6)
    last = heard(built(folder, "hubert"), clip)
    assert torch.equal(heard(built(folder, "hubert", layers="-1"), clip), last)
    assert torch.equal(heard(built(folder, "hubert", layers=str(DEPTH)), clip), last)
    mixed = heard(built(folder, "hubert", layers="2,-1"), clip)
    assert torch.allclose(mixed, torch.cat([one[1], last], 1), atol=1e-6)


def test_blocks_above_the_chosen_layer_are_not_kept(folders):
    adapter = built(folders["wavlm", True], "wavlm", layers="1")
    assert len(adapter.encoder.trunk.encoder.layers) == 2


def test_conv_features_are_maximum_plus_mean(folders):
    clip = tones(8000)
    adapter = built(folders["wav2vec2", False], "wav2vec2", features="conv")
    standardised = (clip - clip.mean()) / (clip.var(correction=0) + 1e-7).sqrt()
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folders["wav2vec2", False]).eval().feature_extractor(standardised)
    assert adapter.embedding_dim == 16
    assert torch.allclose(heard(adapter, clip), expected.amax(2) + expected.mean(2), atol=1e-5)
    cut = built(folders["wav2vec2", False], "wav2vec2", features="conv", padding="cut")
    padded = torch.nn.functional.pad(clip, (0, 5000))
    assert torch.allclose(heard(cut, padded, [8000]), heard(adapter, clip), atol=1e-5)


def test_normalisation_is_of_the_clip_or_as_the_checkpoint_says_or_none(tmp_path):
    folder, clip = save_speech(tmp_path / "plain", "wavlm", do_normalize=False), tones(8000)
    expected = reference(folder, clip[0].numpy()).last_hidden_state.mean(1)
    for rule, same in (("checkpoint", True), ("none", True), ("clip", False)):
        adapter = built(folder, "wavlm", normalise=rule)
        assert torch.allclose(heard(adapter, clip), expected, atol=1e-4) is same
        assert adapter.state()["normalised"] is (not same)


# --- clips of other lengths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "large"), LARGE)
def test_cut_hears_each_clip_as_if_it_stood_alone(folders, name, large):
    lengths = [16000, 5000, 9000, 300]
    clips = tones(*lengths)
    adapter = built(folders[name, large], name, padding="cut")
    found = heard(adapter, clips, lengths)
    for k, n in enumerate(lengths[:3]):
        alone = reference(folders[name, large], clips[k, :n].numpy()).last_hidden_state[0].mean(0)
        assert torch.allclose(found[k], alone, atol=2e-5)
        assert torch.allclose(found[k], heard(adapter, clips[k : k + 1, :n])[0], atol=2e-5)
    frames, _ = adapter.embed_frames(clips, torch.tensor(lengths))
    assert (frames[1].abs().sum(1) > 0).sum() == (5000 - 400) // 320 + 1


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_heard_unless_it_is_cut(folders, name):
    clips, lengths = tones(4000, total=16000), [4000]
    adapter = built(folders[name, False], name)
    assert torch.equal(heard(adapter, clips, lengths), heard(adapter, clips))
    cut = built(folders[name, False], name, padding="cut")
    assert not torch.allclose(heard(adapter, clips), heard(cut, clips, lengths), atol=1e-3)


@pytest.mark.parametrize(("name", "large"), LARGE)
def test_silence_a_tenth_of_a_second_and_a_batch(folders, name, large):
    adapter = built(folders[name, large], name)
    for samples in (1600, 200, 1):
        assert heard(adapter, torch.zeros(2, samples)).isfinite().all()
    clips = tones(8000, 8000, 8000)
    together = heard(adapter, clips)
    assert torch.equal(together, heard(adapter, clips))
    assert torch.allclose(together[1:2], heard(adapter, clips[1:2]), atol=1e-4)


@pytest.mark.parametrize("padding", ["heard", "cut"])
def test_a_minute_whole_and_in_pieces(folders, padding):
    clip, folder = tones(960000), folders["hubert", True]
    assert heard(built(folder, "hubert", padding=padding), clip).isfinite().all()
    pieces = built(folder, "hubert", padding=padding, chunk_seconds="20", normalise="none")
    assert pieces.long_audio == "pieces of 20 s"
    whole = built(folder, "hubert", normalise="none")
    parts = [whole.embed_frames(part, torch.tensor([320000]))[0] for part in clip.split(320000, dim=1)]
    found, _ = pieces.embed_frames(clip, torch.tensor([960000]))
    assert torch.allclose(found, torch.cat(parts, 1), atol=1e-5)


def test_pieces_of_padded_clips_that_are_cut(folders):
    lengths = [16000, 6000, 8100]
    clips = tones(*lengths)
    adapter = built(folders["wavlm", False], "wavlm", padding="cut", chunk_seconds="0.5")
    together = heard(adapter, clips, lengths)
    for k, n in enumerate(lengths):
        assert torch.allclose(together[k : k + 1], heard(adapter, clips[k : k + 1, :n]), atol=2e-5)


# --- features for pre-training --------------------------------------------------------------------------------------


def test_features_of_a_layer_for_pre_training(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "audio").mkdir()
    for k, wave in enumerate(tones(16000, 16000)):
        soundfile.write(tmp_path / "audio" / f"{k}.wav", wave.numpy(), 16000, subtype="FLOAT")
    make_corpus(tmp_path / "corpus", audio=(str(tmp_path / "audio"),))
    folder = str(folders["hubert", False])
    features("hubert", tmp_path / "out", corpus=tmp_path / "corpus", weights=folder, device="cpu", layers="2")
    found = open_features(tmp_path / "out")
    assert (found.dim, found.step, len(found.frames)) == (32, 0.02, 2 * 49)
    facts = read_about(tmp_path / "out")["facts"]
    assert facts["options"] == {"layers": "2"} and facts["model"] == "hubert"
    wave, _ = soundfile.read(tmp_path / "audio" / "0.wav", dtype="float32")
    expected = reference(folders["hubert", False], (wave * 32768).round() / 32768).hidden_states[2][0]
    order = [torch.from_numpy(np.asarray(found.frames[k * 49 : (k + 1) * 49], dtype=np.float32)) for k in (0, 1)]
    assert min((rows - expected).abs().max() for rows in order) < 5e-3


# --- weights --------------------------------------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_the_base_models_have_the_published_keys_and_shapes(name):
    config = default_config(name.replace("_", "-"))
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert ours == published_keys(f"hf_{name.removesuffix('_audio')}")


@pytest.mark.parametrize("name", NAMES)
def test_an_untrained_network_depends_on_its_seed_alone(name):
    clip, small = tones(8000), {"hidden_size": "64", "depth": "1"}
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, two, other = (build_adapter(name, f"random:{seed}", small) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one.embedding_dim == 64 and torch.equal(heard(one, clip), heard(two, clip))
    assert not torch.allclose(heard(one, clip), heard(other, clip), atol=1e-3)
    assert one.weights_sha256 == "random:1" and "transformers" in one.state()


@pytest.mark.parametrize("name", [*NAMES, "whisper"])
def test_a_hub_id_that_cannot_be_had_is_one_line_at_once(name, tmp_path, monkeypatch):
    monkeypatch.setenv("EVAR_WEIGHTS", str(tmp_path))
    begin = time.monotonic()
    message = refusal(name, None)
    assert message.startswith(f"the weights '{model_info(name).weights.hub}' are not in the local cache and cannot be")
    assert "HF_HUB_OFFLINE is set" in message and "--weights=random" in message
    assert time.monotonic() - begin < 5


def test_wrong_weights_are_one_line(folders, tmp_path):
    hubert = str(folders["hubert", False])
    assert refusal("wavlm", hubert) == f"'{hubert}' is a hubert, not a wavlm; try hf:{hubert}, which takes either"
    assert "holds no model in transformers' layout" in refusal("hubert", str(tmp_path))
    assert refusal("hubert", "a/b/c") == "'a/b/c' is neither a folder nor a model on the Hugging Face hub (ORG/NAME)"
    config = json.loads((folders["hubert", False] / "config.json").read_text())
    other = tmp_path / "deeper"
    other.mkdir()
    (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    (other / "model.safetensors").symlink_to(folders["hubert", False] / "model.safetensors")
    message = refusal("hubert", str(other))
    assert "do not fit HubertModel: missing or of another shape: encoder.layers.3" in message
    (other / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    assert "deeper" in refusal("hubert", str(other))
    (other / "config.json").write_text("{")
    assert "configuration cannot be read" in refusal("hubert", str(other))


def test_the_settings_beside_the_weights_are_part_of_the_models_identity(tmp_path):
    folder = save_speech(tmp_path / "tiny", "hubert")
    before = load_model("hubert", str(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    after = load_model("hubert", str(folder))
    assert before.weights_sha256 == after.weights_sha256 and before.adapter.made_of() != after.adapter.made_of()


def test_wrong_options_are_one_line(folders):
    folder = str(folders["hubert", False])
    assert "there is no layer 4; the model has 3" in refusal("hubert", folder, layers="4")
    assert "--layers must be last, all or numbers" in refusal("hubert", folder, layers="first")
    assert "published weights have their own" in refusal("hubert", folder, depth="2")
    assert "must be a multiple of 64" in refusal("hubert", "random", hidden_size="100")
    assert "leave out --layers" in refusal("wav2vec2", "random", features="conv", layers="3")
    assert "--chunk_seconds" in refusal("hubert", folder, chunk_seconds="-1")


def test_the_file_itself_and_the_weights_folder_name_the_model(folders, monkeypatch):
    folder = folders["hubert", False]
    by_file = build_adapter("hubert", str(folder / "model.safetensors"))
    monkeypatch.setenv("EVAR_WEIGHTS", str(folder.parent))
    by_name = build_adapter("hubert", folder.name)
    assert by_file.weights_sha256 == by_name.weights_sha256 and len(by_file.weights_sha256) == 64


def test_clips_are_standardised_over_their_own_samples():
    from model_adapters.networks.hf_speech import standardised

    clips = tones(4000, 1000)
    found = standardised(clips, torch.tensor([4000, 1000]))
    alone = np.stack([standardised(clips[:1])[0], np.pad(standardised(clips[1:, :1000])[0], (0, 3000))])
    np.testing.assert_allclose(found, alone, atol=1e-5)


def test_a_hub_that_does_not_answer_is_given_up_at_once(tmp_path, monkeypatch):
    """The hub's client alone would ask again for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(hub, "SECONDS", 0.2)
        begin = time.monotonic()
        message = refusal("hf:some/model", None)
    assert "no network: ReadTimeout at http://127.0.0.1" in message and time.monotonic() - begin < 5
