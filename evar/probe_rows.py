"""From a task's embeddings to the rows, labels and folds that the probes take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evar.clips import Clips, Part
from evar.extract import Embeddings
from evar.probes import Fold


@dataclass(frozen=True)
class Rows:
    """What the probes take: a row per embedding."""

    features: NDArray[np.float32]
    """``[N, D]``."""
    labels: NDArray[Any]
    """``[N]`` class numbers, or ``[N, C]`` zeros and ones."""
    groups: list[str] | None
    """Each row's group (speaker, ...), or None."""
    keys: list[str]
    """A name for each row, unique among those of a part."""
    folds: list[Fold]
    """The rows of each fold's parts."""


def rows_of(clips: Clips, embeddings: Embeddings, parts: Sequence[Part]) -> Rows:
    """Return the rows of the embeddings, in their order (a clip may have two windows, hence two rows)."""
    features = embeddings.vectors.take()
    clip_of = np.zeros(len(features), dtype=np.int64)
    window = np.zeros(len(features), dtype=np.int64)
    for number, rows in enumerate((embeddings.front, embeddings.training)):
        there = rows >= 0
        clip_of[rows[there]] = np.flatnonzero(there)
        window[rows[there]] = number
    names, groups = clips.names, clips.groups
    keys = [f"{names[n]} {w}" for n, w in zip(clip_of, window, strict=True)]
    of, tested = embeddings.training, embeddings.front
    folds = [Fold(p.name, of[p.train], None if p.valid is None else of[p.valid], tested[p.test]) for p in parts]
    return Rows(features, clips.targets[clip_of], None if groups is None else [groups[n] for n in clip_of], keys, folds)
