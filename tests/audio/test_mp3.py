"""MP3: the bit rate that was asked for, in its place to the sample, at every sampling rate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal
from test_corruptions import tune

from evar.audio.mp3 import BITRATES, LAYER3, coding_rate, compression_level, encode, through_mp3


def stated(file: bytes) -> tuple[int, int]:
    """Return ``(sampling rate, kbit/s)`` of the first frame's header (ISO 11172-3, 2.4.1.3; ISO 13818-3)."""
    assert file[0] == 0xFF and file[1] & 0xE6 == 0xE2, "layer III"
    version = (file[1] >> 3) & 3  # 0: MPEG 2.5, 2: MPEG 2, 3: MPEG 1
    rate = (44100, 48000, 32000)[(file[2] >> 2) & 3] // {3: 1, 2: 2, 0: 4}[version]
    table = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
    low = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    return rate, (table if version == 3 else low)[file[2] >> 4]


@pytest.mark.parametrize(("rate", "kilobits"), [(rate, k) for rate, rates in LAYER3.items() for k in rates])
def test_every_rate_has_its_bit_rates(rate: int, kilobits: int) -> None:
    assert coding_rate(rate, kilobits) == rate
    assert 0 <= compression_level(rate, kilobits) < 1
    assert stated(encode(tune(0.1, rate), rate, kilobits)) == (rate, kilobits)


@pytest.mark.parametrize("kilobits", [16, 32, 64, 320])
@pytest.mark.parametrize("rate", [8000, 10000, 16000, 22050, 32000, 44100, 48000])
@pytest.mark.parametrize("seconds", [0.13, 1.0])
def test_what_comes_back_stands_in_its_place(rate: int, kilobits: int, seconds: float) -> None:
    wave = tune(seconds, rate).astype(np.float64)
    found = through_mp3(wave, rate, kilobits)
    assert abs(len(found) - len(wave)) <= 1
    found = np.pad(found, (0, 2))[: len(wave)]
    assert np.argmax(signal.correlate(found, wave)) == len(wave) - 1
    assert np.corrcoef(found, wave)[0, 1] > 0.9


def test_fewer_bits_lose_more() -> None:
    wave = tune(1.0, 16000).astype(np.float64)
    lost = [np.mean((through_mp3(wave, 16000, k) - wave) ** 2) for k in (16, 32, 64, 128)]
    assert lost == sorted(lost, reverse=True)


@pytest.mark.parametrize("length", [0, 1, 2, 100])
def test_a_few_samples_are_no_accident(length: int) -> None:
    assert len(through_mp3(np.full(length, 0.1), 16000, 32)) == length


def test_a_bit_rate_beyond_the_clips_own_sampling_rate_is_coded_at_the_next_one_that_has_it() -> None:
    assert coding_rate(16000, 320) == 32000
    assert coding_rate(44100, 16) == 24000
    assert all(coding_rate(16000, k) for k in BITRATES)
