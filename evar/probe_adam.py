"""The published linear probe: one linear layer trained by Adam with early stopping (EVAR; RUNNERS 1.3 of our notes).

On CPU cores folds × seeds run side by side, one thread each; on a GPU they are one batched computation. The random
draws of a head are its own, so neither the number of workers nor the batching changes what is drawn.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from evar.probe_data import Fit, Fold, Scaler, check, fit_scaler
from evar.probe_heads import Head, Pool, Settings, Ties, train
from evar.probe_splits import grouped_part, random_part

ValidRule = Literal["random", "grouped"]
Progress = Callable[[], object]


def adam_probe(
    features: NDArray[np.float32],
    labels: NDArray[Any],
    folds: Sequence[Fold],
    seeds: Sequence[int],
    *,
    n_classes: int,
    multi_label: bool,
    lr: float,
    max_epochs: int = 200,
    patience: int | None = 20,
    batch_size: int = 200,
    weight_decay: float = 1e-8,
    valid_fraction: float = 0.1,
    valid_rule: ValidRule = "random",
    ties: Ties = "latest",
    groups: Sequence[str] | None = None,
    standardize: bool = True,
    device: str = "cpu",
    workers: int | None = None,
    batched: bool | None = None,
    class_names: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> list[list[Fit]]:
    """Return the fits ``[seed][fold]`` of the published probe.

    StandardScaler over all training rows of the fold (the later validation tenth included: ODDITIES 41 of our notes);
    a linear layer as PyTorch initialises it; loss divided by the number of classes; Adam with L2 weight decay and a
    constant rate; shuffled mini-batches, the last one short; after each epoch the validation accuracy (mAP for
    multi-label), where a tie counts as better (``ties``); at the ``patience``-th epoch after the best one the fit
    stops, and the best weights are scored on the test rows.

    Args:
        features, labels: ``[N, D]`` float32, may be a memory map; int64 ``[N]``, or multi-hot ``[N, C]``. Two classes
            are two columns (EVAR's fault with binary tasks, ODDITIES 1, is not repeated).
        folds, class_names: row numbers of each fold's parts; names for messages.
        seeds: one run each: initial weights, shuffles, validation part. Each seed's validation parts are drawn fold
            after fold from one legacy NumPy stream, as the reference does.
        n_classes, multi_label: C; sigmoid and binary cross-entropy instead of softmax.
        lr, max_epochs, batch_size, weight_decay: of Adam; the decay is L2 style, added to the gradient.
        patience: None never stops early (the best weights are still the ones scored).
        valid_fraction, valid_rule: what is held out where a fold has no validation part. ``random``: as the reference,
            neither stratified nor grouped, drawn again until it has every class; ``grouped``: stratified, by
            ``groups`` and without chance (the same for all seeds).
        ties: ``latest``: an epoch as good as the best one so far replaces it, as published, and the patience begins
            anew; ``first``: only a better one does.
        groups, standardize: name of each row's group (speaker, …); False leaves the features as they are.
        device, workers: heads trained at a time on the CPU (default: the cores at hand) do not change a bit of it.
        batched: all heads as one computation (default: yes on every device but the CPU).
        progress: called once for each finished fit, in the caller's thread.

    Raises:
        UserError: a class without training clips, no possible validation part, or features that are not finite.
    """
    check(features, labels, folds, n_classes=n_classes, multi_label=multi_label, class_names=class_names)
    if not folds or not seeds:
        return [[] for _ in seeds]
    settings = Settings(n_classes, multi_label, lr, max_epochs, patience, batch_size, weight_decay, ties)
    work = _Work(features, labels, folds, seeds, settings, standardize, device)
    parts = _valid_parts(labels, folds, seeds, n_classes, valid_fraction, valid_rule, groups)
    at_once = batched if batched is not None else device != "cpu"
    return _all_at_once(work, parts, progress) if at_once else _side_by_side(work, parts, workers or cores(), progress)


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def draws_of(seed: int, fold: int) -> torch.Generator:
    """Return the random stream of one head (its weights, then its shuffles); ``fold`` counts from 0.

    Both numbers enter: equal draws in all folds would make their errors alike.
    """
    state = np.random.SeedSequence([seed, fold]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's operators on one thread (small steps lose 2–25 × on more), and restore the setting afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_threads(
    jobs: Sequence[Callable[[], Any]], workers: int, progress: Progress | None, stop: threading.Event
) -> list[Any]:
    """Return the jobs' results in order, ``workers`` at a time, each on one torch thread.

    Threads and not processes: torch releases Python's lock inside its operators, and nothing is copied or started anew.
    When a job fails (or the user interrupts), ``stop`` is set and what has not begun is dropped.
    """
    with (
        one_thread(),
        ThreadPoolExecutor(min(workers, len(jobs)), initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        futures = [pool.submit(job) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
                if progress:
                    progress()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]


@dataclass(frozen=True, eq=False)
class _Part:
    """Positions within the fold's training rows, or None where the fold has a validation part of its own."""

    kept: NDArray[np.int64]
    held: NDArray[np.int64]


def _valid_parts(
    labels: NDArray[Any],
    folds: Sequence[Fold],
    seeds: Sequence[int],
    n_classes: int,
    fraction: float,
    rule: ValidRule,
    groups: Sequence[str] | None,
) -> list[list[_Part | None]]:
    """Return ``[seed][fold]`` which training rows are held out; drawn here, in order, whoever trains the heads."""
    if rule == "grouped":
        fixed = [None if f.valid is not None else _grouped(labels, f, n_classes, fraction, groups) for f in folds]
        return [fixed for _ in seeds]
    out: list[list[_Part | None]] = []
    for seed in seeds:
        stream = np.random.RandomState(seed)
        row: list[_Part | None] = []
        for fold in folds:
            there = fold.valid is not None
            row.append(None if there else _Part(*random_part(labels[fold.train], n_classes, fraction, stream)))
        out.append(row)
    return out


def _grouped(labels: NDArray[Any], fold: Fold, n_classes: int, fraction: float, groups: Sequence[str] | None) -> _Part:
    units = [groups[r] if groups is not None else str(r) for r in fold.train.tolist()]
    return _Part(*grouped_part(labels[fold.train], n_classes, fraction, units, advice="use --valid_rule=random"))


class _Work:
    """What all heads share, and how to build a fold's pool and a head in it."""

    def __init__(
        self,
        features: NDArray[np.float32],
        labels: NDArray[Any],
        folds: Sequence[Fold],
        seeds: Sequence[int],
        settings: Settings,
        standardize: bool,
        device: str,
    ) -> None:
        self.features, self.labels, self.folds, self.seeds = features, labels, folds, seeds
        self.settings, self.standardize, self.device = settings, standardize, device

    def pool(self, fold: Fold) -> Pool:
        """Scale a fold's rows: training, then validation, then test."""
        scaler: Scaler = fit_scaler(self.features, fold.train, standardize=self.standardize)
        rows = np.concatenate([fold.train, fold.train[:0] if fold.valid is None else fold.valid, fold.test])
        y = self.labels[rows].astype(np.float32 if self.settings.multi_label else np.int64)
        x = torch.from_numpy(scaler.apply(self.features, rows)).to(self.device)
        return Pool(x, torch.from_numpy(y).to(self.device))

    def head(self, s: int, f: int, part: _Part | None, offset: int = 0) -> Head:
        """Return the head of seed number ``s`` and fold number ``f`` whose pool begins at row ``offset``."""
        fold = self.folds[f]
        n, n_valid = len(fold.train), 0 if fold.valid is None else len(fold.valid)
        kept = np.arange(n) if part is None else part.kept
        held = np.arange(n, n + n_valid) if part is None else part.held
        test = np.arange(n + n_valid, n + n_valid + len(fold.test))
        train_rows, valid_rows, test_rows = (torch.from_numpy(rows + offset) for rows in (kept, held, test))
        draws = draws_of(self.seeds[s], f)
        info = {"seed": self.seeds[s], "n_train": len(kept), "n_valid": len(held), "n_test": len(test)}
        return Head(train_rows, valid_rows, test_rows, draws, info)


class _SharedPools:
    """Builds a fold's pool when its first head needs it and drops it after its last: few are in memory at a time."""

    def __init__(self, work: _Work) -> None:
        self._work = work
        self._locks = [threading.Lock() for _ in work.folds]
        self._pools: list[Pool | None] = [None for _ in work.folds]
        self._left = [len(work.seeds) for _ in work.folds]

    def take(self, f: int) -> Pool:
        with self._locks[f]:
            pool = self._pools[f] or self._work.pool(self._work.folds[f])
            self._left[f] -= 1
            self._pools[f] = pool if self._left[f] else None
            return pool


def _side_by_side(
    work: _Work, parts: list[list[_Part | None]], workers: int, progress: Progress | None
) -> list[list[Fit]]:
    shared, stop = _SharedPools(work), threading.Event()

    def job(s: int, f: int) -> Fit:
        return train(shared.take(f), [work.head(s, f, parts[s][f])], work.settings, stop)[0]

    cells = [(s, f) for f in range(len(work.folds)) for s in range(len(work.seeds))]
    fits = in_threads([partial(job, s, f) for s, f in cells], workers, progress, stop)
    of_cell = dict(zip(cells, fits, strict=True))
    return [[of_cell[s, f] for f in range(len(work.folds))] for s in range(len(work.seeds))]


def _all_at_once(work: _Work, parts: list[list[_Part | None]], progress: Progress | None) -> list[list[Fit]]:
    pools = [work.pool(fold) for fold in work.folds]
    offsets = np.cumsum([0, *(len(pool.x) for pool in pools)])
    pool = pools[0] if len(pools) == 1 else Pool(torch.cat([p.x for p in pools]), torch.cat([p.y for p in pools]))
    del pools
    n_seeds, n_folds = len(work.seeds), len(work.folds)
    heads = [work.head(s, f, parts[s][f], int(offsets[f])) for s in range(n_seeds) for f in range(n_folds)]
    with one_thread():
        fits = train(pool, heads, work.settings, threading.Event(), progress)
    return [fits[s * n_folds : (s + 1) * n_folds] for s in range(n_seeds)]
