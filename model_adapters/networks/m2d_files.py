"""What an M2D checkpoint says of itself: geometry from its folder's name, tensors in the order of one clean form."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evar.errors import UserError

DEFAULT_NORM_STATS = (-7.1, 4.2)
"""Mean and deviation of the log-mel that files of 2022 to 2024 assume and don't store (EVAR's m2d.yaml)."""

_NAME = re.compile(
    r"(?:^|-)(?P<mels>\d+)x(?P<frames>\d+)p(?P<high>\d+)x(?P<wide>\d+)"
    r"(?:p(?P<rate>\d+)k)?(?:p(?P<text>[A-Z])(?![A-Z]))?(?P<inside>pTI)?(?=[-_]|$)"
)
_FINE_TUNED = "module.ar.runtime."
_HEAD = {
    "module.head.norm.running_mean": "mean",
    "module.head.norm.running_var": "var",
    "module.head.mlp.mlp.0.weight": "weight",
    "module.head.mlp.mlp.0.bias": "bias",
}
FACTS = "evar.json"
"""Lies beside a checkpoint that python -m evar.pretrain wrote: how it was made."""
_PRETRAINING_ONLY = (
    "decoder_", "target_", "mask_token", "offline_predictor.", "sup_head.", "distil_head", "logit_scale", "to_spec.",
)  # fmt: skip


@dataclass(frozen=True)
class Geometry:
    """The input a checkpoint was made for. Only the folder's name and options hold it, the file does not."""

    n_mels: int
    frames: int
    """Length of a chunk in frames; longer clips are cut into such chunks."""
    patch: tuple[int, int]
    """Height in mel bands, width in frames."""
    sample_rate: int = 16000
    text_encoder: str = ""
    """Letter of the text encoder the audio projector was trained with (A GTE-base, B BERT …); empty if not said."""
    text_inside: bool = False
    """Whether the file holds the text encoder's weights."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows (frequency) and columns (time) of patches of a full chunk."""
        return self.n_mels // self.patch[0], self.frames // self.patch[1]

    def __str__(self) -> str:
        return f"{self.n_mels}x{self.frames} in patches of {self.patch[0]}x{self.patch[1]}"


