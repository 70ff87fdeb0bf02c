"""What a result is about: facts of the model, the weights and the data, and what a reader must be told of them."""

from __future__ import annotations

from typing import Any

from evar.clips import Clips, training_clips
from evar.extract import Precision, Space, model_facts
from model_adapters.base import licence_of, parse_random
from model_adapters.registry import Model


def subject_facts(
    model: Model, clips: Clips, precision: Precision, space: Space, *, whole: bool = False
) -> dict[str, Any]:
    """Return everything a score depends on but the protocol's own settings."""
    prepared_on, task = training_clips(clips).fingerprint, clips.task
    facts = model_facts(model, task.unit_seconds, precision, space, prepared_on, task.padding, whole=whole)
    return {"model": facts, "task": clips.task.name, "data": clips.fingerprint}


def weights_facts(model: Model) -> dict[str, Any]:
    """Return the result's ``weights``: as given, checksum, licence."""
    return {"given": model.weights, "sha256": model.weights_sha256, "licence": licence_of(model.adapter)}


def input_facts(model: Model, clips: Clips, *, whole: bool = False) -> dict[str, Any]:
    """Return the result's ``input``: what the model hears of a clip, and of one longer or shorter than its input."""
    adapter, task = model.adapter, clips.task
    return {
        "sample_rate": adapter.sample_rate,
        "unit_seconds": None if whole else task.unit_seconds,
        "padding": task.padding,
        "long_audio": adapter.long_audio,
        "short_audio": adapter.short_audio,
    }


def data_facts(clips: Clips) -> dict[str, Any]:
    """Return the result's ``data``: number of clips, checksum, what is missing, how the task differs."""
    return {
        "clips": len(clips),
        "fingerprint": clips.fingerprint,
        "incomplete": clips.incomplete,
        "coverage": clips.coverage,
        "deviation": clips.task.deviation,
    }


def flags_of(model: Model, clips: Clips, *, zero_shot: bool = False) -> tuple[list[str], dict[str, str]]:
    """Return ``(flags, a sentence for each)`` that every result of this model on these clips carries."""
    notes: dict[str, str] = {}
    if clips.incomplete:
        notes["incomplete"] = clips.incomplete
    if clips.comparable_note:
        notes["not_comparable"] = clips.comparable_note
    if model.weights is not None and parse_random(model.weights) is not None:
        notes["untrained"] = f"untrained network (seed {parse_random(model.weights)})"
    trained_on = getattr(model.adapter, "trained_on", None) or model.info.trained_on
    if zero_shot and clips.task.name in trained_on and "untrained" not in notes:
        notes["not_zero_shot"] = f"the model's training data include {clips.task.title}"
    if zero_shot and getattr(model.adapter, "fitted_on_task", False):
        notes["fitted_on_task"] = "closed-form map fitted on the task's training captions"
    return sorted(notes), notes
