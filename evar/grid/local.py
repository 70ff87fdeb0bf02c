"""Cells on this machine: several processes at once on its cores, or one per GPU."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from evar.grid.cell import Outcome, RunSettings, run_cell
from evar.grid.plan import Batch

CORES_PER_CELL = 4
"""A cell seldom makes use of more: decoding and torch's kernels are parallel, the probe hardly."""


def local(batches: Sequence[Batch], settings: RunSettings) -> Iterator[Outcome]:
    """Run batches in ``settings.workers`` threads that start the commands; yield outcomes as they come.

    A batch that another grid is at is put back and done at the end. When the caller stops (Ctrl-C), the commands are
    ended before this returns.
    """
    work = _Work([(batch, False) for batch in batches])
    found: queue.Queue[Outcome | BaseException | None] = queue.Queue()
    stop = threading.Event()
    places = environments(settings)[: max(1, len(batches))]
    threads = [threading.Thread(target=_keep_at, args=(work, found, stop, settings, place)) for place in places]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            outcome = found.get()
            if isinstance(outcome, BaseException):
                raise outcome
            if outcome is None:
                running -= 1
            else:
                yield outcome
    finally:
        stop.set()
        for thread in threads:
            thread.join()


class _Work:
    """Batches still to be done, each with whether to wait for a cell that another grid is at."""

    def __init__(self, items: list[tuple[Batch, bool]]) -> None:
        self._items, self._lock = deque(items), threading.Lock()

    def take(self) -> tuple[Batch, bool] | None:
        with self._lock:
            return self._items.popleft() if self._items else None

    def put_back(self, batch: Batch) -> None:
        with self._lock:
            self._items.append((batch, True))


def _keep_at(
    work: _Work,
    found: queue.Queue[Outcome | BaseException | None],
    stop: threading.Event,
    settings: RunSettings,
    environment: Mapping[str, str],
) -> None:
    try:
        while not stop.is_set() and (item := work.take()) is not None:
            batch, patient = item
            for number, cell in enumerate(batch):
                outcome = run_cell(cell, settings, environment, stop=stop, wait=patient)
                if outcome.state == "busy":  # its embeddings are being made: do another batch first
                    work.put_back(batch[number:])
                    break
                found.put(outcome)
    except BaseException as error:  # the caller's thread must learn of it, or it would wait for ever
        found.put(error)
    else:
        found.put(None)


def environments(settings: RunSettings) -> list[dict[str, str]]:
    """Return the variables of each process at work: its GPU, in turn, where GPUs are to be used."""
    gpus = visible_gpus() if settings.device in ("auto", "cuda") else []
    return [{"CUDA_VISIBLE_DEVICES": gpus[n % len(gpus)]} if gpus else {} for n in range(settings.workers)]


def visible_gpus() -> list[str]:
    """Return the GPUs by the names that ``CUDA_VISIBLE_DEVICES`` takes: what it says already, else all of them."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in given.split(",") if name.strip() and name.strip() != "-1"]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    lines = listed.stdout.splitlines() if listed.returncode == 0 else []
    return [str(n) for n in range(sum(line.startswith("GPU ") for line in lines))]


def cores() -> int:
    """Return the number of cores that this process may use."""
    with suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def with_workers(settings: RunSettings, jobs: int | None) -> RunSettings:
    """Return the settings with the number of processes at once: as given, else one per GPU or per four cores."""
    usual = len(visible_gpus()) if settings.device in ("auto", "cuda") else 0
    workers = jobs or usual or max(1, cores() // CORES_PER_CELL)
    return replace(settings, workers=workers, cpus_per_cell=max(1, cores() // workers))
