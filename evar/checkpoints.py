"""Training checkpoints: whole or not there, and nothing but tensors and plain values inside.

A checkpoint is written beside its final name and then renamed, so that a full disk or a kill leaves the last good one.
It is loaded with ``weights_only=True``: a file from elsewhere cannot run code.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from evar import ranks
from evar.errors import UserError

LAST = "last.pt"
BEST = "best.pt"
FORMAT = 1
FIELDS = ("state", "seed", "epoch", "best", "extra")


@dataclass(frozen=True)
class Checkpoint:
    """A training run at the end of a step."""

    state: dict[str, Any]
    """:meth:`evar.training.Trainer.state`: model, optimiser, step, skipped steps."""
    seed: int
    """The run's seed: with the step it gives all random draws to come."""
    epoch: int = 0
    """Epochs finished."""
    best: float | None = None
    """The best metric so far; ``None`` before the first evaluation."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Settings and history, whatever JSON holds; :func:`same_settings` compares them on resuming."""
    extra: dict[str, torch.Tensor] = field(default_factory=dict)
    """Further tensors by name, such as a moving average's."""

    @property
    def step(self) -> int:
        """Steps taken."""
        return int(self.state["step"])


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint on rank 0, atomically; call it on all ranks, which wait for it.

    Raises:
        UserError: on every rank: it could not be written; a checkpoint of that name from before is still whole.
    """
    problem = None
    if ranks.is_main():
        try:
            _write(path, _packed(checkpoint))
        except (OSError, RuntimeError) as error:
            problem = _first_line(error)  # torch reports a full disk as a RuntimeError of several lines
    # Waits for rank 0, and tells all: a rank that went on alone would hang at the next sum.
    if ranks.sum_over_ranks(torch.tensor(float(problem is not None))) > 0:
        kept = f"; the one before, {path}, is whole" if path.is_file() else ""
        raise UserError(f"cannot save the checkpoint {path}: {problem or 'rank 0 failed'}{kept}")


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint; every rank reads the file for itself.

    Raises:
        UserError: the file is missing, is no checkpoint of ours, or is of another format.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint {path}")
    try:
        found = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is no readable checkpoint: {_first_line(error)}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"{path} is no training checkpoint of format {FORMAT}")
    fields = {name: found[name] for name in FIELDS}
    return Checkpoint(facts=json.loads(found["facts"]), **fields)


def save_last_and_best(folder: Path, checkpoint: Checkpoint, is_best: bool) -> None:
    """Write ``last.pt`` in ``folder``, and ``best.pt`` as well where this one is the best so far.

    The best one is written first: a kill between the two repeats work but never leaves a ``last.pt`` that believes in
    a best one which is not there.
    """
    if is_best:
        save_checkpoint(folder / BEST, checkpoint)
    save_checkpoint(folder / LAST, checkpoint)


def load_last(folder: Path, device: torch.device | str = "cpu") -> Checkpoint | None:
    """Return ``last.pt`` of a folder, ``None`` where there is none: the run begins anew."""
    return load_checkpoint(folder / LAST, device) if (folder / LAST).is_file() else None


def same_settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to resume a run under other settings.

    Raises:
        UserError: names every setting that differs, with both values.
    """
    now = json.loads(json.dumps(dict(now)))  # a tuple comes back from the checkpoint as a list
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    if names:
        changes = ", ".join(f"{name} was {then.get(name)!r} and is {now.get(name)!r}" for name in names)
        raise UserError(f"cannot resume under other settings: {changes}")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _packed(checkpoint: Checkpoint) -> dict[str, Any]:
    parts = {name: getattr(checkpoint, name) for name in FIELDS}
    return parts | {"facts": json.dumps(checkpoint.facts), "format": FORMAT}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    # The new name is on disk only once the folder is.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
