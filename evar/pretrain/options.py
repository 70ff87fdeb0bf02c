"""The settings of pre-training as options of the command line, each with a line of help."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from evar.convert import convert, hints_of
from evar.errors import UserError
from evar.pretrain.settings import PretrainSettings
from model_adapters.networks.m2d_files import parse_pair

HELP: Mapping[str, str] = {
    "objective": "what is minimised: a file in evar/pretrain/objectives",
    "input_size": "mel bands and frames of a crop, such as 80x608",
    "patch_size": "such as 16x16",
    "sample_rate": "16000 or 32000",
    "dim": "width of the encoder",
    "depth": "blocks of the encoder",
    "heads": "attention heads; 0 for one per 64 dimensions",
    "decoder_dim": "width of the predictor",
    "decoder_depth": "blocks of the predictor",
    "decoder_heads": "attention heads of the predictor",
    "mask": "random patches; structured (rows and columns), as meant or as published; or blocks of time",
    "mask_ratio": "share of patches that is masked",
    "loss": "of the masked prediction",
    "standardise_targets": "per token, true or false",
    "target_layers": "blocks of the target network to average, such as 10,11 (without: the last, normalised)",
    "target_sees": "the masked patches, or all (data2vec-like)",
    "w_m2d": "weight of the masked prediction",
    "w_other": "weight of the second loss: contrastive, supervised or distilled",
    "clap_grad_scale": "factor on the contrastive gradient; 0.25 is what the published code did on four GPUs",
    "projector": "mean (2024) or semantic (2025)",
    "projector_depth": "blocks of the semantic projector",
    "temperature": "of the contrastive loss, at the start",
    "text_encoder": "hub id or folder of the text encoder that is trained (2025, stage 2)",
    "train_encoder": "train the audio encoder too in stage 2, true or false",
    "teacher": "MODEL:WEIGHTS of a frozen teacher (mam_clap, m2d_x)",
    "distance": "of distilled features",
    "epochs": "number of epochs",
    "warmup_epochs": "epochs of linear warm-up",
    "batch_size": "clips per optimiser step, over all processes",
    "base_lr": "for 256 clips; the peak is base_lr x batch_size / 256",
    "min_lr": "at the end",
    "weight_decay": "of AdamW; biases and norms have none",
    "clip_norm": "a longer gradient is shortened to this",
    "ema": "decay of the target network at the first step and the last, such as 0.99995,0.99999",
    "min_clips": "a smaller corpus is repeated to this many clips per epoch",
    "short_clips": "what follows a short clip: reference (zeros in the raw log-mel, published) or silence",
    "min_seconds": "clips are first lengthened to this by silence",
    "noise_ratio": "share of background noise",
    "seed": "of everything random",
}
_SIZES = ("input_size", "patch_size")
_LISTS = {"target_layers": "10,11", "ema": "0.99995,0.99999"}


def setting_options(_: Mapping[str, str]) -> dict[str, inspect.Parameter]:
    """Return the settings as options (for :func:`evar.cli.main`)."""
    hints = hints_of(PretrainSettings)
    return {name: _option(name, hints[name]) for name in HELP}


def _option(name: str, hint: Any) -> inspect.Parameter:
    shown = str if name in _SIZES or name in _LISTS else hint
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=shown)


def given_settings(options: Mapping[str, str]) -> dict[str, Any]:
    """Return settings by name of their texts; :class:`UserError` names the one that is none of its kind."""
    hints = hints_of(PretrainSettings)
    return {name: _value(name, text, hints[name]) for name, text in options.items()}


def _value(name: str, text: str, hint: Any) -> Any:
    if name in _SIZES:
        return parse_pair(text, name)
    if name not in _LISTS:
        return convert(text, hint, name)
    kind = int if name == "target_layers" else float
    try:
        numbers = tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = ()
    if not numbers or (name == "ema" and len(numbers) != 2):
        raise UserError(f"--{name}={text}: numbers such as {_LISTS[name]}")
    return numbers
