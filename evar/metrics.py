"""Scores of predictions: accuracy, mAP, AUC, per class, confusion matrix. NumPy alone, float64 results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[Any]


def accuracy(scores: Scores, labels: NDArray[Any]) -> float:
    """Return the share of rows of ``scores [n, C]`` whose highest column is ``labels [n]`` (ties: the first column)."""
    _same_length(scores, labels)
    return float(np.mean(scores.argmax(axis=1) == labels))


def average_precisions(scores: Scores, targets: NDArray[Any]) -> NDArray[np.float64]:
    """Return the average precision of each class, ``[C]``; NaN for a class without positives.

    The definition of scikit-learn's ``average_precision_score``: the sum over thresholds of (recall gained) × precision
    with rows of equal score entering together; that is, the mean over the positives of the precision among all rows
    that score at least as high. ``scores [n, C]``, ``targets [n, C]`` (positive where above 0).
    """
    _same_length(scores, targets)
    out = np.full(scores.shape[1], np.nan)
    for c in range(scores.shape[1]):
        positives = np.sort(scores[targets[:, c] > 0, c])
        if len(positives):
            everything = np.sort(scores[:, c])
            above = len(everything) - np.searchsorted(everything, positives, side="left")
            hits = len(positives) - np.searchsorted(positives, positives, side="left")
            out[c] = np.mean(hits / above)
    return out


def mean_average_precision(scores: Scores, targets: NDArray[Any]) -> float:
    """Return the unweighted mean of :func:`average_precisions` over the classes that have positives.

    A class without positives has no average precision, so it is left out (scikit-learn counts it as 0); NaN if none
    has any.
    """
    return _mean(average_precisions(scores, targets))


def roc_aucs(scores: Scores, targets: NDArray[Any]) -> NDArray[np.float64]:
    """Return the area under the ROC curve of each class, ``[C]``: the chance that a positive outranks a negative.

    Ties count one half. NaN for a class without positives or without negatives.
    """
    _same_length(scores, targets)
    out = np.full(scores.shape[1], np.nan)
    for c in range(scores.shape[1]):
        positive = targets[:, c] > 0
        above, below = scores[positive, c], np.sort(scores[~positive, c])
        if len(above) and len(below):
            beaten = np.searchsorted(below, above, side="left") + np.searchsorted(below, above, side="right")
            out[c] = np.mean(beaten) / (2 * len(below))
    return out


def roc_auc(scores: Scores, targets: NDArray[Any]) -> float:
    """Return the unweighted mean of :func:`roc_aucs` over the classes that have positives and negatives."""
    return _mean(roc_aucs(scores, targets))


def per_class(scores: Scores, targets: NDArray[Any], names: Sequence[str]) -> dict[str, float | None]:
    """Return a score per class name: recall for integer ``targets [n]``, average precision for multi-hot ``[n, C]``.

    None for a class of which there is no clip.
    """
    if targets.ndim == 2:
        values = average_precisions(scores, targets)
    else:
        table = confusion_matrix(scores, targets, len(names))
        clips = table.sum(axis=1)
        values = np.where(clips > 0, np.diag(table) / np.maximum(clips, 1), np.nan)
    return {name: None if np.isnan(v) else float(v) for name, v in zip(names, values, strict=True)}


def confusion_matrix(scores: Scores, labels: NDArray[Any], n_classes: int) -> NDArray[np.int64]:
    """Return counts ``[C, C]``: row = true class, column = predicted class."""
    _same_length(scores, labels)
    pairs = labels.astype(np.int64) * n_classes + scores.argmax(axis=1)
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes).astype(np.int64)


def _mean(values: NDArray[np.float64]) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")


def _same_length(scores: Scores, targets: NDArray[Any]) -> None:
    if len(scores) != len(targets) or not len(scores):
        raise ValueError(f"{len(scores)} rows of scores and {len(targets)} of targets: expected as many, at least one")
