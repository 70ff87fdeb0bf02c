"""Background noise mixed into crops: what M2D-X and M2D-S learn to hear through (MODELS 5).

With s and n the log-mels of signal and noise, each minus the mean of its own corpus, the mixed crop is
``ln(max(a exp(n) + (1 - a) exp(s), eps))`` divided by the deviation of the signal's corpus.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from evar.audio.log_mel import FLOAT32_EPS
from evar.sampling import epoch_order

_SALT = 0x6E6F6973
"""Keeps the noise's order from being that of the clips, with which it shares the seed."""


def mix_noise(
    log_mel: Tensor,
    noise: Tensor,
    stats: tuple[float, float],
    noise_mean: float,
    ratio: float,
    eps: float = FLOAT32_EPS,
) -> Tensor:
    """Return noisy log-mels, standardised, of raw log-mels of signal and noise of one shape.

    Args:
        log_mel: the signal's.
        noise: the noise's.
        stats: mean and deviation of the signal's corpus.
        noise_mean: mean of the noise's corpus.
        ratio: a, the share of noise in [0, 1].
        eps: the least power.
    """
    mean, deviation = stats
    signal_power = (log_mel - mean).exp_().mul_(1.0 - ratio)
    noise_power = (noise - noise_mean).exp_().mul_(ratio)
    return signal_power.add_(noise_power).clamp_(min=eps).log_().div_(deviation)


def noise_order(noises: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order in which an epoch takes the noise clips: each once before any comes again, ``[noises]``.

    The noise of item i (:mod:`evar.pretrain.order`) is entry ``i % noises``.
    """
    return epoch_order(noises, seed ^ _SALT, epoch)
