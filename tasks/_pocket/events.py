"""pocket_events: environmental-like sounds, two seconds each. Groups are places with their own room and background."""

from __future__ import annotations

from functools import partial

from tasks._pocket.event_sounds import SOUNDS
from tasks._pocket.places import Place, heard_at, place
from tasks._pocket.sound import RATE, Wave, generator, pick
from tasks._pocket.writing import Clip

PLACES = {"train": 10, "valid": 3, "test": 7}
CLIPS_PER_SOUND = 2
SECONDS = 2.0


def render(where: Place, label: str, intensity: int, far: bool, key: str) -> Wave:
    """Return the clip: one sound of class ``label``, heard at a place."""
    rng = generator("pocket_events", "clip", key)
    return heard_at(where, SOUNDS[label][0](rng, int(RATE * SECONDS), intensity), far, rng)


SENTENCES = (
    "{sound} {action} {where}",
    "{where}, {sound} {action}",
    "{sound} {action} {distance} {where}",
    "{sound} {action} with {noise} in the background",
)


def clips() -> list[Clip]:
    """Return the data set's clips, in order of part, place and label."""
    made = []
    for split, count in PLACES.items():
        for number in range(count):
            where = place(f"{split}{number:02d}")
            for label in SOUNDS:
                made += [_clip(split, where, label, take) for take in range(CLIPS_PER_SOUND)]
    return made


def _clip(split: str, where: Place, label: str, take: int) -> Clip:
    key = f"{where.name}_{label}_{take}"
    rng = generator("pocket_events", "caption", key)
    intensity, far = int(rng.integers(3)), bool(rng.integers(2))
    _, sound, actions = SOUNDS[label]
    sentence = pick(rng, SENTENCES).format(
        sound=sound,
        action=actions[intensity],
        where=where.words,
        distance="far away" if far else "close by",
        noise="a low rumble" if where.slope > 1.2 else "a soft hiss",
    )
    samples = partial(render, where, label, intensity, far, key)
    return Clip(f"audio/{key}.wav", label, split, f"place {where.name}", sentence, samples)
