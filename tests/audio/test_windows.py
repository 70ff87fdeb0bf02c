"""Which part of a clip a model hears."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evar.audio.windows import cut, is_longer, random_position, unit_samples

RATES = (16000, 22000, 32000, 44100, 48000)
UNITS = {  # samples per unit at these rates; the product is truncated, which loses a sample three times at 8.2 s
    1.0: (16000, 22000, 32000, 44100, 48000),
    2.5: (40000, 55000, 80000, 110250, 120000),
    4.0: (64000, 88000, 128000, 176400, 192000),
    4.18: (66880, 91960, 133760, 184338, 200640),
    5.0: (80000, 110000, 160000, 220500, 240000),
    5.8: (92800, 127600, 185600, 255780, 278400),
    7.6358: (122172, 167987, 244345, 336738, 366518),
    8.2: (131200, 180399, 262400, 361619, 393599),
    8.25: (132000, 181500, 264000, 363825, 396000),
    10.0: (160000, 220000, 320000, 441000, 480000),
    20.0: (320000, 440000, 640000, 882000, 960000),
    30.0: (480000, 660000, 960000, 1323000, 1440000),
}


@pytest.mark.parametrize("seconds", UNITS)
def test_unit_lengths_are_those_of_the_published_runs(seconds):
    assert tuple(unit_samples(rate, seconds) for rate in RATES) == UNITS[seconds]


@pytest.mark.parametrize(
    ("frames", "file_rate", "rate", "unit", "longer"),
    [
        (80000, 16000, 16000, 80000, False),
        (80001, 16000, 16000, 80000, True),
        (220500, 44100, 16000, 80000, False),
        (220501, 44100, 16000, 80000, True),
        (40000, 8000, 16000, 80000, False),
    ],
)
def test_a_clip_is_longer_than_the_unit_from_the_first_sample_too_many(frames, file_rate, rate, unit, longer):
    assert is_longer(frames, file_rate, rate, unit) is longer


@given(st.binary(min_size=16, max_size=16), st.integers(0, 1000))
def test_the_random_place_is_a_function_of_content_and_seed(content, seed):
    place = random_position(content, seed)
    assert 0.0 <= place < 1.0
    assert place == random_position(content, seed)
    assert place != random_position(content, seed + 1)
    assert place != random_position(content[::-1] + b"x", seed)


def test_random_places_are_uniform():
    tenths = np.array([int(10 * random_position(n.to_bytes(16, "big"), 42)) for n in range(10000)])
    chi_square = np.sum((np.bincount(tenths, minlength=10) - 1000) ** 2 / 1000)
    assert chi_square < 27.9  # the 0.1 % point for 9 degrees of freedom; the draw is fixed, so it never varies


@given(st.integers(1, 300), st.integers(1, 200), st.floats(0, 1, exclude_max=True))
def test_a_window_has_the_units_length_and_the_clips_samples(length, unit, position):
    waveform = np.arange(1, length + 1, dtype=np.float32)
    window, real = cut(waveform, unit, position)
    assert window.shape == (unit,) and window.dtype == np.float32
    assert real == min(length, unit)
    start = int(window[0]) - 1
    np.testing.assert_array_equal(window[:real], waveform[start : start + real])
    np.testing.assert_array_equal(window[real:], 0)
    assert start == 0 if length <= unit + 1 else 0 <= start < length - unit


def test_every_offset_but_the_last_occurs():
    waveform = np.arange(13, dtype=np.float32)
    positions = [random_position(bytes([n, 0]), 42) for n in range(200)]
    starts = {int(cut(waveform, 10, position)[0][0]) for position in positions}
    assert starts == {0, 1, 2}  # 3 = 13 - 10 cannot, as in the reference


def test_position_zero_is_the_front():
    window, real = cut(np.arange(10, dtype=np.float32), 4)
    assert (window.tolist(), real) == ([0, 1, 2, 3], 4)
