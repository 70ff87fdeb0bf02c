"""The exponential moving average by which M2D's target network follows the online one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def pairs(target: Sequence[nn.Module], online: Sequence[nn.Module]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the parameters of twin modules, in one order."""
    followers: list[Tensor] = [parameter for module in target for parameter in module.parameters()]
    leaders: list[Tensor] = [parameter for module in online for parameter in module.parameters()]
    if [p.shape for p in followers] != [p.shape for p in leaders]:
        raise ValueError("the target network's parameters are not those of the online one")
    return followers, leaders


@torch.no_grad()
def move(target: Sequence[Tensor], online: Sequence[Tensor], decay: float) -> None:
    """Replace ``target`` by ``decay * target + (1 - decay) * online``, all tensors at once (MODELS 2.5, 11).

    decay: 0 copies the online network, 1 leaves the target as it is.
    """
    if target:
        torch._foreach_lerp_(list(target), list(online), 1 - decay)
