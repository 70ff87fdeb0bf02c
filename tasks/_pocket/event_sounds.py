"""Generators of pocket_events' sounds: each takes a random generator, a length and an intensity and returns a wave.

Intensity is 0 (little, slow, faint), 1 or 2 (much, fast, strong). Every call draws its own parameters, so that no
two clips of a class are alike.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from tasks._pocket.sound import (
    RATE,
    Wave,
    add_at,
    band_noise,
    between,
    between_log,
    decay,
    resonance,
    seconds,
    slow,
    smooth,
    unit,
)

Maker = Callable[[Generator, int, int], Wave]


def rain(rng: Generator, n: int, intensity: int) -> Wave:
    """Return drops as dense random clicks over a steady rush."""
    clicks = (rng.random(n) < (0.004, 0.015, 0.05)[intensity]) * rng.standard_normal(n)
    drops = resonance(clicks, between(rng, 2000, 4500), between(rng, 1500, 3000))
    return unit(drops) + (0.4, 0.7, 1.0)[intensity] * band_noise(rng, n, between(rng, 300, 1000), 7000)


def wind(rng: Generator, n: int, intensity: int) -> Wave:
    """Return noise whose strength and pitch swell slowly."""
    gust = slow(rng, n, between(rng, 1.0, 2.0) * (1 + intensity))
    low = band_noise(rng, n, 80, between(rng, 300, 500))
    high = band_noise(rng, n, between(rng, 350, 600), between(rng, 900, 2500))
    return low * (0.4 + 0.6 * gust) + high * gust**2


def door_knock(rng: Generator, n: int, intensity: int) -> Wave:
    """Return a few knocks on wood: short, two resonances, one group."""
    wave = np.zeros(n)
    wood, gap, start = between_log(rng, 140, 380), (0.30, 0.22, 0.15)[intensity], between(rng, 0.05, 0.5)
    for k in range(int(rng.integers(3, 6))):
        hit = rng.standard_normal(2400) * decay(2400, 0.006, 0.0005)
        knock = resonance(hit, wood, 60) + 0.5 * resonance(hit, wood * between(rng, 2.2, 2.6), 150)
        add_at(wave, unit(knock) * between(rng, 0.7, 1.0), start + k * gap * between(rng, 0.93, 1.07))
    return wave


def footsteps(rng: Generator, n: int, intensity: int) -> Wave:
    """Return steps at an even pace: a heel's thud, then the sole's scrape."""
    wave = np.zeros(n)
    pace, sole, start = (0.70, 0.52, 0.36)[intensity], between_log(rng, 700, 3000), between(rng, 0.0, 0.3)
    while start < n / RATE:
        hit = rng.standard_normal(2400) * decay(2400, 0.008, 0.001)
        add_at(wave, unit(resonance(hit, between(rng, 90, 220), 120)), start)
        scrape = band_noise(rng, 1900, sole, sole * 2.2) * np.hanning(1900)
        add_at(wave, between(rng, 0.3, 0.6) * scrape, start + between(rng, 0.05, 0.09))
        start += pace * between(rng, 0.94, 1.06)
    return wave


def water_drops(rng: Generator, n: int, intensity: int) -> Wave:
    """Return single drops into water: short tones that rise as they die away."""
    wave = np.zeros(n)
    pool = between_log(rng, 600, 1500)
    for _ in range((2, 4, 8)[intensity]):
        t = seconds(2000)
        pitch = pool * between_log(rng, 0.7, 1.5) * (1 + between(rng, 3, 8) * t)
        drop = np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * decay(2000, 0.015, 0.001)
        add_at(wave, drop * between(rng, 0.4, 1.0), between(rng, 0.0, n / RATE - 0.15))
    return wave


def siren(rng: Generator, n: int, intensity: int) -> Wave:
    """Return a tone that sweeps up and down over about an octave."""
    sweep = 0.5 - 0.5 * np.cos(
        2 * np.pi * ((0.35, 0.9, 2.5)[intensity] * between(rng, 0.8, 1.2) * seconds(n) + rng.random())
    )
    base = between_log(rng, 450, 800)
    phase = 2 * np.pi * np.cumsum(base * 2 ** (sweep * between(rng, 0.7, 1.2))) / RATE
    return np.sin(phase) + 0.5 * np.sin(2 * phase) + 0.3 * np.sin(3 * phase)


def engine(rng: Generator, n: int, intensity: int) -> Wave:
    """Return uneven pulses at the firing rate through two resonances, with a rush of air."""
    rate = (28.0, 45.0, 75.0)[intensity] * between(rng, 0.85, 1.15)
    phase = np.cumsum(rate * (1 + 0.06 * (slow(rng, n, 4) - 0.5))) / RATE
    pulses = np.diff(np.floor(phase), prepend=0.0) * (1 + 0.3 * rng.standard_normal(n))
    body = resonance(pulses, between_log(rng, 90, 220), 60) + 0.6 * resonance(pulses, between_log(rng, 500, 1300), 300)
    return unit(body) + 0.35 * band_noise(rng, n, 300, between(rng, 1500, 4000))


def chirping_birds(rng: Generator, n: int, intensity: int) -> Wave:
    """Return groups of short whistled glides at 2 to 6 kHz."""
    wave = np.zeros(n)
    bird, glide = between_log(rng, 2200, 4800), between(rng, -0.5, 0.5)
    for _ in range((2, 4, 6)[intensity]):
        start, gap = between(rng, 0.0, n / RATE - 0.2), between(rng, 0.07, 0.14)
        for k in range(int(rng.integers(2, 5))):
            m = int(between(rng, 0.03, 0.07) * RATE)
            pitch = bird * between(rng, 0.9, 1.1) * (1 + glide * np.linspace(0, 1, m))
            add_at(wave, np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * np.hanning(m), start + k * gap)
    return wave


def church_bell(rng: Generator, n: int, intensity: int) -> Wave:
    """Return strokes of a bell: partials hum, prime, tierce, quint, nominal, each dying at its own rate."""
    wave = np.zeros(n)
    prime = between_log(rng, 220, 700)
    start, gap = between(rng, 0.0, 0.3), (5.0, 0.9, 0.5)[intensity]
    while start < n / RATE:
        stroke = np.zeros(n)
        for ratio, level in ((0.5, 0.6), (1.0, 1.0), (1.2, 0.8), (1.5, 0.5), (2.0, 0.9), (2.74, 0.4), (3.76, 0.3)):
            tone = np.sin(2 * np.pi * (prime * ratio * between(rng, 0.99, 1.01) * seconds(n) + rng.random()))
            stroke += level * tone * decay(n, 0.6 / ratio)
        add_at(wave, stroke, start)
        start += gap
    return wave


def alarm_clock(rng: Generator, n: int, intensity: int) -> Wave:
    """Return electronic beeps in groups, with odd harmonics."""
    pitch, beep = between_log(rng, 900, 2600), (0.16, 0.09, 0.05)[intensity] * between(rng, 0.85, 1.15)
    t = seconds(n) + rng.random()
    slot = np.floor(t / beep).astype(int) % 10
    on = np.isin(slot, (0, 2, 4, 6)).astype(float)
    on = smooth(on, np.ones(32))
    return (np.sin(2 * np.pi * pitch * t) + 0.4 * np.sin(6 * np.pi * min(pitch, 2500) * t)) * on


def crickets(rng: Generator, n: int, intensity: int) -> Wave:
    """Return a high tone pulsing fast, in bursts."""
    t = seconds(n) + rng.random()
    pulses = np.maximum(0, np.sin(2 * np.pi * between(rng, 22, 40) * t)) ** 2
    bursts = (np.sin(2 * np.pi * (1.2, 2.2, 3.5)[intensity] * between(rng, 0.8, 1.2) * t) > -0.3).astype(float)
    return np.sin(2 * np.pi * between_log(rng, 2600, 5200) * t) * pulses * smooth(bursts, np.ones(200))


def hand_saw(rng: Generator, n: int, intensity: int) -> Wave:
    """Return noise that rises and falls with each stroke, forward and back differently."""
    stroke = (0.9, 1.6, 2.6)[intensity] * between(rng, 0.85, 1.15)
    phase = (stroke * seconds(n) + rng.random()) % 1.0
    forward, back = np.sin(2 * np.pi * phase).clip(0), (-np.sin(2 * np.pi * phase)).clip(0)
    low = between_log(rng, 500, 1500)
    return band_noise(rng, n, low, low * 4) * forward + 0.7 * band_noise(rng, n, low * 1.5, 6500) * back


SOUNDS: dict[str, tuple[Maker, str, tuple[str, str, str]]] = {
    "alarm_clock": (alarm_clock, "an alarm clock", ("beeps slowly", "beeps", "beeps frantically")),
    "chirping_birds": (chirping_birds, "birds", ("chirp now and then", "are chirping", "chirp busily")),
    "church_bell": (church_bell, "a church bell", ("strikes once", "is ringing", "rings quickly")),
    "crickets": (crickets, "crickets", ("chirr slowly", "are chirring", "chirr fast")),
    "door_knock": (
        door_knock,
        "someone",
        ("knocks slowly on a door", "knocks on a wooden door", "knocks hastily on a door"),
    ),
    "engine": (engine, "an engine", ("idles", "is running", "revs fast")),
    "footsteps": (footsteps, "footsteps", ("of someone walking slowly", "of someone walking", "of someone running")),
    "hand_saw": (hand_saw, "a hand saw", ("cuts wood slowly", "is sawing wood", "saws through wood fast")),
    "rain": (rain, "rain", ("falls lightly", "is falling", "pours down heavily")),
    "siren": (siren, "a siren", ("wails slowly", "is wailing", "yelps quickly")),
    "water_drops": (water_drops, "water", ("drips once or twice", "is dripping", "drips fast")),
    "wind": (wind, "wind", ("blows gently", "is blowing", "gusts strongly")),
}
"""Per label: the generator, and subject and predicate (by intensity) of its captions."""
