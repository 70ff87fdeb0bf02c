"""M2D's inference around the encoder: chunks, padding, stacked and flat features; the projectors of M2D-CLAP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evar import ranks
from evar.errors import UserError
from model_adapters.networks.m2d_files import Geometry
from model_adapters.networks.vit import Block, ViT

Padding = Literal["m2d", "original"]


def sincos_2d(dim: int, rows: int, columns: int, *, cls: bool = True) -> Tensor:
    """Return MAE's fixed positions ``[1, rows * columns (+ 1), dim]``, row after row; a row of zeros first for ``cls``.

    The first half of a position encodes time (column), the second frequency (row); each half holds the sines, then the
    cosines, of the index times 10000^(-k/m), k = 0 … m - 1 with m = dim/4 (He et al. 2022, Masked Autoencoders).
    """
    frequencies = 10000.0 ** (-np.arange(dim // 4, dtype=np.float64) / (dim // 4))

    def half(index: np.ndarray) -> np.ndarray:
        angles = index[:, None] * frequencies
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    row, column = np.divmod(np.arange(rows * columns), columns)
    table = np.concatenate([half(column), half(row)], axis=1)
    if cls:
        table = np.concatenate([np.zeros((1, dim)), table])
    return torch.from_numpy(table.astype(np.float32))[None]


def resize_positions(table: Tensor, rows: int, columns: int, *, cls: bool = True) -> Tensor:
    """Return a table of positions ``[1, N, D]`` for ``columns`` columns: cut, or stretched bicubically.

    Stretching (and not continuing) is what the published fine-tuned checkpoints were made with.
    """
    first, grid = (table[:, :1], table[:, 1:]) if cls else (table[:, :0], table)
    grid = grid.unflatten(1, (rows, -1))
    if columns <= grid.shape[2]:
        grid = grid[:, :, :columns]
    else:
        image = grid.permute(0, 3, 1, 2)
        grid = F.interpolate(image, size=(rows, columns), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    return torch.cat([first, grid.flatten(1, 2)], dim=1)


def kept_by_patchout(batch: int, grid: tuple[int, int], ratio: float, keeps: Literal["marked", "unmarked"]) -> Tensor:
    """Return the patches ``[batch, K]`` that structured patchout leaves, ascending, drawn from torch's CPU generator.

    batch: clips of this rank. As many numbers are drawn as all ranks have clips, so that each clip meets the same
        draws however many processes share the batch; every rank has to call this.
    grid: rows (frequency) and columns (time) of patches.
    ratio: share that is marked, at least 0 and less than 1; else :class:`UserError`.
    keeps: ``marked`` is what the published fine-tuning code does (the marked patches first, then the first of the
        others: RUNNERS 2.4), ``unmarked`` what the paper describes.

    Rows and columns are marked at random, for each clip its own but for all equally many, and as many patches are kept
    as are unmarked.
    """
    if not 0 <= ratio < 1:
        raise UserError(f"--patchout must be at least 0 and less than 1, not {ratio}")
    rows, columns = grid
    n_rows = min(rows - 1, int(rows * (ratio + 1 / rows) * float(torch.rand(()))))
    n_columns = int(columns * max(ratio + 0.5 / columns - n_rows / rows, 0.0))
    everyone = int(ranks.sum_over_ranks(torch.tensor(batch)))
    row_rank = ranks.mine(torch.rand(everyone, rows)).argsort(1).argsort(1)
    column_rank = ranks.mine(torch.rand(everyone, columns)).argsort(1).argsort(1)
    mark = ((row_rank < n_rows)[:, :, None] | (column_rank < n_columns)[:, None, :]).flatten(1)
    return kept_of_marked(mark, (rows - n_rows) * (columns - n_columns), keeps)


def kept_of_marked(mark: Tensor, count: int, keeps: Literal["marked", "unmarked"]) -> Tensor:
    """Return the first ``count`` patches ``[B, count]`` with the mark (or without) of ``[B, N]``, ascending.

    Where there are fewer of them the first of the others follow. Among equals the reference leaves the order to the
    sort of torch's backend; here the lowest index comes first.
    """
    order = mark.int().argsort(dim=1, descending=keeps == "marked", stable=True)
    return order[:, :count].sort(dim=1).values


class M2DEncoder(nn.Module):
    """The encoder with M2D's rules for input of any length.

    norm_stats: mean and deviation that standardise the log-mel.
    padding: ``m2d`` pads the end to whole patches; ``original`` (the first MSM-MAE code) pads to a whole chunk more and
        drops the columns that correspond.
    dur_frames: if not 0, the whole input in one pass of at most so many frames, no chunks, no padding.
    """

    norm_stats: Tensor

    def __init__(
        self,
        vit: ViT,
        geometry: Geometry,
        norm_stats: tuple[float, float],
        *,
        padding: Padding = "m2d",
        dur_frames: int = 0,
    ) -> None:
        super().__init__()
        self.vit = vit
        self.geometry = geometry
        self.padding: Padding = padding
        self.dur_frames = dur_frames
        self.register_buffer("norm_stats", torch.tensor(norm_stats), persistent=False)
        if dur_frames:
            columns = dur_frames // geometry.patch[1]
            if not columns:
                raise UserError(f"--dur_frames={dur_frames} is less than one patch of {geometry.patch[1]} frames")
            table = resize_positions(vit.pos_embed.data, geometry.grid[0], columns, cls=vit.cls_token is not None)
            vit.pos_embed = nn.Parameter(table, requires_grad=False)

    def standardise(self, log_mel: Tensor) -> Tensor:
        """Return ``(log_mel - mean) / deviation``."""
        return (log_mel - self.norm_stats[0]) / self.norm_stats[1]

    def chunks(self, x: Tensor, layers: tuple[int, ...] = (-1,)) -> list[list[Tensor]]:
        """Return per layer the chunks' tokens, each ``[B, F, T', D]``, of a standardised log-mel ``[B, 1, F, L]``.

        All clips' full chunks go through the encoder together, then all last chunks.
        """
        full, rest, dropped = self._cut(x)
        found: list[list[Tensor]] = [[] for _ in layers]
        if full.shape[1]:
            for chunks, y in zip(found, self.vit(full.flatten(0, 1), layers), strict=True):
                chunks.extend(self._as_grid(y).unflatten(0, full.shape[:2]).unbind(1))
        if rest.shape[3]:
            for chunks, y in zip(found, self.vit(rest, layers), strict=True):
                chunks.append(self._as_grid(y))
        if dropped:
            for chunks in found:
                chunks[-1] = chunks[-1][:, :, : chunks[-1].shape[2] - dropped]
        return found

    def kept_tokens(self, x: Tensor, ratio: float, keeps: Literal["marked", "unmarked"] = "marked") -> Tensor:
        """Return the tokens ``[B, K, D]`` of the patches that structured patchout leaves of ``[B, 1, F, L]``."""
        full, rest, _ = self._cut(x)
        tokens = []
        for piece in [*full.unbind(1), *([rest] if rest.shape[3] else [])]:
            columns = piece.shape[3] // self.geometry.patch[1]
            keep = kept_by_patchout(len(piece), (self.geometry.grid[0], columns), ratio, keeps)
            tokens += self.vit(piece, keep=keep.to(x.device, non_blocking=True))
        return torch.cat(tokens, dim=1)

    def _cut(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return full chunks ``[B, n, 1, F, U]``, the padded rest ``[B, 1, F, R]``, and how many columns to drop."""
        height, width = self.geometry.patch
        x = x[:, :, : self.geometry.grid[0] * height]
        length, unit, dropped = x.shape[3], self.geometry.frames, 0
        if self.dur_frames:
            return x[:, None, ..., :0][:, :0], x[..., : self.dur_frames], 0
        if self.padding == "original":
            pad = unit - length % unit
            dropped = unit // width * pad // unit
            total = length + pad
        else:
            # A rest of 1000 frames of 1001 is padded past its chunk to 1008, and cut back to it, as in the reference.
            rest = length % unit
            total = length - rest + min(rest + -rest % width, unit)
        x = F.pad(x, (0, total - length))
        n = total // unit
        full = x[..., : n * unit].unflatten(3, (n, unit)).permute(0, 3, 1, 2, 4)
        return full, x[..., n * unit :], dropped

    def _as_grid(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(1, (self.geometry.grid[0], -1))


def stacked(chunks: list[Tensor]) -> Tensor:
    """Return ``[B, T', F * D]``: each time step's frequency patches side by side, chunks one after the other."""
    return torch.cat([chunk.permute(0, 2, 1, 3).flatten(2) for chunk in chunks], dim=1)


def flat(chunks: list[Tensor]) -> Tensor:
    """Return ``[B, F * T', D]``: all patch tokens, within a chunk row after row of frequency."""
    return torch.cat([chunk.flatten(1, 2) for chunk in chunks], dim=1)


class MeanProjector(nn.Module):
    """M2D-CLAP 2024's audio projector: a two-layer network on the mean of all patch tokens."""

    def __init__(self, dim: int, hidden: int, out: int) -> None:
        super().__init__()
        self.add_module("0", nn.Linear(dim, hidden))
        self.add_module("1", nn.ReLU())
        self.add_module("2", nn.Linear(hidden, out))
        self.out_dim = out

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``[B, J]`` of patch tokens ``[B, N, D]``."""
        x = tokens.mean(1)
        for layer in self.children():
            x = layer(x)
        return x


class SemanticProjector(nn.Module):
    """M2D-CLAP 2025's audio projector: a learnt token gathers from all patch tokens through small blocks."""

    def __init__(self, dim: int, depth: int, hidden: int) -> None:
        super().__init__()
        self.sem_token = nn.Parameter(torch.zeros(1, 1, dim))
        # One head, and torch's default epsilon: not the encoder's 1e-6.
        self.sem_blocks = nn.ModuleList(Block(dim, 1, hidden, eps=1e-5) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.out_dim = dim

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``[B, J]`` of patch tokens ``[B, N, D]``."""
        x = torch.cat([self.sem_token.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.sem_blocks:
            x = block(x)
        return self.norm(x[:, 0])


def audio_projector(state: Mapping[str, Tensor]) -> MeanProjector | SemanticProjector:
    """Return the audio projector, of 2024 or 2025, for which ``state`` has the tensors; they are not yet loaded."""
    if "sem_token" in state:
        depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("sem_blocks."))
        return SemanticProjector(state["sem_token"].shape[-1], depth, len(state["sem_blocks.0.mlp.fc1.weight"]))
    if not {"0.weight", "2.weight"} <= state.keys():
        raise UserError(f"an audio projector of a form that is not known: {', '.join(list(state)[:4])}")
    hidden, dim = state["0.weight"].shape
    return MeanProjector(dim, hidden, len(state["2.weight"]))


def text_projector(state: Mapping[str, Tensor]) -> nn.Module:
    """Return the network from sentence embedding to joint space: identity, linear or two layers, as in ``state``."""
    if not state:
        return nn.Identity()
    if "weight" in state:
        joint, dim = state["weight"].shape
        return nn.Linear(dim, joint, bias="bias" in state)
    (hidden, dim), joint = state["0.weight"].shape, len(state["2.weight"])
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, joint))
