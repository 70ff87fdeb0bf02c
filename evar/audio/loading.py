"""Reading many clips: threads decode ahead (soundfile and soxr release the GIL) while the model computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from evar.audio.decode import BadAudio, decode
from evar.audio.windows import cut
from evar.errors import UserError
from model_adapters.base import ClipBatch

_AHEAD = 2  # batches decoded in advance: one to hand over, one in the making; memory stays bounded


class ClipItem(NamedTuple):
    """A clip to read: its file, and where its window starts as a share of the excess length (0: the front)."""

    path: Path
    position: float = 0.0


class LoadedBatch(NamedTuple):
    """The clips of one batch that could be read, and the reasons for those that could not."""

    numbers: list[int]
    """Positions (within the batch) of the clips in ``clips``."""
    clips: ClipBatch
    broken: dict[Path, str]


def broken_files(
    broken: dict[Path, str], total: int, remedy: str = "replace them, or leave them out with --incomplete"
) -> UserError:
    """Return the error that lists unreadable files by name."""
    shown = [f"\n  {path}: {reason}" for path, reason in sorted(broken.items())[:50]]
    more = f"\n  … and {len(broken) - 50} more" if len(broken) > 50 else ""
    return UserError(f"{len(broken)} of {total} audio files cannot be used; {remedy}:{''.join(shown)}{more}")


def workers_for(count: int | None = None) -> int:
    """Return the number of decoding threads: ``count``, else one per core, at most eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return count or min(8, cores)


def _read(item: ClipItem, sample_rate: int, unit: int) -> tuple[NDArray[np.float32], int] | str:
    try:
        return cut(decode(item.path, sample_rate), unit, item.position)
    except BadAudio as error:
        return str(error)


def load_batches(
    batches: Sequence[Sequence[ClipItem]], sample_rate: int, unit: int, *, workers: int | None = None, pin: bool = False
) -> Iterator[LoadedBatch]:
    """Yield the batches in order, decoded ahead of the consumer by ``workers`` threads.

    Args:
        batches: clips, batch by batch.
        sample_rate: Hz.
        unit: samples per clip; longer clips are cut, shorter ones padded with zeros.
        pin: put the waveforms into page-locked memory, for a copy to a GPU that overlaps with its work.
    """
    with ThreadPoolExecutor(workers_for(workers), thread_name_prefix="decode") as pool:
        waiting: deque[list[Future[tuple[NDArray[np.float32], int] | str]]] = deque()
        upcoming = iter(batches)
        try:
            for batch in batches:
                while len(waiting) <= _AHEAD and (ahead := next(upcoming, None)) is not None:
                    waiting.append([pool.submit(_read, item, sample_rate, unit) for item in ahead])
                yield _assemble(batch, [future.result() for future in waiting.popleft()], unit, pin)
        finally:
            for futures in waiting:
                for future in futures:
                    future.cancel()


def _assemble(
    items: Sequence[ClipItem], results: Sequence[tuple[NDArray[np.float32], int] | str], unit: int, pin: bool
) -> LoadedBatch:
    broken = {item.path: r for item, r in zip(items, results, strict=True) if isinstance(r, str)}
    good = [(number, r) for number, r in enumerate(results) if not isinstance(r, str)]
    waveforms = torch.empty((len(good), unit), dtype=torch.float32, pin_memory=pin)
    for row, (_, (window, _)) in enumerate(good):
        waveforms[row] = torch.from_numpy(window)
    lengths = torch.tensor([length for _, (_, length) in good], dtype=torch.int64)
    return LoadedBatch([number for number, _ in good], ClipBatch(waveforms, lengths), broken)
