"""The floor: mean and deviation of log-mel bands, over real samples only."""

import math

import pytest
import torch

from model_adapters.log_mel_stats import LogMelStats


def test_mean_then_deviation_of_every_band():
    model, waves = LogMelStats(), torch.randn(3, 16000)
    ours = model.embed(waves, torch.tensor([16000] * 3))
    log_mel = model.front_end(waves)
    assert torch.allclose(ours[:, :80], log_mel.mean(2), atol=1e-5)
    assert torch.allclose(ours[:, 80:], log_mel.std(2, correction=0), atol=1e-5)


@pytest.mark.parametrize("length", [0, 1, 159, 160, 8000])
def test_padding_does_not_count(length):
    model, wave = LogMelStats(), torch.randn(1, 8000)
    wave[:, length:] = 0
    padded = torch.cat([wave, torch.zeros(1, 16000)], dim=1)
    alone = model.embed(wave, torch.tensor([length]))
    among = model.embed(torch.cat([padded, torch.randn(1, 24000)]), torch.tensor([length, 24000]))
    # The last frame of the shorter tensor sees reflected sound where the longer one has zeros.
    assert torch.allclose(alone, among[:1], atol=1e-4 if length < 7000 else 0.2)
    assert torch.isfinite(alone).all()


def test_silence():
    ours = LogMelStats().embed(torch.zeros(1, 16000), torch.tensor([16000]))
    assert torch.allclose(ours[0, :80], torch.tensor(math.log(1.1920929e-07)))
    assert torch.equal(ours[0, 80:], torch.zeros(80))


def test_a_single_frame_has_no_deviation():
    assert torch.equal(LogMelStats().embed(torch.randn(1, 1600), torch.tensor([100]))[0, 80:], torch.zeros(80))


def test_frames_are_the_log_mel():
    frames, seconds = LogMelStats().embed_frames(torch.randn(2, 16000), torch.tensor([16000, 16000]))
    assert frames.shape == (2, 101, 80) and seconds == 0.01
