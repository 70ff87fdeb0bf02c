"""The network that is fine-tuned: an adapter's encoder, batch norm without scale and shift, one linear layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evar.audio.augment import draw_mixup, draw_resize_crop, draw_spec_augment, mixup, resize_crop, spec_augment
from evar.errors import UserError
from evar.finetune_settings import FinetuneSettings
from evar.ranks import SyncBatchNorm1d, gathered, mine, synchronise_batch_norms, world
from model_adapters.base import Adapter

HEAD_DEVIATION = 0.01
"""Standard deviation of the head's initial weights (RUNNERS 2.1)."""


def two_stage(adapter: Adapter) -> bool:
    """Return whether augmentation can act between the adapter's log-mel and its encoder."""
    return callable(getattr(adapter, "log_mel", None)) and callable(getattr(adapter, "encode", None))


class Head(nn.Module):
    """Batch norm (no scale, no shift; statistics over all processes), then one linear layer to logits."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = SyncBatchNorm1d(dim)
        self.linear = nn.Linear(dim, classes)
        nn.init.normal_(self.linear.weight, std=HEAD_DEVIATION)
        nn.init.zeros_(self.linear.bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return logits ``[B, C]`` of ``[B, D]``."""
        return self.linear(self.norm(embeddings.float()))


class FineTuned(nn.Module):
    """An adapter with a head. ``forward`` takes what :func:`features` gives."""

    def __init__(self, adapter: Adapter, classes: int) -> None:
        super().__init__()
        self.adapter = synchronise_batch_norms(adapter) if world() > 1 else adapter
        self.head = Head(adapter.embedding_dim, classes)
        self.trains_encoder = True

    def forward(self, inputs: Tensor, lengths: Tensor, patchout: float = 0.0) -> Tensor:
        """Return logits ``[B, C]`` of log-mels ``[B, 1, F, T]``, or of waveforms ``[B, T]`` for a one-stage adapter."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trains_encoder):
            if inputs.ndim == 2:
                embeddings = self.adapter.embed(inputs, lengths)
            else:
                encode: Callable[..., Tensor] = self.adapter.encode  # type: ignore[assignment]
                embeddings = encode(inputs, patchout) if patchout else encode(inputs)
        return self.head(embeddings)

    def freeze(self, settings: FinetuneSettings) -> None:
        """Take out of training what the settings freeze; :class:`UserError` if there is no patch embedding."""
        if settings.freeze_encoder:
            self.adapter.requires_grad_(False)
            self.trains_encoder = False
        if settings.freeze_patch_embed:
            found = [module for name, module in self.adapter.named_modules() if name.split(".")[-1] == "patch_embed"]
            if not found:
                raise UserError(f"--freeze_patch_embed: {type(self.adapter).__name__} has no patch embedding")
            for module in found:
                module.requires_grad_(False)

    def learning(self) -> None:
        """Set the mode for training; a frozen encoder stays in evaluation mode (ODDITIES 36: the platform's not)."""
        self.train()
        if not self.trains_encoder:
            self.adapter.eval()


@dataclass(frozen=True)
class Inputs:
    """What enters the network in one step on this rank."""

    x: Tensor
    """Log-mels ``[B, 1, F, T]``, or waveforms ``[B, T]``."""
    lengths: Tensor
    targets: Tensor
    """``[B, C]``, float32; mixed where the clips are."""


def features(adapter: Adapter, waveforms: Tensor, lengths: Tensor, short_clips: str = "silence") -> Tensor:
    """Return what the encoder takes: standardised log-mels ``[B, 1, F, T]``, or the waveforms of a one-stage adapter.

    short_clips: ``reference`` puts zeros of the *raw* log-mel behind a clip that is shorter than the unit, as the
        platform does with AudioSet's stored log-mels (ODDITIES 14): after standardisation a loud value.
    """
    if not two_stage(adapter):
        return waveforms
    with torch.no_grad():
        log_mel: Tensor = adapter.log_mel(waveforms)  # type: ignore[operator]
        if short_clips == "reference" and bool((lengths < waveforms.shape[1]).any()):
            log_mel = _zeros_behind(adapter, log_mel, waveforms, lengths)
    return log_mel


_SHORTEST_SECONDS = 6.1
"""The platform's stored log-mels are of waves of at least this length (TASKS 2.5)."""


def _zeros_behind(adapter: Adapter, log_mel: Tensor, waveforms: Tensor, lengths: Tensor) -> Tensor:
    encoder: Any = getattr(adapter, "encoder", None)
    if not hasattr(encoder, "standardise"):
        raise UserError(f"--short_clips=reference: {type(adapter).__name__} has no standardised log-mel; write silence")
    per_frame = waveforms.shape[1] / max(log_mel.shape[3] - 1, 1)
    real = lengths.clamp(min=int(_SHORTEST_SECONDS * adapter.sample_rate))
    frames = 1 + (real / per_frame).long()
    behind = torch.arange(log_mel.shape[3], device=log_mel.device) >= frames[:, None]
    behind &= (lengths < waveforms.shape[1])[:, None]
    return torch.where(behind[:, None, None, :], encoder.standardise(log_mel.new_zeros(())), log_mel)


def augmented(
    adapter: Adapter, waveforms: Tensor, lengths: Tensor, targets: Tensor, rows: int, settings: FinetuneSettings
) -> Inputs:
    """Return this rank's inputs of one training step, augmented (RUNNERS 2.2, 2.3); draws are for ``rows``, all ranks'.

    Mixup is of waveforms, or of log-mels where ``short_clips`` asks for the platform's way with stored log-mels.
    """
    mix = draw_mixup(rows, settings.mixup)
    on_waves = settings.short_clips == "silence"
    if on_waves and mix is not None:
        waveforms, targets = mixup(waveforms, targets, mix)
        lengths = torch.maximum(lengths, gathered(lengths)[mine(mix.partner).to(lengths.device)])
    x = features(adapter, waveforms, lengths, settings.short_clips)
    if not on_waves:
        x, targets = mixup(x, targets, mix)
    if x.ndim == 4:
        bands, frames = x.shape[2:]
        x = spec_augment(x, draw_spec_augment(bands, frames, settings.freq_mask, settings.time_mask))
        x = resize_crop(x, draw_resize_crop(rows, bands, frames)) if settings.rrc else x
    return Inputs(x, lengths, targets)


def losses(logits: Tensor, targets: Tensor, *, multi_label: bool) -> Tensor:
    """Return each clip's loss ``[B]``: the mean over *classes* (RUNNERS 2.2, ODDITIES 2).

    Single label: minus target × log-softmax; multi-label: binary cross-entropy.
    """
    logits = logits.float()
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
    return -(targets * F.log_softmax(logits, dim=1)).mean(1)
