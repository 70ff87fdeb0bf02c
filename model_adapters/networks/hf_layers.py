"""Which layers of a transformer make the embedding, and how they are joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from evar.errors import UserError

Combine = Literal["concat", "mean"]


@dataclass(frozen=True)
class Layers:
    """A choice of layers: 0 is what enters the first block, n the output of the n-th, ``depth`` the model's output."""

    indices: tuple[int, ...]
    depth: int
    combine: Combine = "concat"

    @property
    def times(self) -> int:
        """How many times the model's width the result is wide."""
        return len(self.indices) if self.combine == "concat" else 1

    @property
    def blocks_needed(self) -> int:
        """Blocks that must be computed; one more than the highest layer, whose output is that block's input."""
        return min(self.depth, max(self.indices) + 1)

    @property
    def only_last(self) -> bool:
        """Whether the model's output is all that is wanted."""
        return self.indices == (self.depth,)

    def of(self, output: Any) -> Tensor:
        """Return the chosen layers ``[B, T', D]`` of a transformers output that has its hidden states.

        The top one is ``last_hidden_state``: only that is the same in transformers 4 and 5 for models with a final
        layer norm, which the last of 5's hidden states has not had.
        """
        top = output.last_hidden_state
        if self.only_last:
            return top
        chosen = [top if n == self.depth else output.hidden_states[n] for n in self.indices]
        if self.combine == "mean":
            return torch.stack(chosen).mean(dim=0)
        return torch.cat(chosen, dim=-1)


def parse_layers(text: str, depth: int, combine: Combine = "concat") -> Layers:
    """Return the layers that ``text`` names: ``last``, ``all`` (1 to ``depth``), or numbers such as ``9`` or ``3,-1``.

    Negative numbers count from the top, -1 being the model's output. Raises :class:`UserError`.
    """
    if combine not in ("concat", "mean"):
        raise UserError(f"--combine must be concat or mean, not '{combine}'")
    if text in ("last", "all"):
        return Layers((depth,) if text == "last" else tuple(range(1, depth + 1)), depth, combine)
    try:
        asked = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--layers must be last, all or numbers such as 9 or 3,6,9, not '{text}'") from None
    if wrong := [n for n in asked if not -depth - 1 <= n <= depth]:
        raise UserError(f"--layers: there is no layer {wrong[0]}; the model has {depth} (0 is what enters the first)")
    return Layers(tuple(n if n >= 0 else depth + 1 + n for n in asked), depth, combine)


def time_mean(frames: Tensor, counts: Tensor) -> Tensor:
    """Return the mean ``[B, D]`` over the first ``counts [B]`` (at least one) of the frames ``[B, T', D]``."""
    real = _real(frames, counts)
    if bool(real.all()):
        return frames.mean(dim=1)
    return (frames * real).sum(dim=1) / real.sum(dim=1)


def time_maximum(frames: Tensor, counts: Tensor) -> Tensor:
    """Return the maximum ``[B, D]`` over the first ``counts [B]`` (at least one) of the frames ``[B, T', D]``."""
    return frames.masked_fill(~_real(frames, counts), float("-inf")).amax(dim=1)


def _real(frames: Tensor, counts: Tensor) -> Tensor:
    steps = torch.arange(frames.shape[1], device=frames.device)
    return (steps < counts.to(frames.device).clamp(min=1)[:, None])[:, :, None]
