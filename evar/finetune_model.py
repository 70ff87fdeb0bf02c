"""The network that is fine-tuned: an adapter's encoder, batch norm without scale and shift, one linear layer."""

from __future__ import annotations

import inspect
from collections.abc import Container
from dataclasses import dataclass, replace
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


def takes_patchout(adapter: Adapter) -> bool:
    """Return whether the adapter's encoder can leave patches out in training."""
    return two_stage(adapter) and "patchout" in inspect.signature(_second_stage(adapter)).parameters


def _second_stage(adapter: Adapter) -> Any:
    encode: Any = adapter.encode  # optional in the contract, hence unknown to the base class
    return encode


def patch_embeddings(adapter: Adapter) -> list[nn.Module]:
    """Return the modules that turn patches into tokens: those called ``patch_embed``."""
    return [module for name, module in adapter.named_modules() if name.split(".")[-1] == "patch_embed"]


def suited(settings: FinetuneSettings, adapter: Adapter, options: Container[str]) -> tuple[FinetuneSettings, list[str]]:
    """Return the settings without what this adapter cannot do, and a phrase for each thing left out.

    A preset is the task's and not the model's: a small CNN has no patches to freeze or to leave out. ``options`` are
    the names of those that the model takes.
    """
    lacks: list[tuple[str, dict[str, Any]]] = []
    if not two_stage(adapter):
        nothing = {"rrc": False, "freq_mask": 0, "time_mask": 0, "patchout": 0.0, "short_clips": "silence"}
        lacks.append(("no log-mel stage, so waveform in, embedding out, and Mixup of waveforms alone", nothing))
    elif settings.short_clips == "reference" and not _standardises(adapter):
        lacks.append(("silence behind short clips, not zeros in the log-mel", {"short_clips": "silence"}))
    if settings.patchout and two_stage(adapter) and not takes_patchout(adapter):
        lacks.append(("no structured patchout", {"patchout": 0.0}))
    if settings.freeze_patch_embed and not patch_embeddings(adapter):
        lacks.append(("no patch embedding to freeze", {"freeze_patch_embed": False}))
    if settings.dur_frames and "dur_frames" not in options:
        lacks.append((f"its own length instead of {settings.dur_frames} frames", {"dur_frames": 0}))
    for _, changes in lacks:
        settings = replace(settings, **changes)
    return settings, [phrase for phrase, _ in lacks]


def _encoder(adapter: Adapter) -> Any:
    return getattr(adapter, "encoder", None)


def _standardises(adapter: Adapter) -> bool:
    return two_stage(adapter) and callable(getattr(_encoder(adapter), "standardise", None))


class Head(nn.Module):
    """Batch norm (no scale, no shift; statistics over all processes), then one linear layer to logits."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = SyncBatchNorm1d(dim)
        self.linear = nn.Linear(dim, classes)
        nn.init.normal_(self.linear.weight, std=HEAD_DEVIATION)
        nn.init.zeros_(self.linear.bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return logits ``[B, C]`` of ``[B, D]``, float32 whatever the autocast: bfloat16 would tie what is ranked."""
        with torch.autocast(embeddings.device.type, enabled=False):
            logits: Tensor = self.linear(self.norm(embeddings.float()))
        return logits


class FineTuned(nn.Module):
    """An adapter with a head. ``forward`` takes what :func:`features` gives."""

    adapter: Adapter

    def __init__(self, adapter: Adapter, classes: int) -> None:
        super().__init__()
        if world() > 1:
            synchronise_batch_norms(adapter)
        self.adapter = adapter
        self.head = Head(adapter.embedding_dim, classes)
        self.trains_encoder = True

    def forward(self, inputs: Tensor, lengths: Tensor, patchout: float = 0.0) -> Tensor:
        """Return logits ``[B, C]`` of log-mels ``[B, 1, F, T]``, or of waveforms ``[B, T]`` for a one-stage adapter."""
        wanted = torch.is_grad_enabled() and self.trains_encoder
        with torch.set_grad_enabled(wanted):
            if inputs.ndim == 2:
                embeddings = self._embedded(inputs, lengths)
            else:
                encode = _second_stage(self.adapter)
                embeddings = encode(inputs, patchout) if patchout else encode(inputs)
        if wanted and not embeddings.requires_grad and any(p.requires_grad for p in self.adapter.parameters()):
            raise UserError(
                f"{type(self.adapter).__name__} computes its embeddings without gradient (torch.no_grad or "
                "inference_mode in it?), so its weights cannot be trained; train the head alone: --freeze_encoder=true"
            )
        return self.head(embeddings)

    def _embedded(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        if len(waveforms) or any(isinstance(m, nn.modules.batchnorm._NormBase) for m in self.adapter.modules()):
            return self.adapter.embed(waveforms, lengths)
        # A rank without a clip of a short last batch: front ends refuse nothing at all, so they get a clip of silence.
        return self.adapter.embed(waveforms.new_zeros(1, waveforms.shape[1]), lengths.new_ones(1))[:0]

    def freeze(self, settings: FinetuneSettings) -> None:
        """Take out of training what the settings freeze; :class:`UserError` if there is no patch embedding."""
        if settings.freeze_encoder:
            self.adapter.requires_grad_(False)
            self.trains_encoder = False
        if settings.freeze_patch_embed:
            found = patch_embeddings(self.adapter)
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
    if not len(waveforms):  # a rank without a clip of a short last batch: no STFT takes nothing at all
        return features(adapter, waveforms.new_zeros(1, waveforms.shape[1]), lengths.new_ones(1))[:0]
    with torch.no_grad():
        first_stage: Any = adapter.log_mel
        wants_lengths = "lengths" in inspect.signature(first_stage).parameters
        log_mel: Tensor = first_stage(waveforms, lengths) if wants_lengths else first_stage(waveforms)
        if short_clips == "reference" and bool((lengths < waveforms.shape[1]).any()):
            log_mel = _zeros_behind(adapter, log_mel, waveforms, lengths)
    return log_mel


_SHORTEST_SECONDS = 6.1
"""The platform's stored log-mels are of waves of at least this length (TASKS 2.5)."""


def _zeros_behind(adapter: Adapter, log_mel: Tensor, waveforms: Tensor, lengths: Tensor) -> Tensor:
    if not _standardises(adapter):
        raise UserError(f"--short_clips=reference: the statistics of {type(adapter).__name__}'s log-mel are not known")
    hop = waveforms.shape[1] // max(log_mel.shape[3] - 1, 1)
    frames = 1 + lengths.clamp(min=int(_SHORTEST_SECONDS * adapter.sample_rate)) // hop
    behind = torch.arange(log_mel.shape[3], device=log_mel.device) >= frames[:, None]
    behind &= (lengths < waveforms.shape[1])[:, None]
    zero = _encoder(adapter).standardise(log_mel.new_zeros(()))
    return torch.where(behind[:, None, None, :], zero, log_mel)


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
