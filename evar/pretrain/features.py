"""Store a frozen model's features of a corpus, for pre-training to learn: M2D-S, M2D-X, MAM-CLAP.

python -m evar.pretrain.features MODEL OUT --corpus=CORPUS --weights=PATH
python -m evar.pretrain --preset=m2d_s --corpus=CORPUS --features=OUT
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from evar.ahead import made_ahead
from evar.audio.pack import Pack
from evar.audio.pack_format import from_stored
from evar.cli import main
from evar.command import at_least_one, options_of_models, pick_device
from evar.errors import UserError
from evar.extract import Precision
from evar.numerics import full_float32
from evar.pretrain.corpus_files import Corpus, open_corpus
from evar.pretrain.feature_store import (
    FRAMES,
    STORED,
    FeatureWriter,
    fingerprint,
    open_features,
    read_about,
    read_records,
    recover,
)
from evar.progress import bar, say
from model_adapters.base import EmbedsFrames
from model_adapters.registry import Model, load_model

__all__ = ["features", "make_features", "open_features"]


def features(
    model: str,
    out: Path,
    *,
    corpus: Path,
    weights: str | None = None,
    batch_size: int = 16,
    precision: Precision = "fp32",
    device: str = "auto",
    workers: int | None = None,
    **options: str,
) -> None:
    """Store a model's features of every clip of a corpus, one row per time step, in float16.

    Killed and run again, it goes on. A corpus that has grown since: what is missing is added. Clips are found again by
    their content, so features made of a corpus at one rate serve pre-training on one of the same clips at another.

    Args:
        model: a model with an embedding per time step, or path/to/file.py:ClassName (a speech model of your own)
        out: folder of the features
        corpus: made by python -m evar.pretrain.corpus, of audio, at the model's rate
        weights: checkpoint file, or random (an untrained network)
        batch_size: clips of equal length that are heard at once
        precision: fp32, or bf16 (autocast)
        device: auto, cpu, cuda or cuda:N
        workers: reading threads (default one per core, at most eight)
    """
    at_least_one(batch_size=batch_size)
    clips = open_corpus(corpus)
    one = load_model(model, weights, options)
    one.adapter.to(pick_device(device))
    make_features(out, clips, one, batch_size=batch_size, precision=precision, workers=workers)
    found = open_features(out)
    print(
        f"{out}: {len(found.records):,} clips, {len(found.frames):,} x {found.dim} features of {one.name}, "
        f"{found.step:g} s each, {found.frames.nbytes / 1e9:.2f} GB"
    )


class _Clip(NamedTuple):
    key: bytes
    row: int
    length: int
    """Samples."""
    name: str


def make_features(
    folder: Path,
    corpus: Corpus,
    model: Model,
    *,
    batch_size: int = 16,
    precision: Precision = "fp32",
    workers: int | None = None,
) -> None:
    """Write what is missing of the features of a corpus's clips (see :func:`features`).

    Clips of equal length are heard together, in batches that the corpus alone decides: what a killed run leaves, and
    another one completes, is what an unbroken one writes, to the last bit.

    Raises:
        UserError: the model has no such features, wants another rate or a task's clips; the corpus has no audio; the
            folder has other features; the disk is full; features are not finite.
    """
    source = _check(corpus, model)
    facts = _facts(model, source, precision)
    about: dict[str, Any] = {"fingerprint": fingerprint(facts), "corpus": corpus.fingerprint, "facts": facts}
    named = dict(zip(corpus.digests, zip(corpus.rows.tolist(), corpus.names, strict=True), strict=True))
    clips = [_Clip(key, row, int(source.lengths[row]), name) for key, (row, name) in named.items()]
    clips.sort(key=lambda clip: clip.length)  # stable: within a length the corpus's order
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            dim = _dim_there(folder, about["fingerprint"])
            there = set() if dim is None else {bytes(key) for key in recover(folder, dim)["key"].tolist()}
            todo = [batch for batch in _batches(clips, batch_size) if any(clip.key not in there for clip in batch)]
            if not todo and (before := read_about(folder)) is not None and before["complete"]:
                return
            heard = _heard(todo, source, model, precision, workers)
            _write(folder, heard, about, dim, there, clips)
    except OSError as error:
        raise UserError(
            f"cannot write the features at {folder} ({error.strerror or error}): what is complete stays; make room and "
            "run again, it goes on from there"
        ) from None


def _check(corpus: Corpus, model: Model) -> Pack:
    """Return the corpus's store of audio, if the model can hear it."""
    adapter, source = model.adapter, corpus.source
    if not isinstance(adapter, EmbedsFrames):
        raise UserError(f"{model.name} has no embedding per time step")
    if adapter.needs_prepare:
        raise UserError(
            f"{model.name} takes statistics from a task's training clips, which a corpus does not have; give them as "
            f"an option (python -m evar.models {model.name} lists its options)"
        )
    if not isinstance(source, Pack) or source.spec.mel is not None:
        raise UserError(
            f"the corpus at {corpus.folder} has log-mels only, {model.name} hears audio: make a corpus of the same "
            "clips with --store=audio for this; pre-training takes its features with either"
        )
    if adapter.sample_rate != source.spec.sample_rate:
        raise UserError(
            f"{model.name} hears {adapter.sample_rate} Hz, the corpus is stored at {source.spec.sample_rate} Hz: make "
            f"one of the same clips with --sample_rate={adapter.sample_rate} for this; pre-training takes its features "
            "with either"
        )
    return source


