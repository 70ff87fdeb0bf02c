"""Which clips an epoch sees, in which order, and how a global batch is divided among ranks.

An order is a function of (seed, epoch) alone: every rank draws the same one, and a resumed run draws it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from evar.errors import UserError
from evar.ranks import share


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Return the numbers 0 to ``n - 1`` shuffled, int64 ``[n]``."""
    return _generator(seed, epoch).permutation(n)


def weighted_order(weights: np.ndarray, draws: int, seed: int, epoch: int) -> np.ndarray:
    """Draw ``draws`` different clips, one after another, each with a chance proportional to its weight; int64 [draws].

    Every clip gets an exponentially distributed waiting time of rate equal to its weight; the first ones to arrive,
    in order of arrival, are such a draw without replacement (Efraimidis & Spirakis 2006). This takes one pass whatever
    the number of clips (``torch.multinomial`` stops at 2**24). AudioSet: 200,000 of 2 million (spec ODDITIES 17).

    Raises:
        UserError: a weight is negative or not a number, or fewer than ``draws`` clips have a weight above 0.
    """
    weights = np.asarray(weights, np.float64)
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any():
        raise UserError("sampling weights must be one number from 0 up for each clip")
    possible = int(np.count_nonzero(weights))
    if not 0 <= draws <= possible:
        raise UserError(f"cannot draw {draws} different clips: {possible} of {len(weights)} have a weight above 0")
    with np.errstate(divide="ignore"):
        arrival = _generator(seed, epoch).standard_exponential(len(weights)) / weights
    first = np.argpartition(arrival, draws - 1)[:draws] if 0 < draws < len(weights) else np.arange(len(weights))
    return first[np.argsort(arrival[first], kind="stable")][:draws]


def balanced_order(labels: np.ndarray, draws: int, seed: int, epoch: int) -> np.ndarray:
    """Return ``draws`` clips such that every class has its turn equally often, int64 ``[draws]``.

    Rounds over all classes in shuffled order; a class at its turn gives the next clip of its own shuffled queue, which
    begins anew, reshuffled, when it is used up. A clip of several classes stands in several queues.

    Args:
        labels: a class number for each clip ``[n]`` or a multi-hot matrix ``[n, classes]``; classes without clip have
            no turn.
    """
    labels = np.asarray(labels)
    if labels.ndim == 1:
        members = [np.flatnonzero(labels == value) for value in np.unique(labels)]
    else:
        members = [np.flatnonzero(column) for column in labels.T]
    members = [clips for clips in members if len(clips)]
    if not members:
        raise UserError("balanced sampling needs labels: no clip has one")
    generator = _generator(seed, epoch)
    rounds = -(-draws // len(members))
    queues = np.empty((rounds, len(members)), np.int64)
    for column, clips in enumerate(members):
        passes = [generator.permutation(clips) for _ in range(-(-rounds // len(clips)))]
        queues[:, column] = np.concatenate([np.empty(0, np.int64), *passes])[:rounds]
    return generator.permuted(queues, axis=1).ravel()[:draws]


@dataclass(frozen=True)
class Batch:
    """One optimiser step's clips."""

    indices: np.ndarray
    """The whole global batch, int64 ``[N]``, the same on every rank."""
    share: slice
    """Which rows of it are this rank's; may be empty in a last batch shorter than the number of ranks."""

    @property
    def mine(self) -> np.ndarray:
        """This rank's clips, int64 ``[B]``."""
        return self.indices[self.share]

    @property
    def rows(self) -> int:
        """N, the size of the global batch: what a loss is divided by, see :meth:`evar.training.Trainer.step`."""
        return len(self.indices)


def batches(order: np.ndarray, global_batch: int, rank: int = 0, world: int = 1, first: int = 0) -> Iterator[Batch]:
    """Yield an epoch's batches; the last one is as short as it must be and nothing is dropped (spec RUNNERS 2).

    A rank's share is a run of rows, in rank order, sizes differing by at most one (:func:`evar.ranks.share`). Losses
    and statistics are summed over ranks and divided by N, so uneven shares give what one process gives.

    Args:
        first: the batch to begin with, for a run resumed in the middle of an epoch.
    """
    if global_batch < 1:
        raise UserError(f"the batch must hold at least one clip, got {global_batch}")
    for start in range(first * global_batch, len(order), global_batch):
        indices = order[start : start + global_batch]
        yield Batch(indices, share(len(indices), rank, world))


def batches_per_epoch(clips: int, global_batch: int) -> int:
    """Return the number of steps in an epoch, the short last one counted."""
    return -(-clips // global_batch)


def _generator(seed: int, epoch: int) -> np.random.Generator:
    if seed < 0 or epoch < 0:
        raise UserError(f"seed and epoch must be 0 or more, got {seed} and {epoch}")
    return np.random.default_rng([seed, epoch])
