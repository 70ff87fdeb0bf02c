"""Which clips an epoch of pre-training sees: all, shuffled, a small corpus several times over (MODELS 10).

An epoch has items: item i is clip ``i % N``, for the ``i // N``-th time. So an item says by itself which occurrence of
its clip it is, and everything drawn for it is a function of seed, epoch and item: a run goes on at any step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evar.errors import UserError
from evar.pretrain.settings import PretrainSettings
from evar.sampling import Batch, batches, epoch_order


class Items(NamedTuple):
    """Items taken apart."""

    clips: NDArray[np.int64]
    """``[B]``: clip numbers."""
    times: NDArray[np.int64]
    """``[B]``: how often each clip has occurred before in its epoch, in no order of time."""


def items_per_epoch(clips: int, min_clips: int) -> int:
    """Return the items of an epoch: the corpus as often as ``min_clips`` asks, always whole."""
    return clips * max(1, -(-min_clips // clips))


def steps_per_epoch(clips: int, batch_size: int, min_clips: int) -> int:
    """Return the steps of an epoch; what does not fill a batch is dropped, as in the published runs.

    Raises :class:`UserError` if the corpus does not fill a single batch.
    """
    items = items_per_epoch(clips, min_clips)
    if batch_size < 1:
        raise UserError(f"--batch_size={batch_size}: at least one clip is needed")
    if items < batch_size:
        raise UserError(
            f"the corpus has {clips} clips, a batch takes {batch_size}: lower --batch_size, or raise --min_clips, the "
            "number to which an epoch repeats a small corpus"
        )
    return items // batch_size


def epoch_batches(
    clips: int, settings: PretrainSettings, epoch: int, rank: int = 0, world: int = 1, *, first: int = 0
) -> Iterator[Batch]:
    """Yield an epoch's batches of items, all of one size, in an order that (seed, epoch) decides.

    Args:
        clips: N, of the corpus.
        settings: batch_size, min_clips and seed.
        epoch: from 0.
        rank: this process.
        world: processes.
        first: the batch to begin with, for a run resumed in the middle of an epoch.
    """
    kept = steps_per_epoch(clips, settings.batch_size, settings.min_clips) * settings.batch_size
    order = epoch_order(items_per_epoch(clips, settings.min_clips), settings.seed, epoch)[:kept]
    return batches(order, settings.batch_size, rank, world, first)


def split_items(items: NDArray[np.int64], clips: int) -> Items:
    """Return the clip number and the occurrence of items of a corpus of ``clips`` clips."""
    return Items(items % clips, items // clips)
