"""The vision transformer on spectrograms that ATST, CED and Dasheng share, with what they vary.

Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021; sizes and names of each model by its published state
dict. Blocks are those of :mod:`model_adapters.networks.vit`, whose ``ViT`` is M2D's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from evar.errors import UserError
from model_adapters.networks.dense import Linear, linear
from model_adapters.networks.vit import Block, PatchEmbed

_CPU_NUMBERS = 8_000_000
"""Numbers in the widest activation (the MLP's hidden layer) of the clips that pass a CPU at once: 32 MB."""
_TOKEN_DEVIATION = 0.02


@dataclass(frozen=True)
class AudioViTSize:
    """Size and variant of an encoder."""

    dim: int = 768
    depth: int = 12
    heads: int = 0
    """0: one per 64 dimensions."""
    patch: tuple[int, int] = (16, 16)
    """Mel bands and frames of a patch."""
    grid: tuple[int, int] = (4, 63)
    """Rows (frequency) and columns (time) of the positions."""
    positions: Literal["separable", "table"] = "separable"
    """``separable``: one learnt vector per column (``time_pos_embed``) plus one per row (``freq_pos_embed``).
    ``table``: one per patch in ``pos_embed``, whose first row is the class token's, also where there is none."""
    cls: bool = False
    qkv_bias: bool = True
    norm: str = "norm"
    """Name of the final norm."""
    patch_name: Literal["proj", "patch_embed"] = "proj"
    """Name of the patch projection in ``patch_embed``: a convolution, or with ``patch_embed`` a linear layer."""

    @property
    def n_heads(self) -> int:
        """Number of attention heads."""
        return self.heads or max(1, self.dim // 64)


class LinearPatchEmbed(nn.Module):
    """Patches to tokens by a linear layer named ``patch_embed``; what does not fill a patch is dropped."""

    def __init__(self, patch: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.patch = patch
        self.patch_embed = nn.Linear(patch[0] * patch[1], dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, F, T, D]`` of ``[B, 1, n_mels, frames]``; a patch is flattened band after band."""
        height, width = self.patch
        rows, columns = x.shape[2] // height, x.shape[3] // width
        x = x[:, 0, : rows * height, : columns * width].unflatten(1, (rows, height)).unflatten(3, (columns, width))
        return linear(x.permute(0, 1, 3, 2, 4).flatten(3), self.patch_embed.weight, self.patch_embed.bias)


class AudioViT(nn.Module):
    """The encoder. ``forward`` takes a standardised spectrogram of at most as many columns as there are positions."""

    def __init__(self, size: AudioViTSize) -> None:
        super().__init__()
        if size.dim % size.n_heads:
            raise UserError(f"{size.n_heads} attention heads do not divide {size.dim} dimensions")
        self.size = size
        self.recompute = False
        """In training, keep only what enters each block and compute the rest again on the way back."""
        rows, columns = size.grid
        if size.cls:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        if size.positions == "table":
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * columns, size.dim))
        else:
            self.time_pos_embed = nn.Parameter(torch.zeros(1, size.dim, 1, columns))
            self.freq_pos_embed = nn.Parameter(torch.zeros(1, size.dim, rows, 1))
        embed = LinearPatchEmbed if size.patch_name == "patch_embed" else PatchEmbed
        self.patch_embed: nn.Module = embed(size.patch, size.dim)
        self.blocks = nn.ModuleList(_block(size) for _ in range(size.depth))
        self.add_module(size.norm, nn.LayerNorm(size.dim, eps=1e-6))

    def positions(self, rows: int, columns: int) -> Tensor:
        """Return the positions ``[rows, columns, D]`` of the first ``columns`` columns."""
        if self.size.positions == "separable":
            table = self.freq_pos_embed[0, :, :rows] + self.time_pos_embed[0, ..., :columns]
            return table.permute(1, 2, 0)
        return self.pos_embed[0, 1:].unflatten(0, (rows, -1))[:, :columns]

    def forward(self, x: Tensor, layers: tuple[int, ...] = (-1,)) -> list[Tensor]:
        """Return the tokens ``[B, F * T, D]`` (the class token before them, then row after row) of each layer.

        x: ``[B, 1, n_mels, frames]``, standardised.
        layers: indices of blocks (negative from the end); the final norm is applied to the output of each.
        """
        x = F.pad(x, (0, max(0, self.size.patch[1] - x.shape[3])))  # a clip shorter than a patch
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return self._encode(x, layers)
        tokens = 1 + self.size.grid[0] * (x.shape[3] // self.size.patch[1])
        at_once = max(1, _CPU_NUMBERS // (tokens * 4 * self.size.dim))
        pieces = [self._encode(piece, layers) for piece in x.split(at_once)]
        return [torch.cat(layer) for layer in zip(*pieces, strict=True)] if len(pieces) > 1 else pieces[0]

    def _encode(self, x: Tensor, layers: tuple[int, ...]) -> list[Tensor]:
        grid = self.patch_embed(x)
        tokens = (grid + self.positions(grid.shape[1], grid.shape[2])).flatten(1, 2)
        if self.size.cls:
            first = self.cls_token + self.pos_embed[:, :1] if self.size.positions == "table" else self.cls_token
            tokens = torch.cat([first.expand(len(tokens), -1, -1), tokens], dim=1)
        wanted = [index % len(self.blocks) for index in layers]
        outputs: dict[int, Tensor] = {}
        for i, block in enumerate(self.blocks[: max(wanted) + 1]):
            again = self.recompute and torch.is_grad_enabled()
            tokens = checkpoint(block, tokens, use_reentrant=False) if again else block(tokens)
            if i in wanted:
                outputs[i] = self.get_submodule(self.size.norm)(tokens)
        return [outputs[i] for i in wanted]


def _block(size: AudioViTSize) -> Block:
    block = Block(size.dim, size.n_heads, 4 * size.dim)
    if not size.qkv_bias:
        block.attn.qkv = Linear(size.dim, 3 * size.dim, bias=False)
    return block


def initialise(module: nn.Module, seed: int) -> None:
    """Fill a module with seeded random weights: linear layers Xavier, biases 0, norms 1, the rest N(0, 0.02).

    A batch norm gets the statistics of decibels, mean -20 and deviation 20, so that an untrained network hears levels
    that differ and not their mean.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("weight") and parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter.view(len(parameter), -1), generator=generator)
            elif name.endswith("weight"):
                parameter.fill_(1.0)
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                parameter.normal_(0.0, _TOKEN_DEVIATION, generator=generator)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.fill_(-20.0)
            elif name.endswith("running_var"):
                buffer.fill_(400.0)
            elif name.endswith("num_batches_tracked"):
                buffer.zero_()
