"""What a model with a fixed window hears of a clip: where the window lies in longer ones, how shorter ones fill it."""

from __future__ import annotations

import math
import zlib
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from evar.errors import UserError

LongAudio = Literal["seeded", "random", "first", "centre", "chunks"]
"""``seeded``: one window, whose place is drawn by a generator that the clip's own loudness seeds (the reference's
rule, but the same clip always gives the same window); ``random``: drawn anew each time, as the reference does;
``first``, ``centre``: one fixed window; ``chunks``: windows one after the other, the last one flush with the end,
averaged."""

_HEARD = {
    "seeded": "one window of {s:g} s, its place drawn by the clip itself",
    "random": "one window of {s:g} s, drawn anew each time",
    "first": "the first {s:g} s",
    "centre": "the middle {s:g} s",
    "chunks": "windows of {s:g} s, averaged",
}


_PARTS = 8


def described(rule: LongAudio, seconds: float, seed: int = 0) -> str:
    """Return the rule in words, for the result; raise :class:`UserError` for an unknown one, or a seed it has not."""
    if rule not in get_args(LongAudio):
        raise UserError(f"--long_audio must be one of {', '.join(get_args(LongAudio))}, not '{rule}'")
    if seed and rule != "seeded":
        raise UserError(f"--window_seed is for --long_audio=seeded: {rule} windows have no seed")
    return _HEARD[rule].format(s=seconds)


def starts(clip: Tensor, samples: int, rule: LongAudio, seed: int = 0) -> list[int]:
    """Return where the windows of ``samples`` begin in a clip ``[T]`` that is longer."""
    room = len(clip) - samples
    if rule == "first":
        return [0]
    if rule == "centre":
        return [room // 2]
    if rule == "chunks":
        whole = math.ceil(len(clip) / samples)
        return [min(number * samples, room) for number in range(whole)]
    generator = None
    if rule == "seeded":
        generator = torch.Generator().manual_seed(zlib.crc32(_loudness(clip), seed))
    return [int(torch.randint(room + 1, (1,), generator=generator))]


def _loudness(clip: Tensor) -> bytes:
    """Return the level of each eighth of a clip in tenths of a decibel.

    Two clips hardly share all eight, and the last bits of a sample, in which machines and resamplers differ, do not
    change them: the window stays where it is.
    """
    power = torch.stack([part.double().square().mean() for part in clip.detach().tensor_split(_PARTS) if len(part)])
    return (100 * (power + 1e-10).log10()).round().to(torch.int16).cpu().numpy().tobytes()


def windows(waveforms: Tensor, samples: int, rule: LongAudio, seed: int = 0) -> list[Tensor]:
    """Return the windows ``[B, samples]`` of clips ``[B, T]``, in a list; shorter clips come as they are."""
    if waveforms.shape[1] <= samples:
        return [waveforms]
    places = [starts(clip, samples, rule, seed) for clip in waveforms]
    return [
        torch.stack([clip[at[number] : at[number] + samples] for clip, at in zip(waveforms, places, strict=True)])
        for number in range(len(places[0]))
    ]


def repeat_pad(waveforms: Tensor, samples: int) -> Tensor:
    """Return clips ``[B, T]`` repeated as often as they fit whole into ``samples``, then zeros (LAION's rule)."""
    times = max(1, samples // max(1, waveforms.shape[1]))
    return zero_pad(waveforms.repeat(1, times), samples)


def zero_pad(waveforms: Tensor, samples: int) -> Tensor:
    """Return clips ``[B, T]`` with zeros at the end, up to ``samples``."""
    return F.pad(waveforms, (0, max(0, samples - waveforms.shape[1])))


def tiled(waveforms: Tensor, lengths: Tensor, samples: int, rule: LongAudio, seed: int = 0) -> list[Tensor]:
    """Return windows ``[B, samples]`` as MS-CLAP takes them: of its real samples, a short clip repeated until full.

    With ``chunks`` all clips must have equally many windows (:func:`window_counts`).
    """
    per_clip: list[list[Tensor]] = []
    for clip, length in zip(waveforms, lengths.tolist(), strict=True):
        real = clip[: max(1, int(length))]
        if len(real) <= samples:
            per_clip.append([real.repeat(math.ceil(samples / len(real)))[:samples]])
        else:
            per_clip.append([real[at : at + samples] for at in starts(real, samples, rule, seed)])
    return [torch.stack(same) for same in zip(*per_clip, strict=True)]


def tiled_alike(waveforms: Tensor, lengths: Tensor, samples: int, rule: LongAudio, seed: int = 0) -> list[Tensor]:
    """Return :func:`tiled`'s windows, of each clip as many as ``[B, T]`` has room for: log-mels of one shape.

    With ``chunks`` a clip that fits into one window has it again and again, which leaves the mean as it is; of one that
    is longer and shorter than T the padding is heard as well.
    """
    whole = torch.full_like(lengths, waveforms.shape[1])
    heard = torch.where(lengths > samples, whole, lengths) if rule == "chunks" else lengths
    clips = zip(waveforms.split(1), heard.split(1), strict=True)
    per_clip = [tiled(clip, length, samples, rule, seed) for clip, length in clips]
    (count,) = set(window_counts(whole, samples, rule)) or {1}
    return [torch.cat([of_clip[n % len(of_clip)] for of_clip in per_clip]) for n in range(count)]


def window_counts(lengths: Tensor, samples: int, rule: LongAudio) -> list[int]:
    """Return how many windows each clip of ``lengths [B]`` real samples gets."""
    return [max(1, math.ceil(int(n) / samples)) if rule == "chunks" else 1 for n in lengths.tolist()]
