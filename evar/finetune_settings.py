"""Settings of fine-tuning: the paper's Table 1 by task, sensible ones for any other task, and what may not be asked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from evar.clips import Clips
from evar.errors import UserError
from tasks.base import Task

Preset = Literal["paper", "default"]
OptimiserName = Literal["sgd", "lars", "adamw", "lamb"]
Sampler = Literal["shuffle", "weighted", "balanced"]
PatchoutMode = Literal["reference", "intended"]
Selection = Literal["best", "last"]
Schedule = Literal["reference", "textbook"]
ShortClips = Literal["silence", "reference"]
DECAY = 1e-4
"""Weight decay of AdamW; the other optimisers have none (RUNNERS 2.6)."""


@dataclass(frozen=True)
class FinetuneSettings:
    """Everything that a fine-tuned score depends on beside model and data (M2D-CLAP paper, Table 1; RUNNERS 2)."""

    lr: float = 5e-4
    batch_size: int = 64
    """Clips per optimiser step, over all processes."""
    optimizer: OptimiserName = "adamw"
    weight_decay: float = DECAY
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
    short_clips: ShortClips = "silence"
    """What follows a short clip: silence; or, as the platform does with AudioSet, zeros in the raw log-mel."""
    schedule: Schedule = "reference"
    """``reference``: set after the step, as on the platform; or the textbook's (:func:`evar.schedules.finetune_lr`)."""
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
    own = {key: value for key, value in given.items() if value is not None}
    settings = replace(begin, **own)
    # What hangs on a setting that was replaced follows it.
    if "optimizer" in own and "weight_decay" not in own:
        settings = replace(settings, weight_decay=DECAY if settings.optimizer == "adamw" else 0.0)
    if settings.sampler == "shuffle" and "draws" not in own:
        settings = replace(settings, draws=0)
    check(task, settings)
    return settings, name


def usual_settings(task: str) -> FinetuneSettings:
    """Return the settings of a task when nothing is asked for."""
    return PAPER.get(task, FinetuneSettings())


def check(task: Task, settings: FinetuneSettings) -> None:
    """Raise :class:`UserError` for the first setting that cannot be; nothing of the data is read for it."""
    if task.kind == "retrieval":
        raise UserError(f"{task.name} has captions and no classes, so there is nothing to fine-tune on it")
    s = settings
    wrong = (
        (not 0 < s.lr < math.inf, f"--lr={s.lr}: must be above 0"),
        (s.batch_size < 1, f"--batch_size={s.batch_size}: must be at least 1"),
        (s.epochs < 1, f"--epochs={s.epochs}: must be at least 1"),
        (
            not 0 <= s.warmup_epochs <= s.epochs,
            f"--warmup_epochs={s.warmup_epochs}: must be from 0 to --epochs={s.epochs}",
        ),
        (not 0 <= s.mixup < math.inf, f"--mixup={s.mixup}: must be 0 (off) or more"),
        (not 0 <= s.patchout < 1, f"--patchout={s.patchout}: a share of the patches, from 0 to below 1"),
        (s.freq_mask < 0, f"--freq_mask={s.freq_mask}: must be 0 (off) or more"),
        (s.time_mask < 0, f"--time_mask={s.time_mask}: must be 0 (off) or more"),
        (not 0 < s.layer_decay <= 1, f"--layer_decay={s.layer_decay}: must be above 0 and at most 1"),
        (not 0 <= s.weight_decay < math.inf, f"--weight_decay={s.weight_decay}: must be 0 or more"),
        (s.draws < 0, f"--draws={s.draws}: must be 0 (as many as there are) or more"),
        (s.dur_frames < 0, f"--dur_frames={s.dur_frames}: must be 0 (chunks) or more"),
        (s.draws > 0 and s.sampler == "shuffle", f"--draws={s.draws} is for --sampler=weighted or balanced"),
        (0 < s.draws < s.batch_size, f"--batch_size={s.batch_size}: an epoch has only --draws={s.draws} clips"),
    )
    for is_wrong, sentence in wrong:
        if is_wrong:
            raise UserError(sentence)
    clips = _declared_training_clips(task)
    if clips is not None and s.batch_size > clips:
        raise UserError(f"--batch_size={s.batch_size}: {task.name} has only {clips} training clips")


def _declared_training_clips(task: Task) -> int | None:
    """Return the most training clips that a complete copy has, None where the task does not count clips."""
    if task.count_by or task.split_table is not None:  # it counts recordings, or its own split has other sizes
        return None
    if not task.has_folds:
        return task.counts.get("train")
    return sum(task.counts.values()) - min(task.counts.values())


def check_clips(clips: Clips, settings: FinetuneSettings) -> None:
    """Raise :class:`UserError` if the clips that are there cannot be trained on as the settings ask."""
    if settings.sampler == "weighted" and "weight" not in clips.table:
        raise UserError(f"--sampler=weighted: {clips.task.name} has no weights of its clips")
    for part in clips.parts():
        if len(part.train) < max(settings.batch_size, 2):
            where = "" if part.name == "split" else f" beside {part.name}"
            raise UserError(
                f"--batch_size={settings.batch_size}: {clips.task.name} has only {len(part.train)} training "
                f"clips{where} here"
            )
