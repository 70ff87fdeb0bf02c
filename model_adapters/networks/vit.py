"""The vision transformer of M2D and MSM-MAE: pre-norm, class token, a fixed table of positions.

Parameter names are those of the published checkpoints. Sizes are read from a state dict (:func:`size_of`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from evar.errors import UserError
from model_adapters.networks.checkpoints import require
from model_adapters.networks.dense import Linear, linear

_CPU_NUMBERS = 8_000_000
"""Numbers in the widest activation (the MLP's hidden layer) of the clips that pass a CPU at once: 32 MB."""


@dataclass(frozen=True)
class ViTSize:
    """Size of an encoder. ``heads`` of 0 means one per 64 dimensions."""

    dim: int = 768
    depth: int = 12
    heads: int = 0
    mlp_dim: int = 3072
    patch: tuple[int, int] = (16, 16)
    positions: int = 191
    """Rows of the table of positions, the class token's included."""
    cls: bool = True


def size_of(
    state: Mapping[str, Tensor], heads: int = 0, what: str = "", whole: Mapping[str, Tensor] | None = None
) -> ViTSize:
    """Return the size of the encoder whose tensors ``state`` holds; raise :class:`UserError` if there is none in it.

    what, whole: the file, and all of its tensors, for the message.
    """
    needed = ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight")
    require(state, needed, "M2D or MSM-MAE", what, whole)
    patch_weight = state["patch_embed.proj.weight"]
    depth = 1 + max(int(m.group(1)) for key in state if (m := re.match(r"blocks\.(\d+)\.", key)))
    return ViTSize(
        dim=patch_weight.shape[0],
        depth=depth,
        heads=heads,
        mlp_dim=state["blocks.0.mlp.fc1.weight"].shape[0],
        patch=(patch_weight.shape[2], patch_weight.shape[3]),
        positions=state["pos_embed"].shape[1],
        cls="cls_token" in state,
    )


class Attention(nn.Module):
    """Multi-head self-attention with one projection to queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, N, D]`` of ``[B, N, D]``."""
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, dim))


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, N, D]`` of ``[B, N, D]``."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, hidden: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, N, D]`` of ``[B, N, D]``."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens; frames that do not fill a patch are dropped."""

    def __init__(self, patch: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(1, dim, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, F, T, D]`` of ``[B, 1, n_mels, frames]``."""
        height, width = self.patch
        rows, columns = x.shape[2] // height, x.shape[3] // width
        x = x[:, 0, : rows * height, : columns * width].unflatten(1, (rows, height)).unflatten(3, (columns, width))
        patches = x.permute(0, 1, 3, 2, 4).flatten(3)
        return linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class ViT(nn.Module):
    """The encoder. ``forward`` takes a standardised log-mel of at most as many columns as the table of positions."""

    def __init__(self, size: ViTSize) -> None:
        super().__init__()
        heads = size.heads or max(1, size.dim // 64)
        if size.dim % heads:
            raise UserError(f"{heads} attention heads do not divide the {size.dim} dimensions: set --heads")
        self.size = size
        self.recompute = False
        """In training, keep only what enters each block and compute the rest again on the way back."""
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.dim)) if size.cls else None
        self.pos_embed = nn.Parameter(torch.zeros(1, size.positions, size.dim), requires_grad=False)
        self.patch_embed = PatchEmbed(size.patch, size.dim)
        self.blocks = nn.ModuleList(Block(size.dim, heads, size.mlp_dim) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.dim, eps=1e-6)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Return the positions ``[rows, columns, D]`` of the first ``columns`` columns of the grid."""
        table = self.pos_embed[0, 1:] if self.cls_token is not None else self.pos_embed[0]
        return table.unflatten(0, (rows, -1))[:, :columns]

    def forward(self, x: Tensor, layers: tuple[int, ...] = (-1,), keep: Tensor | None = None) -> list[Tensor]:
        """Return the patch tokens ``[B, F * T, D]`` (row after row of frequency) after each block in ``layers``.

        x: ``[B, 1, n_mels, frames]``, standardised.
        layers: indices of blocks (negative from the end); the last block's output has the final norm applied.
        keep: ``[B, K]`` indices of the patches that are encoded, the others are left out; None for all.
        """
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return self._encode(x, layers, keep)
        tokens = 1 + self.pos_embed.shape[1] * x.shape[3] // max(1, self._frames(x.shape[2]))
        at_once = max(1, _CPU_NUMBERS // (tokens * self.size.mlp_dim))
        kept = keep.split(at_once) if keep is not None else None
        pieces = [self._encode(piece, layers, kept[i] if kept else None) for i, piece in enumerate(x.split(at_once))]
        return [torch.cat(layer) for layer in zip(*pieces, strict=True)] if len(pieces) > 1 else pieces[0]

    def _frames(self, n_mels: int) -> int:
        rows = n_mels // self.size.patch[0]
        return (self.pos_embed.shape[1] - (self.cls_token is not None)) // rows * self.size.patch[1]

    def _encode(self, x: Tensor, layers: tuple[int, ...], keep: Tensor | None) -> list[Tensor]:
        grid = self.patch_embed(x)
        tokens = (grid + self.positions(grid.shape[1], grid.shape[2])).flatten(1, 2)
        if keep is not None:
            tokens = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[2]))
        if self.cls_token is not None:
            first = self.cls_token + self.pos_embed[:, :1]
            tokens = torch.cat([first.expand(len(tokens), -1, -1), tokens], dim=1)
        wanted = [index % len(self.blocks) for index in layers]
        outputs: dict[int, Tensor] = {}
        for i, block in enumerate(self.blocks[: max(wanted) + 1]):
            again = self.recompute and torch.is_grad_enabled()
            tokens = checkpoint(block, tokens, use_reentrant=False) if again else block(tokens)
            if i in wanted:
                outputs[i] = self.norm(tokens) if i == len(self.blocks) - 1 else tokens
        skip = int(self.cls_token is not None)
        return [outputs[i][:, skip:] for i in wanted]


def initialise(module: nn.Module, seed: int) -> None:
    """Fill a module with the random weights M2D starts from: Xavier, zero biases, tokens N(0, 0.02), positions 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith(("cls_token", "mask_token")):
                parameter.normal_(0.0, 0.02, generator=generator)
            elif name.endswith("weight") and parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter.view(len(parameter), -1), generator=generator)
            elif name.endswith("weight"):
                parameter.fill_(1.0)
            else:
                parameter.zero_()
