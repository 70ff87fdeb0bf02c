"""What the measurements of protocol_effects.py share: embeddings, the probe's scores per seed, a line of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from evar import statistics
from evar.clips import Clips, open_task
from evar.extract import embed_clips
from evar.probes import Fit, Fold, adam_probe
from model_adapters.registry import Model, load_model
from tasks.base import get_task

FIRST_SEED = 42


@dataclass(frozen=True)
class Effect:
    """One line of the table; scores in percent."""

    what: str
    data: str
    default: str
    other: str
    difference: str = ""

    def line(self) -> str:
        """Return a line of a Markdown table."""
        return f"| {self.what} | {self.data} | {self.default} | {self.other} | {self.difference} |"


@dataclass(frozen=True)
class Data:
    """A task's clips with their embeddings as a probe takes them."""

    clips: Clips
    features: NDArray[np.float32]
    labels: NDArray[Any]
    groups: list[str] | None
    folds: list[Fold]

    def fits(self, seeds: Sequence[int], **settings: Any) -> list[list[Fit]]:
        """Return the published probe's fits ``[seed][fold]``."""
        chosen: dict[str, Any] = {"folds": self.folds, "lr": 3e-4} | settings
        return adam_probe(
            self.features,
            self.labels,
            seeds=seeds,
            n_classes=len(self.clips.task.labels),
            multi_label=False,
            groups=self.groups,
            **chosen,
        )

    def scores(self, seeds: Sequence[int], **settings: Any) -> NDArray[np.float64]:
        """Return accuracies in percent, one per seed, averaged over folds."""
        return means(self.fits(seeds, **settings))


def means(fits: list[list[Fit]]) -> NDArray[np.float64]:
    """Return the mean over folds per seed, in percent."""
    return np.array([100 * np.mean([fit.score for fit in row]) for row in fits])


class Bench:
    """Data and models, each made once, and how many seeds."""

    def __init__(self, root: Path, weights: str | None, seeds: int) -> None:
        self.root, self.weights = root, weights
        self.seeds = range(FIRST_SEED, FIRST_SEED + seeds)
        self._data: dict[str, Data] = {}
        self._default: dict[str, NDArray[np.float64]] = {}

    def clips(self, task: str, unit: float | None = None) -> Clips:
        """Return a task's clips; ``unit`` seconds instead of its own."""
        clips = open_task(get_task(task), self.root, incomplete=True)
        return clips if unit is None else replace(clips, task=replace(clips.task, unit_seconds=unit))

    def model(self, name: str = "gpvad", **options: str) -> Model:
        """Return a model; GPVAD with its published weights."""
        return load_model(name, "random" if name == "byol_a" else self.weights, options)

    def data(self, task: str) -> Data:
        """Return GPVAD's embeddings of a task."""
        if task not in self._data:
            self._data[task] = embedded(self.model(), self.clips(task))
        return self._data[task]

    def default(self, task: str) -> NDArray[np.float64]:
        """Return the scores of the published protocol, one per seed."""
        if task not in self._default:
            self._default[task] = self.data(task).scores(self.seeds)
        return self._default[task]


def embedded(model: Model, clips: Clips, *, window_seed: int = FIRST_SEED, front: bool = False) -> Data:
    """Embed a task; training clips in their random window, or in the ``front`` one."""
    parts, everything = clips.parts(), np.arange(len(clips))
    tested = np.unique(np.concatenate([part.test for part in parts]))
    with mock.patch("evar.extract.WINDOW_SEED", window_seed):
        found = embed_clips(model, clips, front=everything if front else tested, training=everything)
    rows = found.front if front else found.training
    clip_of = np.zeros(len(found.vectors.take()), dtype=np.int64)
    for of_role in (found.front, found.training):
        clip_of[of_role[of_role >= 0]] = np.flatnonzero(of_role >= 0)
    folds = [
        Fold(p.name, rows[p.train], None if p.valid is None else rows[p.valid], found.front[p.test]) for p in parts
    ]
    groups = None if clips.groups is None else [clips.groups[n] for n in clip_of]
    return Data(clips, found.vectors.take(), clips.targets[clip_of], groups, folds)


def percent(values: NDArray[np.float64]) -> str:
    """Return mean ± Student interval over seeds."""
    half = statistics.student_t(values.tolist()).half_width
    return f"{values.mean():.1f}" + (f" ±{half:.1f}" if half is not None else "")


def compared(what: str, data: str, default: NDArray[np.float64], other: NDArray[np.float64]) -> Effect:
    """Return the line for two rules tried with the same seeds: the difference is paired."""
    gap = statistics.student_t((other - default).tolist())
    half = gap.half_width or 0.0
    return Effect(what, data, percent(default), percent(other), f"{gap.point:+.2f} ±{half:.2f}")
