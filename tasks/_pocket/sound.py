"""Building blocks of synthesis: keyed random numbers, shaped noise, resonances, envelopes, rooms, levels.

Signals are float64 arrays ``[N]`` at 16,000 samples per second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.random import PCG64, Generator
from numpy.typing import NDArray
from scipy import signal

RATE = 16_000
"""Samples per second of everything in the pocket suite."""

Wave = NDArray[np.float64]


def generator(*key: str | int) -> Generator:
    """Return a random generator that depends on ``key`` alone: not on the machine or Python's hash seed."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=16).digest()
    return Generator(PCG64(int.from_bytes(digest, "little")))


def between(rng: Generator, low: float, high: float) -> float:
    """Return a number drawn evenly from ``[low, high)``."""
    return float(low + (high - low) * rng.random())


def between_log(rng: Generator, low: float, high: float) -> float:
    """Return a number drawn evenly on a logarithmic scale from ``[low, high)``: right for frequencies and rates."""
    return float(low * (high / low) ** rng.random())


def pick(rng: Generator, choices: Sequence[str]) -> str:
    """Return one of ``choices``."""
    return choices[int(rng.integers(len(choices)))]


def seconds(n: int) -> Wave:
    """Return the times of ``n`` samples ``[n]``, in seconds."""
    return np.arange(n) / RATE


def unit(wave: Wave) -> Wave:
    """Return ``wave`` scaled to a root mean square of 1; silence stays silence."""
    rms = float(np.sqrt(np.mean(wave**2)))
    return wave / rms if rms > 0 else wave


def band_noise(rng: Generator, n: int, low: float, high: float) -> Wave:
    """Return ``[n]`` noise between ``low`` and ``high`` Hz, root mean square 1."""
    edges = [max(low, 20.0), min(high, 0.49 * RATE)]
    return unit(signal.sosfilt(_band(edges[0], edges[1]), rng.standard_normal(n)))


def _band(low: float, high: float) -> NDArray[np.float64]:
    return np.asarray(signal.butter(2, [low, high], "bandpass", fs=RATE, output="sos"))


def coloured_noise(rng: Generator, n: int, slope: float) -> Wave:
    """Return ``[n]`` noise whose power falls with frequency to the power ``slope`` (0 white, 1 pink, 2 brown)."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequency = np.maximum(np.fft.rfftfreq(n, 1 / RATE), 30.0)
    return unit(np.fft.irfft(spectrum * frequency ** (-slope / 2), n))


def resonance(wave: Wave, frequency: float, bandwidth: float) -> Wave:
    """Return ``wave`` through a two-pole resonance (Klatt 1980, eq. 1-2), gain 1 at 0 Hz."""
    numerator, denominator = pole_pair(frequency, bandwidth)
    return np.asarray(signal.lfilter([numerator], denominator, wave))


def pole_pair(frequency: float, bandwidth: float) -> tuple[float, list[float]]:
    """Return the gain and the denominator of a two-pole resonance of ``frequency`` and ``bandwidth`` in Hz."""
    radius = np.exp(-np.pi * bandwidth / RATE)
    c1 = float(2 * radius * np.cos(2 * np.pi * frequency / RATE))
    c2 = float(-(radius**2))
    return 1 - c1 - c2, [1.0, -c1, -c2]


def decay(n: int, half_life: float, attack: float = 0.002) -> Wave:
    """Return an envelope ``[n]``: a linear rise over ``attack`` seconds, then halved every ``half_life`` seconds."""
    t = seconds(n)
    return np.minimum(t / attack, 1.0) * 0.5 ** (np.maximum(t - attack, 0) / half_life)


def add_at(wave: Wave, piece: Wave, start: float) -> None:
    """Add ``piece`` to ``wave`` in place, ``start`` seconds from its beginning; what stands out is cut off."""
    first = round(start * RATE)
    fits = max(0, min(len(piece), len(wave) - first))
    wave[first : first + fits] += piece[:fits]


def slow(rng: Generator, n: int, rate: float) -> Wave:
    """Return a smooth random curve ``[n]`` between 0 and 1 that turns about ``rate`` times a second."""
    knots = max(4, int(n / RATE * rate) + 4)
    curve = np.interp(np.arange(n), np.linspace(0, n, knots), rng.random(knots))
    window = np.hanning(max(3, int(RATE / rate / 2)))
    return smooth(curve, window)


def smooth(curve: Wave, window: Wave) -> Wave:
    """Return ``curve`` ``[N]`` averaged with weights ``window`` ``[W]``, W < N; its ends go on as they are."""
    half = len(window) // 2
    padded = np.pad(curve, (half, len(window) - 1 - half), mode="edge")
    return np.asarray(signal.fftconvolve(padded, window / window.sum(), "valid"))


def room(rng: Generator, reverberation: float, damping: float) -> Wave:
    """Return a room's impulse response: the direct sound and a decaying noise tail.

    ``reverberation`` is the time in seconds in which the tail falls by 60 dB; ``damping`` the frequency in Hz above
    which walls swallow sound.
    """
    n = int(reverberation * RATE)
    tail = rng.standard_normal(n) * 10 ** (-3 * seconds(n) / reverberation)
    tail = np.asarray(signal.sosfilt(signal.butter(1, damping, "lowpass", fs=RATE, output="sos"), tail))
    tail *= 0.7 / np.sqrt(np.sum(tail**2))
    tail[: int(0.004 * RATE)] = 0
    tail[0] = 1.0
    return tail


def in_room(wave: Wave, response: Wave) -> Wave:
    """Return ``wave`` ``[N]`` as heard in a room, cut to its own length."""
    return np.asarray(signal.fftconvolve(wave, response))[: len(wave)]


def mix(wave: Wave, bed: Wave, snr_db: float, level_db: float) -> Wave:
    """Return ``wave`` over the noise ``bed``, ``snr_db`` above it, the sum at ``level_db`` below full scale (RMS)."""
    both = unit(unit(wave) * 10 ** (snr_db / 20) + unit(bed)) * 10 ** (level_db / 20)
    return both * min(1.0, 0.98 / float(np.abs(both).max()))
