"""Clips to embeddings: each (clip, window) once, batch by batch, into the store, from where every fold and seed reads.

The batches of a piece of work are fixed by its list of clips alone: a resumed run computes exactly the batches that an
unbroken one would, so its embeddings are the same to the last bit.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evar.audio.corruptions import Corruption
from evar.audio.decode import RESAMPLER
from evar.audio.loading import ClipItem, LoadedBatch, broken_files, load_batches, workers_for
from evar.audio.windows import Padding, cut, is_longer, random_position, unit_samples
from evar.clips import WINDOW_SEED, Clips, training_clips
from evar.errors import UserError
from evar.numerics import full_float32
from evar.paths import cache_dir
from evar.progress import bar
from evar.store import EmbeddingStore, Vectors, clip_key, write_atomically
from model_adapters.base import Prepares
from model_adapters.registry import Model

Precision = Literal["fp32", "bf16"]
TrainWindow = Literal["random", "front"]
Stored = Literal["float", "int16"]
Space = Literal["clip", "joint"]
"""``clip``: what ``embed`` gives, for linear evaluation; ``joint``: what ``embed_audio`` gives, for zero-shot."""

FRONT = "front"
STATE = "state.json"
"""Beside the embeddings: what the adapter had taken from the task when they were made."""


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of a task's clips, and which row of them a clip has in which role."""

    vectors: Vectors
    front: NDArray[np.int64]
    """Row of the clip's front window, -1 where it was not asked for."""
    training: NDArray[np.int64]
    """Row of the window used for training and validation (random for a clip longer than the unit), -1 likewise."""
    computed: int
    """How many (clip, window) pairs this call embedded; the others were in the store."""
    state: dict[str, Any]
    """What the adapter took from the task (statistics)."""
    prepare_cpu: float = 0.0
    """Processor seconds spent on what the adapter took from the task."""


def model_facts(
    model: Model,
    unit_seconds: float,
    precision: Precision,
    space: Space,
    prepared_on: str,
    padding: Padding = "zeros",
    *,
    whole: bool = False,
    corruption: Corruption | None = None,
    stored: Stored = "float",
    batch_size: int = 0,
) -> dict[str, Any]:
    """Return everything that determines an embedding beside the clip itself."""
    adapter = model.adapter
    prepares, made_of = adapter.prepares_for(space), adapter.made_of()
    how: dict[str, Any] = {"padding": padding} if padding != "zeros" else {}  # only where it differs: stores stay valid
    how |= {"made_of": made_of} if made_of else {}
    how |= {"corruption": corruption.facts()} if corruption is not None else {}
    how |= {"stored": stored} if stored != "float" else {}
    how |= {"batch_size": batch_size} if batch_size and adapter.batch_matters else {}
    return {
        "model": model.name,
        "version": adapter.version,
        "options": dict(model.options),
        "weights": model.weights_sha256,
        "source": model.source_sha256,
        # What was taken from the task follows from the clips that were shown; their checksum stands for it, so that a
        # run whose embeddings are all stored need not look at the training clips again.
        "prepared_on": prepared_on if prepares else "",
        "state": {} if prepares else adapter.state(),
        "sample_rate": adapter.sample_rate,
        "unit_seconds": "whole" if whole else unit_seconds,
        "long_audio": adapter.long_audio,
        "resampler": RESAMPLER,
        "precision": precision,
        "space": space,
        **how,
    }