def _facts(model: Model, source: Pack, precision: Precision) -> dict[str, Any]:
    """Return everything that determines a clip's features beside what it is."""
    return {
        "model": model.name,
        "version": model.adapter.version,
        "options": dict(model.options),
        "weights": model.weights_sha256,
        "source": model.source_sha256,
        "state": model.adapter.state(),
        "precision": precision,
        "audio": source.spec.facts(),
    }


def _lock(folder: Path) -> FileLock:
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
        lock.release()
    except Timeout:
        say(f"another process is writing features to {folder}; waiting for it")
    return lock


def _dim_there(folder: Path, wanted: str) -> int | None:
    about = read_about(folder)
    if about is None:
        if len(read_records(folder)):
            raise UserError(f"{folder} has features that nothing describes: delete it, or choose another folder")
        return None
    if about["fingerprint"] != wanted:
        raise UserError(
            f"{folder} has features of {about['facts']['model']} with other weights, options or audio: choose another "
            "folder, or delete it"
        )
    return int(about["dim"])


def _batches(clips: Sequence[_Clip], size: int) -> Iterator[list[_Clip]]:
    """Yield clips of equal length together, at most ``size``; ``clips`` are sorted by length."""
    batch: list[_Clip] = []
    for clip in clips:
        if batch and (len(batch) == size or clip.length != batch[0].length):
            yield batch
            batch = []
        batch.append(clip)
    if batch:
        yield batch


def _heard(
    todo: Sequence[list[_Clip]], source: Pack, model: Model, precision: Precision, workers: int | None
) -> Iterator[tuple[list[_Clip], NDArray[np.float32], float]]:
    """Yield batches with their features ``[B, L, D]`` and the seconds per row."""
    adapter: Any = model.adapter
    device: torch.device = adapter.device
    full_float32()

    def read(batch: list[_Clip]) -> Tensor:
        rows = np.array([clip.row for clip in batch])
        raw = torch.from_numpy(np.stack(source.stored(rows)))
        return from_stored((raw.pin_memory() if device.type == "cuda" else raw).to(device, non_blocking=True))

    waves = made_ahead(read, todo, device, lambda one: [one], workers)
    for batch, waveforms in zip(todo, waves, strict=True):
        lower = torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
        lengths = torch.full((len(batch),), waveforms.shape[1], device=device)
        with torch.inference_mode(), lower:
            frames, step = adapter.embed_frames(waveforms, lengths)
        yield batch, frames.float().cpu().numpy(), float(step)


def _write(
    folder: Path,
    heard: Iterator[tuple[list[_Clip], NDArray[np.float32], float]],
    about: dict[str, Any],
    dim: int | None,
    there: set[bytes],
    clips: Sequence[_Clip],
) -> None:
    with ExitStack() as stack, bar("features", len(clips), initial=len(there)) as progress:
        writer = None if dim is None else stack.enter_context(FeatureWriter(folder, {"dim": dim, **about}))
        for batch, frames, step in heard:
            _check_frames(frames, batch[0])
            if writer is None:
                _check_room(folder, clips, batch[0].length, frames[0].size)
                writer = stack.enter_context(FeatureWriter(folder, {"dim": frames.shape[2], **about}))
            new = [n for n, clip in enumerate(batch) if clip.key not in there]
            for n in new:
                writer.append(batch[n].key, frames[n], step)
            progress.update(len(new))
        if writer is not None:
            writer.finish()
    lost = int(read_records(folder)["lost"].sum())
    if lost:
        say(f"{lost} numbers are beyond float16 and were clipped to ±65504")


def _check_frames(frames: NDArray[np.float32], first: _Clip) -> None:
    if not frames.shape[1]:
        raise UserError(f"the model has no features of a clip as short as {first.name}; leave such clips out")
    if not np.isfinite(frames).all():
        raise UserError(f"the model's features of {first.name} (or of another clip as long) are not finite")


def _check_room(folder: Path, clips: Sequence[_Clip], samples: int, numbers: int) -> None:
    needed = sum(clip.length for clip in clips) / samples * numbers * STORED.itemsize
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"these features take about {needed / 1e9:.1f} GB ({FRAMES}), {folder} has {free / 1e9:.1f} GB left: make "
            "room, or choose another folder"
        )


if __name__ == "__main__":
    main(features, extra=options_of_models)
