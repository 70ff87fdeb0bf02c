"""Which training rows a probe holds out where the task has no validation part."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from evar.errors import UserError
from evar.probe_data import class_counts

_DRAWS = 100
Parts = tuple[NDArray[np.int64], NDArray[np.int64]]
Counted = tuple[NDArray[np.int64], NDArray[np.int64]]


def random_part(labels: NDArray[Any], n_classes: int, fraction: float, stream: np.random.RandomState) -> Parts:
    """Return positions (kept, held out) of a plain random ``fraction``, as EVAR draws it.

    Neither stratified nor grouped; drawn again, up to 100 times, until every class of ``labels`` (``[n]`` integers or
    ``[n, C]`` multi-hot) is in the held-out part. Raises :class:`UserError` where no draw has them all.
    """
    counts = class_counts(labels, n_classes)
    present = counts > 0
    size = int(np.ceil(fraction * len(labels)))
    # A part smaller than the number of classes cannot hold them all (with several labels a clip it perhaps can).
    possible = 0 < size < len(labels) and (labels.ndim == 2 or size >= present.sum())
    for _ in range(_DRAWS if possible else 0):
        kept, held = train_test_split(np.arange(len(labels)), test_size=fraction, random_state=stream)
        if (class_counts(labels[held], n_classes) > 0)[present].all():
            return kept, held
    why = f"{_DRAWS} draws failed" if possible else f"it has {size} clips"
    raise UserError(
        f"no random {fraction:.0%} of the {len(labels)} training clips holds all {present.sum()} classes ({why}; the"
        f" rarest class has {counts[present].min()} clips): use --valid_rule=grouped, or more data"
    )


def grouped_part(
    labels: NDArray[Any], n_classes: int, fraction: float, units: Sequence[str], *, advice: str = "use more data"
) -> Parts:
    """Return positions (kept, held out): about ``fraction`` of every class, never a unit in both, nothing drawn.

    ``units [n]`` names the indivisible unit of each row (speaker, source recording, or the row itself). Units are met
    in the order of a hash of their names, and one is held out if that brings the held-out share of its classes nearer
    to ``fraction`` (squared distance, each class relative to its size). Where rounding then leaves too few rows, units
    that disturb their classes least are added, at most one a class. A class always keeps a row to train on. So the
    part does not depend on the order of the rows. If no unit is small enough for that, the one that comes nearest is
    held out; where nothing can be, :class:`UserError` (with ``advice``) is raised.
    """
    units_of = _by_unit(units)
    counts = class_counts(labels, n_classes)
    goal, left = fraction * counts, counts.copy()
    held: list[NDArray[np.int64]] = []
    others: list[tuple[float, NDArray[np.int64], Counted]] = []
    for rows in units_of:
        classes, of_unit = counted = _unit_counts(labels, rows)
        if not (left[classes] > of_unit).all():
            continue
        gap = goal[classes]
        change = float((((gap - of_unit) ** 2 - gap**2) / counts[classes]).sum())
        if change < 0:
            held.append(rows)
            goal[classes] -= of_unit
            left[classes] -= of_unit
        else:
            others.append((change, rows, counted))
    others.sort(key=lambda other: other[0])  # stable: equal ones stay in the order of their hashes
    missing = fraction * len(labels) - sum(map(len, held))
    topped = np.zeros(n_classes, dtype=bool)
    for _, rows, (classes, of_unit) in others:
        fits = 2 * missing > len(rows) or not held
        if fits and not topped[classes].any() and (left[classes] > of_unit).all():
            held.append(rows)
            missing -= len(rows)
            left[classes] -= of_unit
            topped[classes] = True
    if not held:
        raise UserError(
            f"no part of the {len(labels)} training clips can be held out: every class needs clips in at least two of"
            f" the {len(units_of)} groups; {advice}"
        )
    out = np.zeros(len(labels), dtype=bool)
    out[np.concatenate(held)] = True
    return np.flatnonzero(~out), np.flatnonzero(out)


def hashed(name: str) -> bytes:
    """Return 16 bytes that stand for ``name`` in an order that has nothing to do with the alphabet."""
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def _by_unit(units: Sequence[str]) -> list[NDArray[np.int64]]:
    """Return the rows of each unit, units in the order of their hashes."""
    names, inverse = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(inverse, minlength=len(names)))[:-1])
    digests = [hashed(str(name)) for name in names]
    return [members[n] for n in sorted(range(len(names)), key=digests.__getitem__)]


def _unit_counts(labels: NDArray[Any], rows: NDArray[np.int64]) -> Counted:
    """Return the classes of a unit's rows and how many of its rows have each."""
    if labels.ndim == 2:
        total = (labels[rows] > 0).sum(axis=0)
        classes = np.flatnonzero(total)
        return classes, total[classes]
    classes, total = np.unique(labels[rows], return_counts=True)
    return classes, total
