"""A small source-filter speech synthesiser: glottal pulses and noise through four moving formants.

The formants and bandwidths are textbook averages (Peterson & Barney 1952; Klatt 1980) in round numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import signal

from tasks._pocket.sound import RATE, Wave, band_noise, between, between_log, generator, pole_pair, slow, smooth

VOWELS = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
"""First three formants in Hz; the fourth is 3,500."""
LOCI = {
    "labial": (300, 900, 2300),
    "alveolar": (300, 1750, 2700),
    "velar": (300, 2100, 2400),
    "palatal": (300, 2000, 2800),
}
"""Where formants start from and return to beside a consonant."""
STEP = 80
"""Samples for which the filter stands still: 5 ms."""


@dataclass(frozen=True)
class Consonant:
    """How a consonant is made."""

    locus: str
    closed: float
    """Seconds of closure or of friction."""
    voiced: float
    """Voicing during it, 0 to 1."""
    noise: tuple[float, float, float]
    """Band in Hz and level of its friction or burst."""
    burst: bool
    """The noise is a short burst at the end of the closure."""


CONSONANTS = {
    "p": Consonant("labial", 0.07, 0.0, (400, 1500, 0.5), True),
    "t": Consonant("alveolar", 0.07, 0.0, (3000, 6500, 0.7), True),
    "k": Consonant("velar", 0.07, 0.0, (1300, 2800, 0.7), True),
    "d": Consonant("alveolar", 0.06, 0.25, (2500, 5000, 0.3), True),
    "b": Consonant("labial", 0.06, 0.25, (400, 1200, 0.3), True),
    "m": Consonant("labial", 0.08, 0.4, (200, 400, 0.0), False),
    "n": Consonant("alveolar", 0.07, 0.4, (200, 400, 0.0), False),
    "s": Consonant("alveolar", 0.11, 0.0, (4200, 7600, 0.5), False),
    "S": Consonant("palatal", 0.11, 0.0, (2000, 5000, 0.6), False),
    "f": Consonant("labial", 0.10, 0.0, (1500, 7600, 0.2), False),
}


@dataclass(frozen=True)
class Voice:
    """A speaker, drawn from its own name."""

    name: str
    pitch: float
    """Fundamental frequency in Hz."""
    size: float
    """Factor on all formants: above 1 for a short vocal tract."""
    breath: float
    """Share of noise in the voice source."""
    tempo: float
    """Factor on all durations."""
    accent: tuple[float, ...]
    """Ten factors on the first two formants of the five vowels: nobody says them alike."""

    @property
    def words(self) -> str:
        """What a listener would call it."""
        height = "deep" if self.pitch < 130 else "high" if self.pitch > 200 else "middle-pitched"
        return f"{height}{' breathy' if self.breath > 0.3 else ''} voice"

    def formants(self, vowel: str) -> NDArray[np.float64]:
        """Return this speaker's three formants of a vowel, in Hz."""
        first = 2 * sorted(VOWELS).index(vowel)
        return np.array(VOWELS[vowel]) * self.size * np.array([*self.accent[first : first + 2], 1.0])


def voice(name: str) -> Voice:
    """Return the voice called ``name``; the same name is the same voice everywhere."""
    rng = generator("pocket_speech", "voice", name)
    pitch = between_log(rng, 85, 270)
    return Voice(
        name=name,
        pitch=pitch,
        size=0.92 + 0.25 * (pitch - 85) / 185 + between(rng, -0.06, 0.06),
        breath=between(rng, 0.05, 0.5),
        tempo=between(rng, 0.8, 1.15),
        accent=tuple(between(rng, 0.87, 1.15) for _ in range(10)),
    )


@dataclass
class _Tracks:
    """What the synthesiser follows, one entry per 5 ms."""

    formants: list[NDArray[np.float64]]
    voicing: list[float]
    friction: list[tuple[float, float, float]]

    def add(self, formants: NDArray[np.float64], voicing: float, friction: tuple[float, float, float]) -> None:
        self.formants.append(formants)
        self.voicing.append(voicing)
        self.friction.append(friction)


