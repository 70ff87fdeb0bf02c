"""The published files on HTS-AT, made from the lists of their names and shapes with the recipe's weights."""

from __future__ import annotations

import itertools
import re
from functools import cache

import torch
from adapter_goldens import value_of
from golden import golden
from torch import Tensor

from model_adapters.networks.mel_filters import mel_filters

_CONSTANTS = ("relative_position_index", "attn_mask", "stft.conv_real.weight", "stft.conv_imag.weight")
_LINE = re.compile(r"(\S+) \[([^\]]*)\](?: x\d+)?\s*")


def names_and_shapes(model: str) -> dict[str, tuple[int, ...]]:
    """Return the official state dict's names and shapes, without the constants of positions and front end."""
    found: dict[str, tuple[int, ...]] = {}
    for line in golden("adapters", "keys", f"{model}.txt").read_text().splitlines():
        match = _LINE.fullmatch(line)
        if line.startswith("#") or match is None:
            assert line.startswith("#") or not line.strip(), line
            continue
        shape = tuple(int(n) for n in match[2].split(",") if n.strip())
        if not match[1].endswith(_CONSTANTS):
            found |= dict.fromkeys(_expanded(match[1]), shape)
    return found


def _expanded(pattern: str) -> list[str]:
    parts = re.split(r"\{([^}]*)\}", pattern)
    choices = []
    for number, part in enumerate(parts):
        if number % 2 == 0:
            choices.append([part])
        elif "-" in part:
            low, high = map(int, part.split("-"))
            choices.append([str(n) for n in range(low, high + 1)])
        else:
            choices.append(part.split(","))
    return ["".join(one) for one in itertools.product(*choices)]


@cache
def recipe_state(model: str, drop: str = "", value_prefix: str = "") -> dict[str, Tensor]:
    """Return the recipe's tensors of a published file; mel filters are natural.

    drop: names that begin so are left out. value_prefix: left out of a name when its value is made.
    """
    state: dict[str, Tensor] = {}
    for key, shape in names_and_shapes(model).items():
        if drop and key.startswith(drop):
            continue
        if key.endswith("melW"):
            rate = 48000 if model == "laion_clap" else 32000
            state[key] = mel_filters("slaney", rate, 1024, 64, 50.0, 14000.0)
        elif key.endswith("num_batches_tracked"):
            state[key] = torch.zeros((), dtype=torch.int64)
        else:
            state[key] = value_of(key.removeprefix(value_prefix), shape)
    return state


def decibels(model, x: torch.Tensor) -> torch.Tensor:
    """Return the log-mel ``[B, 1, T, n_mels]`` in dB of a model's windows of whole clips, not yet standardised."""
    whole = torch.full((len(x),), x.shape[1])
    return torch.cat([model.front_end(piece) for piece in model.windows(x, whole)], dim=2)[:, None].transpose(2, 3)
