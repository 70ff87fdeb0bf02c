"""Tables of a pre-training run: a line per step, and now and then the parts of the loss and signs of collapse."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from evar import ranks
from evar.progress import say
from evar.training import CsvLog

STEPS, FIGURES = "steps.csv", "figures.csv"
COLLAPSED = 1e-3
"""A target whose features vary by less than this over the batch says the same of every patch."""


class Parts:
    """Sums of the loss's parts over the micro batches of a step, left on the device until they are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._rows = 0

    def add(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Add a micro batch's losses, each ``[b]``, and return what is minimised."""
        for name, values in losses.items():
            total = values.detach().double().sum()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._rows += len(losses["loss"])
        return losses["loss"]

    def means(self) -> dict[str, float]:
        """Return the mean of each part over the global batch, and begin anew; all ranks must ask together."""
        names = sorted(self._sums)
        if not names:
            return {}
        like = self._sums[names[0]]
        sums = torch.stack([*(self._sums[name] for name in names), like.new_tensor(self._rows)])
        *totals, rows = ranks.sum_over_ranks(sums).tolist()
        self._sums, self._rows = {}, 0
        return {name: total / max(rows, 1) for name, total in zip(names, totals, strict=True)}

    def forget(self) -> None:
        """Begin anew."""
        self._sums, self._rows = {}, 0


class FigureLog:
    """The table of loss parts and diagnostics; its columns are those of its first line."""

    def __init__(self, path: Path, resume_at: int = 0) -> None:
        self.path, self.resume_at = path, resume_at
        self._log: CsvLog | None = None
        self._warned = False

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Append a line; say once if the targets have collapsed."""
        if self._log is None:
            self._log = CsvLog(self.path, ["step", *self._columns(figures)], self.resume_at)
        known = {name: f"{value:.6g}" for name, value in figures.items() if name in self._log.columns}
        self._log.write(step=step, **known)
        variance = figures.get("target_variance", math.inf)
        if variance < COLLAPSED and not self._warned and ranks.is_main():
            self._warned = True
            say(
                f"step {step}: the targets hardly vary (variance {variance:.2g}): the network has collapsed to "
                "one answer for every patch; lower --base_lr, or raise the decay --ema"
            )

    def _columns(self, figures: Mapping[str, float]) -> list[str]:
        if self.resume_at and self.path.is_file():
            with self.path.open(newline="") as file:
                return next(csv.reader(file), ["step"])[1:]
        return list(figures)
