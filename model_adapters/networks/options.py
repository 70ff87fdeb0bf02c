"""What constructors share: options with a few values, and untrained networks from a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from evar.errors import UserError

Made = TypeVar("Made")


def one_of(option: str, value: str, *allowed: str) -> str:
    """Return ``value``; raise :class:`UserError` if it is none of those that are allowed."""
    if value not in allowed:
        raise UserError(f"--{option} must be {', '.join(allowed[:-1])} or {allowed[-1]}, not '{value}'")
    return value


def seeded(build: Callable[[], Made], seed: int) -> Made:
    """Return ``build()`` with numbers that depend on ``seed`` alone; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