def embed_clips(
    model: Model,
    clips: Clips,
    *,
    front: NDArray[np.int64],
    training: NDArray[np.int64],
    space: Space = "clip",
    device: str = "cpu",
    precision: Precision = "fp32",
    batch_size: int = 64,
    workers: int | None = None,
    cache: Path | None = None,
    whole: bool = False,
    corruption: Corruption | None = None,
    prepared: bool = False,
    train_window: TrainWindow = "random",
    stored: Stored = "float",
) -> Embeddings:
    """Embed the front windows of the clips ``front`` and the training windows of the clips ``training``.

    ``whole``: each clip in its full length, uncut and by itself (retrieval), instead of its front window.
    ``corruption``: what is done to each front window first; ``prepared``: the adapter has been, in this process.
    ``train_window``: where the training window of a longer clip lies. ``stored``: ``int16`` rounds what the model hears
    to 16 bits, as the platform's resampled copies are.

    What the store has is not computed again. Broken files are reported together at the end, after everything that can
    be embedded has been stored.
    """
    if whole and len(training):
        raise ValueError("whole clips have no training windows")
    if corruption is not None and len(training):
        raise ValueError("nothing is trained on corrupted clips")
    batch_size = 1 if whole else batch_size  # clips of several lengths would have to be padded
    wanted, front_row, training_row = _windows(model, clips, front, training, train_window)
    keys = [clip_key(clips.identities[n].digest, window) for n, window in wanted]
    examples = training_clips(clips)
    unit_seconds, padding, rate = clips.task.unit_seconds, clips.task.padding, model.adapter.sample_rate
    unit = None if whole else unit_samples(rate, unit_seconds)
    reading = Reading(rate, unit, padding, batch_size, workers, corruption)
    facts = model_facts(
        model, unit_seconds, precision, space, examples.fingerprint, padding, whole=whole, corruption=corruption,
        stored=stored, batch_size=batch_size,
    )  # fmt: skip
    if model.adapter.batch_matters:  # then a clip's neighbours are part of what its embedding is of
        facts["neighbours"] = hashlib.blake2b(b"".join(keys), digest_size=8).hexdigest()
    store = _store((cache or cache_dir()) / "embeddings", model, facts, space)
    vectors, there = store.rows(keys)
    computed, prepare_cpu = 0, 0.0
    if not there.all():
        batches_of = hashlib.blake2b(b"".join(keys) + str(batch_size).encode(), digest_size=6)
        work = f"{clips.task.name}-{batches_of.hexdigest()}"
        with store.writing(work) as writer:
            _, there = store.rows(keys)  # another process may have done it while this one waited for the lock
            if not there.all():
                begin = time.process_time()
                _prepare(model, unit_seconds, None if prepared else examples, device, space)
                prepare_cpu = time.process_time() - begin
                write_atomically(store.folder / STATE, json.dumps(model.adapter.state()))
                # Files of equal content are one clip here: the first of them is read.
                once = sorted({key: n for n, key in reversed(list(enumerate(keys)))}.values())
                items = [_item(clips, *wanted[n]) for n in once]
                embed = embedder(model, space, device, precision, stored)
                computed = _run(embed, items, [keys[n] for n in once], there[once], writer.append, reading)
        vectors, there = store.rows(keys)
    state = json.loads((store.folder / STATE).read_text())
    return Embeddings(vectors, front_row, training_row, computed, state, prepare_cpu)


def _store(folder: Path, model: Model, facts: dict[str, Any], space: Space) -> EmbeddingStore:
    """Return where the embeddings lie: of a model that draws anew, in this process's own place, gone at its end."""
    if not model.adapter.draws_anew:
        return EmbeddingStore(folder, facts, _dimension(model, space))
    store = EmbeddingStore(folder, facts | {"draw": uuid4().hex}, _dimension(model, space))
    atexit.register(shutil.rmtree, store.folder, ignore_errors=True)
    return store


def _windows(
    model: Model,
    clips: Clips,
    front: NDArray[np.int64],
    training: NDArray[np.int64],
    train_window: TrainWindow,
) -> tuple[list[tuple[int, str]], NDArray[np.int64], NDArray[np.int64]]:
    """List the (clip, window) pairs that are needed, each once, and each clip's row in that list per role."""
    rate = model.adapter.sample_rate
    unit = unit_samples(rate, clips.task.unit_seconds)
    rows: dict[tuple[int, str], int] = {}
    front_row = np.full(len(clips), -1, dtype=np.int64)
    training_row = np.full(len(clips), -1, dtype=np.int64)
    for number in sorted({*front.tolist(), *training.tolist()}):
        identity = clips.identities[number]
        longer = is_longer(identity.frames, identity.sample_rate, rate, unit)
        random_window = f"random:{WINDOW_SEED}" if longer and train_window == "random" else FRONT
        for window in sorted({FRONT, random_window}):
            rows.setdefault((number, window), len(rows))
        front_row[number] = rows[number, FRONT]
        training_row[number] = rows[number, random_window]
    needed = {front_row[n] for n in front.tolist()} | {training_row[n] for n in training.tolist()}
    wanted = [pair for pair, row in rows.items() if row in needed]
    renumber = {rows[pair]: new for new, pair in enumerate(wanted)}
    for array in (front_row, training_row):
        array[:] = [renumber.get(int(row), -1) for row in array]
    return wanted, front_row, training_row


def _item(clips: Clips, number: int, window: str) -> ClipItem:
    return clips.item(number, 0.0 if window == FRONT else random_position(clips.identities[number].digest, WINDOW_SEED))


def _dimension(model: Model, space: Space) -> int:
    adapter = model.adapter
    return int(getattr(adapter, "joint_dim", adapter.embedding_dim)) if space == "joint" else adapter.embedding_dim


