"""What lies between an encoder and the joint space of audio and text, new and untrained (MODELS 3 and 4.2)."""

from __future__ import annotations

from typing import Literal

from torch import nn

from evar.errors import UserError
from evar.pretrain.trunk import initialise
from model_adapters.networks.m2d import MeanProjector, SemanticProjector

Kind = Literal["mean", "semantic"]


def new_audio_projector(kind: Kind, depth: int, dim: int) -> MeanProjector | SemanticProjector:
    """Return the network from patch tokens ``[B, N, D]`` to the joint space ``[B, D]``.

    ``mean`` is 2024's: two linear layers, with torch's usual start, on the mean of the tokens. ``semantic`` is 2025's:
    a token of zeros gathers from all others through ``depth`` blocks of one head, Xavier's start. The published code
    calls them modes: 0 is ``mean``; 1 (the public model) and 2 are so many blocks, whose hidden layer is D wide; in 3
    and 4 it is 2 D wide.

    Raises:
        UserError: an unknown kind, or a depth that no mode has.
    """
    if kind == "mean":
        return MeanProjector(dim, dim, dim)
    if kind != "semantic" or depth not in (1, 2, 3, 4):
        raise UserError(f"the audio projector is mean, or semantic with 1 to 4 blocks, not {kind} with {depth}")
    made = SemanticProjector(dim, depth, dim if depth <= 2 else 2 * dim)
    initialise(made)
    return made


def new_text_projector(text_dim: int, dim: int) -> nn.Module:
    """Return the network from a sentence's vector ``[B, E]`` to the joint space ``[B, D]``: none where E is D."""
    return nn.Identity() if text_dim == dim else nn.Linear(text_dim, dim)
