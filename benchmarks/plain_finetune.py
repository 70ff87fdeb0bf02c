"""Fine-tuning of M2D done the reference way, as a careful user would write it: the twin to measure against.

Log-mel by convolution kernels, loops over clips for Mixup, Random Resize Crop and structured patchout, attention
written out, float32, an optimiser that goes tensor by tensor, a copy of the batch to the device and back into one as
DataParallel makes it. It takes its random numbers from outside, so that its losses can be compared with the product's;
drawing them costs it nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from plain_reference import ConvolutionMel
from torch import Tensor, nn
from torch.nn.functional import interpolate


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step."""

    share: Tensor
    """Of Mixup ``[B]``."""
    partner: Tensor
    bands: tuple[int, int]
    """Of SpecAugment: first band and the one after the last."""
    frames: tuple[int, int]
    boxes: list[list[int]]
    """Of Random Resize Crop: top, left, height and width, counted from the clip's corner."""
    u: float
    """How much of the patchout is of rows."""
    rows: Tensor
    """``[B, F]``: the rows with the smallest values are marked."""
    columns: Tensor


class PlainAttention(nn.Module):
    """Softmax(QK^T/√d)V, the whole matrix in memory."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, dim))


class PlainMlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.gelu = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.gelu(self.fc1(x)))


class PlainBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim, eps=1e-6), PlainAttention(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), PlainMlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PlainViT(nn.Module):
    """The encoder of M2D; the names of its parameters are those of the product's."""

    def __init__(self, dim: int, depth: int, heads: int, positions: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, dim), requires_grad=False)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, dim, 16, 16)})
        self.blocks = nn.ModuleList(PlainBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor, patchout: float, draws: Draws) -> Tensor:
        tokens = self.patch_embed["proj"](x)
        grid = tokens.shape[2:]
        tokens = tokens.flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]
        if patchout:
            keep = plain_patchout(len(x), (grid[0], grid[1]), patchout, draws).to(x.device)
            tokens = torch.gather(tokens, 1, keep[:, :, None].expand(-1, -1, tokens.shape[2]))
        cls = self.cls_token + self.pos_embed[:, :1]
        tokens = torch.cat([cls.expand(len(x), -1, -1), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, 1:].mean(1)


def plain_patchout(batch: int, grid: tuple[int, int], ratio: float, draws: Draws) -> Tensor:
    """Return the kept patches ``[B, K]``: a sort of each clip's marks, the marked ones first (RUNNERS 2.4)."""
    rows, columns = grid
    n_rows = min(rows - 1, int(rows * (ratio + 1 / rows) * draws.u))
    n_columns = int(columns * max(ratio + 0.5 / columns - n_rows / rows, 0))
    kept = []
    for i in range(batch):
        mark = torch.zeros(rows, columns)
        mark[draws.rows[i].argsort()[:n_rows], :] = 1
        mark[:, draws.columns[i].argsort()[:n_columns]] = 1
        order = torch.argsort(mark.flatten(), descending=True, stable=True)
        kept.append(order[: int((mark == 0).sum())])
    return torch.stack(kept)


def plain_resize_crop(x: Tensor, boxes: list[list[int]]) -> Tensor:
    """Return ``[B, 1, F, T]``: every clip laid in the middle of its canvas, cut by its box, stretched by torch."""
    bands, frames = x.shape[-2:]
    wide = int(1.5 * frames)
    middle = (wide - frames) // 2
    done = []
    for clip, (top, left, height, width) in zip(x, boxes, strict=True):
        canvas = torch.zeros(1, 1, bands, wide, device=x.device)
        canvas[0, :, :, middle : middle + frames] = clip
        crop = canvas[:, :, top : top + height, middle + left : middle + left + width]
        done.append(interpolate(crop, size=(bands, frames), mode="bicubic", align_corners=True)[0])
    return torch.stack(done)


class PlainTuner(nn.Module):
    """Front end, encoder and head, and its own optimiser."""

    def __init__(self, vit: PlainViT, classes: int, stats: tuple[float, float], patchout: float) -> None:
        super().__init__()
        self.mel = ConvolutionMel(n_fft=400, hop=160, n_mels=80, fmin=50, fmax=8000)
        self.vit, self.stats, self.patchout = vit, stats, patchout
        dim = vit.pos_embed.shape[2]
        self.norm, self.linear = nn.BatchNorm1d(dim, affine=False), nn.Linear(dim, classes)

    def forward(self, waves: Tensor, draws: Draws, frames: int) -> Tensor:
        with torch.no_grad():
            x = ((self.mel(waves) - self.stats[0]) / self.stats[1])[:, None]
            x[:, :, slice(*draws.bands)] = 0
            x[:, :, :, slice(*draws.frames)] = 0
            x = plain_resize_crop(x, draws.boxes)
        return self.linear(self.norm(self.vit(x[..., :frames], self.patchout, draws)))


def plain_step(
    model: PlainTuner, optimiser: torch.optim.Optimizer, waves: Tensor, targets: Tensor, draws: Draws, frames: int
) -> float:
    """Take one step on ``waves [B, T]`` in ordinary CPU memory and return the loss."""
    device = model.linear.weight.device
    mixed, mixed_targets = torch.empty_like(waves), torch.empty_like(targets)
    for i, (share, other) in enumerate(zip(draws.share.tolist(), draws.partner.tolist(), strict=True)):
        mixed[i] = share * waves[i] + (1 - share) * waves[other]
        mixed_targets[i] = share * targets[i] + (1 - share) * targets[other]
    scattered = torch.cat([chunk.clone() for chunk in mixed.chunk(2)]).to(device)  # as DataParallel's scatter
    logits = model(scattered, draws, frames)
    logits = torch.cat([chunk.clone() for chunk in logits.chunk(2)])  # and its gather
    loss = -(mixed_targets.to(device) * logits.log_softmax(-1)).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()
