"""What an embedding costs: parameters, floating-point operations, speed and memory, measured beside the scores.

Everything is measured on noise of the task's unit, through the same call that embeds clips, with the run's device,
precision and threads, after the scores are there. A measurement takes about two seconds, is kept in the cache, and
neither changes a score nor ends a run: what cannot be measured is null, with the reason.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from evar.audio.windows import unit_samples
from evar.extract import Embed, Precision, Space, embedder, model_facts
from evar.paths import cache_dir
from evar.store import fingerprint_of, write_atomically
from model_adapters.registry import Model

VERSION = 1
"""Raised when the same thing is measured in another way: what is in the cache is then measured again."""
SECONDS = 2.0
"""About what the repeats of a measurement may take together."""
REPEATS = (3, 15)
"""At least (unless they take too long) and at most so many."""
FIGURES = ("parameters", "gflops_per_second", "real_time_factor", "audio_seconds_per_second", "peak_memory_mib")
Block = dict[str, Any]


def efficiency(
    model: Model,
    clip_seconds: float,
    *,
    batch_size: int,
    space: Space = "clip",
    device: str = "cpu",
    precision: Precision = "fp32",
    prepared: bool = True,
    cache: Path | None = None,
) -> Block:
    """Return the result's ``efficiency`` (docs/results.md); measured once per model, device, unit and batch.

    Args:
        model: its adapter is moved to ``device``.
        clip_seconds: length of a clip.
        batch_size: clips per forward pass; fewer are taken (and reported) where a pass would last too long.
        space: ``clip`` measures ``embed``, ``joint`` ``embed_audio``.
        device: as for the embeddings.
        precision: as for the embeddings.
        prepared: whether the adapter has taken from the task what it needs; one that has not cannot be measured.
        cache: folder; None: the usual one.
    """
    facts = _facts(model, clip_seconds, batch_size, space, device, precision)
    path = (cache or cache_dir()) / "efficiency" / f"{fingerprint_of(facts)}.json"
    found = _remembered(path)
    if found is not None:
        return found
    about = {"device": device_name(device), "batch_size": batch_size, "clip_seconds": clip_seconds}
    if model.adapter.prepares_for(space) and not prepared:
        return _nothing("the embeddings were stored already, so the model was not prepared on the task") | about
    try:
        block = about | _measured(model, clip_seconds, batch_size, space, device, precision)
    except Exception as error:  # whatever a foreign model does under measurement may not cost the scores
        return _nothing(_in_a_line(error)) | about
    with suppress(OSError):  # a cache that cannot be written costs time
        write_atomically(path, json.dumps({"facts": facts, "efficiency": block}, indent=1) + "\n")
    return block


def _facts(
    model: Model, clip_seconds: float, batch_size: int, space: Space, device: str, precision: Precision
) -> dict[str, Any]:
    """Return what a measurement depends on. The task's statistics are left out: they cost nothing."""
    return {
        "version": VERSION,
        "model": model_facts(model, clip_seconds, precision, space, "") | {"state": {}},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "batch_size": batch_size,
    }


