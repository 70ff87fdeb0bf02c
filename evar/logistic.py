"""Logistic regression as an optimisation problem: coordinates in which it is well conditioned, value and gradient."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from evar.lbfgs import Solution, minimise

_ROWS = 2048  # rows of one piece of work; pieces are summed in order, so threads do not change the result
_ROTATE = 1 << 27  # numbers: up to 1 GiB of float64 the features themselves are rotated
_SAMPLE = 4096  # rows (or features) of the eigenproblem behind the preconditioner


class Logistic:
    """Training data ``x [n, D]`` (scaled), ``y`` (``[n]`` integers or ``[n, C]`` multi-hot), and the problem they pose.

    Embeddings are strongly correlated, so plain L-BFGS is slow. The Hessian is nearly a multiple of the features'
    second moment, whose eigenvectors V and eigenvalues e therefore give a preconditioner: 1 / (a·e + strength), with
    the mean of p·(1 − p) as a, per class. Data of up to 1 GiB are rotated into V (for n < D this also shrinks them to
    their row space, where the solution lies: predictions are the same); of larger data V comes from 4,096 rows and is
    applied to gradients only. Weights are ``[C, r + 1]`` float64, the bias last.
    """

    def __init__(
        self,
        x: NDArray[np.float32],
        y: NDArray[Any],
        n_classes: int,
        *,
        multi_label: bool,
        device: str = "cpu",
        pool: ThreadPoolExecutor | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.n_classes, self.multi_label, self.stop = n_classes, multi_label, stop or threading.Event()
        self._map: Callable[..., Iterable[Any]] = pool.map if pool else map
        self._original = torch.from_numpy(x).to(device)
        self.y = torch.from_numpy(y.astype(np.float64 if multi_label else np.int64)).to(device)
        n, width = x.shape
        self.rotated = n * min(n, width) <= _ROTATE and min(n, width) <= _SAMPLE
        sample = self._original if self.rotated else self._original[:: -(-n // _SAMPLE)]
        self.basis, self.moments = _principal(sample)
        self.x = self._times_basis(self._original) if self.rotated else self._original
        rest = float(self._original[: len(sample)].double().square().sum() / len(sample) - self.moments.sum())
        # Mean second moment in the directions that the basis leaves out (nothing is there if the features are rotated).
        self.rest = max(rest, 0.0) / max(width - len(self.moments), 1)

    def _times_basis(self, x: Tensor) -> Tensor:
        return torch.cat(list(self._map(lambda piece: piece.double() @ self.basis, x.split(_ROWS))))

    def enter(self, x: NDArray[np.float32]) -> Tensor:
        """Return scaled features ``[m, D]`` in the problem's coordinates ``[m, r]``."""
        there = torch.from_numpy(x).to(self.x.device)
        return self._times_basis(there) if self.rotated else there

    def zeros(self, rows: NDArray[np.int64]) -> Tensor:
        """Return weights 0 with the bias that fits the classes' shares among ``rows``."""
        w = torch.zeros(self.n_classes, self.x.shape[1] + 1, dtype=torch.float64, device=self.x.device)
        y = self.y[torch.from_numpy(rows).to(self.x.device)]
        if self.multi_label:
            share = y.mean(0).clamp(0.5 / len(y), 1 - 0.5 / len(y))
            w[:, -1] = torch.logit(share)
        else:
            share = torch.bincount(y, minlength=self.n_classes).double() / len(y)
            w[:, -1] = share.clamp(min=0.5 / len(y)).log()
        return w

    def solve(self, start: Tensor, strength: float, rows: NDArray[np.int64], *, tol: float, max_iter: int) -> Solution:
        """Return the solution over the training rows ``rows``: no gradient entry (original features) above ``tol``.

        In rotated coordinates the largest entry may be smaller than in the original ones, so the end is checked there,
        and the solver goes on with a tighter tolerance if need be.
        """
        at = torch.from_numpy(rows).to(self.x.device)
        pieces = list(at.split(_ROWS))
        inverse = self._preconditioner(start, strength, pieces)
        inner, x, steps = tol, start, 0
        while True:
            found = minimise(
                lambda w: self._value(w, strength, pieces, len(rows)),
                x,
                inverse,
                tol=inner,
                max_iter=max_iter - steps,
                interrupted=self.stop.is_set,
            )
            steps += found.iterations
            largest = float(self._original_gradient(found.gradient).abs().max())
            found = replace(found, largest=largest, iterations=steps, converged=largest <= tol)
            if found.converged or found.gradient.abs().max() > inner:
                return found
            x, inner = found.x, inner / 4

    def scores(self, weights: Tensor, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return softmax or sigmoid outputs ``[m, C]`` for training rows."""
        return self.scores_of(weights, self.x[torch.from_numpy(rows).to(self.x.device)])

    def scores_of(self, weights: Tensor, x: Tensor) -> NDArray[np.float32]:
        """Return softmax or sigmoid outputs ``[m, C]`` for features ``[m, r]`` that came through :meth:`enter`."""
        z = torch.cat(list(self._map(lambda piece: _logits(weights, piece), x.split(_ROWS))))
        return (z.sigmoid() if self.multi_label else z.softmax(1)).float().cpu().numpy()

    def _original_gradient(self, gradient: Tensor) -> Tensor:
        if not self.rotated:
            return gradient
        return torch.cat([gradient[:, :-1] @ self.basis.T, gradient[:, -1:]], dim=1)

    def _value(self, w: Tensor, strength: float, pieces: list[Tensor], n: int) -> tuple[float, Tensor]:
        value, gradient = 0.0, torch.zeros_like(w)
        for part, of_part in self._map(lambda at: self._piece(w, at), pieces):
            value += part
            gradient += of_part
        gradient /= n
        gradient[:, :-1].add_(w[:, :-1], alpha=strength)
        return value / n + 0.5 * strength * float(w[:, :-1].square().sum()), gradient

    def _piece(self, w: Tensor, at: Tensor) -> tuple[float, Tensor]:
        """Return the loss summed over the rows ``at`` and its gradient ``[C, r + 1]``."""
        x, y = self.x[at].double(), self.y[at]
        z = _logits(w, x)
        if self.multi_label:
            value = float(functional.softplus(z).sum() - (z * y).sum())
            z = z.sigmoid_().sub_(y)
        else:
            z = torch.log_softmax(z, 1)
            value = -float(z.gather(1, y[:, None]).sum())
            z = z.exp_().scatter_add_(1, y[:, None], z.new_full((1, 1), -1.0).expand(len(y), 1))
        return value, torch.cat([z.T @ x, z.sum(0)[:, None]], dim=1)

    def _preconditioner(self, w: Tensor, strength: float, pieces: list[Tensor]) -> Callable[[Tensor], Tensor]:
        spread = torch.zeros(self.n_classes, dtype=torch.float64, device=w.device)
        for at in pieces:
            z = _logits(w, self.x[at].double())
            p = z.sigmoid() if self.multi_label else z.softmax(1)
            spread += (p * (1 - p)).sum(0)
        a = (spread / sum(map(len, pieces))).clamp(min=1e-6)[:, None]
        inside = 1 / (a * self.moments + strength)
        if self.rotated:
            scale = torch.cat([inside, 1 / a], dim=1)
            return lambda g: g * scale
        outside = 1 / (a * self.rest + strength)

        def apply(g: Tensor) -> Tensor:
            along = (g[:, :-1] @ self.basis) * (inside - outside)
            return torch.cat([g[:, :-1] * outside + along @ self.basis.T, g[:, -1:] / a], dim=1)

        return apply


def _logits(w: Tensor, x: Tensor) -> Tensor:
    return torch.addmm(w[:, -1], x.double(), w[:, :-1].T)


def _principal(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return orthonormal directions ``[D, r]`` and the second moments ``[r]`` along them of ``x [n, D]``, float64.

    They come from the smaller of the two Gram matrices; directions in which the data have nothing are left out.
    """
    n, width = x.shape
    wide = width > n
    gram = torch.zeros(min(n, width), min(n, width), dtype=torch.float64, device=x.device)
    for piece in x.split(512, dim=1) if wide else x.split(_ROWS):
        there = piece.double()
        gram += there @ there.T if wide else there.T @ there
    values, vectors = torch.linalg.eigh(gram)
    kept = values > values[-1] * 1e-12
    values, vectors = values[kept], vectors[:, kept]
    basis = (x.T.double() @ vectors) / values.sqrt() if wide else vectors
    return basis, values / n
