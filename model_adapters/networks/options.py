"""What constructors share: options with a few values, and untrained networks from a seed."""

from __future__ import annotations

import math
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


def at_least(smallest: int, **options: int) -> None:
    """Raise :class:`UserError` for the first option that is smaller."""
    for option, value in options.items():
        if value < smallest:
            raise UserError(f"--{option} must be {smallest} or more, not {value}")


def length_or_all(option: str, seconds: float) -> None:
    """Raise :class:`UserError` for a length that is neither 0, for all of a clip, nor a tenth of a second or more."""
    if seconds != 0 and not 0.1 <= seconds < math.inf:
        raise UserError(f"--{option} must be 0.1 or more (seconds), or 0 for the whole clip, not {seconds:g}")


def seeded(build: Callable[[], Made], seed: int) -> Made:
    """Return ``build()`` with numbers that depend on ``seed`` alone; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
