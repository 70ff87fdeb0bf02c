"""Which patches of a clip are visible: numbers for each patch, sorted; the first are seen, the others predicted.

Every kind of mask comes as noise ``[B, N]`` that a step draws for its global batch, so that splitting the batch among
processes or micro batches changes nothing. The noise of kind ``random`` is uniform in [0, 1) and how many patches are
visible follows from the ratio. In that of the other kinds visible patches have a number below 1, masked ones from 1 up.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from evar import ranks
from evar.errors import UserError
from evar.pretrain.settings import MaskKind
from model_adapters.networks.m2d import kept_by_patchout

BLOCK_COLUMNS = 10
"""Columns of patches in a block of the 1-D mask, as the recorded masks of the reference show (MODELS 2.8)."""


def visible_count(patches: int, ratio: float) -> int:
    """Return how many of ``patches`` patches are visible at a mask ratio: ``int(N * (1 - r))`` (MODELS 2.5)."""
    return int(patches * (1 - ratio))


def check(kind: MaskKind, grid: tuple[int, int], ratio: float, *, predicts: bool = True) -> None:
    """Raise :class:`UserError` if a mask would leave nothing visible, or (with ``predicts``) nothing to predict."""
    if kind not in ("random", "structured", "structured_reference", "blocks"):
        raise UserError(f"--mask must be random, structured, structured_reference or blocks, not '{kind}'")
    if not 0 <= ratio < 1:
        raise UserError(f"--mask_ratio must be at least 0 and less than 1, not {ratio}")
    rows, columns = grid
    if kind == "random":
        visible = visible_count(rows * columns, ratio)
    elif kind == "blocks":
        visible = rows * (columns - int(columns * ratio))
    else:
        # How many are hidden is drawn anew at every step, and may be as few as the ratio's share of one row.
        visible = rows * columns - (1 if ratio > 0 else 0)
    if not visible:
        raise UserError(f"--mask_ratio={ratio} leaves none of the {rows}x{columns} patches visible: lower it")
    if predicts and visible == rows * columns:
        raise UserError(f"--mask_ratio={ratio} masks none of the {rows}x{columns} patches: raise it")


def draw(kind: MaskKind, rows: int, grid: tuple[int, int], ratio: float) -> Tensor:
    """Return this rank's rows ``[B, N]`` of the noise for a global batch of ``rows`` clips, from torch's CPU generator.

    kind: ``random``: every patch alike (M2D). ``structured``: whole rows and columns are masked. Of these
        ``structured_reference`` keeps what the published code keeps: those that were to be masked (MODELS 2.8).
        ``blocks``: blocks of whole columns are masked (speech). Ranks draw for all rows alike and take their own.
    grid: rows (frequency) and columns (time) of patches; N is their product.
    """
    noise = ranks.mine(torch.rand(rows, grid[0] * grid[1]))
    if kind == "random":
        return noise
    if kind == "blocks":
        hidden = block_columns(ranks.mine(torch.rand(rows, grid[1] + BLOCK_COLUMNS - 1)), ratio)
        return noise + hidden.float()[:, None, :].expand(-1, grid[0], -1).flatten(1)
    kept = kept_by_patchout(len(noise), grid, ratio, "unmarked" if kind == "structured" else "marked")
    return (noise + 1).scatter_add_(1, kept, noise.new_full((1, 1), -1.0).expand(kept.shape))


def block_columns(times: Tensor, ratio: float) -> Tensor:
    """Return which columns ``[B, T]`` are masked by blocks laid one after the other at random places.

    times: ``[B, T + BLOCK_COLUMNS - 1]``, when the block that ends at each column (or after the last) is laid. Exactly
        ``int(T * ratio)`` columns are masked: the last block is cut short.
    """
    columns = times.shape[1] - BLOCK_COLUMNS + 1
    covered = -F.max_pool1d(-times[:, None], BLOCK_COLUMNS, stride=1)[:, 0]
    first = covered.argsort(dim=1, stable=True)[:, : int(columns * ratio)]
    return torch.zeros(covered.shape, dtype=torch.bool, device=times.device).scatter(1, first, True)


def order(noise: Tensor, kind: MaskKind, grid: tuple[int, int], ratio: float) -> tuple[Tensor, int]:
    """Return the patches ``[B, N]`` in the order of their noise, and how many of them are visible: the first ones.

    The structured kinds count the visible patches of the first clip (all have as many): with noise on a GPU the host
    waits for it, hence hand such noise over on the CPU.
    """
    if kind == "random":
        keep = visible_count(noise.shape[1], ratio)
    elif kind == "blocks":
        keep = grid[0] * (grid[1] - int(grid[1] * ratio))
    else:
        keep = int((noise[:1] < 1).sum())
    # Stable: a CPU and a GPU sort equal numbers alike.
    return noise.argsort(dim=1, stable=True), keep
