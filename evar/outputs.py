"""Files beside a result: predictions of every test clip, the confusion matrix, scores per class."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evar import metrics
from evar.clips import Clips, Part
from evar.results import write_table


class HasScores(Protocol):
    """Anything with the scores of a part's test clips."""

    @property
    def scores(self) -> NDArray[Any]:
        """``[n_test, C]``."""
        ...


def write_predictions(
    path: Path, clips: Clips, parts: Sequence[Part], seeds: Sequence[int], fits: Sequence[Sequence[HasScores]]
) -> dict[str, str]:
    """Write the files that go with the result at ``path`` and return their names.

    Single-label tasks: ``….predictions.csv`` (file, part, label, the group where the task has groups, one column of
    predicted labels per seed) and ``….confusion.csv`` (rows true, columns predicted, counts over all seeds).
    Multi-label tasks: ``….scores.npz`` with ``files [N]``, ``labels [C]``, ``scores [seeds, N, C]``, ``targets [N, C]``
    and, where there are any, ``groups [N]``. So :mod:`evar.compare` needs no data.
    """
    tested = np.concatenate([part.test for part in parts])
    names = clips.task.labels
    every = clips.names
    files = [every[n] for n in tested]
    of_clip = clips.groups
    groups = None if of_clip is None else [of_clip[n] for n in tested]
    outputs = [np.concatenate([fit.scores for fit in of_seed]) for of_seed in fits]
    if clips.task.multi_label:
        arrays = {"files": np.array(files), "labels": np.array(names), "targets": clips.targets[tested] > 0}
        arrays |= {"scores": np.stack(outputs).astype(np.float32)}
        arrays |= {} if groups is None else {"groups": np.array(groups)}
        return {"scores": _write_arrays(path.with_suffix(".scores.npz"), arrays)}
    where = [part.name for part in parts for _ in part.test]
    truth = clips.targets[tested]
    guesses = [scores.argmax(axis=1) for scores in outputs]
    grouped = ["group"] if groups is not None else []
    header = ["file", "part", "label", *grouped, *([f"seed {s}" for s in seeds] or ["predicted"])]
    rows = (
        [file, part, names[label], *(groups[n : n + 1] if groups is not None else []), *(names[g[n]] for g in guesses)]
        for n, (file, part, label) in enumerate(zip(files, where, truth, strict=True))
    )
    confusion = sum(metrics.confusion_matrix(scores, truth, len(names)) for scores in outputs)
    table = ([name, *counts] for name, counts in zip(names, np.asarray(confusion).tolist(), strict=True))
    return {
        "predictions": write_table(path.with_suffix(".predictions.csv"), header, rows),
        "confusion": write_table(path.with_suffix(".confusion.csv"), ["true \\ predicted", *names], table),
    }


def _write_arrays(path: Path, arrays: dict[str, Any]) -> str:
    part = path.with_name(f".{path.name}.{os.getpid()}.part.npz")
    np.savez_compressed(part, **arrays)
    os.replace(part, path)
    return path.name


def per_class(
    clips: Clips,
    fits: Sequence[Sequence[HasScores]],
    tested: Sequence[NDArray[np.int64]],
    every: Sequence[Sequence[Mapping[str, float]]],
) -> dict[str, Any]:
    """Return the result's ``per_class`` (mean over seeds) and ``also`` of fits ``[seed][fold]``.

    tested: each fold's test clips.
    every: ``[seed][fold]`` every score by name; those beside the task's metric go to ``also``.
    """
    targets = clips.targets[np.concatenate(list(tested))]
    rows = [np.concatenate([fit.scores for fit in of_seed]) for of_seed in fits]
    tables = [metrics.per_class(outputs, targets, clips.task.labels) for outputs in rows]
    mean: dict[str, float | None] = {}
    for label in clips.task.labels:
        values = [value for table in tables if (value := table[label]) is not None]
        mean[label] = float(np.mean(values)) if values else None
    also: dict[str, float | None] = {}
    if clips.task.multi_label:
        also["auc"] = float(np.mean([metrics.roc_auc(outputs, targets) for outputs in rows]))
    else:
        also["recall_macro"] = float(np.mean([value for value in mean.values() if value is not None]))
    for name in every[0][0].keys() - {clips.task.metric}:
        also[name] = float(np.mean([[found[name] for found in of_seed] for of_seed in every]))
    return {"per_class": mean, "also": also}
