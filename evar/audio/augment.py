"""Augmentation of a batch on the device: Mixup, SpecAugment and Random Resize Crop, with no loop over clips.

Each is two functions. ``draw_*`` draws for all clips of the *global* batch from torch's CPU generator, which every rank
seeds alike, so that one process and many do the same thing. The other takes those draws and applies them to this
rank's clips, in float32 whatever the autocast, and returns the dtype it was given; draws of ``None`` mean "off".
Structured patchout acts within the encoder: :func:`model_adapters.networks.m2d.kept_by_patchout`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from evar import ranks
from evar.errors import UserError

_BICUBIC = -0.75
"""The free coefficient of the cubic convolution kernel (Keys 1981), as in torch's bicubic interpolation."""
_CPU_PIECE = 400_000
"""Numbers in the clips that a CPU crops and stretches at once: 1.6 MB stay in its cache and in the allocator's free
lists, where larger blocks are fetched from the system and zeroed each time (measured: 3 times slower at 64 clips)."""


@dataclass(frozen=True)
class MixupDraws:
    """What Mixup draws for ``n`` clips."""

    share: Tensor
    """Part of itself that a clip keeps, ``[n]``, float32."""
    partner: Tensor
    """Row of the global batch that the rest comes from, ``[n]``, int64: a permutation."""


@dataclass(frozen=True)
class MaskDraws:
    """What SpecAugment draws, the same for the whole batch."""

    bands: Tensor
    """First masked mel band and the one after the last, ``[2]``, int64."""
    frames: Tensor
    """First masked frame and the one after the last, ``[2]``, int64."""


@dataclass(frozen=True)
class CropDraws:
    """What Random Resize Crop draws for ``n`` clips."""

    boxes: Tensor
    """Top band, left frame, height and width of the crop, ``[n, 4]``, int64; a box may reach beyond the clip."""


def draw_mixup(n: int, alpha: float) -> MixupDraws | None:
    """Return a share from Beta(``alpha``, ``alpha``) and a partner for each of ``n`` clips; None for an alpha of 0.

    Zhang et al. 2018 (mixup), but with a share per clip as the published runs have it. Raises :class:`UserError` for
    an alpha below 0.
    """
    if not 0 <= alpha < math.inf:
        raise UserError(f"--mixup must be 0 (off) or more, not {alpha}")
    if not alpha:
        return None
    # NumPy's Beta stays right for a small alpha, where the ratio of two Gamma variates becomes 0/0.
    generator = np.random.default_rng(int(torch.randint(2**62, ())))
    share = torch.from_numpy(generator.beta(alpha, alpha, n)).float()
    return MixupDraws(share, torch.randperm(n))


def mixup(
    x: Tensor, targets: Tensor, draws: MixupDraws | None, gather: Callable[[Tensor], Tensor] = ranks.gathered
) -> tuple[Tensor, Tensor]:
    """Return this rank's clips ``[B, ...]`` and targets ``[B, C]``, each mixed with its partner's.

    x: waveforms or log-mel; a new tensor is returned.
    gather: returns the rows of all ranks, in rank order, of this rank's rows.
    """
    if draws is None:
        return x, targets
    share, partner = _mine(draws.share, x), _mine(draws.partner, x)

    def mixed(own: Tensor) -> Tensor:
        other = gather(own)[partner].float()  # a copy, which may be written to
        return other.lerp_(own.float(), share.view(-1, *[1] * (own.ndim - 1))).to(own.dtype)

    return mixed(x), mixed(targets)


def draw_spec_augment(bands: int, frames: int, band_mask: int, frame_mask: int) -> MaskDraws:
    """Return one mask over mel bands and one over frames of a log-mel of ``bands`` x ``frames`` (Park et al. 2019).

    band_mask, frame_mask: width below which the masks are; 0 or 1 mask nothing. A mask that is wider than the log-mel
        covers all of it. Raises :class:`UserError` for a width below 0.

    The law is torchaudio's FrequencyMasking and TimeMasking: a width w uniform in [0, mask), a start uniform in
    [0, size - w), both cut to integers only after that.
    """
    for name, mask in (("freq", band_mask), ("time", frame_mask)):
        if mask < 0:
            raise UserError(f"--{name}_mask must be 0 (off) or more, not {mask}")

    def draw(size: int, mask: int) -> Tensor:
        width, place = torch.rand(2, dtype=torch.float64).tolist()
        width *= mask
        start = int(place * (size - width))  # below 0 for a mask that is wider than the log-mel
        return torch.tensor([max(start, 0), min(start + int(width), size)])

    return MaskDraws(draw(bands, band_mask), draw(frames, frame_mask))


