"""Published files of BEATs and OpenBEATs: ``{"cfg": …, "model": tensors}``, fine-tuned ones with ``label_dict``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evar.audioset import classes
from evar.errors import UserError
from model_adapters.networks import checkpoints
from model_adapters.networks.beats import BeatsSize

_PATCHES = "patch_embedding.weight"
_BIAS = "encoder.layers.{}.self_attn.relative_attention_bias.weight"
_NOT_WEIGHTS = re.compile(r"^fbank\.|_pad\.weight$")
"""Constants of a front end that two published copies of the network keep among their weights."""
_PARAMETRISED = {
    "encoder.pos_conv.0.parametrizations.weight.original0": "encoder.pos_conv.0.weight_g",
    "encoder.pos_conv.0.parametrizations.weight.original1": "encoder.pos_conv.0.weight_v",
}
"""Names that torch's newer weight norm gives, and the first publication's."""


@dataclass(frozen=True)
class BeatsFile:
    """What a weights file says."""

    state: dict[str, Tensor]
    size: BeatsSize
    sha256: str
    class_names: tuple[str, ...] = ()
    """Of the tagging head, in the order of its outputs."""
    norm_stats: tuple[float, float] | None = None
    """Mean and deviation of the log-mel, if the file states them."""


def read_beats(path: str | Path) -> BeatsFile:
    """Read a file; raise :class:`UserError` for one that holds no BEATs, or one of a form that is not known."""
    file = checkpoints.find_checkpoint(str(path))
    raw, sha = checkpoints.read_checkpoint(file)
    beside = checkpoints.read_content(file)
    cfg = beside.get("cfg")
    cfg = cfg if isinstance(cfg, Mapping) else {}
    what = f"in '{file.name}'"
    state = tidy(raw, what)
    size = size_of(state, cfg, what)
    # Without it (a conversion to safetensors has tensors alone) the head's outputs have no names: it is no tagger then.
    labels = beside.get("label_dict")
    names = class_names(labels, size.classes) if size.classes and labels is not None else ()
    return BeatsFile(state, size, sha, names, _norm_stats(cfg, what))


def _norm_stats(cfg: Mapping[str, Any], what: str) -> tuple[float, float] | None:
    """Return mean and deviation of the log-mel that a file states, None if it states none."""
    stated: list[Any] = [cfg.get("fbank_mean"), cfg.get("fbank_std")]
    if None in stated:
        return None
    try:
        mean, deviation = (float(number) for number in stated)
    except (TypeError, ValueError):
        raise UserError(
            f"the weights {what} state fbank_mean and fbank_std that are no numbers ({stated[0]!r}, {stated[1]!r})"
        ) from None
    return mean, deviation


def tidy(raw: Mapping[str, Tensor], what: str = "") -> dict[str, Tensor]:
    """Return the network's tensors under the first publication's names, the shared table in every block."""
    prefix = next((key.removesuffix(_PATCHES) for key in raw if key.endswith(_PATCHES)), None)
    if prefix is None:
        checkpoints.require(raw, (_PATCHES,), "BEATs", what)
        prefix = ""
    inside = {key.removeprefix(prefix): value for key, value in raw.items() if key.startswith(prefix)}
    state = {_PARAMETRISED.get(key, key): value for key, value in inside.items() if not _NOT_WEIGHTS.search(key)}
    if (table := state.get(_BIAS.format(0))) is not None:
        for block in range(_depth(state)):
            # Formats that keep a shared tensor once have it in the first block only.
            if not torch.equal(state.setdefault(_BIAS.format(block), table), table):
                raise UserError(f"block {block} has a table of relative positions of its own; BEATs shares one")
    return state


def size_of(state: Mapping[str, Tensor], cfg: Mapping[str, Any], what: str = "") -> BeatsSize:
    """Return the network's size: from the tensors, and what they do not show from the file's ``cfg``."""
    needed = (
        "encoder.layer_norm.weight",
        "encoder.layers.0.fc1.weight",
        "encoder.pos_conv.0.weight_v",
        _BIAS.format(0),
    )
    checkpoints.require(state, needed, "BEATs", what)
    if cfg.get("layer_norm_first", False) or cfg.get("activation_fn", "gelu") != "gelu":
        raise UserError("this BEATs file is of a form that is not known: layer_norm_first or no gelu in its cfg")
    patches, conv, table = state[_PATCHES], state["encoder.pos_conv.0.weight_v"], state[_BIAS.format(0)]
    head = state.get("predictor.weight")
    default = BeatsSize()
    return BeatsSize(
        dim=len(state["encoder.layer_norm.weight"]),
        depth=_depth(state),
        heads=table.shape[1],
        mlp_dim=len(state["encoder.layers.0.fc1.weight"]),
        patch=patches.shape[2],
        patch_dim=patches.shape[0],
        conv_width=conv.shape[2],
        conv_groups=conv.shape[0] // conv.shape[1],
        buckets=table.shape[0],
        max_distance=int(cfg.get("max_distance", default.max_distance)),
        deep_norm=bool(cfg.get("deep_norm", default.deep_norm)),
        classes=0 if head is None else len(head),
    )


def _depth(state: Mapping[str, Tensor]) -> int:
    blocks = (re.match(r"encoder\.layers\.(\d+)\.", key) for key in state)
    return 1 + max((int(block.group(1)) for block in blocks if block), default=-1)


def class_names(label_dict: Any, outputs: int) -> tuple[str, ...]:
    """Return the names of a head's outputs from a file's ``{output's number: AudioSet's id}``.

    Raises :class:`UserError` if the dictionary is missing or does not name every output: the order is the file's own.
    """
    if not isinstance(label_dict, Mapping):
        raise UserError("this BEATs file has a label_dict that is no dictionary of its outputs")
    named = {entry.mid: entry.display_name for entry in classes()}
    try:
        found = {int(number): str(label) for number, label in label_dict.items()}
    except (TypeError, ValueError):
        some = next(iter(label_dict))
        raise UserError(f"the BEATs file's label_dict does not number its outputs: it has {some!r}") from None
    if absent := [number for number in range(outputs) if number not in found]:
        raise UserError(f"the file's label_dict does not name output {absent[0]} of {outputs}")
    return tuple(named.get(found[number], found[number]) for number in range(outputs))
