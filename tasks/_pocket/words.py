"""pocket_speech: twelve two-syllable words by a formant synthesiser. Groups are synthetic voices."""

from __future__ import annotations

from functools import partial

import numpy as np

from tasks._pocket.sound import RATE, Wave, between, coloured_noise, generator, in_room, mix, pick, room
from tasks._pocket.voices import Voice, say, voice
from tasks._pocket.writing import Clip

PHONES = {
    "coffee": "kofi",
    "coma": "koma",
    "dosa": "dosa",
    "mama": "mama",
    "mocha": "moka",
    "puma": "puma",
    "soda": "soda",
    "sofa": "sofa",
    "sushi": "suSi",
    "tofu": "tofu",
    "tuna": "tuna",
    "tutu": "tutu",
}
"""Label to phones; S is the consonant of "she". Coma and mocha, soda and dosa differ in the order of their sounds."""
VOICES = {"train": 10, "valid": 3, "test": 7}
CLIPS_PER_WORD = 2
SECONDS = 1.0
LATEST_START = RATE // 8
"""A word starts within the first 125 ms: a model that knows when something is heard can tell soda from dosa."""
SENTENCES = (
    'a {voice} says the word "{word}"',
    'the word "{word}" spoken by a {voice}',
    'someone with a {voice} says "{word}" {manner}',
    '"{word}", says a {voice} {place}',
)


def caption(label: str) -> str:
    """Return the caption of a word, for instance "the spoken word tuna can be heard"."""
    return f"the spoken word {label} can be heard"


def render(speaker: Voice, word: str, key: str) -> Wave:
    """Return the clip: a voice says a word early in one second, in a room, over noise."""
    rng = generator("pocket_speech", "clip", key)
    n = int(RATE * SECONDS)
    spoken = say(speaker, PHONES[word], rng)[: n - 400]
    start = int(rng.integers(0, min(n - len(spoken), LATEST_START)))
    wave = np.zeros(n)
    wave[start : start + len(spoken)] = spoken
    wave = in_room(wave, room(rng, between(rng, 0.1, 0.5), 4000))
    return mix(wave, coloured_noise(rng, n, between(rng, 0.0, 1.5)), between(rng, -3, 10), between(rng, -34, -18))


def clips() -> list[Clip]:
    """Return the data set's clips, in order of part, voice and word."""
    made = []
    for split, count in VOICES.items():
        for number in range(count):
            speaker = voice(f"{split}{number:02d}")
            for word in PHONES:
                made += [_clip(split, speaker, word, take) for take in range(CLIPS_PER_WORD)]
    return made


def _clip(split: str, speaker: Voice, word: str, take: int) -> Clip:
    key = f"{speaker.name}_{word}_{take}"
    rng = generator("pocket_speech", "caption", key)
    manner = "slowly" if speaker.tempo > 1.05 else "quickly" if speaker.tempo < 0.9 else "calmly"
    place = pick(rng, ("in a room", "over background noise"))
    sentence = pick(rng, SENTENCES).format(voice=speaker.words, word=word, manner=manner, place=place)
    return Clip(f"audio/{key}.wav", word, split, f"voice {speaker.name}", sentence, partial(render, speaker, word, key))
