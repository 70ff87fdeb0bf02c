"""A frozen teacher, whose features of a crop are learnt, and how its grid of features is laid over ours."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from evar.errors import UserError
from evar.pretrain.base import Batch, DataFacts
from evar.pretrain.settings import PretrainSettings
from model_adapters.m2d import M2D
from model_adapters.registry import load_model


class Teacher:
    """An M2D-like adapter that stays as it is, and outside the state dict of the network that learns from it.

    Args:
        spec: ``MODEL:WEIGHTS`` (``m2d_clap:checkpoint-300.pth``), or the path of a checkpoint for the adapter ``m2d``.
            ``@8`` or ``@8,11`` at the end takes those blocks' outputs, side by side, not the last one's.
        settings: those of the network that learns; it must take the same log-mel.
        norm_stats: mean and deviation that standardise the batches' log-mel; the teacher has its own.

    Raises:
        UserError: no such model or weights, or one that does not start from our log-mel.
    """

    def __init__(self, spec: str, settings: PretrainSettings, norm_stats: tuple[float, float]) -> None:
        name, weights, layers = parse(spec)
        adapter = load_model(name, weights, {"layers": layers} if layers else None).adapter
        if not isinstance(adapter, M2D):
            raise UserError(
                f"--teacher={spec}: {name} does not start from the corpus's log-mel, as m2d, m2d_clap and msm_mae do"
            )
        ours = (settings.sample_rate, settings.input_size[0])
        theirs = (adapter.sample_rate, adapter.geometry.n_mels)
        if ours != theirs:
            raise UserError(
                f"--teacher={spec} takes {theirs[1]} mel bands at {theirs[0]} Hz, the corpus has {ours[1]} at {ours[0]}"
            )
        self.adapter = adapter.requires_grad_(False).eval()
        self.norm_stats = norm_stats
        self.frames = settings.grid[1] * settings.patch_size[1]
        self.dim = adapter.encoder.vit.size.dim * len(adapter.layers)
        """Length of a patch's features."""
        self.frame_dim = self.dim * adapter.geometry.grid[0]
        """Length of a time step's features, its patches' side by side."""

    @torch.no_grad()
    def __call__(self, log_mel: Tensor) -> Tensor:
        """Return the features of a crop ``[B, 1, n_mels, frames]``, on the teacher's own grid: ``[B, F', T', D]``.

        The last frames, which fill none of our patches, are left out: both grids then cover the same time.
        """
        if self.adapter.device != log_mel.device:
            self.adapter.to(log_mel.device)
        mean, deviation = self.norm_stats
        x = self.adapter.encoder.standardise(log_mel[..., : self.frames] * deviation + mean)
        layers = self.adapter.encoder.chunks(x, self.adapter.layers)
        return torch.cat([torch.cat(chunks, dim=2) for chunks in layers], dim=3)


def parse(spec: str) -> tuple[str, str | None, str]:
    """Return model, weights (or None) and layers (or nothing) of ``MODEL:WEIGHTS@LAYERS`` or ``WEIGHTS@LAYERS``."""
    body, layers = spec, ""
    if found := re.fullmatch(r"(.+)@(-?\d+(?:,-?\d+)*)", spec):
        body, layers = found.groups()
    own_file = re.fullmatch(r"(.+\.py:\w+)(?::(.+))?", body)
    if own_file:
        return own_file.group(1), own_file.group(2), layers
    if Path(body).exists():
        return "m2d", body, layers
    name, _, weights = body.partition(":")
    return name, weights or None, layers


def open_teacher(settings: PretrainSettings, facts: DataFacts) -> Teacher | None:
    """Return the teacher of the settings; None where there is none but stored features instead.

    Raises :class:`UserError` if there are neither, or both.
    """
    if bool(settings.teacher) == bool(facts.feature_dim):
        what = "both" if settings.teacher else "neither"
        raise UserError(
            f"{settings.objective} learns a model's features: either --teacher=MODEL:WEIGHTS, or stored ones, "
            f"--features=DIR (python -m evar.pretrain.features); here are {what}"
        )
    return Teacher(settings.teacher, settings, facts.norm_stats) if settings.teacher else None


def features_of(teacher: Teacher | None, batch: Batch) -> Tensor:
    """Return what is to be learnt, ``[B, F', T', D]``: the teacher's, else those stored (one row, F' = 1)."""
    if teacher is not None:
        return teacher(batch.log_mel)
    if batch.features is None:
        raise ValueError("the batch has no stored features, and there is no teacher")
    return batch.features[:, None]


def resized(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return features ``[B, F, T, D]`` on our grid (F, T) of others ``[B, F', T', D]``, in float32.

    Along each axis those that share one of our cells are averaged; where ours is finer they are interpolated linearly
    between the centres of theirs.
    """
    x = features.float().permute(0, 3, 1, 2)
    x = F.adaptive_avg_pool2d(x, (min(x.shape[2], grid[0]), min(x.shape[3], grid[1])))
    if tuple(x.shape[2:]) != grid:
        x = F.interpolate(x, size=grid, mode="bilinear", align_corners=False)
    return x.permute(0, 2, 3, 1)


def side_by_side(grid: Tensor) -> Tensor:
    """Return each time step's features side by side: ``[B, T, F * D]``, index ``f * D + d``, of ``[B, F, T, D]``."""
    return grid.transpose(1, 2).flatten(2)
