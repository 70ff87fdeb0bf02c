"""Learning rate and EMA decay of every optimiser step, as arrays: what is plotted is what is used."""

from __future__ import annotations

import numpy as np

from evar.errors import UserError


def finetune_lr(
    base_lr: float,
    epochs: int,
    warmup_epochs: float,
    per_epoch: int,
    min_lr: float = 1e-7,
    reference: bool = True,
) -> np.ndarray:
    """Return the learning rate in force at each of ``epochs * per_epoch`` fine-tuning steps, float64.

    The reference platform (spec RUNNERS 2.2, ODDITIES 16) climbs linearly from 0 during the warm-up, then joins the
    cosine over *all* epochs where it stands by then (a small drop), and sets the rate after the optimiser's step: step
    k has the rate of time (k-1)/per_epoch, so a run with warm-up begins with two steps at 0.
    ``reference=False`` is the textbook: the rate of step k's own time, the cosine beginning at the warm-up's end.

    Args:
        warmup_epochs: may be longer than the training, which then is all warm-up.
        per_epoch: optimiser steps in an epoch.
    """
    if not reference:
        return pretrain_lr(base_lr, epochs, warmup_epochs, per_epoch, min_lr)
    _check(base_lr, epochs, warmup_epochs, per_epoch, min_lr)
    time = np.maximum(np.arange(epochs * per_epoch) - 1, 0) / per_epoch
    cosine = min_lr + 0.5 * (base_lr - min_lr) * (1 + np.cos(np.pi * time / epochs))
    return np.where(time < warmup_epochs, base_lr * time / max(warmup_epochs, 1e-12), cosine)


def pretrain_lr(base_lr: float, epochs: int, warmup_epochs: float, per_epoch: int, min_lr: float = 0.0) -> np.ndarray:
    """Return the learning rate of each pre-training step, float64: linear from 0, then half a cosine to ``min_lr``.

    Step k has the rate of its own time k/per_epoch in epochs; the cosine spans the epochs after the warm-up
    (spec MODELS 2.6).
    """
    _check(base_lr, epochs, warmup_epochs, per_epoch, min_lr)
    time = np.arange(epochs * per_epoch) / per_epoch
    after = np.maximum(time - warmup_epochs, 0) / max(epochs - warmup_epochs, 1e-12)
    cosine = min_lr + 0.5 * (base_lr - min_lr) * (1 + np.cos(np.pi * after))
    return np.where(time < warmup_epochs, base_lr * time / max(warmup_epochs, 1e-12), cosine)


def ema_decay(steps: int, first: float = 0.99995, last: float = 0.99999) -> np.ndarray:
    """Return the decay of the target network's moving average at each step, rising linearly (spec MODELS 2.6)."""
    if steps < 1:
        raise UserError(f"a run has at least one step, got {steps}")
    if not (0 <= first <= 1 and 0 <= last <= 1):
        raise UserError(f"the moving average's decay lies between 0 and 1, got {first} and {last}")
    return first + (last - first) * np.arange(steps) / max(steps - 1, 1)


def _check(base_lr: float, epochs: int, warmup_epochs: float, per_epoch: int, min_lr: float) -> None:
    if epochs < 1 or per_epoch < 1:
        raise UserError(f"training needs at least one epoch of one step, got {epochs} of {per_epoch}")
    if not base_lr >= 0 or not np.isfinite(base_lr):
        raise UserError(f"the learning rate must be a number from 0 up, got {base_lr}")
    if not warmup_epochs >= 0:
        raise UserError(f"the warm-up must be 0 epochs or more, got {warmup_epochs}")
    if not min_lr >= 0:
        raise UserError(f"the lowest learning rate must be 0 or more, got {min_lr}")