def spec_augment(x: Tensor, draws: MaskDraws | None) -> Tensor:
    """Return standardised log-mels ``[B, 1, F, T]`` with the masked bands and frames at 0, which is their mean."""
    if draws is None:
        return x
    done = x.clone()
    # The ends are on the CPU: the device is not waited for.
    done[..., slice(*draws.bands.tolist()), :] = 0.0
    done[..., slice(*draws.frames.tolist())] = 0.0
    return done


def draw_resize_crop(
    n: int,
    bands: int,
    frames: int,
    canvas: tuple[float, float] = (1.0, 1.5),
    scale: tuple[float, float] = (0.6, 1.5),
) -> CropDraws:
    """Return a box for each of ``n`` log-mels of ``bands`` x ``frames`` (Random Resize Crop of BYOL-A, Niizumi 2021).

    canvas: height and width, in those of the clip, of the field of zeros in whose middle the clip lies.
    scale: least and greatest height and width of a box, in those of the clip; what exceeds the canvas is cut.

    The box lies anywhere in the canvas with equal probability.
    """
    uniform = torch.rand(4, n, dtype=torch.float64)

    def along(size: int, whole: int, length_draw: Tensor, place_draw: Tensor) -> tuple[Tensor, Tensor]:
        low, high = scale
        length = ((low + (high - low) * length_draw) * size).long().clamp(1, whole)
        start = (place_draw * (whole - length + 1)).long()
        return start - (whole - size) // 2, length

    top, height = along(bands, int(canvas[0] * bands), uniform[0], uniform[1])
    left, width = along(frames, int(canvas[1] * frames), uniform[2], uniform[3])
    return CropDraws(torch.stack([top, left, height, width], dim=1))


def resize_crop(x: Tensor, draws: CropDraws | None) -> Tensor:
    """Return log-mels ``[B, 1, F, T]``, each box stretched to F x T (bicubic, corners aligned); outside a clip is 0.

    Equals ``F.interpolate`` of each crop by itself: the kernel's taps stop at the edge of the box. The interpolation is
    separable and each value takes four taps along each axis, which torch's embedding bag sums in one pass over rows
    (measured on one CPU core at 80 x 1001: three times faster than gathering, 15 times than two matrix products).
    """
    if draws is None:
        return x
    bands, frames = x.shape[-2:]
    boxes = _mine(draws.boxes, x)
    at_once = max(1, _CPU_PIECE // (bands * frames) if x.device.type == "cpu" else len(x))
    done = torch.empty_like(x, memory_format=torch.contiguous_format)
    for first in range(0, len(x), at_once):
        rows = slice(first, first + at_once)
        top, left, height, width = boxes[rows].unbind(1)
        tall = _summed(x[rows].float().flatten(0, 1), *_taps(top, height, bands))
        done[rows] = _summed(tall.transpose(1, 2), *_taps(left, width, frames)).transpose(1, 2).unsqueeze(1)
    return done


def _mine(drawn: Tensor, x: Tensor) -> Tensor:
    """Return what was drawn for this rank's clips ``x``, on their device."""
    rows = ranks.mine(drawn)
    if len(rows) != len(x):
        raise ValueError(f"drawn for {len(rows)} clips of this rank, which has {len(x)}")
    return rows.to(x.device, non_blocking=True)


def _taps(start: Tensor, length: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return positions and weights, each ``[B, size, 4]``, that resample boxes along one axis to ``size``.

    start, length: of the boxes, ``[B]``, in positions of the source, which has ``size`` of them too.
    """
    # In float32 and in this order as in torch, so that a position next to a sample falls on the same side of it.
    step = (length - 1).float() / max(size - 1, 1)
    place = step[:, None] * torch.arange(size, device=start.device)
    before = place.floor()
    near = torch.stack([place - before, 1.0 - (place - before)], dim=-1)
    far, a = near + 1.0, _BICUBIC
    near_weight = ((a + 2.0) * near - (a + 3.0)) * near * near + 1.0
    far_weight = ((a * far - 5.0 * a) * far + 8.0 * a) * far - 4.0 * a
    weight = torch.stack([far_weight[..., 0], near_weight[..., 0], near_weight[..., 1], far_weight[..., 1]], dim=-1)
    tap = before.long()[..., None] + torch.arange(-1, 3, device=start.device)
    position = torch.minimum(tap.clamp(min=0), (length - 1)[:, None, None]) + start[:, None, None]
    inside = (position >= 0) & (position < size)
    return position.clamp(0, size - 1), weight * inside


def _summed(x: Tensor, position: Tensor, weight: Tensor) -> Tensor:
    """Return ``[B, size, W]``: for each place the weighted sum of four of the rows of ``x`` ``[B, size, W]``."""
    batch, size, width = x.shape
    row = position + size * torch.arange(batch, device=x.device)[:, None, None]
    table, bags = x.reshape(batch * size, width), row.flatten(0, 1)
    return F.embedding_bag(bags, table, per_sample_weights=weight.flatten(0, 1), mode="sum").view(x.shape)
