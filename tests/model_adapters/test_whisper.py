"""Whisper's encoder: the front end and the frames are transformers', window by window."""

import numpy as np
import pytest
import torch
from small_speech import heard, reference, save_speech, save_whisper, tones
from transformers import WhisperFeatureExtractor

from evar.errors import UserError
from model_adapters.networks.hf_whisper import WhisperLogMel
from model_adapters.registry import build_adapter

WINDOW = 480000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.mark.parametrize("mels", [80, 128])
def test_the_front_end_is_whispers(mels):
    clips = torch.nn.functional.pad(tones(50000, 4000), (0, WINDOW - 50000))
    clips[0, -200:] = 0.9  # loudest in the frame that is left out
    expected = WhisperFeatureExtractor(feature_size=mels)(list(clips.numpy()), sampling_rate=16000)["input_features"]
    np.testing.assert_allclose(WhisperLogMel(mels)(clips), np.stack(expected), atol=2e-4)


def test_a_short_clip_gives_the_frames_that_hold_its_sound(folder):
    clips = tones(33000, 33000)
    adapter = build_adapter("whisper", str(folder))
    frames, step = adapter.embed_frames(clips, torch.tensor([33000, 33000]))
    assert frames.shape == (2, 104, 32) and step == 0.02  # ceil(33000 / 320)
    for frame, clip in zip(frames, clips, strict=True):
        expected = reference(folder, clip.numpy()).last_hidden_state[0, :104]
        assert torch.allclose(frame, expected, atol=1e-4)
    assert torch.allclose(heard(adapter, clips), frames.mean(1), atol=1e-6)
    assert torch.allclose(heard(adapter, clips[1:]), frames[1:].mean(1), atol=1e-4)


def test_a_long_clip_is_heard_in_windows(folder):
    clip = tones(WINDOW + 16000)
    adapter = build_adapter("whisper", str(folder))
    frames, _ = adapter.embed_frames(clip, torch.tensor([clip.shape[1]]))
    expected = [reference(folder, part[0].numpy()).last_hidden_state[0] for part in clip.split(WINDOW, dim=1)]
    assert torch.allclose(frames[0], torch.cat([expected[0], expected[1][:50]]), atol=1e-4)
    assert heard(adapter, torch.zeros(1, 960000)).isfinite().all()


def test_cut_keeps_the_frames_of_the_clips_own_length(folder):
    clips = tones(16000, 5000)
    adapter = build_adapter("whisper", str(folder), {"padding": "cut"})
    found = heard(adapter, clips, [16000, 5000])
    assert torch.allclose(found[1:], heard(adapter, clips[1:, :5000]), atol=1e-5)
    assert not torch.allclose(found[1:], heard(build_adapter("whisper", str(folder)), clips[1:]), atol=1e-3)


def test_layers_are_transformers_hidden_states(folder):
    clip = tones(8000)
    output = reference(folder, clip[0].numpy())
    for layer in (0, 1):
        adapter = build_adapter("whisper", str(folder), {"layers": str(layer)})
        assert torch.allclose(heard(adapter, clip), output.hidden_states[layer][:, :25].mean(1), atol=1e-4)
    assert build_adapter("whisper", str(folder), {"layers": "all"}).embedding_dim == 64


def test_untrained_short_and_silent():
    adapter = build_adapter("whisper", "random:4", {"hidden_size": "64", "depth": "1"})
    assert adapter.embedding_dim == 64 and adapter.weights_sha256 == "random:4"
    again = build_adapter("whisper", "random:4", {"hidden_size": "64", "depth": "1"})
    clip = tones(1600)
    assert torch.equal(heard(adapter, clip), heard(again, clip))
    assert heard(adapter, torch.zeros(1, 1600)).isfinite().all()
    assert adapter.embed_frames(clip, torch.tensor([1600]))[0].shape == (1, 5, 64)


def test_another_models_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="is a hubert, not a whisper; try hf:"):
        build_adapter("whisper", str(save_speech(tmp_path / "hubert", "hubert")))