def device_name(device: str) -> str:
    """Return the device in words: the GPU's name, or the processor's with the number of threads."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            names = [line.partition(":")[2].strip() for line in handle if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _remembered(path: Path) -> Block | None:
    try:
        block = json.loads(path.read_text(encoding="utf-8"))["efficiency"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return block if isinstance(block, dict) and set(FIGURES) <= block.keys() else None


def _nothing(reason: str) -> Block:
    return dict.fromkeys(FIGURES) | {"reason": reason}


def _in_a_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _measured(
    model: Model, clip_seconds: float, batch_size: int, space: Space, device: str, precision: Precision
) -> Block:
    adapter, where = model.adapter.to(device), torch.device(device)
    samples = unit_samples(adapter.sample_rate, clip_seconds)
    embed = embedder(model, space, device, precision)
    seconds = samples / adapter.sample_rate
    devices = [where] if where.type == "cuda" else []
    with torch.random.fork_rng(devices):
        noise = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
        used, operations = count(adapter, embed, noise)
        size, once = batch_size, _time(embed, noise)
        if where.type == "cpu":  # where time grows with the batch
            once = once if once > SECONDS / 10 else min(once, _time(embed, noise))  # not another program's hiccup
            size = max(1, min(batch_size, int(SECONDS / REPEATS[0] / once)))
        batch = noise.repeat(size, 1)
        peak = peak_memory(adapter, embed, batch, where)  # and warm-up
        times = [once] if once > SECONDS else _repeated(embed, batch)
    speed = size * seconds / statistics.median(times)
    return {
        "parameters": used,
        "gflops_per_second": operations / seconds / 1e9,
        "real_time_factor": 1 / speed,
        "audio_seconds_per_second": speed,
        "peak_memory_mib": peak / 2**20,
        "batch_size": size,
    }


def _lengths(batch: Tensor) -> Tensor:
    return torch.full((len(batch),), batch.shape[1], dtype=torch.int64)


def _time(embed: Embed, batch: Tensor) -> float:
    """Return the seconds of one pass; it ends with the embeddings in the main memory, so a GPU has finished."""
    begin = time.perf_counter()
    embed(batch, _lengths(batch))
    return max(time.perf_counter() - begin, 1e-9)


def _repeated(embed: Embed, batch: Tensor) -> list[float]:
    times = [_time(embed, batch)]
    least, most = REPEATS
    while len(times) < most and sum(times) + times[-1] < (SECONDS if len(times) < least else SECONDS / 2):
        times.append(_time(embed, batch))
    return times


def count(adapter: nn.Module, embed: Embed, batch: Tensor) -> tuple[int, int]:
    """Return ``(parameters that embedding reads, floating-point operations per clip)``.

    The operations are those of matrix products, convolutions and attention, a multiply-add counted as two
    (``torch.utils.flop_counter``); Fourier transforms, recurrences' gates and all that works element by element are
    left out. A parameter counts if any operator gets it, wholly or in part.
    """
    counter, seen = FlopCounterMode(display=False), UsedParameters(adapter)
    with _plain_operators(adapter), counter, seen:
        embed(batch, _lengths(batch))
    return seen.total(), counter.get_total_flops() // len(batch)


@contextmanager
def _plain_operators(adapter: nn.Module) -> Iterator[None]:
    """Have attention and recurrent networks computed by products that can be counted, not by fused operators."""
    fused = torch.backends.mha.get_fastpath_enabled()
    trained = [parameter for parameter in adapter.parameters() if parameter.requires_grad]
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, nn.RNNBase) for module in adapter.modules()):
            stack.enter_context(warnings.catch_warnings())  # PyTorch's, of settings that these lines do not touch
            warnings.simplefilter("ignore")
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            for parameter in trained:  # the counter's hooks fail on parametrised layers without gradients
                parameter.requires_grad_(False)
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)
            for parameter in trained:
                parameter.requires_grad_(True)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)


class UsedParameters(TorchDispatchMode):
    """Notes which of a module's parameters any operator gets, by the memory they lie in."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._sizes = {p.untyped_storage().data_ptr(): 0 for p in module.parameters()}
        for parameter in module.parameters():  # named once each; tied ones are one
            self._sizes[parameter.untyped_storage().data_ptr()] += parameter.numel()
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Note the operator's tensors and run it."""
        for tensor in _tensors([*args, *(kwargs or {}).values()]):
            self._seen.add(tensor.untyped_storage().data_ptr())
        return func(*args, **(kwargs or {}))

    def total(self) -> int:
        """Return how many numbers the parameters seen so far hold."""
        return sum(size for place, size in self._sizes.items() if place in self._seen)


class LiveTensors(TorchDispatchMode):
    """Follows how many bytes the tensors that operators return hold at once."""

    def __init__(self) -> None:
        super().__init__()
        self._live: dict[int, Any] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Run the operator and count what is alive after it."""
        found = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in _tensors([*args, *(kwargs or {}).values()])}
        self._live = {place: held for place, held in self._live.items() if not held[0].expired()}
        for tensor in _tensors(found):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in given:
                self._live[storage.data_ptr()] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return found


def peak_memory(adapter: nn.Module, embed: Embed, batch: Tensor, device: torch.device) -> int:
    """Return the bytes that a pass needs at its peak, weights and input included.

    GPU: what PyTorch's allocator had given out at most (``torch.cuda.max_memory_allocated``). CPU: weights, buffers,
    input, and the tensors alive at once as operators return them; an operator's own scratch space is not seen. (The
    process's resident set would be no measure: it holds what earlier passes have left.)
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        embed(batch, _lengths(batch))
        return torch.cuda.max_memory_allocated(device)
    with LiveTensors() as live:
        embed(batch, _lengths(batch))
    storages = {t.untyped_storage() for t in (*adapter.parameters(), *adapter.buffers(), batch)}
    return live.peak + sum({s.data_ptr(): s.nbytes() for s in storages}.values())
