"""Long clips in chunks of frames, for models that were made for ten seconds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def frame_chunks(log_mel: Tensor, frames: int, shortest: int) -> tuple[Tensor, ...]:
    """Cut ``[..., T]`` into pieces of ``frames``; a last one shorter than ``shortest`` is dropped, unless it is all."""
    pieces = log_mel.split(frames, dim=-1)
    return pieces[:-1] if len(pieces) > 1 and pieces[-1].shape[-1] < shortest else pieces


def mean_of_chunks(log_mel: Tensor, frames: int, shortest: int, encode: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the mean ``[B, D]`` of the chunks' embeddings, each weighted by how many frames it has."""
    pieces = frame_chunks(log_mel, frames, shortest)
    if len(pieces) == 1:
        return encode(pieces[0])
    weights = torch.tensor([piece.shape[-1] for piece in pieces], dtype=torch.float32, device=log_mel.device)
    found = torch.stack([encode(piece) for piece in pieces], dim=-1)
    return found @ (weights / weights.sum()).to(found.dtype)
