"""The contrastive loss between audio and text over the global batch (MODELS 3; Radford et al. 2021, CLIP).

With unit vectors a_i (audio) and t_i (text) of the N clips of all ranks and the scale s = exp(logit_scale)

    loss_i = 1/2 [ln Σ_j exp(s a_i·t_j) + ln Σ_j exp(s t_i·a_j)] - s a_i·t_i

and the loss is the mean over i: symmetric NT-Xent, the mean of both directions' cross-entropies (M2D-CLAP 2024, Eq. 2
to 4). Each rank takes its own B rows against the N columns of everyone, so that it holds two matrices ``[B, N]`` and
never ``[N, N]``. The gradient flows through the gathered columns too: summed over ranks it is exactly the gradient that
one process would have.

Where gradients are accumulated over several micro batches, N is one micro batch of all ranks: clips of another micro
batch are no negatives. A larger N needs a larger micro batch (or more ranks), not more accumulation.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evar import ranks
from evar.errors import UserError

MAX_LOGIT_SCALE = 4.6052
"""The largest logarithm of the scale: ln 100 with the four digits of the published training (MODELS 3)."""


def contrastive_losses(audio: Tensor, text: Tensor, logit_scale: Tensor, grad_scale: float = 1.0) -> Tensor:
    """Return this rank's losses ``[B]``, one per clip: their sum over all ranks divided by N is the loss.

    Every rank has to call this at the same time; B may differ, 0 included. Computed in float32 also under autocast:
    at a scale of 100 bfloat16 would leave a logit no digit behind the point.

    Args:
        audio: ``[B, J]`` of this rank, of any length: normalised here.
        text: ``[B, J]``, row by row the captions of ``audio``.
        logit_scale: the logarithm of the scale, a scalar.
        grad_scale: factor on the gradient into ``audio`` and ``text``, not on ``logit_scale``'s. The published runs on
            W GPUs had 1/W, for every rank had the gradient of its own rows only before they were averaged (MODELS 3).
    """
    with torch.autocast(audio.device.type, enabled=False):
        a = F.normalize(_full(scaled_gradient(audio, grad_scale)), dim=-1)
        t = F.normalize(_full(scaled_gradient(text, grad_scale)), dim=-1)
        scale = _full(logit_scale).exp()
        # Both sides travel together, once.
        all_a, all_t = ranks.gathered(torch.stack([a, t], dim=1), with_grad=True).unbind(1)
        # The scale goes into the narrow side: a product with the matrix would have to be kept for the way back.
        a_scaled, t_scaled = a * scale, t * scale
        own = (a_scaled * t).sum(dim=1)
        to_text = (a_scaled @ all_t.T).logsumexp(dim=1)
        to_audio = (t_scaled @ all_a.T).logsumexp(dim=1)
        return (to_text + to_audio) / 2 - own


def new_logit_scale(temperature: float) -> nn.Parameter:
    """Return the trained logarithm of the scale, at first ln(1/temperature), a float32 scalar; its largest for 0.01.

    Raises:
        UserError: a temperature whose scale is not within 1 and 100.
    """
    if not 0.01 <= temperature <= 1:
        raise UserError(f"the temperature lies between 0.01 and 1 (a scale of 100 to 1), got {temperature:g}")
    return nn.Parameter(torch.tensor(MAX_LOGIT_SCALE if temperature == 0.01 else -math.log(temperature)))


@torch.no_grad()
def clamp_logit_scale(logit_scale: Tensor) -> None:
    """Keep the scale between 1 and 100, in place: after every optimiser step (MODELS 3)."""
    logit_scale.clamp_(0.0, MAX_LOGIT_SCALE)


def scaled_gradient(values: Tensor, factor: float) -> Tensor:
    """Return ``values``, whose gradient is multiplied by ``factor`` on its way back."""
    if factor == 1:
        return values
    scaled: Tensor = _ScaledGradient.apply(values, factor)
    return scaled


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient * ctx.factor, None


def _full(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
