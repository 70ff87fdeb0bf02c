"""Places of pocket_events: each has its own room, background noise and way of sounding; and how words name them."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.random import Generator

from tasks._pocket.sound import Wave, between, between_log, coloured_noise, generator, in_room, mix, room


@dataclass(frozen=True)
class Place:
    """Where an event is heard, drawn from its own name."""

    name: str
    reverberation: float
    """Seconds in which the room's tail falls by 60 dB."""
    damping: float
    """Hz above which walls swallow sound."""
    slope: float
    """Colour of the background: its power falls with frequency to this power."""
    quiet: float
    """Event over background in dB, close by; far away it is 8 dB less."""

    @property
    def words(self) -> str:
        """What a listener would call the place."""
        size = self.reverberation
        return "outdoors" if size < 0.2 else "in a small room" if size < 0.5 else "in a large echoing hall"


def place(name: str) -> Place:
    """Return the place called ``name``; the same name is the same place everywhere."""
    rng = generator("pocket_events", "place", name)
    return Place(
        name=name,
        reverberation=between_log(rng, 0.08, 1.2),
        damping=between_log(rng, 1500, 7000),
        slope=between(rng, 0.0, 2.0),
        quiet=between(rng, -4.0, 4.0),
    )


def heard_at(where: Place, event: Wave, far: bool, rng: Generator) -> Wave:
    """Return ``event`` ``[N]`` as it is heard at a place, from close by or from far away."""
    response = room(generator("pocket_events", "room", where.name), where.reverberation, where.damping)
    snr = where.quiet - (8.0 if far else 0.0)
    bed = coloured_noise(rng, len(event), where.slope + between(rng, -0.3, 0.3))
    return mix(in_room(event, response), bed, snr, between(rng, -34, -18))
