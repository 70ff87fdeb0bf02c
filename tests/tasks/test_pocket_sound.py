"""The building blocks of synthesis do what their names say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks._pocket import notes, voices
from tasks._pocket.event_sounds import SOUNDS
from tasks._pocket.sound import (
    RATE,
    add_at,
    band_noise,
    coloured_noise,
    decay,
    generator,
    in_room,
    mix,
    resonance,
    room,
    smooth,
    unit,
)


def spectrum(wave):
    return np.fft.rfftfreq(len(wave), 1 / RATE), np.abs(np.fft.rfft(wave)) ** 2


def test_a_generator_depends_on_its_key_alone():
    assert generator("a", 1).random() == generator("a", 1).random()
    assert generator("a", 1).random() != generator("a", 2).random()
    assert generator("a").integers(1 << 30) == 14694972


@given(seed=st.integers(0, 99), low=st.sampled_from([100, 500, 2000]), width=st.sampled_from([2, 3]))
@settings(max_examples=20, deadline=None)
def test_band_noise_lies_in_its_band(seed, low, width):
    wave = band_noise(generator(seed), RATE, low, low * width)
    frequency, power = spectrum(wave)
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(1)
    assert power[(frequency > low / 2) & (frequency < low * width * 2)].sum() > 0.9 * power.sum()


def test_coloured_noise_falls_with_frequency_as_told():
    for slope in (0.0, 1.0, 2.0):
        frequency, power = spectrum(coloured_noise(generator(1), 8 * RATE, slope))
        octaves = [power[(frequency >= f) & (frequency < 2 * f)].mean() for f in (200, 400, 800, 1600)]
        assert np.mean(np.diff(np.log2(octaves))) == pytest.approx(-slope, abs=0.1)


@given(snr=st.floats(-10, 20), level=st.floats(-40, -20), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_a_mix_has_the_level_and_the_ratio_asked_for(snr, level, seed):
    bed = generator(seed).standard_normal(RATE)
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    mixed = mix(tone, bed, snr, level)
    assert np.sqrt(np.mean(mixed**2)) == pytest.approx(10 ** (level / 20), rel=1e-6)
    share = mixed / (tone @ mixed / (tone @ tone))  # scaled so that the tone has its own size
    assert 10 * np.log10(np.mean(tone**2) / np.mean((share - tone) ** 2)) == pytest.approx(snr, abs=0.5)


def test_a_loud_mix_stays_below_full_scale():
    click = np.zeros(RATE)
    click[100] = 1.0
    assert np.abs(mix(click, np.full(RATE, 1e-3), 40, -6)).max() <= 0.98


@given(start=st.floats(0, 1.2), length=st.integers(1, 4000))
def test_a_piece_is_added_where_it_belongs_and_cut_at_the_end(start, length):
    wave = np.zeros(RATE)
    add_at(wave, np.ones(length), start)
    first = round(start * RATE)
    expected = np.zeros(RATE + 2 * 16000)
    expected[first : first + length] = 1
    assert np.array_equal(wave, expected[:RATE])


def test_an_envelope_halves_as_told():
    envelope = decay(RATE, 0.1, 0.01)
    assert envelope[0] == 0
    assert envelope[160] == pytest.approx(1)
    assert envelope[160 + 1600] == pytest.approx(0.5)


def test_a_resonance_peaks_at_its_frequency_and_passes_the_lowest():
    click = np.zeros(RATE)
    click[0] = 1
    frequency, power = spectrum(resonance(click, 1000, 80))
    assert frequency[power.argmax()] == pytest.approx(1000, abs=5)
    assert power[0] == pytest.approx(1, rel=1e-3)


def test_a_room_decays_by_60_db_in_its_reverberation_time():
    tail = room(generator(3), 0.8, 5000)
    early, late = (np.mean(tail[n : n + 800] ** 2) for n in (1600, 1600 + 6400))
    assert 10 * np.log10(early / late) == pytest.approx(30, abs=3)  # 0.4 s is half of it
    click = np.zeros(100)
    click[10] = 1
    assert in_room(click, tail)[:11] == pytest.approx(click[:11])


def test_smoothing_keeps_length_and_constants():
    assert smooth(np.full(50, 3.0), np.hanning(9)) == pytest.approx(np.full(50, 3.0))
    assert smooth(np.arange(50.0), np.ones(5))[10:-10] == pytest.approx(np.arange(50.0)[10:-10])


def test_a_note_sounds_at_its_frequency():
    plain = notes.Instrument("x", 1.0, 1.0, 0.0, 2.0, 0.01, 0.0, 0.0, (800, 2000), 0.0, 0.2)
    assert notes.frequency_of(9, 4) == 440
    assert notes.frequency_of(21, 3) == pytest.approx(440)
    frequency, power = spectrum(notes.play(plain, notes.frequency_of(0, 4), RATE, generator(5)))
    partials = frequency[power > 0.02 * power.max()]
    assert np.allclose(np.round(partials / 261.63) * 261.63, partials, atol=3)


@pytest.mark.parametrize("label", sorted(SOUNDS))
def test_every_event_sound_is_finite_audible_and_differs_by_seed(label):
    make, subject, actions = SOUNDS[label]
    assert subject
    assert len(set(actions)) == 3
    waves = [make(generator(label, n), 2 * RATE, n % 3) for n in range(6)]
    for wave in waves:
        assert wave.shape == (2 * RATE,)
        assert np.isfinite(wave).all()
        assert np.abs(wave).max() > 0.05
    assert len({unit(wave).tobytes() for wave in waves}) == 6


def test_vowels_have_the_formants_of_their_speaker():
    """The spectral envelope of a noise-driven /a/ peaks at the first formant, of /i/ much lower."""
    speaker = voices.Voice("x", 120.0, 1.0, 0.1, 1.0, (1.0,) * 10)
    assert speaker.formants("a").tolist() == [730, 1090, 2440]
    spoken = {v: spectrum(voices.say(speaker, f"m{v}m{v}", generator(v))) for v in "ai"}
    centre = {v: (f * p)[f < 1500].sum() / p[f < 1500].sum() for v, (f, p) in spoken.items()}
    assert centre["a"] > centre["i"] + 150


def test_fricatives_are_told_apart_by_their_band():
    speaker = voices.voice("test00")
    share = {}
    for sound in "sSm":
        frequency, power = spectrum(voices.say(speaker, f"{sound}a{sound}a", generator(sound)))
        share[sound] = [power[(frequency > a) & (frequency < b)].sum() for a, b in ((2200, 4000), (4500, 7500))]
    assert share["s"][1] > share["s"][0]
    assert share["s"][1] > 5 * share["m"][1]
    assert share["S"][0] > share["s"][0]


def test_a_voice_is_described_by_what_is_heard():
    deep = voices.Voice("x", 100.0, 1.0, 0.1, 1.0, (1.0,) * 10)
    high = voices.Voice("x", 250.0, 1.0, 0.4, 1.0, (1.0,) * 10)
    assert (deep.words, high.words) == ("deep voice", "high breathy voice")
