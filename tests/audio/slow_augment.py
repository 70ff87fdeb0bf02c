"""Slow, obvious twins of the augmentations: one clip after the other, each rule as the specification words it."""

import random

import numpy as np
import torch
from torch.nn.functional import interpolate


def slow_box(bands, frames, canvas=(1.0, 1.5), scale=(0.6, 1.5)):
    """Return one crop (i, j, height, width) of the canvas, from NumPy's and Python's generators as the published runs.

    Unlike in the product, i and j count from the canvas's corner.
    """
    tall, wide = int(canvas[0] * bands), int(canvas[1] * frames)
    height = min(max(int(np.random.uniform(*scale) * bands), 1), tall)
    width = min(max(int(np.random.uniform(*scale) * frames), 1), wide)
    i = random.randint(0, tall - height) if tall > height else 0
    j = random.randint(0, wide - width) if wide > width else 0
    return i, j, height, width


def on_clip(box, bands, frames, canvas=(1.0, 1.5)):
    """Return a box of :func:`slow_box` as (top, left, height, width) counted from the clip's corner."""
    i, j, height, width = box
    return i - (int(canvas[0] * bands) - bands) // 2, j - (int(canvas[1] * frames) - frames) // 2, height, width


def slow_resize_crop(x, boxes, canvas=(1.0, 1.5)):
    """Return ``[B, 1, F, T]``: every clip laid in the middle of its canvas, cut by its box, stretched by torch."""
    bands, frames = x.shape[-2:]
    tall, wide = int(canvas[0] * bands), int(canvas[1] * frames)
    y, z = (tall - bands) // 2, (wide - frames) // 2
    done = []
    for clip, (top, left, height, width) in zip(x, boxes, strict=True):
        field = torch.zeros(1, 1, tall, wide)
        field[0, :, y : y + bands, z : z + frames] = clip
        crop = field[:, :, y + top : y + top + height, z + left : z + left + width]
        done.append(interpolate(crop, size=(bands, frames), mode="bicubic", align_corners=True))
    return torch.cat(done)


def slow_mixup(x, targets, share, partner):
    """Return the mixed clips and targets."""
    mixed_x, mixed_targets = [], []
    for k, (own, other) in enumerate(zip(share, partner, strict=True)):
        mixed_x.append(own * x[k] + (1 - own) * x[other])
        mixed_targets.append(own * targets[k] + (1 - own) * targets[other])
    return torch.stack(mixed_x), torch.stack(mixed_targets)


def slow_span(size, mask):
    """Return the indices that one SpecAugment mask covers: width in [0, mask), start in [0, size - width)."""
    width = random.random() * mask
    start = int(random.random() * (size - width))
    return range(start, start + int(width))


def slow_spec_augment(x, bands, frames):
    """Return ``x`` with the cells of these bands and frames at 0."""
    done = x.clone()
    for clip in done:
        for band in bands:
            clip[:, band, :] = 0
        for frame in frames:
            clip[:, :, frame] = 0
    return done


def slow_stripes(grid, ratio, u):
    """Return how many rows and columns structured patchout marks (RUNNERS 2.4)."""
    rows, columns = grid
    n_rows = min(rows - 1, int(rows * (ratio + 1 / rows) * u))
    return n_rows, int(columns * max(ratio + 0.5 / columns - n_rows / rows, 0))


def slow_kept(grid, marked_rows, marked_columns, keeps):
    """Return one clip's kept patches: as many as are unmarked, the marked (or unmarked) ones first."""
    rows, columns = grid
    cells = [(r, c) for r in range(rows) for c in range(columns)]
    marked = [r * columns + c for r, c in cells if r in marked_rows or c in marked_columns]
    unmarked = [k for k in range(rows * columns) if k not in set(marked)]
    return sorted((marked + unmarked if keeps == "marked" else unmarked + marked)[: len(unmarked)])
