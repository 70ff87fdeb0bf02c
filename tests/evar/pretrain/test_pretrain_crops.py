"""A crop made from a piece of the audio is the same crop of the whole clip's log-mel; and what short clips become."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import noise
from hypothesis import given, settings
from hypothesis import strategies as st

from evar.audio.log_mel import M2D_16K, M2D_32K, LogMel
from evar.audio.pack import PackSpec
from evar.audio.pack_format import to_stored
from evar.errors import UserError
from evar.pretrain.crops import Cropper, CropRule, fill_reflected, mel_for

CPU = torch.device("cpu")
RULE = CropRule(M2D_16K, 48)
SILENCE = float(np.log(M2D_16K.eps))


def stored(seconds, seed=0, rate=16000):
    return to_stored(noise(seed, seconds, rate), "int16")[0]


def whole(clip, mel=M2D_16K, samples=0):
    """The slow twin: the log-mel of all of it, lengthened with zeros first."""
    wave = torch.from_numpy(clip.astype(np.float32) / 32768)
    return LogMel(mel)(torch.nn.functional.pad(wave, (0, max(0, samples - len(wave))))[None])[0]


def crop(rule, clips, places, spec=None):
    cropper = Cropper(spec or PackSpec(rule.mel.sample_rate), rule, CPU)
    return cropper.log_mel(cropper.cut(clips, np.array(places)))


def just(start, possible):
    """The place in [0, 1) of one of the possible offsets."""
    return (start + 0.5) / possible


@pytest.mark.parametrize("mel", [M2D_16K, M2D_32K], ids=["16k", "32k"])
@pytest.mark.parametrize("start", ["first", 1, 2, 77, "before last", "last"])
def test_a_crop_equals_that_of_the_whole_log_mel(mel, start):
    clip = stored(1.507, rate=mel.sample_rate)
    full = whole(clip, mel)
    last = full.shape[1] - 48
    first = {"first": 0, "before last": last - 1, "last": last}.get(start, start)
    found = crop(replace(RULE, mel=mel), [clip], [just(first, last + 1)])
    torch.testing.assert_close(found[0], full[:, first : first + 48], rtol=0, atol=2e-5)


def test_every_offset_is_possible_and_equally_wide():
    clip = stored(0.5)
    full = whole(clip)
    offsets = full.shape[1] - 48 + 1
    assert offsets == 4
    for place, start in [(0.0, 0), (0.249, 0), (0.25, 1), (0.5, 2), (0.75, 3), (1 - 1e-16, 3), (1.0, 3)]:
        torch.testing.assert_close(crop(RULE, [clip], [place])[0], full[:, start : start + 48], rtol=0, atol=2e-5)


@pytest.mark.parametrize("seconds", [0.005, 0.0126, 0.02, 0.3, 0.47, 0.4699])
def test_a_clip_as_long_as_the_crop_or_shorter_is_followed_by_raw_zeros(seconds):
    clip = stored(seconds)
    full = whole(clip)
    found = crop(RULE, [stored(2.0, 1), clip], [0.3, 0.9])
    frames = min(full.shape[1], 48)
    torch.testing.assert_close(found[1, :, :frames], full[:, :frames], rtol=0, atol=2e-5)
    assert (found[1, :, frames:] == 0).all()


@pytest.mark.parametrize("start", [0, 30, 53])
def test_silence_lengthens_a_clip_to_the_least_seconds_first(start):
    clip = stored(0.6)
    full = whole(clip, samples=16000)
    assert full.shape[1] == 101
    found = crop(replace(RULE, min_seconds=1.0), [clip], [just(start, 54)])
    torch.testing.assert_close(found[0], full[:, start : start + 48], rtol=0, atol=2e-5)
    assert start < 53 or (found[0, :, 10:] == found[0, 0, -1]).all()  # only silence is left


def test_with_silence_the_whole_crop_is_of_a_lengthened_clip():
    clip = stored(0.2)
    found = crop(replace(RULE, short="silence"), [clip], [0.5])
    torch.testing.assert_close(found[0], whole(clip, samples=47 * 160), rtol=0, atol=2e-5)
    assert found[0, 0, -1] == pytest.approx(SILENCE)


def test_background_noise_is_repeated():
    clip = stored(0.2)
    full = whole(clip)
    found = crop(replace(RULE, short="repeat"), [clip, stored(1.0, 1)], [0.5, 0.5])
    for n in range(48):
        torch.testing.assert_close(found[0, :, n], full[:, n % 21], rtol=0, atol=2e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(201, 900), st.integers(0, 500), st.integers(-320, 1500))
def test_the_piece_is_a_cut_of_the_reflected_clip(real, silence, first):
    """Whatever the piece touches: the start, the end, both, or neither, with silence behind the clip or without."""
    length = real + silence
    clip = np.arange(1, real + 1, dtype=np.int16)
    padded = np.pad(np.pad(clip, (0, silence)), 200, mode="reflect")  # what the front end sees
    row = np.full(700, -1, np.int16)
    fill_reflected(row, clip, first, length, M2D_16K)
    for place in range(700):
        if -200 <= first + place < length + 200:
            assert row[place] == padded[first + place + 200]
    assert (row >= 0).all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_stored_log_mels_give_the_same_crops(dtype):
    clips = [stored(1.5), stored(0.2, 1)]
    full = [whole(clip) for clip in clips]
    spec = PackSpec(16000, dtype, mel=M2D_16K)
    frames = [f.T.numpy().astype(spec.stored) for f in full]
    found = crop(RULE, frames, [just(60, 104), 0.5], spec)
    close = {"rtol": 0, "atol": 1e-2 if dtype == "float16" else 1e-6}
    torch.testing.assert_close(found[0], full[0][:, 60:108], **close)
    torch.testing.assert_close(found[1, :, :21], full[1], **close)
    assert (found[1, :, 21:] == 0).all()
    longer = crop(replace(RULE, min_seconds=0.4), frames, [0.0, 0.0], spec)[1]
    assert (longer[:, 21:41] - SILENCE).abs().max() < 1e-2 and (longer[:, 41:] == 0).all()
    repeated = crop(replace(RULE, short="repeat"), frames, [0.0, 0.0], spec)[1]
    torch.testing.assert_close(repeated[:, 21:42], full[1], **close)
    silent = crop(replace(RULE, short="silence"), frames, [0.0, 0.0], spec)[1]
    assert (silent[:, 21:] - SILENCE).abs().max() < 1e-2


def test_what_is_stored_must_fit_what_is_asked():
    with pytest.raises(UserError, match="stored at 32000 Hz and --sample_rate is 16000"):
        Cropper(PackSpec(32000), RULE, CPU)
    with pytest.raises(UserError, match="log-mels of 80 bands, 128 are wanted"):
        Cropper(PackSpec(16000, "float16", mel=M2D_16K), replace(RULE, mel=mel_for(16000, 128)), CPU)
    with pytest.raises(UserError, match="16000 or 32000"):
        mel_for(44100, 80)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_crops_are_the_same():
    clips, places = [stored(1.5, n) for n in range(300)] + [stored(0.2)], np.linspace(0, 0.99, 301)
    cropper = Cropper(PackSpec(16000), RULE, torch.device("cuda"))
    found = cropper.log_mel(cropper.cut(clips, places, pin=True)).cpu()
    torch.testing.assert_close(found, crop(RULE, clips, places), rtol=0, atol=1e-3)
