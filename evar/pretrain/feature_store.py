"""Stored features of a frozen model: one float16 row per time step of every clip, found by what the clip is.

A folder: ``frames.bin`` (clips end to end, little-endian), ``frames.index`` (a :data:`RECORD` per clip) and
``features.json`` (what made them, whether they are complete). Rows are on disk before the record that names them, so
what a killed process leaves is whole but for a tail, which the next writer cuts off.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from evar.audio.pack_format import joined, to_stored
from evar.errors import UserError
from evar.pretrain.corpus_files import Corpus
from evar.store import KEY_BYTES, fingerprint_of, write_atomically

ABOUT, FRAMES, INDEX = "features.json", "frames.bin", "frames.index"
FORMAT = 1
RECORD = np.dtype(
    [("key", f"V{KEY_BYTES}"), ("crc", "<u4"), ("lost", "<u4"), ("offset", "<i8"), ("length", "<i8"), ("step", "<f8")]
)
"""A clip: its key; CRC-32 of its rows; how many numbers were beyond float16; first row and how many; seconds per row
(of the clip: some models divide a clip's length by its rows)."""
STORED = np.dtype("<f2")
_FLUSH_BYTES = 1 << 25  # what a kill can lose


class ClipFeatures(NamedTuple):
    """All features of a clip."""

    frames: NDArray[Any]
    """``[L, D]``, memory-mapped: row i is of the time from ``i * step`` on."""
    step: float
    """Seconds."""
    end: float
    """Seconds after which the features are of padding; infinite where only the clip itself tells."""


class Features(Protocol):
    """Features of a corpus's clips."""

    @property
    def dim(self) -> int:
        """D."""
        ...

    @property
    def step(self) -> float:
        """The usual seconds per row: the median over clips."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of what made them."""
        ...

    def of(self, clips: NDArray[np.int64]) -> list[ClipFeatures]:
        """Return the features of the clips with these numbers."""
        ...


class FeatureWriter:
    """Appends clips. The caller holds the folder's lock. A context manager: leaving it puts all on disk.

    Args:
        folder: of the features.
        about: what ``features.json`` is to say, ``dim`` among it.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder, self.about, self.dim = folder, dict(about), int(about["dim"])
        self._describe({"complete": False})
        records = recover(folder, self.dim)
        self._end = int((records["offset"] + records["length"]).max()) if len(records) else 0
        self._rows: list[bytes] = []
        self._records: list[tuple[Any, ...]] = []
        self._bytes = 0

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, OSError):  # a full disk: what has its records stays, the rest is cut off next time
            self.flush()

    def append(self, key: bytes, frames: NDArray[np.float32], step: float) -> None:
        """Append the features ``[L, D]`` of a clip, a row every ``step`` seconds."""
        if frames.ndim != 2 or frames.shape[1] != self.dim or not len(frames):
            raise ValueError(f"features of shape {frames.shape}; (1 or more, {self.dim}) is expected")
        rows, lost = to_stored(np.ascontiguousarray(frames), "float16")
        data = rows.tobytes()
        self._rows.append(data)
        self._records.append((key, zlib.crc32(data), lost, self._end, len(rows), step))
        self._end += len(rows)
        self._bytes += len(data)
        if self._bytes >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Put the rows on disk, then the records that name them."""
        if not self._records:
            return
        _append(self.folder / FRAMES, b"".join(self._rows))
        _append(self.folder / INDEX, np.array(self._records, RECORD).tobytes())
        self._rows, self._records, self._bytes = [], [], 0

    def finish(self) -> None:
        """Say that all is there; from now on it can be opened."""
        self.flush()
        records = read_records(self.folder)
        facts = {
            "complete": True,
            "clips": len(records),
            "rows": int(records["length"].sum()),
            "seconds_per_frame": float(np.median(records["step"])),
            "lost": int(records["lost"].sum()),
            "index_crc32": zlib.crc32(records.tobytes()),
        }
        self._describe(facts)

    def _describe(self, more: Mapping[str, Any]) -> None:
        write_atomically(self.folder / ABOUT, json.dumps({"format": FORMAT, **self.about, **more}, indent=1) + "\n")


def _append(path: Path, data: bytes) -> None:
    with open(path, "ab") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def read_records(folder: Path) -> NDArray[Any]:
    """Return the index ``[N]`` of :data:`RECORD`; a half-written record at its end is left out."""
    path = folder / INDEX
    count = path.stat().st_size // RECORD.itemsize if path.exists() else 0
    return np.fromfile(path, RECORD, count) if count else np.empty(0, RECORD)


def recover(folder: Path, dim: int) -> NDArray[Any]:
    """Return the records whose rows ``[.., dim]`` are on disk; cut off whatever else is there."""
    frames, index, row = folder / FRAMES, folder / INDEX, dim * STORED.itemsize
    size = frames.stat().st_size if frames.exists() else 0
    records = read_records(folder)
    ends = records["offset"] + records["length"]
    there = int(np.logical_and.accumulate(ends * row <= size).sum()) if len(records) else 0
    for path, kept in ((index, there * RECORD.itemsize), (frames, int(ends[there - 1]) * row if there else 0)):
        if path.exists() and path.stat().st_size > kept:
            os.truncate(path, kept)
    return records[:there]


def read_about(folder: Path) -> dict[str, Any] | None:
    """Return what ``features.json`` says, None if there is none; :class:`UserError` if it cannot be used."""
    path = folder / ABOUT
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version, _, _ = about["format"], about["fingerprint"], about["dim"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} cannot be read: delete {folder} and make the features again") from None
    if version != FORMAT:
        raise UserError(f"{folder} has features of format {version}, this program reads {FORMAT}: make them again")
    return about


@dataclass(frozen=True)
class FeatureStore:
    """Finished features. Made by :func:`open_features`; :meth:`for_corpus` finds a corpus's clips in them."""

    folder: Path
    dim: int
    step: float
    fingerprint: str
    records: NDArray[Any]
    frames: NDArray[Any]
    """``[rows, D]``, memory-mapped."""
    unseen: NDArray[np.bool_]
    rows: NDArray[np.int64]
    """Each clip's record."""

    def for_corpus(self, corpus: Corpus) -> FeatureStore:
        """Return the features by the corpus's clip numbers.

        Raises :class:`UserError` if clips have none, or theirs end long before the clip does.
        """
        keys = np.ascontiguousarray(self.records["key"]).view("S16")
        order, wanted = np.argsort(keys), joined(corpus.digests)
        rows = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
        lacking = np.flatnonzero(keys[rows] != wanted)
        again = f"python -m evar.pretrain.features MODEL {self.folder} --corpus=..."
        if len(lacking):
            raise UserError(
                f"--features={self.folder} lacks {len(lacking)} of {len(corpus)} clips, the first: "
                f"{corpus.names[lacking[0]]}; {again} with a corpus of them adds what is missing"
            )
        step = self.records["step"][rows]
        covered = self.records["length"][rows] * step
        cut = np.flatnonzero(corpus.seconds - covered > 0.25 + 2 * step)  # models leave out less than that at the end
        if len(cut):
            n = cut[0]
            raise UserError(
                f"--features={self.folder}: those of {corpus.names[n]} cover {covered[n]:.1f} of its "
                f"{corpus.seconds[n]:.1f} s ({len(cut)} clips are such); make them of clips as long as these: {again}"
            )
        return replace(self, rows=rows)

    def of(self, clips: NDArray[np.int64]) -> list[ClipFeatures]:
        """Return the features of the clips ``[B]``; :class:`UserError` if some, read first, differ from their checksum.

        Threads may share it.
        """
        found = []
        for row in self.rows[clips].tolist():
            one = self.records[row]
            frames = self.frames[one["offset"] : one["offset"] + one["length"]]
            if self.unseen[row]:
                if zlib.crc32(np.ascontiguousarray(frames).view(np.uint8).data) != one["crc"]:
                    raise UserError(
                        f"{self.folder / FRAMES} is corrupt (the checksum of its clip {row} differs): delete "
                        f"{self.folder} and make the features again"
                    )
                self.unseen[row] = False
            found.append(ClipFeatures(frames, float(one["step"]), float("inf")))
        return found


def open_features(folder: Path) -> FeatureStore:
    """Return the features in a folder made by ``python -m evar.pretrain.features``, by their own numbers.

    Raises :class:`UserError` if they are not there, not finished, cut short or damaged.
    """
    about = read_about(folder)
    if about is None:
        raise UserError(
            f"--features={folder}: there are none; make them: "
            f"python -m evar.pretrain.features MODEL {folder} --corpus=..."
        )
    if not about["complete"]:
        raise UserError(f"the features at {folder} are not finished: give the command that makes them again")
    records = read_records(folder)
    path, size = folder / FRAMES, int(about["rows"]) * int(about["dim"]) * STORED.itemsize
    if zlib.crc32(records.tobytes()) != about["index_crc32"]:
        raise UserError(f"{folder / INDEX} is corrupt: delete {folder} and make the features again")
    if not path.exists() or path.stat().st_size != size:
        there = path.stat().st_size if path.exists() else 0
        raise UserError(f"{path} has {there} bytes of {size}: give the command that makes the features again")
    frames = np.memmap(path, STORED, "r", shape=(int(about["rows"]), int(about["dim"])))
    return FeatureStore(
        folder, int(about["dim"]), float(about["seconds_per_frame"]), about["fingerprint"], records, frames,
        np.ones(len(records), dtype=bool), np.arange(len(records)),
    )  # fmt: skip


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return the checksum of what makes features: model, weights, options, and how the audio was stored."""
    return fingerprint_of({"format": FORMAT, **facts})
