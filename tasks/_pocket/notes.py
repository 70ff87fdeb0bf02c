"""pocket_pitch: a note of the scale, reached from a pick-up note, over noise. Groups are synthetic instruments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from tasks._pocket.sound import (
    RATE,
    Wave,
    between,
    between_log,
    coloured_noise,
    decay,
    generator,
    in_room,
    mix,
    pick,
    room,
    seconds,
)
from tasks._pocket.writing import Clip

NOTES = ("c", "c_sharp", "d", "d_sharp", "e", "f", "f_sharp", "g", "g_sharp", "a", "a_sharp", "b")
"""From the lowest up; the note's frequency is 440 · 2^((n - 9) / 12 + octave - 4)."""
INSTRUMENTS = {"train": 10, "valid": 3, "test": 7}
CLIPS_PER_NOTE = 2
OCTAVES = {4: "low", 5: "high"}
SECONDS = 1.0
PARTIALS = 14


def caption(label: str) -> str:
    """Return the caption of a note's name, for instance "the musical note C sharp can be heard"."""
    return f"the musical note {spoken(label)} can be heard"


def spoken(label: str) -> str:
    """Return a label as a musician says it: ``c_sharp`` is "C sharp"."""
    return label.replace("_", " ").capitalize()


@dataclass(frozen=True)
class Instrument:
    """A timbre, drawn from its own name."""

    name: str
    rolloff: float
    """How fast partials fall: amplitude of partial k is k to the minus this."""
    even: float
    """Amplitude of the even partials relative to the odd ones (a stopped pipe has few)."""
    stretch: float
    """Inharmonicity B of a stiff string: partial k lies at k · sqrt(1 + B k²)."""
    half_life: float
    """Seconds in which a plucked tone halves; sustained tones have a long one."""
    attack: float
    vibrato: float
    """Depth in cents."""
    out_of_tune: float
    """Cents."""
    bodies: tuple[float, float]
    """Frequencies of two body resonances, Hz."""
    breath: float
    """Share of noise in the tone."""
    reverberation: float

    @property
    def words(self) -> str:
        """What a listener would call it."""
        light = "dark" if self.rolloff > 1.7 else "bright" if self.rolloff < 1.1 else "warm"
        kind = "plucked string" if self.half_life < 0.3 else "breathy flute" if self.breath > 0.12 else "organ"
        return f"{light} {kind}{' with vibrato' if self.vibrato > 18 else ''}"


def instrument(name: str) -> Instrument:
    """Return the instrument called ``name``; the same name is the same instrument everywhere."""
    rng = generator("pocket_pitch", "instrument", name)
    return Instrument(
        name=name,
        rolloff=between(rng, 0.6, 2.2),
        even=between(rng, 0.2, 1.0),
        stretch=between(rng, 0.0, 8e-4),
        half_life=between_log(rng, 0.12, 2.0),
        attack=between_log(rng, 0.004, 0.09),
        vibrato=between(rng, 0.0, 35.0),
        out_of_tune=between(rng, -12.0, 12.0),
        bodies=(between_log(rng, 300, 1200), between_log(rng, 1200, 4500)),
        breath=between(rng, 0.0, 0.25),
        reverberation=between(rng, 0.1, 0.5),
    )


def play(voice: Instrument, frequency: float, n: int, rng: np.random.Generator) -> Wave:
    """Return ``[n]`` samples of ``voice`` holding ``frequency`` (Hz)."""
    t = seconds(n)
    wobble = voice.vibrato * np.sin(2 * np.pi * (between(rng, 4.5, 6.5) * t + rng.random()))
    cycles = np.cumsum(frequency * 2 ** ((voice.out_of_tune + wobble) / 1200)) / RATE
    wave = np.zeros(n)
    for k in range(1, min(PARTIALS, int(7500 / frequency)) + 1):
        harmonic = k * np.sqrt(1 + voice.stretch * k**2)
        body = sum(0.6 / (1 + (np.log2(harmonic * frequency / f) / 0.35) ** 2) for f in voice.bodies)
        level = k**-voice.rolloff * (voice.even if k % 2 == 0 else 1.0) * (0.4 + body)
        wave += level * np.sin(2 * np.pi * (harmonic * cycles + rng.random())) * 0.5 ** (t * 0.15 * k / voice.half_life)
    breath = voice.breath * np.abs(wave).max() * coloured_noise(rng, n, 1.0) * 0.5
    return (wave + breath) * decay(n, voice.half_life, voice.attack)


def render(voice: Instrument, note: int, octave: int, key: str) -> Wave:
    """Return the clip: a pick-up note that steps to the note, which is held; in the instrument's room, over noise."""
    rng = generator("pocket_pitch", "clip", key)
    n = int(RATE * SECONDS)
    wave = np.zeros(n)
    start = int(between(rng, 0.0, 0.1) * RATE)
    change = start + int(between(rng, 0.25, 0.35) * RATE)
    step = int(rng.integers(1, 6)) * (1 if rng.random() < 0.5 else -1)
    wave[start:change] = play(voice, frequency_of(note + step, octave), change - start, rng)
    wave[change:] += play(voice, frequency_of(note, octave), n - change, rng)
    wave = in_room(wave, room(generator("pocket_pitch", "room", voice.name), voice.reverberation, 4000))
    return mix(wave, coloured_noise(rng, n, between(rng, 0.0, 1.5)), between(rng, -8, 6), between(rng, -32, -16))


def frequency_of(note: int, octave: int) -> float:
    """Return a note's frequency in Hz: note 9 (A) of octave 4 is 440; notes run on past 0 and 11."""
    return 440.0 * 2.0 ** ((note - 9) / 12 + octave - 4)


SENTENCES = (
    "{a} {instrument} steps to the note {note} in the {octave} octave",
    "after a short pick-up, the musical note {note} on {a} {instrument}",
    "{a} {instrument} ends on {octave} {note} over noise",
    "someone plays two notes on {a} {instrument} and holds the second, {note}",
)


def clips() -> list[Clip]:
    """Return the data set's clips, in order of part, instrument and note."""
    made = []
    for split, count in INSTRUMENTS.items():
        for number in range(count):
            voice = instrument(f"{split}{number:02d}")
            for note, label in enumerate(NOTES):
                made += [_clip(split, voice, note, label, take) for take in range(CLIPS_PER_NOTE)]
    return made


def _clip(split: str, voice: Instrument, note: int, label: str, take: int) -> Clip:
    key = f"{voice.name}_{label}_{take}"
    rng = generator("pocket_pitch", "caption", key)
    octave = sorted(OCTAVES)[int(rng.integers(len(OCTAVES)))]
    words = {"instrument": voice.words, "note": spoken(label), "octave": OCTAVES[octave]}
    article = "an" if voice.words[0] in "aeiou" else "a"
    sentence = pick(rng, SENTENCES).format(a=article, **words)
    samples: Callable[[], Wave] = partial(render, voice, note, octave, key)
    return Clip(f"audio/{key}.wav", label, split, f"instrument {voice.name}", sentence, samples)
