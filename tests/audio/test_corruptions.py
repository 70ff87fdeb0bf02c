"""Corruptions: exact severities, length and type kept, silence survives, the same clip gives the same samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from evar.audio.corruptions import EXAMPLES, KINDS, Corruption, draws_of, parse_corruption, parse_corruptions
from evar.audio.mp3 import check_mp3
from evar.errors import UserError

WORDS = tuple(EXAMPLES.split(", "))
RATE = 16000


def tune(seconds: float = 1.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Return something like music: decaying tones of several pitches, well below full scale."""
    time = np.arange(int(seconds * rate)) / rate
    pitches = np.random.default_rng(seed).uniform(100, 1500, 8)
    tones = [np.sin(2 * np.pi * p * time) * np.exp(-3 * np.mod(time + 0.1 * n, 0.5)) for n, p in enumerate(pitches)]
    return (0.05 * np.sum(tones, axis=0)).astype(np.float32)


def corrupted(word: str, wave: np.ndarray, rate: int = RATE, content: bytes = b"clip") -> np.ndarray:
    return parse_corruption(word).apply(wave, rate, content)


def test_every_kind_stands_among_the_examples() -> None:
    assert {word.partition(":")[0] for word in WORDS} == set(KINDS)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(WORDS),
    st.sampled_from([8000, 16000, 22050, 32000, 44100, 48000]),
    st.integers(0, 9000),
    st.integers(0, 5),
)
def test_length_type_and_finiteness_are_kept_and_the_input_is_left_alone(
    word: str, rate: int, length: int, seed: int
) -> None:
    wave = (0.3 * np.random.default_rng(seed).standard_normal(length)).astype(np.float32)
    before = wave.copy()
    found = corrupted(word, wave, rate)
    assert found.shape == wave.shape
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(wave, before)


@pytest.mark.parametrize("word", WORDS)
def test_silence_stays_finite_and_quiet(word: str) -> None:
    found = corrupted(word, np.zeros(4000, dtype=np.float32))
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 1e-3


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["noise", "pink"]), st.floats(-30, 50), st.integers(100, 20000), st.floats(1e-4, 1.0), st.binary()
)
def test_the_signal_to_noise_ratio_is_exact(kind: str, decibels: float, length: int, level: float, name: bytes) -> None:
    wave = (level * np.random.default_rng(length).standard_normal(length)).astype(np.float32)
    one = Corruption(kind, decibels)
    noise = one.apply(wave, RATE, name).astype(np.float64) - wave
    ratio = 10 * np.log10(np.mean(wave.astype(np.float64) ** 2) / np.mean(noise**2))
    assert ratio == pytest.approx(decibels, abs=0.1)


def slope(wave: np.ndarray) -> float:
    """Return how many decibels the spectrum rises per octave."""
    hertz, power = signal.welch(wave, RATE, nperseg=4096)
    band = (hertz > 50) & (hertz < 7000)
    return float(np.polyfit(np.log2(hertz[band]), 10 * np.log10(power[band]), 1)[0])


def test_white_noise_is_flat_and_pink_noise_falls_by_three_decibels_per_octave() -> None:
    tone = (1e-3 * np.sin(np.arange(160000) * 0.01)).astype(np.float32)
    assert slope(corrupted("noise:-40dB", tone)) == pytest.approx(0.0, abs=0.2)
    assert slope(corrupted("pink:-40dB", tone)) == pytest.approx(-3.0, abs=0.2)


def test_the_same_noise_at_every_severity_and_other_noise_in_every_clip() -> None:
    wave = tune()
    ten, zero = (corrupted(f"noise:{db}dB", wave).astype(np.float64) - wave for db in (10, 0))
    np.testing.assert_allclose(zero, ten * 10**0.5, atol=1e-6)
    other = corrupted("noise:10dB", wave, content=b"another").astype(np.float64) - wave
    assert abs(np.corrcoef(other, ten)[0, 1]) < 0.05


@pytest.mark.parametrize("word", WORDS)
def test_a_clip_is_corrupted_the_same_way_every_time(word: str) -> None:
    np.testing.assert_array_equal(corrupted(word, tune()), corrupted(word, tune()))


def test_the_random_numbers_of_a_clip_never_change() -> None:
    """Stored embeddings rest on them: a change needs a new VERSION."""
    drawn = draws_of(b"clip", "noise").standard_normal(3)
    np.testing.assert_allclose(drawn, [-1.018709653552851, -0.8072967983938969, -2.330942171536583])


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0])
def test_the_room_decays_by_sixty_decibels_in_its_time(seconds: float) -> None:
    impulse = np.zeros(2 * RATE, dtype=np.float32)
    impulse[0] = 1.0
    room = corrupted(f"reverb:{seconds}s", impulse).astype(np.float64)
    tail = room[1:]
    assert room[0] ** 2 == pytest.approx(np.sum(tail**2), rel=1e-3), "as much reverberation as direct sound"
    decay = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1][: int(0.7 * seconds * RATE)] / np.sum(tail**2))  # Schroeder
    from_5_to_35 = (decay < -5) & (decay > -35)
    rate = np.polyfit(np.flatnonzero(from_5_to_35) / RATE, decay[from_5_to_35], 1)[0]
    assert -60 / rate == pytest.approx(seconds, rel=0.08)


