"""Limited-memory BFGS for smooth convex functions, with a given preconditioner and a stated tolerance."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_MEMORY = 12
_ARMIJO = 1e-4
_BACKTRACKS = 40
_ROUNDING = 1e-13
Objective = Callable[[Tensor], tuple[float, Tensor]]


@dataclass(frozen=True, eq=False)
class Solution:
    """Where the solver ended: point, gradient and its largest absolute entry, and whether that is small enough."""

    x: Tensor
    gradient: Tensor
    largest: float
    iterations: int
    evaluations: int
    converged: bool


def minimise(
    objective: Objective,
    start: Tensor,
    precondition: Callable[[Tensor], Tensor],
    *,
    tol: float,
    max_iter: int,
    interrupted: Callable[[], bool] = lambda: False,
) -> Solution:
    """Return the minimum of ``objective(x) -> (value, gradient)`` (Nocedal & Wright, algorithms 7.4 and 7.5).

    ``precondition`` applies an approximate inverse Hessian; the newest curvature rescales it. Steps are found by
    backtracking. It ends where no entry of the gradient exceeds ``tol``, after ``max_iter`` steps, or where rounding
    lets no step lower the value. Nothing random; float64 expected.
    """
    x = start
    value, gradient = objective(x)
    pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=_MEMORY)
    evaluations, iterations = 1, 0
    while float(gradient.abs().max()) > tol and iterations < max_iter:
        if interrupted():
            raise KeyboardInterrupt
        direction = _direction(gradient, pairs, precondition)
        slope = _dot(direction, gradient)
        if slope >= 0:  # rounding spoilt the memory: begin anew
            pairs.clear()
            direction = -precondition(gradient)
            slope = _dot(direction, gradient)
        step = 1.0
        for _ in range(_BACKTRACKS):
            new = x + step * direction
            new_value, new_gradient = objective(new)
            evaluations += 1
            if new_value <= value + _ARMIJO * step * slope:
                break
            # Near the minimum the values differ by rounding alone, and the slopes tell what the values cannot
            # (the approximate Wolfe condition: Hager & Zhang 2005).
            level = new_value <= value + _ROUNDING * abs(value)
            if level and _dot(new_gradient, direction) <= (2 * _ARMIJO - 1) * slope:
                break
            # The minimum of the parabola through both values and the slope, kept within reason.
            curve = new_value - value - step * slope
            step *= min(max(-slope * step / (2 * curve), 0.1), 0.5) if curve > 0 else 0.5
        else:
            break
        change, turn = new - x, new_gradient - gradient
        curvature = _dot(change, turn)
        if curvature > 1e-14 * _dot(turn, turn):
            pairs.append((change, turn, curvature))
        x, value, gradient = new, new_value, new_gradient
        iterations += 1
    largest = float(gradient.abs().max())
    return Solution(x, gradient, largest, iterations, evaluations, largest <= tol)


def _direction(
    gradient: Tensor, pairs: deque[tuple[Tensor, Tensor, float]], precondition: Callable[[Tensor], Tensor]
) -> Tensor:
    q = gradient.clone()
    shares = []
    for change, turn, curvature in reversed(pairs):
        share = _dot(change, q) / curvature
        shares.append(share)
        q.sub_(turn, alpha=share)
    q = precondition(q)
    if pairs:
        _, turn, curvature = pairs[-1]
        q = q * (curvature / _dot(turn, precondition(turn)))
    for (change, turn, curvature), share in zip(pairs, reversed(shares), strict=True):
        q = q.add(change, alpha=share - _dot(turn, q) / curvature)
    return -q


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.flatten(), b.flatten()))
