"""Ridge regression with many targets from streaming sums: memory does not grow with the number of rows.

Hoerl and Kennard, Technometrics 12, 1970; the strength by generalised cross-validation (Golub, Heath and Wahba,
Technometrics 21, 1979). All in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evar.errors import UserError

Array = NDArray[np.float64]

STRENGTHS = tuple(np.logspace(-6, 2, 33).tolist())
"""Strengths tried, per row; a standardised feature has variance 1."""


class RidgeMap(NamedTuple):
    """A fitted map: ``(x - mean) @ weights + offset`` predicts the targets."""

    mean: Array
    """``[D]`` mean of the inputs."""
    weights: Array
    """``[D, J]``, for inputs that are centred but not scaled: the scale is inside."""
    offset: Array
    """``[J]`` mean of the targets."""
    strength: float
    """The chosen one of :data:`STRENGTHS`."""


class RidgeSums:
    """Means and centred sums of products of inputs ``[N, D]`` and targets ``[N, J]`` that arrive in batches."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, inputs: Array, targets: Array) -> None:
        """Take in a batch, by the merging rule of Chan, Golub and LeVeque (1983), which loses no digits."""
        rows = len(inputs)
        if rows == 0:
            return
        if self.count == 0:
            wide, long = inputs.shape[1], targets.shape[1]
            self.mean_x, self.mean_y = np.zeros(wide), np.zeros(long)
            self.xx, self.xy, self.yy = np.zeros((wide, wide)), np.zeros((wide, long)), 0.0
        shift_x, shift_y = inputs.mean(axis=0) - self.mean_x, targets.mean(axis=0) - self.mean_y
        x, y = inputs - inputs.mean(axis=0), targets - targets.mean(axis=0)
        weight = self.count * rows / (self.count + rows)
        self.xx += x.T @ x + weight * np.outer(shift_x, shift_x)
        self.xy += x.T @ y + weight * np.outer(shift_x, shift_y)
        self.yy += float((y * y).sum() + weight * (shift_y @ shift_y))
        self.count += rows
        self.mean_x += shift_x * rows / self.count
        self.mean_y += shift_y * rows / self.count

    def solve(self) -> RidgeMap:
        """Return the ridge map on standardised inputs whose strength has the least generalised cross-validation error.

        Inputs that never vary get no weight. Raises :class:`UserError` if there are fewer than three rows.
        """
        if self.count < 3:
            raise UserError(f"a map from audio to captions needs at least three training clips; there are {self.count}")
        variance = np.diag(self.xx) / self.count
        varies = variance > 1e-12 * max(float(variance.max()), 1e-300)
        scale = np.where(varies, 1.0 / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
        values, vectors = np.linalg.eigh(self.xx * np.outer(scale, scale))
        values = np.maximum(values, 0.0)
        projected = vectors.T @ (self.xy * scale[:, None])
        power = (projected**2).sum(axis=1)
        errors = [self._gcv(values, power, strength * self.count) for strength in STRENGTHS]
        strength = STRENGTHS[int(np.argmin(errors))]
        weights = scale[:, None] * (vectors @ (projected / (values + strength * self.count)[:, None]))
        return RidgeMap(self.mean_x, weights, self.mean_y, strength)

    def _gcv(self, values: Array, power: Array, ridge: float) -> float:
        """Return the mean squared residual over the squared share of free degrees (one goes to the mean)."""
        shrunk = values + ridge
        residual = self.yy - 2.0 * float((power / shrunk).sum()) + float((power * values / shrunk**2).sum())
        free = 1.0 - (1.0 + float((values / shrunk).sum())) / self.count
        return max(residual, 0.0) / free**2 if free > 0.0 else np.inf
