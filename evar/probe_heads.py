"""Trains linear heads side by side: the arithmetic of the Adam probe, without autograd and without a DataLoader.

Any number of heads, each with its own rows, shuffles and early stopping, is one batched computation; one head is the
case H = 1. Shapes: H heads, C classes, D features, B rows a step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evar.probe_data import Fit, score_of

BETAS = (0.9, 0.999)
EPS = 1e-8
_ROWS = 4096  # rows scored at a time
Views = tuple[Tensor, Tensor]
Ties = Literal["latest", "first"]
"""Which of the epochs with the best validation score is kept; ``latest`` as published (ODDITIES 5)."""


@dataclass(frozen=True)
class Settings:
    """The probe's settings; see :func:`evar.probe_adam.adam_probe`."""

    n_classes: int
    multi_label: bool
    lr: float
    max_epochs: int
    patience: int | None
    batch_size: int
    weight_decay: float
    ties: Ties = "latest"


@dataclass(frozen=True, eq=False)
class Pool:
    """Scaled features ``x [R, D]`` float32 and ``y`` (``[R]`` int64 or ``[R, C]`` float32), shared by several heads."""

    x: Tensor
    y: Tensor


@dataclass(eq=False)
class Head:
    """One linear head to train: its rows in the pool (int64 CPU tensors) and its own stream of random numbers."""

    train: Tensor
    valid: Tensor
    test: Tensor
    draws: torch.Generator
    info: dict[str, int]
    step: int = 0
    best: float = -1.0
    best_epoch: int = 0
    order: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))


@dataclass(eq=False)
class _State:
    """Flat parameters (weights ``[H, C·D]``, then biases ``[H, C]``), Adam's moments, the best parameters so far."""

    p: Tensor
    m: Tensor
    v: Tensor
    best: Tensor

    def select(self, heads: list[int]) -> _State:
        at = torch.tensor(heads, device=self.p.device)
        return _State(*(t.index_select(0, at) for t in (self.p, self.m, self.v, self.best)))


def initial(draws: torch.Generator, n_classes: int, width: int) -> Tensor:
    """Return flat parameters ``[C·D + C]`` as ``nn.Linear`` draws them: uniform within ±1/sqrt(D), weight then bias."""
    bound = width**-0.5
    weight = torch.empty(n_classes, width).uniform_(-bound, bound, generator=draws)
    bias = torch.empty(n_classes).uniform_(-bound, bound, generator=draws)
    return torch.cat([weight.flatten(), bias])


def split(flat: Tensor, n_classes: int) -> Views:
    """Return views ``weight [H, C, D]`` and ``bias [H, C, 1]`` of flat parameters ``[H, C·D + C]``."""
    width = flat.shape[1] // n_classes - 1
    weight = flat[:, : n_classes * width].unflatten(1, (n_classes, width))
    return weight, flat[:, n_classes * width :].unsqueeze(2)