def facts_beside(path: Path) -> dict[str, Any]:
    """Return what ``evar.json`` beside a checkpoint says; empty where there is none (a published file)."""
    try:
        found = json.loads((path.parent / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def parse_pair(text: str, option: str) -> tuple[int, int]:
    """Return the two numbers of ``80x608``; raise :class:`UserError` that names the option."""
    match = re.fullmatch(r"(\d+)[x,](\d+)", text.strip())
    if not match or 0 in (int(match[1]), int(match[2])):
        raise UserError(f"--{option} must be two numbers above 0 such as 80x608 or 16x16, not '{text}'")
    return int(match[1]), int(match[2])


def parse_norm_stats(text: str) -> tuple[float, float]:
    """Return mean and deviation of ``-7.1,4.2``; raise :class:`UserError` for anything else."""
    try:
        mean, deviation = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--norm_stats must be mean and deviation such as -7.1,4.2, not '{text}'") from None
    if not (math.isfinite(mean) and 0 < deviation < math.inf):
        raise UserError(f"--norm_stats: a mean and a deviation above 0 are needed, not {mean:g} and {deviation:g}")
    return mean, deviation


def geometry_of_name(path: str | Path) -> Geometry | None:
    """Return the geometry that a checkpoint's folder (or else file) name carries, None if it carries none.

    Grammar: ``<model>-<mels>x<frames>p<h>x<w>[p<rate>k][p<text letter>][pTI]-<rest>/<file>``.
    """
    path = Path(path)
    for name in (path.parent.name, path.stem, path.name):
        if match := _NAME.search(name):
            return Geometry(
                n_mels=int(match["mels"]),
                frames=int(match["frames"]),
                patch=(int(match["high"]), int(match["wide"])),
                sample_rate=int(match["rate"] or 16) * 1000,
                text_encoder=match["text"] or "",
                text_inside=bool(match["inside"]),
            )
    return None


def resolve_geometry(
    state: Mapping[str, Tensor],
    path: str | Path = "",
    *,
    input_size: str = "",
    patch_size: str = "",
    sample_rate: int = 0,
) -> Geometry:
    """Return the geometry from the options, else the folder's name, else the tensors (80 mel bands assumed).

    state: encoder tensors with ``patch_embed.proj.weight [D, 1, h, w]`` and ``pos_embed [1, N, D]``.
    Raises :class:`UserError` where options or name do not agree with the tensors.
    """
    high, wide = state["patch_embed.proj.weight"].shape[2:]
    table = state["pos_embed"].shape[1]
    tokens = table - ("cls_token" in state)
    named = geometry_of_name(path)
    rows = (named.n_mels if named else 80) // high
    found = named or Geometry(high * rows, tokens // max(rows, 1) * wide, (high, wide))
    if input_size:
        n_mels, frames = parse_pair(input_size, "input_size")
        found = replace(found, n_mels=n_mels, frames=frames)
    if patch_size:
        found = replace(found, patch=parse_pair(patch_size, "patch_size"))
    if sample_rate:
        found = replace(found, sample_rate=sample_rate)
    if found.sample_rate not in (16000, 32000):
        raise UserError(f"M2D's front end is made for 16000 or 32000 Hz, not {found.sample_rate}")
    said = "options" if input_size or patch_size else "the folder's name" if named else "80 mel bands"
    if found.patch != (high, wide) or found.n_mels % high or found.grid[0] * found.grid[1] != tokens:
        raise UserError(
            f"{said} say {found}, but the weights have patches of {high}x{wide} and {tokens} positions: "
            "give --input_size and --patch_size that fit (or the folder its published name)"
        )
    return found


@dataclass(frozen=True)
class Parts:
    """The tensors of one M2D file, sorted by what they are for. An absent part is empty."""

    encoder: dict[str, Tensor]
    audio_proj: dict[str, Tensor]
    text_proj: dict[str, Tensor]
    text_encoder: dict[str, Tensor]
    head: dict[str, Tensor]
    """``mean``, ``var`` (of the batch norm), ``weight``, ``bias`` of a fine-tuned classifier."""
    norm_stats: tuple[float, float] | None
    original_msm_mae: bool
    """Whether the file is of the first MSM-MAE code, with separate biases of queries and values."""
    text_reading: tuple[int, int] | None = None
    """Heads (0: no BERT) and number of the pooling of a text encoder that is not a BERT read at [CLS]."""


def sort_out(state: Mapping[str, Tensor]) -> Parts:
    """Return the parts of a checkpoint in any published form (pre-training, encoder only, fine-tuned, CLAP).

    What only pre-training needs (predictor, target, mask token, logit scale, spectrogram constants) is left out.
    """
    head = {_HEAD[key]: value.float() for key, value in state.items() if key in _HEAD}
    reading = state.get("text_encoder.reading")
    inside = [f"text_encoder.{name}" for name in ("text_encoder.", "encoder." if reading is not None else "", "")]
    text_encoder = next((found for prefix in inside if (found := _below(state, prefix))), {})
    if runtime := _below(state, _FINE_TUNED):
        state = runtime
    elif state and all(key.startswith("module.") for key in state):
        state = _below(state, "module.")
    text_proj = _below(state, "text_proj.")
    if backbone := _below(state, "backbone."):
        state = backbone
    stats = state.get("norm_stats")
    rest = {key: value.float() for key, value in state.items() if not key.startswith(_PRETRAINING_ONLY)}
    encoder = {
        key: value
        for key, value in rest.items()
        if key != "norm_stats" and not key.startswith(("audio_proj.", "text_proj.", "text_encoder."))
    }
    original = any(key.endswith(".attn.q_bias") for key in encoder)
    return Parts(
        encoder=_one_bias(encoder) if original else encoder,
        audio_proj=_below(rest, "audio_proj."),
        text_proj={key: value.float() for key, value in (text_proj or _below(rest, "text_proj.")).items()},
        text_encoder=text_encoder,
        text_reading=(int(reading[0]), int(reading[1])) if reading is not None else None,
        head=head,
        norm_stats=(float(stats[0]), float(stats[1])) if stats is not None else None,
        original_msm_mae=original,
    )


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def _one_bias(encoder: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join the first MSM-MAE code's biases of queries and values to one, with zeros for the keys, which have none."""
    joined = dict(encoder)
    for key in [key for key in encoder if key.endswith(".attn.q_bias")]:
        block = key[: -len("q_bias")]
        q, v = joined.pop(key), joined.pop(f"{block}v_bias")
        joined[f"{block}qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
    return joined