def test_reverberation_keeps_level_and_place() -> None:
    wave = tune(seed=3)
    wet = corrupted("reverb:0.3s", wave)
    assert np.mean(wet**2) == pytest.approx(np.mean(wave**2), rel=1e-4)
    burst = np.zeros(RATE, dtype=np.float32)
    burst[4000:4100] = 0.5
    wet = corrupted("reverb:0.3s", burst)
    assert not np.abs(wet[:3990]).max() > 1e-6
    assert np.argmax(signal.correlate(wet, burst, "full")) - (RATE - 1) == 0


@pytest.mark.parametrize("percent", [1, 10, 50])
def test_as_many_samples_are_clipped_as_was_asked_and_the_others_are_untouched(percent: int) -> None:
    wave = (0.1 * np.random.default_rng(1).standard_normal(20000)).astype(np.float32)
    found = corrupted(f"clip:{percent}%", wave)
    assert np.mean(found != wave) == pytest.approx(percent / 100, abs=0.002)
    assert np.ptp(np.abs(found[found != wave])) < 1e-6


def level(wave: np.ndarray, low: float, high: float) -> float:
    power, hertz = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2, np.fft.rfftfreq(len(wave), 1 / RATE)
    return float(10 * np.log10(power[(hertz >= low) & (hertz < high)].mean()))


def test_a_low_pass_takes_away_what_is_above_and_neither_delays_nor_changes_what_is_below() -> None:
    wave = (0.1 * np.random.default_rng(2).standard_normal(RATE)).astype(np.float32)
    found = corrupted("lowpass:2k", wave)
    assert level(found, 100, 1500) == pytest.approx(level(wave, 100, 1500), abs=0.05)
    assert level(found, 2700, 8000) < level(wave, 2700, 8000) - 40
    assert np.argmax(signal.correlate(found, wave)) == len(wave) - 1
    np.testing.assert_array_equal(corrupted("lowpass:8k", wave), wave)


def test_gain_resampling_and_the_telephone_do_what_they_say() -> None:
    wave = (0.1 * np.random.default_rng(4).standard_normal(RATE)).astype(np.float32)
    np.testing.assert_allclose(corrupted("gain:-20dB", wave), 0.1 * wave, rtol=1e-6)
    narrow = corrupted("resample:8k", wave)
    assert level(narrow, 100, 3500) == pytest.approx(level(wave, 100, 3500), abs=0.1)
    assert level(narrow, 4200, 8000) < level(wave, 4200, 8000) - 60
    np.testing.assert_array_equal(corrupted("resample:16k", wave), wave)
    phone = corrupted("telephone", wave)
    assert level(phone, 500, 3000) == pytest.approx(level(wave, 500, 3000), abs=0.5)
    assert level(phone, 4200, 8000) < level(wave, 4200, 8000) - 60
    tone = (0.25 * np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)).astype(np.float32)
    heard = corrupted("telephone", tone, 8000)[1000:-1000]
    error = 10 * np.log10(np.mean(tone**2) / np.mean((heard - tone[1000:-1000]) ** 2))
    assert 34 < error < 45, "8 bits by the mu-law: about 38 dB (ITU-T G.711)"


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("noise", "noise:10dB"),
        ("NOISE:-3", "noise:-3dB"),
        ("noise:2.5 db", "noise:2.5dB"),
        ("reverb:300ms", "reverb:0.3s"),
        ("clip", "clip:10%"),
        ("mp3:64kbps", "mp3:64k"),
        ("lowpass:3400Hz", "lowpass:3.4k"),
        ("lowpass:4000", "lowpass:4k"),
        ("resample", "resample:8k"),
        ("telephone", "telephone"),
    ],
)
def test_every_way_to_write_a_severity_has_one_name_that_reads_back(word: str, name: str) -> None:
    one = parse_corruption(word)
    assert one.name == name
    assert parse_corruption(name) == one
    assert one.facts()["name"] == name


def test_each_corruption_counts_once() -> None:
    assert [c.name for c in parse_corruptions(("clip", "noise:10", "noise:10dB", "clip:10%"))] == [
        "clip:10%",
        "noise:10dB",
    ]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("nois:10dB", "Did you mean 'noise'?"),
        ("noise:loud", "expected a number (db)"),
        ("noise:10k", "noise:10dB"),
        ("noise:", "expected a number"),
        ("clip:6dB", "clip:10%"),
        ("telephone:3", "no severity"),
        ("reverb:99s", "within 0.01s to 20s"),
        ("lowpass:4M", "expected a number"),
        ("mp3:33k", "the bit rates of MP3 are 8, 16"),
        ("mp3:500k", "within 8k to 320k"),
        ("noise:nan", "expected a number"),
    ],
)
def test_a_mistake_is_one_line_with_examples(word: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_corruption(word)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert word in str(caught.value)


def test_a_build_that_cannot_write_mp3_says_so_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soundfile.available_formats", lambda: {"WAV": "WAV"})
    with pytest.raises(UserError, match="cannot write MP3 at a given bit rate: pip install"):
        check_mp3("mp3:32k", 32)