class Adam:
    """Adam with L2 weight decay (Kingma & Ba 2015; PyTorch's ``optim.Adam``), each head with its own step count."""

    def __init__(self, lr: float, weight_decay: float) -> None:
        self.lr, self.weight_decay = lr, weight_decay

    def factors(self, steps: NDArray[np.int64], moves: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return ``[4, …]`` factors for step numbers ``steps`` (from 1); a head that does not move gets zeros.

        They are: the share of the new gradient in the first moment, and in the second; the step size with the first
        moment's bias correction; the factor of the second moment's square root (its bias correction).
        """
        t = np.maximum(steps, 1)
        return np.stack([
            (1 - BETAS[0]) * moves,
            (1 - BETAS[1]) * moves,
            self.lr / (1 - BETAS[0] ** t) * moves,
            1 / np.sqrt(1 - BETAS[1] ** t),
        ]).astype(np.float32)  # fmt: skip

    def update(self, p: Tensor, g: Tensor, m: Tensor, v: Tensor, factors: Tensor, scratch: Tensor) -> None:
        """Move ``p [H, P]`` along the gradient ``g`` in place; ``factors [4, H, 1]``; spends ``g`` and ``scratch``."""
        first, second, rate, root = factors
        g.add_(p, alpha=self.weight_decay)
        m.lerp_(g, first)
        v.lerp_(torch.mul(g, g, out=scratch), second)
        torch.sqrt(v, out=scratch).mul_(root).add_(EPS)
        p.sub_(torch.div(m, scratch, out=scratch).mul_(rate))


def gradient(at: Views, x: Tensor, y: Tensor, factor: Tensor | float, out: Views, multi_label: bool) -> None:
    """Write the loss's gradient at the parameters ``at`` into ``out`` (both as :func:`split` gives them), closed form.

    The reference's loss: minus the mean over rows *and classes* of target × log-softmax (single-label), or binary
    cross-entropy, the same mean (multi-label). ``x [H, B, D]``; ``y [H, B]`` or ``[H, B, C]``; ``factor``: one over
    rows × classes, or ``[H, 1, B]`` with zeros for rows that only fill up the batch.
    """
    (weight, bias), (of_weight, of_bias) = at, out
    # Classes before rows: both products then run along the features' own memory order, a tenth faster on CPUs.
    z = torch.baddbmm(bias, weight, x.transpose(1, 2))
    if multi_label:
        z.sigmoid_().sub_(y.transpose(1, 2))
    else:
        z = torch.softmax(z, 1)
        z.scatter_add_(1, y.unsqueeze(1), z.new_full((1, 1, 1), -1.0).expand(len(z), 1, z.shape[2]))
    z.mul_(factor)
    torch.bmm(z, x, out=of_weight)
    torch.sum(z, 2, keepdim=True, out=of_bias)


def train(
    pool: Pool, heads: list[Head], settings: Settings, stop: threading.Event, done: Callable[[], object] | None = None
) -> list[Fit]:
    """Train ``heads`` as one batched computation and return their fits in order; ``done()`` is called for each.

    A head that has stopped leaves the batch. ``stop``: once set, KeyboardInterrupt ends the training at the next epoch.
    """
    width = pool.x.shape[1]
    p = torch.stack([initial(h.draws, settings.n_classes, width) for h in heads]).to(pool.x.device)
    state = _State(p, torch.zeros_like(p), torch.zeros_like(p), p.clone())
    fits: dict[int, Fit] = {}
    live = list(range(len(heads)))
    epoch = 0
    while live:
        if stop.is_set():
            raise KeyboardInterrupt
        epoch += 1
        now = [heads[n] for n in live]
        _epoch(pool, now, state, settings)
        going = []
        for at, (head, score) in enumerate(zip(now, _validate(pool, now, state.p, settings), strict=True)):
            if score > head.best or (score == head.best and settings.ties == "latest"):
                head.best, head.best_epoch = score, epoch
                state.best[at].copy_(state.p[at])
            patience = settings.max_epochs if settings.patience is None else settings.patience
            if epoch < settings.max_epochs and epoch - head.best_epoch < patience:
                going.append(at)
            else:
                fits[live[at]] = _finish(pool, head, state.best[at], epoch, settings)
                if done:
                    done()
        if len(going) < len(live):
            live = [live[at] for at in going]
            state = state.select(going) if going else state
    return [fits[n] for n in range(len(heads))]


def _epoch(pool: Pool, heads: list[Head], state: _State, settings: Settings) -> None:
    device = pool.x.device
    size = settings.batch_size
    lengths = np.array([len(h.train) for h in heads])
    n_steps = int(-(-lengths.max() // size))
    rows = torch.zeros(len(heads), n_steps * size, dtype=torch.int64)
    for h, head in enumerate(heads):
        rows[h, : lengths[h]] = head.train[torch.randperm(len(head.train), generator=head.draws)]
    # [steps, H]: rows of each head in each step; 0 once a head's own epoch is over
    counts = np.clip(lengths - size * np.arange(n_steps)[:, None], 0, size)
    moves = counts > 0
    adam = Adam(settings.lr, settings.weight_decay)
    numbers = np.array([h.step for h in heads]) + np.cumsum(moves, axis=0)
    factors = torch.from_numpy(adam.factors(numbers, moves)).unsqueeze(3).to(device)
    for head, number in zip(heads, numbers[-1], strict=True):
        head.step = int(number)
    rows = rows.to(device)
    g, scratch = torch.empty_like(state.p), torch.empty_like(state.p)
    at, out = split(state.p, settings.n_classes), split(g, settings.n_classes)
    for step in range(n_steps):
        most = int(counts[step].max())
        at_rows = rows[:, step * size : step * size + most].reshape(-1)
        x = pool.x.index_select(0, at_rows).unflatten(0, (len(heads), most))
        y = pool.y.index_select(0, at_rows).unflatten(0, (len(heads), most))
        share: Tensor | float = 1.0 / (most * settings.n_classes)
        if counts[step].min() < most:
            there = np.arange(most) < counts[step][:, None]
            shares = there / (np.maximum(counts[step], 1)[:, None] * settings.n_classes)
            share = torch.from_numpy(shares.astype(np.float32)).unsqueeze(1).to(device)
        gradient(at, x, y, share, out, settings.multi_label)
        adam.update(state.p, g, state.m, state.v, factors[:, step], scratch)


def _logits(pool: Pool, rows: Tensor, flat: Tensor, n_classes: int) -> Tensor:
    """Return ``[H, C, n]`` for rows ``[H, n]`` of the pool."""
    weight, bias = split(flat, n_classes)
    pieces = []
    for piece in rows.split(_ROWS, dim=1):
        x = pool.x.index_select(0, piece.reshape(-1)).unflatten(0, tuple(piece.shape))
        pieces.append(torch.baddbmm(bias, weight, x.transpose(1, 2)))
    return torch.cat(pieces, dim=2)


def _validate(pool: Pool, heads: list[Head], flat: Tensor, settings: Settings) -> list[float]:
    device = pool.x.device
    lengths = [len(h.valid) for h in heads]
    rows = torch.nn.utils.rnn.pad_sequence([h.valid for h in heads], batch_first=True).to(device)
    z = _logits(pool, rows, flat, settings.n_classes)
    if settings.multi_label:
        scores = z.sigmoid_().transpose(1, 2).cpu().numpy()
        targets = pool.y.index_select(0, rows.reshape(-1)).unflatten(0, tuple(rows.shape)).cpu().numpy()
        values = [score_of(s[:n], t[:n], multi_label=True) for s, t, n in zip(scores, targets, lengths, strict=True)]
        return np.nan_to_num(values).tolist()  # no positive at all: every epoch ties
    hits = (z.argmax(1) == pool.y[rows]).cpu().numpy()
    return [float(np.mean(hit[:n])) for hit, n in zip(hits, lengths, strict=True)]


def _finish(pool: Pool, head: Head, flat: Tensor, epochs: int, settings: Settings) -> Fit:
    z = _logits(pool, head.test[None].to(pool.x.device), flat[None], settings.n_classes)[0].T
    scores = (z.sigmoid() if settings.multi_label else z.softmax(1)).cpu().numpy()
    targets = pool.y[head.test.to(pool.y.device)].cpu().numpy()
    score = score_of(scores, targets, multi_label=settings.multi_label)
    return Fit(score, np.ascontiguousarray(scores), epochs, head.best_epoch, head.best, dict(head.info))
