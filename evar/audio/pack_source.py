"""From files to the numbers that a pack stores; and clips that are decoded when asked for, where there is no pack."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evar.audio.decode import BadAudio, decode
from evar.audio.loading import ClipItem, broken_files, piece
from evar.audio.log_mel import LogMel
from evar.audio.pack_format import PackSpec, to_stored
from evar.audio.windows import unit_samples

Stored = tuple[NDArray[Any], int]
"""A clip as stored, and how many of its numbers were clipped."""


class Encoder:
    """Makes of a file's clips what a pack of ``spec`` stores. Threads may share it."""

    def __init__(self, spec: PackSpec) -> None:
        self.spec = spec
        self._log_mel = None if spec.mel is None else LogMel(spec.mel)

    def __call__(self, items: Sequence[ClipItem]) -> list[Stored]:
        """Return the clips ``items`` of one file, which is decoded once; raise :class:`BadAudio` if it cannot be."""
        spec = self.spec
        waveform = decode(items[0].path, spec.sample_rate)
        limit = None if spec.seconds is None else unit_samples(spec.sample_rate, spec.seconds)
        found = []
        for item in items:
            clip = piece(waveform, spec.sample_rate, item.start, item.end)[:limit]
            found.append(to_stored(self._mel(clip), spec.dtype))
        return found

    def _mel(self, clip: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._log_mel is None:
            return clip
        with torch.inference_mode():
            return self._log_mel(torch.from_numpy(clip)[None])[0].T.numpy()


class DecodedClips:
    """Clips of files by row number, as a pack would have them, decoded when asked for and kept while there is room.

    Args:
        items: the clips.
        spec: what a pack would store.
        budget: bytes of decoded clips that are kept in memory; those first read stay.
    """

    def __init__(self, items: Sequence[ClipItem], spec: PackSpec, budget: int = 2 << 30) -> None:
        self.items, self.spec = list(items), spec
        self._encode, self._room, self._lock = Encoder(spec), budget, threading.Lock()
        self._kept: dict[int, NDArray[Any]] = {}

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.items)

    def stored(self, rows: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Return the clips as :meth:`evar.audio.pack.Pack.stored` does; raise UserError naming files it cannot read."""
        return [self._clip(row) for row in rows.tolist()]

    def _clip(self, row: int) -> NDArray[Any]:
        if row in self._kept:
            return self._kept[row]
        try:
            ((clip, _),) = self._encode([self.items[row]])
        except BadAudio as error:
            raise broken_files({self.items[row].path: str(error)}, len(self)) from None
        with self._lock:
            if row not in self._kept and clip.nbytes <= self._room:
                self._kept[row] = clip
                self._room -= clip.nbytes
        return clip
