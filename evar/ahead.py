"""Making batches ahead of the one who uses them, in threads, on the device's own side stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from evar.audio.loading import workers_for

A = TypeVar("A")
B = TypeVar("B")


def made_ahead(
    make: Callable[[A], B],
    tasks: Iterable[A],
    device: torch.device,
    tensors: Callable[[B], Iterable[Tensor]],
    workers: int | None = None,
) -> Iterator[B]:
    """Yield ``make(task)`` for every task in order, made by threads; one more than there are threads is held ahead.

    On a GPU the threads' work is queued on a stream of its own, and the consumer's stream waits for it, not the host.

    Args:
        make: makes one batch; threads call it at the same time.
        tasks: taken from only as far as needed.
        device: where batches are made.
        tensors: the tensors of a batch, which the consumer goes on to use.
        workers: threads; None: one per core, at most eight.
    """
    count = workers_for(workers)
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def one(task: A) -> tuple[B, Any]:
        with torch.no_grad(), torch.cuda.stream(stream) if stream is not None else nullcontext():
            made = make(task)
            return made, None if stream is None else stream.record_event()

    def handed_over(future: Future[tuple[B, Any]]) -> B:
        made, ready = future.result()
        if ready is not None:
            consumer = torch.cuda.current_stream(device)
            consumer.wait_event(ready)
            for tensor in tensors(made):
                tensor.record_stream(consumer)  # its memory is not given to the side stream while it is read here
        return made

    with ThreadPoolExecutor(count, thread_name_prefix="feed") as pool:
        waiting: deque[Future[tuple[B, Any]]] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(one, task))
                if len(waiting) > count:
                    yield handed_over(waiting.popleft())
            while waiting:
                yield handed_over(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()
