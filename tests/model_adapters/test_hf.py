"""hf:ORG/NAME: any audio model of transformers, from folders here."""

import numpy as np
import pytest
import torch
from small_speech import heard, reference, save_speech, save_whisper, tones
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    AutoModel,
    BertConfig,
    ClapConfig,
    ClapFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
)

from evar.errors import UserError
from model_adapters.networks.hf_features import FeatureEncoder
from model_adapters.registry import build_adapter, load_model, model_info

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def save(folder, config, extractor):
    torch.manual_seed(5)
    AutoModel.from_config(config).save_pretrained(folder)
    if extractor is not None:
        extractor.save_pretrained(folder)
    return folder


def refusal(spec, weights=None, **options):
    with pytest.raises(UserError) as caught:
        build_adapter(spec, weights, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def ast(tmp_path_factory):
    return save(tmp_path_factory.mktemp("ast"), ASTConfig(**TINY), ASTFeatureExtractor())


@pytest.mark.parametrize("name", ["hubert", "wavlm"])
def test_speech_encoders_are_heard_as_by_the_models_of_their_names(tmp_path, name):
    folder, clips = save_speech(tmp_path / "tiny", name), tones(8000, 5000)
    generic = build_adapter(f"hf:{folder}", None, {"layers": "2", "padding": "cut"})
    named = build_adapter(name, str(folder), {"layers": "2", "padding": "cut"})
    assert torch.equal(heard(generic, clips, [8000, 5000]), heard(named, clips, [8000, 5000]))
    assert generic.embed_frames(clips, torch.tensor([8000, 8000]))[1] == 0.02
    assert generic.weights_sha256 == named.weights_sha256


def test_the_checkpoint_says_whether_clips_are_normalised(tmp_path):
    folder, clip = save_speech(tmp_path / "tiny", "wavlm", do_normalize=False), tones(8000)
    expected = reference(folder, clip[0].numpy()).last_hidden_state.mean(1)
    assert torch.allclose(heard(build_adapter(f"hf:{folder}"), clip), expected, atol=1e-5)


def test_whisper_is_heard_as_by_whisper(tmp_path):
    folder, clip = save_whisper(tmp_path / "tiny"), tones(8000)
    generic, named = build_adapter(f"hf:{folder}"), build_adapter("whisper", str(folder))
    assert torch.equal(heard(generic, clip), heard(named, clip))
    assert generic.long_audio == named.long_audio == "windows of 30 s"


def test_a_model_that_pools_gives_its_own_vector(ast):
    clips = tones(16000, 16000)
    output = [reference(ast, clip.numpy()) for clip in clips]
    pools = {
        "auto": lambda o: o.pooler_output[0],
        "pooler": lambda o: o.pooler_output[0],
        "mean": lambda o: o.last_hidden_state[0].mean(0),
        "max": lambda o: o.last_hidden_state[0].amax(0),
        "mean_max": lambda o: o.last_hidden_state[0].mean(0) + o.last_hidden_state[0].amax(0),
        "first": lambda o: o.last_hidden_state[0, 0],
    }
    for pooling, pool in pools.items():
        adapter = build_adapter(f"hf:{ast}", None, {"pooling": pooling})
        expected = torch.stack([pool(o) for o in output])
        assert torch.allclose(heard(adapter, clips), expected, atol=1e-5), pooling
    layer = build_adapter(f"hf:{ast}", None, {"layers": "1"})
    assert torch.allclose(heard(layer, clips[:1]), output[0].hidden_states[1].mean(1), atol=1e-5)


def test_what_is_longer_than_the_window_is_heard_in_windows(ast):
    adapter = build_adapter(f"hf:{ast}")
    window = 164080  # 1,024 frames of 25 ms every 10 ms
    assert adapter.encoder.window == window and adapter.long_audio == "windows of 10.255 s"
    clip = tones(window + 80000)
    first, second = (heard(adapter, part) for part in clip.split(window, dim=1))
    expected = (window * first + 80000 * second) / clip.shape[1]
    assert torch.allclose(heard(adapter, clip), expected, atol=1e-5)
    pieces = build_adapter(f"hf:{ast}", None, {"chunk_seconds": "5"})
    assert pieces.long_audio == "windows of 5 s"
    assert "at most 10.255 s" in refusal(f"hf:{ast}", chunk_seconds="20")


def test_cut_short_and_silent_clips(ast):
    adapter = build_adapter(f"hf:{ast}", None, {"padding": "cut"})
    clips = tones(16000, 5000, 200)
    found = heard(adapter, clips, [16000, 5000, 200])
    assert torch.allclose(found[1:2], heard(adapter, clips[1:2, :5000]), atol=1e-5)
    assert found.isfinite().all() and heard(adapter, torch.zeros(1, 1600)).isfinite().all()
    with pytest.raises(UserError, match="it has no frames"):
        adapter.embed_frames(clips, torch.tensor([16000] * 3))


def test_features_that_the_extractor_standardises(tmp_path):
    config = Wav2Vec2BertConfig(**TINY, feature_projection_input_dim=160, conv_depthwise_kernel_size=7)
    folder, clips = save(tmp_path, config, SeamlessM4TFeatureExtractor()), tones(16000, 16000)
    adapter = build_adapter(f"hf:{folder}")
    expected = [reference(folder, clip.numpy()).last_hidden_state[0].mean(0) for clip in clips]
    assert torch.allclose(heard(adapter, clips), torch.stack(expected), atol=1e-5)
    assert heard(adapter, torch.zeros(2, 16000)).isfinite().all()


def save_clap(folder, truncation, **more):
    audio = {
        "patch_embeds_hidden_size": 16,
        "hidden_size": 128,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 4, 8],
        **more,
    }
    text = {
        **TINY,
        "vocab_size": 50,
        "max_position_embeddings": 20,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    extractor = ClapFeatureExtractor(truncation=truncation, padding="repeatpad")
    return save(folder, ClapConfig(text_config=text, audio_config=audio, projection_dim=24), extractor), extractor


def test_a_fused_clap_hears_every_clip_by_itself(tmp_path):
    """Its extractor marks a clip of the batch as a long one, at random, where none is."""
    folder, _ = save_clap(tmp_path, "fusion", enable_fusion=True, aff_block_r=1)
    adapter = build_adapter(f"hf:{folder}")
    clips = tones(48000, rate=48000).repeat(4, 1)
    found = [heard(adapter, clips) for _ in range(3)]
    alone = heard(adapter, clips[:1])
    assert all(torch.allclose(batch, alone.expand(4, -1), atol=1e-5) for batch in found)


def test_silence_is_a_number_to_an_extractor_without_a_floor():
    class NoFloor:
        sampling_rate = 16000

        def __call__(self, clips, **_):
            level = torch.tensor([[float(np.abs(clip).mean())] for clip in clips])
            return {"input_features": level.log()}

    class Trunk(torch.nn.Module):
        config = BertConfig()

        def get_audio_features(self, input_features):
            return input_features.expand(-1, 3)

    encoder = FeatureEncoder(Trunk(), NoFloor(), "last", "concat", "auto")
    assert torch.equal(encoder(torch.zeros(2, 1600)), torch.zeros(2, 3))


def test_clap_gives_its_joint_embedding(tmp_path):
    (folder, extractor), clip = save_clap(tmp_path, "rand_trunc"), tones(48000, rate=48000)
    adapter = build_adapter(f"hf:{folder}")
    assert (adapter.sample_rate, adapter.embedding_dim, adapter.long_audio) == (48000, 24, "windows of 10 s")
    with torch.no_grad():
        inputs = extractor(clip[0].numpy(), sampling_rate=48000, return_tensors="pt")
        found = AutoModel.from_pretrained(folder).eval().get_audio_features(**inputs)
    assert torch.allclose(heard(adapter, clip), getattr(found, "pooler_output", found), atol=1e-5)
    assert torch.equal(heard(adapter, tones(960000)), heard(adapter, tones(960000)))
    assert "no choice of layers or pooling" in refusal(f"hf:{folder}", layers="1")


def test_untrained_networks_of_a_kind_a_folder_and_a_size(ast):
    small = {"hidden_size": "64", "depth": "1"}
    one = load_model("hf:hubert", "random:2", small)
    assert (one.name, one.weights_sha256, one.adapter.embedding_dim) == ("hf:hubert", "random:2", 64)
    clip = tones(8000)
    assert torch.equal(heard(one.adapter, clip), heard(build_adapter("hf:hubert", "random:2", small), clip))
    other = build_adapter(f"hf:{ast}", "random:7")
    assert other.embedding_dim == 32 and other.weights_sha256 == "random:7"
    assert not np.allclose(heard(other, clip), heard(build_adapter(f"hf:{ast}"), clip), atol=1e-3)


def test_refusals_are_one_line(ast, tmp_path):
    assert "hf needs a model's name: hf:ORG/NAME" in refusal("hf")
    assert "needs a configuration: hf:hubert" in refusal("hf", "random")
    assert refusal("hf:some/model").startswith("the weights 'some/model' are not in the local cache")
    assert "no kind of model 'hubrt'. Did you mean 'hubert'?" in refusal("hf:hubrt", "random")
    bert = save(tmp_path / "bert", BertConfig(**TINY, vocab_size=50, max_position_embeddings=20), None)
    assert "transformers has no feature extractor for a bert: it hears no audio" in refusal(f"hf:{bert}")
    assert "--pooling=men is not one of its values. Did you mean 'mean'?" in refusal(f"hf:{ast}", pooling="men")
    speech = save_speech(tmp_path / "speech", "hubert")
    assert "averaged over time" in refusal(f"hf:{speech}", pooling="first")


def test_a_model_after_the_colon_is_described():
    assert model_info("hf:some/model").title.startswith("any audio model")


class Printing:
    def __reduce__(self):
        return print, ("this must never run",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "holds more than weights (Unsupported global: GLOBAL print)"),
        (b"<!DOCTYPE html>", "pytorch_model.bin is a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "pytorch_model.bin is a git-lfs pointer"),
    ],
)
def test_a_weights_file_that_is_none_is_named_for_what_it_is(tmp_path, capsys, content, words):
    folder = save(tmp_path / "m", ASTConfig(**TINY), ASTFeatureExtractor())
    (folder / "model.safetensors").unlink()
    if content is None:
        torch.save({"bad": Printing()}, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(content)
    said = refusal(f"hf:{folder}")
    assert words in said and words in refusal("ast", str(folder))
    assert "weights_only" not in said and "this must never run" not in capsys.readouterr().out
