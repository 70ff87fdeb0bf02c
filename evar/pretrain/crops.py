"""Crops of clips as log-mel: exactly a piece of the whole clip's log-mel, made from little more audio than it covers.

A frame of a centred log-mel sees half a window to each side. So the piece of audio that is cut reaches two hops beyond
the crop on both sides (reflected there where the clip ends, as the whole clip's front end does); the frames of these
margins, which see the piece's own ends, are dropped. The stored type (int16) crosses the bus and becomes a log-mel on
the device.

What becomes of short clips (MODELS 10): the published log-mels were made of clips that silence had lengthened to 6.1 s;
where that is still too short, zeros followed in the *raw* log-mel, which is loud (``reference``). ``silence`` lengthens
the clip to the whole crop instead. ``repeat`` is for background noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evar.audio.log_mel import M2D_16K, M2D_32K, LogMel, MelSpec
from evar.audio.pack import PackSpec
from evar.audio.pack_format import from_stored
from evar.audio.pack_read import as_inputs
from evar.errors import UserError

MARGIN = 2
"""Frames that are computed beyond each end of a crop; two hops are more than half a window."""
_GPU_PIECE = 256
"""Clips whose spectra a GPU computes at once: half a gigabyte."""

Short = Literal["reference", "silence", "repeat"]


@dataclass(frozen=True)
class CropRule:
    """Which crops are wanted."""

    mel: MelSpec
    frames: int
    """U, the frames of a crop."""
    short: Short = "reference"
    min_seconds: float = 0.0
    """Silence lengthens shorter clips to this first."""


class RawCrops(NamedTuple):
    """A batch as it is cut, on the CPU."""

    data: Tensor
    """``[B, samples]`` with both margins, or ``[B, U, n_mels]`` from stored log-mels; of the stored type."""
    frames: Tensor | None
    """``[B]``: how many frames of each are the clip's; None: all of them, of every clip."""
    starts: NDArray[np.int64]
    """``[B]``: the frame of the whole log-mel at which each begins."""
    real: NDArray[np.int64]
    """``[B]``: the frames of each whole clip, not lengthened."""


def mel_for(sample_rate: int, n_mels: int) -> MelSpec:
    """Return the front end of M2D (MODELS 1.1) at 16000 or 32000 Hz; :class:`UserError` for another rate."""
    for mel in (M2D_16K, M2D_32K):
        if mel.sample_rate == sample_rate:
            return replace(mel, n_mels=n_mels)
    raise UserError(f"--sample_rate={sample_rate}: log-mels are made at 16000 or 32000 Hz")


