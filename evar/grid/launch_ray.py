"""Cells on a Ray cluster (``--launcher=ray``): an existing one (``--ray_address``, ``RAY_ADDRESS``), or its own.

A batch is one task of Ray. Outcomes come as the cells finish. A batch whose node died is begun again on another one,
where the journal says what is done already.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from evar.errors import UserError
from evar.grid.cell import Outcome, RunSettings
from evar.grid.plan import Batch
from evar.grid.process import GRACE
from evar.grid.remote import Launch, environment, given_up, launch_of, run_there, still_to_do
from evar.progress import say
from evar.store import look_again

RETRIES = 3
"""How often a batch is begun again when its node, or Ray's worker process, died."""
LOOK = 0.5
"""Seconds between a worker's looks at whether the launch is still wanted."""
OBJECT_STORE = 80 * 2**20
"""Bytes of shared memory for the objects of a cluster of our own: outcomes are small, and Ray asks for 75 MB."""


def run_on_ray(batches: Sequence[Batch], settings: RunSettings) -> Iterator[Outcome]:
    """Run batches as Ray's tasks and yield outcomes as they come; when the caller stops, the tasks are cancelled."""
    launch = launch_of((cell for batch in batches for cell in batch), settings)
    try:
        done, rest = still_to_do(batches, launch)
        yield from done
        if rest:
            with _connected(settings):
                yield from _outcomes(rest, launch)
    finally:
        launch.sign.unlink(missing_ok=True)


@contextmanager
def _connected(settings: RunSettings) -> Iterator[None]:
    """Connect to the cluster that is meant, or start one and stop it again."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():  # a program that has its own connection
        yield
        return
    address = settings.extra.get("address") or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    own: dict[str, Any]
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            own = {"num_cpus": settings.workers * settings.cpus_per_cell, "object_store_memory": OBJECT_STORE}
            ray.init(address="local", include_dashboard=False, **own, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"no connection to Ray ({address or 'a cluster of our own'}): {reason[:300]}") from None
    try:
        say(f"Ray: {_size(ray.cluster_resources())}")
        yield
    finally:
        ray.shutdown()


def _size(resources: Mapping[str, float]) -> str:
    hosts = sum(name.startswith("node:") and name != "node:__internal_head__" for name in resources)
    parts = [(hosts, "node"), (int(resources.get("CPU", 0)), "core"), (int(resources.get("GPU", 0)), "GPU")]
    return ", ".join(f"{count} {name}{'s' if count != 1 else ''}" for count, name in parts if count or name != "GPU")


def _outcomes(batches: Sequence[Batch], launch: Launch) -> Iterator[Outcome]:
    """Hand all batches to Ray and yield what its tasks report; see :func:`_work` for what they do."""
    import ray

    settings = launch.settings
    _warn_if_too_large(ray.nodes(), settings)
    needs = {"num_cpus": settings.cpus_per_cell, "num_gpus": settings.gpus_per_cell}
    task = ray.remote(_work).options(
        num_returns="streaming", max_retries=RETRIES, runtime_env={"env_vars": environment()}, name="evar", **needs
    )
    shared = ray.put(launch)
    running = {task.remote(batch, shared): {cell.key: cell for cell in batch} for batch in batches}
    try:
        while running:
            ready, _ = ray.wait(list(running), num_returns=1)
            for stream in ready:
                found, ended = _next(stream)
                for outcome in found:
                    if running[stream].pop(outcome.cell.key, None) is not None:
                        yield outcome
                if ended is not None:
                    for cell in running.pop(stream).values():
                        yield given_up(cell, launch, ended)
    finally:
        _cancel(list(running), launch.sign)


def _next(stream: Any) -> tuple[Sequence[Outcome], str | None]:
    """Return ``(what a task reports next, why it has ended)``; the reason is None while it is running."""
    import ray

    try:
        return ray.get(next(stream)), None
    except StopIteration:
        return (), "the worker ended without a word"
    except ray.exceptions.RayTaskError as error:
        return (), str(error.cause).strip().splitlines()[0][:500]
    except ray.exceptions.RayError as error:
        first = (str(error).strip().splitlines() or [""])[0]
        return (), f"Ray gave it up after {RETRIES} retries: {type(error).__name__} {first}"[:500]


def _work(batch: Batch, launch: Launch) -> Iterator[tuple[Outcome, ...]]:
    """Run a batch in a worker of Ray: one outcome after the other, and at the end all of them.

    Ray begins a task that died anew and passes over as many reports as it has had. Should the second attempt's order be
    another (a cell that another grid was at), the last report makes good what was passed over.
    """
    if hasattr(signal, "pthread_sigmask"):  # Ray blocks SIGINT in its workers: the commands would inherit that
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    found, stop, over = [], threading.Event(), threading.Event()
    watch = threading.Thread(target=_stop_without, args=(launch.sign, stop, over), daemon=True)
    watch.start()
    try:
        for outcome in run_there(batch, launch, stop):
            found.append(outcome)
            yield (outcome,)
        yield tuple(found)
    finally:
        over.set()


def _stop_without(sign: Path, stop: threading.Event, over: threading.Event) -> None:
    """Set ``stop`` when the launch's sign goes: Ray's own word, an exception in the worker, can be lost under load."""
    seen = sign.exists()
    while not over.wait(LOOK):
        look_again(sign.parent)
        there = sign.exists()
        if seen and not there:
            stop.set()
            return
        seen = seen or there


def _cancel(streams: Sequence[Any], sign: Path) -> None:
    """Cancel tasks and give the commands that they run time to end."""
    import ray

    if not streams or not ray.is_initialized():
        return
    sign.unlink(missing_ok=True)  # the workers look for it
    for stream in streams:
        with suppress(Exception):
            ray.cancel(stream)
    left, deadline = list(streams), time.monotonic() + 2 * GRACE
    while left and time.monotonic() < deadline:
        ready, _ = ray.wait(left, num_returns=1, timeout=0.5)
        left = [stream for stream in left if stream not in ready or _next(stream)[1] is None]


def _warn_if_too_large(nodes: Sequence[Mapping[str, Any]], settings: RunSettings) -> None:
    """Say so if no node could ever take a batch: Ray would wait silently (for an autoscaler, perhaps)."""
    wanted = {"CPU": float(settings.cpus_per_cell), "GPU": float(settings.gpus_per_cell)}
    there = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(all(one.get(name, 0.0) >= number for name, number in wanted.items()) for one in there):
        text = " and ".join(f"{number:g} {name}" for name, number in wanted.items() if number)
        say(f"no node of the Ray cluster has {text} at present; the cells wait for one (Ctrl-C gives up)")
