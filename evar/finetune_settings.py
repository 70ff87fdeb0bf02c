"""Settings of fine-tuning: the paper's Table 1 by task, sensible ones for any other task, and what may not be asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from evar.errors import UserError
from tasks.base import Task

Preset = Literal["paper", "default"]
OptimiserName = Literal["sgd", "lars", "adamw", "lamb"]
Sampler = Literal["shuffle", "weighted", "balanced"]
PatchoutMode = Literal["reference", "intended"]
Selection = Literal["best", "last"]


@dataclass(frozen=True)
class FinetuneSettings:
    """Everything that a fine-tuned score depends on beside model and data (M2D-CLAP paper, Table 1; RUNNERS 2)."""

    lr: float = 5e-4
    batch_size: int = 64
    """Clips per optimiser step, over all processes."""
    optimizer: OptimiserName = "adamw"
    weight_decay: float = 1e-4
    layer_decay: float = 1.0
    """Factor on the learning rate from each block to the one below it; 1 for the same everywhere."""
    mixup: float = 0.3
    """Alpha of Beta(alpha, alpha); 0 for none."""
    rrc: bool = True
    """Random Resize Crop."""
    freq_mask: int = 30
    """SpecAugment: mel bands that the mask is narrower than."""
    time_mask: int = 48
    """SpecAugment: frames that the mask is narrower than."""
    epochs: int = 50
    warmup_epochs: int = 5
    patchout: float = 0.5
    """Share of patches that structured patchout takes away in training."""
    patchout_mode: PatchoutMode = "intended"
    """``reference``: as the platform's code behaves, which keeps the patches it meant to drop (RUNNERS 2.4)."""
    dur_frames: int = 0
    """Frames of the one pass that the encoder makes (M2D family); 0 for chunks of the model's length."""
    freeze_patch_embed: bool = False
    freeze_encoder: bool = False
    sampler: Sampler = "shuffle"
    draws: int = 0
    """Clips per epoch of the weighted or balanced sampler; 0 for as many as there are."""
    short_clips: Literal["silence", "reference"] = "silence"
    """What follows a short clip: silence; or, as the platform does with AudioSet, zeros in the raw log-mel."""
    select: Selection = "best"
    """``best``: of the best validation epoch, or without validation part of the best test epoch; ``last``."""


PAPER: Mapping[str, FinetuneSettings] = {
    "as2m": FinetuneSettings(
        lr=2.0, batch_size=64, optimizer="lars", weight_decay=0.0, mixup=0.5, rrc=False, freq_mask=30, time_mask=192,
        epochs=70, warmup_epochs=15, patchout=0.5, patchout_mode="reference", dur_frames=1001, sampler="weighted",
        draws=200_000, short_clips="reference",
    ),
    "as20k": FinetuneSettings(
        lr=0.5, batch_size=64, optimizer="sgd", weight_decay=0.0, mixup=0.3, rrc=True, freq_mask=30, time_mask=192,
        epochs=200, warmup_epochs=5, patchout=0.5, patchout_mode="reference", dur_frames=1001,
    ),
    "esc50": FinetuneSettings(
        lr=0.5, batch_size=128, optimizer="sgd", weight_decay=0.0, mixup=0.0, rrc=True, freq_mask=15, time_mask=48,
        epochs=200, warmup_epochs=5, patchout=0.5, patchout_mode="reference", dur_frames=501, freeze_patch_embed=True,
    ),
    "spcv2": FinetuneSettings(
        lr=0.5, batch_size=128, optimizer="sgd", weight_decay=0.0, mixup=0.3, rrc=True, freq_mask=30, time_mask=48,
        epochs=200, warmup_epochs=5, patchout=0.5, patchout_mode="reference", dur_frames=0,
    ),
    "vc1": FinetuneSettings(
        lr=5e-4, batch_size=64, optimizer="adamw", weight_decay=1e-4, mixup=0.0, rrc=False, freq_mask=30, time_mask=48,
        epochs=50, warmup_epochs=5, patchout=0.0, patchout_mode="reference", dur_frames=821,
    ),
}  # fmt: skip
"""Table 1 of the M2D-CLAP paper (the values agree with the published commands: RUNNERS 2.7)."""


def settings_for(task: Task, preset: Preset | None, given: Mapping[str, Any]) -> tuple[FinetuneSettings, Preset]:
    """Return the settings for a task and the preset they began with; ``given`` replaces what is not None in it.

    Without ``preset`` it is ``paper`` for the tasks of Table 1 and ``default`` for the others. Raises
    :class:`UserError` for a preset that the task has not, and for values that cannot be (before any data is read).
    """
    if preset == "paper" and task.name not in PAPER:
        raise UserError(f"the paper's Table 1 has no settings for {task.name}, only for {', '.join(PAPER)}")
    name: Preset = preset if preset is not None else "paper" if task.name in PAPER else "default"
    begin = PAPER[task.name] if name == "paper" else FinetuneSettings()
    settings = replace(begin, **{key: value for key, value in given.items() if value is not None})
    if settings.optimizer != "adamw" and "weight_decay" not in _given(given) and begin.optimizer == "adamw":
        settings = replace(settings, weight_decay=0.0)  # RUNNERS 2.6: decay belongs to AdamW alone
    check(task, settings)
    return settings, name


def _given(values: Mapping[str, Any]) -> set[str]:
    return {key for key, value in values.items() if value is not None}


def check(task: Task, settings: FinetuneSettings) -> None:
    """Raise :class:`UserError` for the first setting that cannot be."""
    if task.kind == "retrieval":
        raise UserError(f"{task.name} has captions and no classes, so there is nothing to fine-tune on it")
    s = settings
    wrong = (
        (not s.lr > 0, f"--lr={s.lr}: must be above 0"),
        (s.batch_size < 1, f"--batch_size={s.batch_size}: must be at least 1"),
        (s.epochs < 1, f"--epochs={s.epochs}: must be at least 1"),
        (not 0 <= s.warmup_epochs <= s.epochs, f"--warmup_epochs={s.warmup_epochs}: must be from 0 to --epochs"),
        (s.mixup < 0, f"--mixup={s.mixup}: must be 0 (off) or more"),
        (not 0 <= s.patchout < 1, f"--patchout={s.patchout}: a share of the patches, from 0 to below 1"),
        (min(s.freq_mask, s.time_mask) < 0, "--freq_mask and --time_mask: must be 0 (off) or more"),
        (not 0 < s.layer_decay <= 1, f"--layer_decay={s.layer_decay}: must be above 0 and at most 1"),
        (s.weight_decay < 0, f"--weight_decay={s.weight_decay}: must be 0 or more"),
        (s.draws < 0, f"--draws={s.draws}: must be 0 (as many as there are) or more"),
        (s.dur_frames < 0, f"--dur_frames={s.dur_frames}: must be 0 (chunks) or more"),
        (s.draws > 0 and s.sampler == "shuffle", "--draws is for --sampler=weighted or balanced"),
    )
    for is_wrong, sentence in wrong:
        if is_wrong:
            raise UserError(sentence)
    clips = sum(n for part, n in task.counts.items() if part != "test")
    if not task.has_folds and clips and s.batch_size > clips:
        raise UserError(f"--batch_size={s.batch_size}: {task.name} has only {clips} training and validation clips")
