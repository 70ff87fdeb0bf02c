"""What the probes share: a fold's rows, a fit's outcome, the scaling of features, and the checks before any fitting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evar import metrics
from evar.errors import UserError

_CHUNK = 4096  # rows read at a time: features may be a memory map far larger than memory


@dataclass(frozen=True, eq=False)
class Fold:
    """One training and test: row numbers into ``features [N, D]``, int64 each."""

    name: str
    train: NDArray[np.int64]
    valid: NDArray[np.int64] | None
    """None where the task has no validation part: the probe then holds out some of the training rows."""
    test: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fit:
    """What one probe gave on one fold."""

    score: float
    """Accuracy or mAP of the test part, 0–1."""
    scores: NDArray[np.float32]
    """``[n_test, C]``: softmax (single-label) or sigmoid (multi-label) outputs, ordered as the fold's test rows."""
    epochs: int
    best_epoch: int
    best_valid: float
    """Validation accuracy or mAP of the weights that were kept."""
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Scaler:
    """Mean and scale per feature, ``[D]`` float64: what scikit-learn's StandardScaler finds."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    def apply(
        self, features: NDArray[np.float32], rows: NDArray[np.int64], dtype: type[np.floating[Any]] = np.float32
    ) -> NDArray[Any]:
        """Return ``(features[rows] - mean) / scale`` as ``[n, D]``, computed in ``dtype``, reading piece by piece."""
        out = np.empty((len(rows), len(self.mean)), dtype=dtype)
        # A scale that ``dtype`` cannot hold would become 0, and the feature NaN: such a feature is as good as constant.
        mean, scale = self.mean.astype(dtype), np.where(self.scale < np.finfo(dtype).tiny, 1, self.scale).astype(dtype)
        for start in range(0, len(rows), _CHUNK):
            piece = slice(start, start + _CHUNK)
            np.subtract(features[rows[piece]], mean, out=out[piece], dtype=dtype)
            out[piece] /= scale
        return out


def fit_scaler(features: NDArray[np.float32], rows: NDArray[np.int64], *, standardize: bool = True) -> Scaler:
    """Return the :class:`Scaler` of ``features[rows]``: two passes in float64, population variance.

    A feature that is constant up to rounding keeps scale 1, by scikit-learn's rule. Raises :class:`UserError` where
    a feature is not finite.
    """
    n, width = len(rows), features.shape[1]
    pieces = [rows[start : start + _CHUNK] for start in range(0, n, _CHUNK)]
    mean = sum((features[p].sum(axis=0, dtype=np.float64) for p in pieces), np.zeros(width)) / n
    if not np.isfinite(mean).all():
        bad = next(int(r) for r in rows if not np.isfinite(features[r]).all())
        raise UserError(f"the embedding of row {bad} has values that are not finite: the model's output is broken")
    if not standardize:
        return Scaler(np.zeros(width), np.ones(width))
    var = sum((np.square(features[p] - mean).sum(axis=0) for p in pieces), np.zeros(width)) / n
    eps = np.finfo(np.float64).eps
    constant = var <= n * eps * var + (n * mean * eps) ** 2
    return Scaler(mean, np.where(constant, 1.0, np.sqrt(var)))


def score_of(scores: NDArray[Any], targets: NDArray[Any], *, multi_label: bool) -> float:
    """Return the mAP (multi-label) or accuracy of ``scores [n, C]`` against multi-hot or integer ``targets``."""
    return metrics.mean_average_precision(scores, targets) if multi_label else metrics.accuracy(scores, targets)


def class_counts(labels: NDArray[Any], n_classes: int) -> NDArray[np.int64]:
    """Return the number of clips of each class, ``[C]``, for integer ``[n]`` or multi-hot ``[n, C]`` labels."""
    if labels.ndim == 2:
        return np.asarray((labels > 0).sum(axis=0), dtype=np.int64)
    return np.bincount(labels, minlength=n_classes).astype(np.int64)


def check(
    features: NDArray[np.float32],
    labels: NDArray[Any],
    folds: Sequence[Fold],
    *,
    n_classes: int,
    multi_label: bool,
    class_names: Sequence[str] | None = None,
) -> None:
    """Raise before any work is lost: ValueError for the caller's slips, :class:`UserError` for the data's.

    A class that stands in the test or validation part of a fold and never in its training part is refused by name
    (EVAR turns such a label into NaN).
    """
    shape = (len(features), n_classes) if multi_label else (len(features),)
    if features.ndim != 2 or labels.shape != shape:
        raise ValueError(f"features {features.shape} and labels {labels.shape}: expected [N, D] and {shape}")
    if not multi_label and len(labels) and not (labels.min() >= 0 and labels.max() < n_classes):
        raise ValueError(f"labels must lie in 0 … {n_classes - 1}")
    for fold in folds:
        parts = {"training": fold.train, "test": fold.test} | ({} if fold.valid is None else {"validation": fold.valid})
        for part, rows in parts.items():
            if not len(rows):
                raise UserError(f"fold '{fold.name}' has no {part} clips")
            if rows.min() < 0 or rows.max() >= len(features):
                raise ValueError(f"fold '{fold.name}': {part} rows must lie in 0 … {len(features) - 1}")
        known = class_counts(labels[fold.train], n_classes)
        for part, rows in parts.items():
            unseen = np.flatnonzero((class_counts(labels[rows], n_classes) > 0) & (known == 0))
            if len(unseen):
                names = ", ".join(f"'{class_names[c]}'" if class_names else f"number {c}" for c in unseen[:5])
                more = f" and {len(unseen) - 5} more" if len(unseen) > 5 else ""
                raise UserError(
                    f"fold '{fold.name}': its {part} part has clips of class {names}{more}, of which no training clip"
                    " exists: complete the data set or leave the class out"
                )