class Cropper:
    """Cuts crops of stored clips and makes log-mels of them. Threads may share it.

    Args:
        spec: what the clips are stored as.
        rule: which crops.
        device: where log-mels are wanted.

    Raises:
        UserError: what is stored has another rate or front end.
    """

    def __init__(self, spec: PackSpec, rule: CropRule, device: torch.device) -> None:
        mel = rule.mel
        if spec.sample_rate != mel.sample_rate:
            raise UserError(
                f"the corpus is stored at {spec.sample_rate} Hz and --sample_rate is {mel.sample_rate}: make the "
                f"corpus at {mel.sample_rate} Hz, or pre-train at the corpus's rate"
            )
        if spec.mel is not None and spec.mel != mel:
            raise UserError(
                f"the corpus stores log-mels of {spec.mel.n_mels} bands, {mel.n_mels} are wanted; one that stores "
                "audio gives any number of bands"
            )
        self.spec, self.rule, self.device = spec, rule, device
        self._mel = LogMel(mel).to(device)
        self._least = int(rule.min_seconds * mel.sample_rate)
        if rule.short == "silence":
            self._least = max(self._least, (rule.frames - 1) * mel.hop)

    def length(self, stored: int) -> int:
        """Return the length, in samples or frames, to which a clip of ``stored`` is lengthened with silence."""
        if self.spec.mel is None:
            return max(stored, self._least)
        return max(stored, 1 + self._least // self.rule.mel.hop if self._least else 0)

    def frames(self, stored: int) -> int:
        """Return the frames of the log-mel of a clip of ``stored`` samples or frames, lengthened."""
        length = self.length(stored)
        return self._mel.frames(length) if self.spec.mel is None else length

    def cut(self, clips: Sequence[NDArray[Any]], positions: NDArray[np.float64], *, pin: bool = False) -> RawCrops:
        """Return crops of clips as stored, each at its place in [0, 1) among all that are possible (the last included).

        ``pin``: in page-locked memory, for a GPU.
        """
        rule, spec = self.rule, self.spec
        rows = rule.frames if spec.mel is not None else (rule.frames - 1 + 2 * MARGIN) * rule.mel.hop
        data = torch.empty((len(clips), rows, *spec.tail), dtype=spec.tensor, pin_memory=pin)
        counts = [self.frames(len(clip)) for clip in clips]
        starts = [_start(place, count - rule.frames) for place, count in zip(positions.tolist(), counts, strict=True)]
        for row, clip, start in zip(data.numpy(), clips, starts, strict=True):
            if spec.mel is None:
                fill_reflected(row, clip, (start - MARGIN) * rule.mel.hop, self.length(len(clip)), rule.mel)
            else:
                self._fill_frames(row, clip, start)
        short = spec.mel is None and min(counts, default=rule.frames) < rule.frames
        real = [len(clip) if spec.mel is not None else self._mel.frames(len(clip)) for clip in clips]
        frames = torch.tensor(counts).clamp(max=rule.frames) if short else None
        return RawCrops(data, frames, np.array(starts, np.int64), np.array(real, np.int64))

    def _fill_frames(self, row: NDArray[Any], clip: NDArray[Any], start: int) -> None:
        if self.rule.short == "repeat" and 0 < len(clip) < len(row):
            row[:] = np.resize(clip, row.shape)
            return
        there = clip[start : start + len(row)]
        row[: len(there)] = there
        if len(there) < len(row):
            silent = max(self.length(len(clip)) - start, len(there))
            row[len(there) : silent] = math.log(self.rule.mel.eps)
            row[silent:] = 0.0

    def log_mel(self, raw: RawCrops) -> Tensor:
        """Return the raw log-mels ``[B, n_mels, U]``, float32, contiguous, on the device; nothing waits for it."""
        data = raw.data.to(self.device, non_blocking=True)
        if self.spec.mel is not None:
            return as_inputs(self.spec, data).contiguous()
        out = torch.empty((len(data), self.rule.mel.n_mels, self.rule.frames), device=self.device)
        at_once = len(data) if self.device.type == "cpu" else _GPU_PIECE
        for first in range(0, len(data), max(at_once, 1)):
            rows = slice(first, first + at_once)
            out[rows] = self._mel(from_stored(data[rows]))[:, :, MARGIN:-MARGIN]
        return out if raw.frames is None else self._short(out, raw.frames)

    def _short(self, log_mel: Tensor, frames: Tensor) -> Tensor:
        if self.device.type == "cuda":
            frames = frames.pin_memory()
        frames = frames.to(self.device, non_blocking=True)[:, None]
        place = torch.arange(self.rule.frames, device=self.device)
        if self.rule.short != "repeat":
            return log_mel.mul_((place < frames)[:, None])
        return log_mel.gather(2, (place % frames)[:, None].expand_as(log_mel))


def _start(place: float, last: int) -> int:
    """Return where in 0 … ``last`` (0 if that is negative) a crop begins, of its place in [0, 1)."""
    return min(int(place * (last + 1)), last) if last > 0 else 0


def fill_reflected(row: NDArray[Any], clip: NDArray[Any], first: int, length: int, mel: MelSpec) -> None:
    """Fill ``row`` from place ``first`` on of a clip, lengthened by zeros to ``length`` and reflected at its ends.

    Reflected as far as the front end looks; what lies further is zero, and only frames that are no frames of the clip
    see it. A clip too short to be reflected is lengthened as :class:`evar.audio.log_mel.LogMel` does.
    """
    length = max(length, mel.n_fft // 2 + 1)
    begin = min(max(-first, 0), len(row))  # where the clip begins in the row, and where it and its zeros end
    real, end = (min(max(place - first, begin), len(row)) for place in (len(clip), length))
    row[begin:real] = clip[first + begin : first + real]
    row[real:] = 0
    for place in (range(begin), range(end, min(end + MARGIN * mel.hop, len(row)))):
        if len(place):
            row[place.start : place.stop] = _reflected(clip, first + np.arange(place.start, place.stop), length)


def _reflected(clip: NDArray[Any], places: NDArray[np.int64], length: int) -> NDArray[Any]:
    around = np.abs(places) % (2 * (length - 1))
    inside = np.minimum(around, 2 * (length - 1) - around)
    return np.where(inside < len(clip), clip[np.minimum(inside, len(clip) - 1)], 0)