def say(speaker: Voice, phones: str, rng: Generator) -> Wave:
    """Return ``speaker`` saying ``phones`` (consonant, vowel, consonant, vowel …), stressed on the first syllable."""
    tracks = _Tracks([], [], [])
    speed = speaker.tempo * between(rng, 0.9, 1.1)
    before: NDArray[np.float64] | None = None
    for n, (consonant, vowel) in enumerate(zip(phones[::2], phones[1::2], strict=True)):
        target = speaker.formants(vowel) * (1 + 0.05 * rng.standard_normal(3))
        before = _syllable(tracks, CONSONANTS[consonant], before, target, speaker.size, speed * (1.0, 0.85)[n % 2])
    return _filter(tracks, speaker, rng)


def _syllable(
    tracks: _Tracks, sound: Consonant, before: NDArray | None, target: NDArray, size: float, speed: float
) -> NDArray[np.float64]:
    locus = np.array(LOCI[sound.locus]) * size
    silent = (1000.0, 2000.0, 0.0)
    if before is not None:  # the preceding vowel closes towards the consonant
        for share in np.linspace(0, 1, 6):
            tracks.add(before + (locus - before) * share * 0.8, 1.0 - 0.5 * share, silent)
    steps = max(4, round(sound.closed * speed * RATE / STEP))
    for n in range(steps):
        on = n >= steps - 3 if sound.burst else True
        tracks.add(locus, sound.voiced, sound.noise if on else silent)
    for share in np.linspace(0, 1, 8):
        aspirated = (800.0, 5000.0, 0.15 * (1 - share)) if sound.burst and sound.voiced == 0 else silent
        tracks.add(locus + (target - locus) * share, 1.0 if sound.voiced else float(share), aspirated)
    for _ in range(round(0.11 * speed * RATE / STEP)):
        tracks.add(target, 1.0, silent)
    return target


def _filter(tracks: _Tracks, speaker: Voice, rng: Generator) -> Wave:
    steps = len(tracks.formants)
    n = steps * STEP
    contour = 1.1 - 0.25 * np.linspace(0, 1, n) + 0.08 * (slow(rng, n, 5) - 0.5)
    phase = np.cumsum(speaker.pitch * contour * (1 + 0.01 * rng.standard_normal(n))) / RATE
    pulses = np.diff(np.floor(phase), prepend=0.0) * RATE / speaker.pitch / 40
    glottis = np.asarray(signal.lfilter([0.12], [1.0, -0.88], pulses))  # about -6 dB per octave, as heard at the lips
    hiss = rng.standard_normal(n) * 0.25
    loud = smooth(np.repeat(tracks.voicing, STEP), np.hanning(STEP))
    source = ((1 - speaker.breath) * glottis + speaker.breath * 0.3 * hiss) * loud
    wave = np.zeros(n)
    memory = np.zeros((4, 2))
    for step, formants in enumerate(tracks.formants):
        block = slice(step * STEP, (step + 1) * STEP)
        wave[block], memory = signal.sosfilt(_sections(formants, speaker.size), source[block], zi=memory)
    wave /= np.sqrt(np.mean(wave**2))
    for low, high in sorted({(low, high) for low, high, level in tracks.friction if level > 0}):
        gate = np.repeat([level * ((low, high) == (a, b)) for a, b, level in tracks.friction], STEP)
        wave += smooth(gate, np.hanning(2 * STEP)) * band_noise(rng, n, low, min(high * speaker.size, 7800))
    fade = np.minimum(1.0, np.arange(n)[::-1] / (0.04 * RATE))
    return wave * fade


def _sections(formants: NDArray[np.float64], size: float) -> NDArray[np.float64]:
    rows = []
    for frequency, bandwidth in zip([*formants, 3500 * size], (70, 100, 150, 250), strict=True):
        gain, denominator = pole_pair(float(frequency), bandwidth)
        rows.append([gain, 0.0, 0.0, *denominator])
    return np.array(rows)
