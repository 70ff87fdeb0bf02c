"""Clips, weights and recorded values of the published models, by the recipe that was used to record them."""

from __future__ import annotations

import json
import re
import zlib
from functools import cache

import numpy as np
import torch
from golden import golden
from torch import Tensor


@cache
def _recorded() -> dict[str, dict]:
    return json.loads(golden("adapters", "goldens.json").read_text())


@cache
def clips(sample_rate: int, seconds: float, count: int = 2) -> Tensor:
    """Return the recorded input: clips ``[count, T]``, each a modulated tone in noise."""
    t = np.arange(int(sample_rate * seconds)) / sample_rate
    waves = [
        0.05 * np.random.RandomState(k).standard_normal(len(t))
        + 0.3 * np.sin(2 * np.pi * hertz * t) * (0.5 + 0.5 * np.sin(2 * np.pi * 1.7 * t))
        for k, hertz in enumerate((440, 1234.5)[:count])
    ]
    return torch.from_numpy(np.stack(waves).astype(np.float32))


def agrees(name: str, ours: Tensor, atol: float = 1e-3) -> None:
    """Assert that ``ours`` has the recorded shape, statistics, first and last values."""
    stored, flat = _recorded()[name], ours.double().flatten()
    assert list(ours.shape) == stored["shape"]
    np.testing.assert_allclose(flat[:8], stored["first8"], atol=atol, rtol=0)
    np.testing.assert_allclose(flat[-4:], stored["last4"], atol=atol, rtol=0)
    np.testing.assert_allclose([flat.mean(), flat.std()], [stored["mean"], stored["std"]], atol=atol, rtol=0)
    np.testing.assert_allclose(flat.norm(), stored["l2"], rtol=1e-4)


def value_of(key: str, shape: tuple[int, ...]) -> Tensor:
    """Return the recipe's tensor of one name (that of the official state dict)."""
    z = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if key.endswith("running_var"):
        z = 1 + 0.1 * np.abs(z)
    elif key.endswith("running_mean"):
        z = 0.1 * z
    elif key.endswith("weight_g"):
        z = 1 + 0.02 * np.abs(z)
    elif z.ndim == 1:
        z = 0.02 * z if key.endswith("bias") else 1 + 0.02 * z
    elif key.endswith(("weight", "weight_v")):
        z = z / np.float32(np.sqrt(np.prod(shape[1:])))
    else:
        z = 0.02 * z
    return torch.from_numpy(np.asarray(z, dtype=np.float32))


def filled(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Return the recipe's tensors for all floating names of ``state``; ``prefix`` precedes the official names."""
    return {
        key: value_of(prefix + key, tuple(x.shape)) if x.is_floating_point() else torch.zeros_like(x)
        for key, x in state.items()
    }


def published_keys(model: str) -> dict[str, list[int]]:
    """Return names and shapes of the official state dict (``keys/<model>.txt``)."""
    found: dict[str, list[int]] = {}
    for line in golden("adapters", "keys", f"{model}.txt").read_text().splitlines():
        if line.startswith("#") or not line.strip():
            continue
        match = re.match(r"(\S+) \[([^\]]*)\]", line)
        assert match, line
        shape = [int(n) for n in match[2].split(",") if n.strip()]
        ranges = re.search(r"\{(\d+)-(\d+)\}", match[1])
        numbers = range(int(ranges[1]), int(ranges[2]) + 1) if ranges else [None]
        for number in numbers:
            found[match[1] if number is None else re.sub(r"\{\d+-\d+\}", str(number), match[1])] = shape
    return found
