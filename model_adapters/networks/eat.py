"""The network of EAT (Chen et al., IJCAI 2024) and SSLAM: data2vec 2.0's post-norm transformer on log-mel patches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evar.errors import UserError
from model_adapters.networks.checkpoints import require
from model_adapters.networks.m2d import sincos_2d
from model_adapters.networks.vit import Block, PatchEmbed, initialise

PATCH = 16
BANDS = 128
FRAMES = 1024
"""Length of every input; shorter ones are padded, longer ones cut."""
_ROWS = 768
"""Time steps in the published table of positions."""
_NUMBERS_AT_ONCE = 8_000_000
"""Numbers in the MLP's hidden layer of the clips that pass a CPU at once."""
_FAIRSEQ = "modality_encoders.IMAGE."
_RENAMED = {
    "fixed_positional_encoder.positions": "pos",
    "context_encoder.norm.weight": "pre_norm.weight",
    "context_encoder.norm.bias": "pre_norm.bias",
}


@dataclass(frozen=True)
class EatSize:
    """Size of the network: Base unless told otherwise. One head per 64 dimensions."""

    dim: int = 768
    depth: int = 12
    mlp_dim: int = 3072
    positions: int = _ROWS * (BANDS // PATCH)


class PostNormBlock(Block):
    """A transformer block that normalises what each half adds up to."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, N, D]`` of ``[B, N, D]``."""
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))


class EatNetwork(nn.Module):
    """Standardised log-mels to tokens."""

    def __init__(self, size: EatSize) -> None:
        super().__init__()
        if size.dim % 64:
            raise UserError(f"EAT's width must be divisible by 64, not {size.dim}")
        self.size = size
        self.extra_tokens = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.pos = nn.Parameter(torch.zeros(1, size.positions, size.dim), requires_grad=False)
        self.local_encoder = PatchEmbed((PATCH, PATCH), size.dim)
        self.pre_norm = nn.LayerNorm(size.dim, eps=1e-6)
        self.blocks = nn.ModuleList(
            PostNormBlock(size.dim, size.dim // 64, size.mlp_dim, eps=1e-6) for _ in range(size.depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens ``[B, 1 + T * F, D]``, the class token first, then time step after time step.

        x: standardised log-mels ``[B, frames, bands]``; frames that do not fill a patch are left out.
        """
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return self._tokens(x)
        numbers = (1 + x.shape[1] // PATCH * (x.shape[2] // PATCH)) * self.size.mlp_dim
        pieces = [self._tokens(piece) for piece in x.split(max(1, _NUMBERS_AT_ONCE // numbers))]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _tokens(self, x: Tensor) -> Tensor:
        patches = self.local_encoder(x[:, None]).flatten(1, 2)
        tokens = torch.cat([self.extra_tokens.expand(len(x), -1, -1), patches + self.pos[:, : patches.shape[1]]], dim=1)
        tokens = self.pre_norm(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


def positions(size: EatSize) -> Tensor:
    """Return the fixed table ``[1, positions, D]``: the first half for the frequency, the second for the time."""
    bands = BANDS // PATCH
    return sincos_2d(size.dim, size.positions // bands, bands, cls=False)


def initialise_eat(network: EatNetwork, seed: int) -> None:
    """Fill a network with seeded random weights and the fixed positions."""
    initialise(network, seed)
    with torch.no_grad():
        network.pos.copy_(positions(network.size))
        network.extra_tokens.normal_(0.0, 0.02, generator=torch.Generator().manual_seed(seed + 1))


def tidy(raw: Mapping[str, Tensor], what: str = "") -> dict[str, Tensor]:
    """Return the encoder's tensors by our names from a file in fairseq's form or the Hugging Face hub's.

    Of fairseq's training files the decoder and the teacher are left out. Raises :class:`UserError` for other files.
    """
    state: dict[str, Tensor] = {}
    whole = not any(key.startswith(_FAIRSEQ) for key in raw)
    for key, value in raw.items():
        name = key.removeprefix("model.") if whole else key.removeprefix(_FAIRSEQ)
        wanted = name.startswith(
            ("local_encoder.", "extra_tokens", "fixed_positional_encoder.", "context_encoder.norm.")
        )
        if name.startswith("_ema") or not (whole or key.startswith("blocks.") or (name != key and wanted)):
            continue
        state[_RENAMED.get(name, name)] = value
    require(state, ("local_encoder.proj.weight", "blocks.0.mlp.fc1.weight"), "EAT or SSLAM", what, raw)
    if "pos" not in state:
        state["pos"] = positions(size_of(state))
    return state


def size_of(state: Mapping[str, Tensor]) -> EatSize:
    """Return the size of the network that tidied tensors belong to."""
    blocks = (re.match(r"blocks\.(\d+)\.", key) for key in state)
    return EatSize(
        dim=len(state["local_encoder.proj.weight"]),
        depth=1 + max(int(block.group(1)) for block in blocks if block),
        mlp_dim=len(state["blocks.0.mlp.fc1.weight"]),
        positions=state["pos"].shape[1] if "pos" in state else EatSize().positions,
    )