def _prepare(model: Model, unit_seconds: float, examples: Any, device: str, space: Space) -> None:
    model.adapter.to(device)
    if examples is not None and model.adapter.prepares_for(space) and isinstance(model.adapter, Prepares):
        with torch.inference_mode():
            model.adapter.prepare(unit_seconds, examples)


Embed = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Reading:
    """How clips are read: rate (Hz), samples per clip (None: whole), padding, clips per batch, decoding threads."""

    sample_rate: int
    unit: int | None
    padding: Padding
    batch_size: int
    workers: int | None
    corruption: Corruption | None = None
    """What is done to each window's real samples, before anything is put behind them."""


def embedder(model: Model, space: Space, device: str, precision: Precision, stored: Stored = "float") -> Embed:
    """Return how a batch is embedded: ``(waveforms [B, T], lengths [B]) -> [B, D]``, float32 in the main memory."""
    function: Embed = getattr(model.adapter, "embed" if space == "clip" else "embed_audio")
    kind = torch.device(device).type
    full_float32()

    def embed(waveforms: Tensor, lengths: Tensor) -> Tensor:
        lower = torch.autocast(kind, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
        if stored == "int16":
            waveforms = (waveforms * 32768).round().clamp(-32768, 32767) / 32768
        with torch.inference_mode(), lower:
            found = function(waveforms.to(device, non_blocking=True), lengths.to(device, non_blocking=True))
        return found.float().cpu()

    return embed


def _run(
    embed: Embed,
    items: Sequence[ClipItem],
    keys: Sequence[bytes],
    there: NDArray[np.bool_],
    append: Callable[[Sequence[bytes], NDArray[np.float32]], None],
    reading: Reading,
) -> int:
    """Embed all batches of which something is missing; return the number of clips embedded."""
    size = reading.batch_size
    batches = [list(range(i, min(i + size, len(items)))) for i in range(0, len(items), size)]
    todo = [batch for batch in batches if not there[batch].all()]
    broken: dict[Path, str] = {}
    done = 0
    with bar("embedding", len(items), initial=len(items) - sum(map(len, todo))) as progress:
        loaded_batches = load_batches(
            [[items[n] for n in batch] for batch in todo],
            reading.sample_rate,
            reading.unit,
            workers=reading.workers,
            padding="zeros" if reading.corruption else reading.padding,
        )
        if reading.corruption is not None:
            loaded_batches = _corrupted(loaded_batches, [[keys[n] for n in batch] for batch in todo], reading)
        for batch, loaded in zip(todo, loaded_batches, strict=True):
            broken |= loaded.broken
            if loaded.numbers:
                vectors = embed(loaded.clips.waveforms, loaded.clips.lengths).numpy()
                _check_finite(vectors, [items[batch[n]].path for n in loaded.numbers])
                new = [row for row, number in enumerate(loaded.numbers) if not there[batch[number]]]
                append([keys[batch[loaded.numbers[row]]] for row in new], vectors[new])
                done += len(new)
            progress.update(len(batch))
    if broken:
        raise broken_files(broken, len(items), "replace them, or delete them and go on with --incomplete")
    return done


def _corrupted(
    batches: Iterator[LoadedBatch], keys: Sequence[Sequence[bytes]], reading: Reading
) -> Iterator[LoadedBatch]:
    """Yield the batches with their clips corrupted, each seeded by its key, side by side in threads."""
    corruption = reading.corruption
    assert corruption is not None
    with ThreadPoolExecutor(workers_for(reading.workers), thread_name_prefix="corrupt") as pool:
        for loaded, of_batch in zip(batches, keys, strict=True):
            waveforms, lengths = loaded.clips.waveforms, loaded.clips.lengths.clone()
            heard = [wave[:length].numpy() for wave, length in zip(waveforms, lengths.tolist(), strict=True)]
            seeds = [of_batch[number] for number in loaded.numbers]
            changed = pool.map(corruption.apply, heard, [reading.sample_rate] * len(heard), seeds)
            for row, samples in enumerate(changed):
                window, real = cut(samples, waveforms.shape[1], padding=reading.padding)
                waveforms[row], lengths[row] = torch.from_numpy(window), real
            yield loaded._replace(clips=loaded.clips._replace(waveforms=waveforms, lengths=lengths))


def _check_finite(vectors: NDArray[np.float32], paths: Sequence[Path]) -> None:
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        first = paths[int(np.flatnonzero(bad)[0])]
        raise UserError(f"the model gives NaN or infinite embeddings for {int(bad.sum())} clips, the first: {first}")
