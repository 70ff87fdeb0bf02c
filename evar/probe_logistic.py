"""The solved linear probe: L2-regularised logistic regression. No learning rate, no seed, no role of row order."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evar.logistic import Logistic
from evar.probe_adam import cores, in_threads
from evar.probe_data import Fit, Fold, check, fit_scaler, score_of
from evar.probe_splits import grouped_part

STRENGTHS = tuple(round(10.0 ** (-step / 2), 8) for step in range(13))
"""From 1 down to 1e-6, two a decade."""
_PATIENCE = 3  # strengths without a new best held-out score before weaker ones are no longer tried
_PATH_TOL = 1e-5  # of the fits that only serve to choose


def logistic_probe(
    features: NDArray[np.float32],
    labels: NDArray[Any],
    folds: Sequence[Fold],
    *,
    n_classes: int,
    multi_label: bool,
    strengths: Sequence[float] = STRENGTHS,
    tol: float = 1e-6,
    max_iter: int = 2000,
    held_out: float = 0.2,
    groups: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    device: str = "cpu",
    workers: int | None = None,
    class_names: Sequence[str] | None = None,
    progress: Callable[[], object] | None = None,
) -> list[Fit]:
    """Return one fit per fold, each solved to a stated tolerance.

    Minimises mean cross-entropy + strength / 2 · ‖W‖² (multi-label: the sum over classes of mean binary cross-entropy;
    the bias is free; scikit-learn's ``C`` is 1 / (strength · n)) over standardised features, in float64. The strength
    is the one with the best score on held-out training data, the strongest of equal ones: the fold's validation part
    if it has one, else a stratified fifth of the training rows that respects ``groups`` (:func:`grouped_part`); then
    the final fit is over all training rows. The strengths are tried from strong to weak, each from the last one's
    solution, until three in a row have brought no new best.

    Args:
        features, labels, folds, n_classes, class_names: as for :func:`evar.probe_adam.adam_probe`.
        multi_label: one sigmoid per class instead of a softmax.
        strengths: candidates.
        tol, max_iter: the final fit ends where no entry of the gradient exceeds ``tol``, or after so many steps.
        held_out: share of the training rows to choose on, where the fold has no validation part.
        groups: name of each row's group, as for the published probe.
        keys: a unique name for each row (among a fold's training rows), by which rows are sorted first, so that every
            bit of the outcome is independent of their order; default: a hash of the row's content.
        device, workers: threads on the CPU (default: the cores at hand) do not change a bit of the result.
        progress: called once for each finished fit, in the caller's thread.

    Returns:
        Fits whose ``epochs`` counts the final fit's steps and whose ``info`` holds ``strength``, ``gradient`` (largest
        entry), ``tolerance``, ``converged``, ``held_out_scores`` (strength and score), ``n_train``, ``n_valid``.
    """
    check(features, labels, folds, n_classes=n_classes, multi_label=multi_label, class_names=class_names)
    if not folds:
        return []
    ordered = sorted((float(s) for s in strengths), reverse=True)
    if not ordered or ordered[-1] <= 0:
        raise ValueError("strengths must be above 0 (at 0 separable classes have no solution)")
    workers = workers or cores()
    stop = threading.Event()
    setting = _Setting(features, labels, n_classes, multi_label, ordered, tol, max_iter, held_out, groups, keys, device)

    def job(fold: Fold) -> Fit:
        # With fewer folds than cores, pieces of rows are worked on side by side.
        each = max(1, workers // len(folds)) if device == "cpu" else 1
        with ThreadPoolExecutor(each, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return _fit(setting, fold, pool if each > 1 else None, stop)

    return in_threads([partial(job, fold) for fold in folds], workers, progress, stop)


@dataclass(frozen=True, eq=False)
class _Setting:
    features: NDArray[np.float32]
    labels: NDArray[Any]
    n_classes: int
    multi_label: bool
    strengths: list[float]
    tol: float
    max_iter: int
    held_out: float
    groups: Sequence[str] | None
    keys: Sequence[str] | None
    device: str


def _fit(s: _Setting, fold: Fold, pool: ThreadPoolExecutor | None, stop: threading.Event) -> Fit:
    names = _names(s, fold.train)
    order = np.argsort(np.array(names), kind="stable")
    train, names = fold.train[order], [names[n] for n in order]
    # The test rows in an order of their own as well: a product's rounding may depend on a row's place in a block.
    test_order = np.argsort(np.array(_names(s, fold.test)), kind="stable")
    scaler = fit_scaler(s.features, train)
    targets = s.labels[train]

    def scaled(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return scaler.apply(s.features, rows)

    problem = Logistic(
        scaled(train), targets, s.n_classes, multi_label=s.multi_label, device=s.device, pool=pool, stop=stop
    )
    if fold.valid is None:
        units = names if s.groups is None else [s.groups[r] for r in train.tolist()]
        kept, held = grouped_part(targets, s.n_classes, s.held_out, units)
        held_features, held_targets = None, targets[held]
    else:
        valid = fold.valid[np.argsort(np.array(_names(s, fold.valid)), kind="stable")]
        kept, held = np.arange(len(train)), np.arange(0)
        held_features, held_targets = problem.enter(scaled(valid)), s.labels[valid]
    best, best_strength, chosen, path = -1.0, s.strengths[0], problem.zeros(kept), []
    weights = chosen
    for strength in s.strengths:
        weights = problem.solve(weights, strength, kept, tol=max(s.tol, _PATH_TOL), max_iter=s.max_iter).x
        scores = problem.scores(weights, held) if held_features is None else problem.scores_of(weights, held_features)
        score = float(np.nan_to_num(score_of(scores, held_targets, multi_label=s.multi_label)))
        path.append((strength, score))
        if score > best:
            best, best_strength, chosen = score, strength, weights
        if best_strength / strength > 1 and len(path) - 1 - s.strengths.index(best_strength) >= _PATIENCE:
            break
    solution = problem.solve(chosen, best_strength, np.arange(len(train)), tol=s.tol, max_iter=s.max_iter)
    outputs = np.empty((len(fold.test), s.n_classes), dtype=np.float32)
    outputs[test_order] = problem.scores_of(solution.x, problem.enter(scaled(fold.test[test_order])))
    info = {
        "strength": best_strength,
        "gradient": solution.largest,
        "tolerance": s.tol,
        "converged": solution.converged,
        "held_out_scores": path,
        "n_train": len(train),
        "n_valid": len(held_targets),
        "n_test": len(fold.test),
    }
    score = score_of(outputs, s.labels[fold.test], multi_label=s.multi_label)
    return Fit(score, outputs, solution.iterations, solution.iterations, best, info)


def _names(s: _Setting, rows: NDArray[np.int64]) -> list[str]:
    """Return a name for each row that does not depend on its number."""
    if s.keys is None:
        return [
            hashlib.blake2b(s.features[r].tobytes() + s.labels[r].tobytes(), digest_size=16).hexdigest() for r in rows
        ]
    names = [s.keys[r] for r in rows.tolist()]
    if len(set(names)) < len(names):
        raise ValueError("keys must be unique among the rows of a part")
    return names
