"""What convolutional networks share: seeded untrained ones, passes of a few clips at once, long clips in chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from model_adapters.networks.options import seeded
from model_adapters.networks.windows import windows

Module = TypeVar("Module", bound=nn.Module)

_CPU_PIECE = 6_000_000
"""Numbers in the largest activation of the clips that pass a CPU at once. At 24 MB the allocator hands the same memory
out again; larger blocks it fetches from the system, zeroed, each time."""


def untrained(build: Callable[[], Module], seed: int) -> Module:
    """Return ``build()`` with weights that depend on ``seed`` alone; the global generator stays as it was.

    Convolutions get He's initialisation for ReLU (with torch's default the signal dies away in a deep network whose
    batch norms have seen nothing).
    """

    def built() -> Module:
        module = build()
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        return module

    return seeded(built, seed)


def in_pieces(function: Callable[[Tensor], Tensor], clips: Tensor, numbers: int) -> Tensor:
    """Return ``function(clips)``, on a CPU and without gradient computed a few clips at a time.

    numbers: in the largest activation of one clip.
    """
    if clips.device.type != "cpu" or torch.is_grad_enabled():
        return function(clips)
    step = max(1, _CPU_PIECE // max(numbers, 1))
    if len(clips) <= step:
        return function(clips)
    return torch.cat([function(piece) for piece in clips.split(step)])


def mean_of_windows(function: Callable[[Tensor], Tensor], waveforms: Tensor, samples: int) -> Tensor:
    """Return the mean of ``function`` over windows of ``samples``, the last one flush with the end; 0 for one pass."""
    if not samples:
        return function(waveforms)
    return torch.stack([function(window) for window in windows(waveforms, samples, "chunks")]).mean(0)
