"""Distances between predictions and targets, each one number per clip ``[B]``, in float32 at least."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from evar.errors import UserError, did_you_mean

Distance = Callable[[Tensor, Tensor], Tensor]


def patchify(log_mel: Tensor, patch: tuple[int, int]) -> Tensor:
    """Return a spectrogram's patches ``[B, N, height * width]`` of ``[B, 1, n_mels, frames]``, row after row.

    Patch (f, t) is number ``f * T + t``, its pixels row after row; what fills no patch is dropped (MODELS 2.7).
    """
    height, width = patch
    rows, columns = log_mel.shape[2] // height, log_mel.shape[3] // width
    x = log_mel[:, 0, : rows * height, : columns * width].unflatten(1, (rows, height)).unflatten(3, (columns, width))
    return x.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)


def standardise(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Return ``[..., D]`` with mean 0 and (unbiased) variance 1 over the last axis (MODELS 2.5, 6)."""
    x = _full(x)
    if not x.numel():
        return x
    var, mean = torch.var_mean(x, dim=-1, keepdim=True)
    return (x - mean) * (var + eps).rsqrt()


def norm_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the squared distance of unit vectors, ``2 - 2 cos``, averaged over tokens: ``[B]`` of ``[B, M, D]``.

    Niizumi et al., Masked Modeling Duo, Eq. 2 (the loss of BYOL).
    """
    return 2 - 2 * _cosine(prediction, target).mean(1)


def cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Return ``1 - cos`` averaged over tokens: ``[B]`` of ``[B, M, D]``."""
    return 1 - _cosine(prediction, target).mean(1)


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference over tokens and features: ``[B]`` of ``[B, M, D]``."""
    return (_full(prediction) - _full(target)).square().mean((1, 2))


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference over tokens and features: ``[B]`` of ``[B, M, D]``."""
    return (_full(prediction) - _full(target)).abs().mean((1, 2))


def labels(logits: Tensor, multi_hot: Tensor) -> Tensor:
    """Return the binary cross-entropy averaged over classes: ``[B]`` of two ``[B, C]``."""
    return F.binary_cross_entropy_with_logits(_full(logits), _full(multi_hot), reduction="none").mean(1)


DISTANCES: Mapping[str, Distance] = {"norm_mse": norm_mse, "mse": mse, "cosine": cosine, "l1": l1}


def distance(name: str) -> Distance:
    """Return the distance of that name; raise :class:`UserError` if there is none."""
    if name not in DISTANCES:
        raise UserError(f"no loss is called '{name}'.{did_you_mean(name, DISTANCES)}")
    return DISTANCES[name]


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return (F.normalize(_full(a), dim=-1) * F.normalize(_full(b), dim=-1)).sum(-1)


def _full(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
