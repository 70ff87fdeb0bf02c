"""Embeddings on disk: content-addressed, appended batch by batch, memory-mapped, resumable, shared by processes.

One folder per fingerprint (model, weights, options, precision, unit, …) below the store. In it every task that embeds
clips has a pair of files: ``<work>.keys`` (16 bytes a row) and ``<work>.vectors`` (float32 rows). Vectors are written
and synced before their keys, so a key always stands for a whole vector: what a killed process leaves behind is at most
a tail that the next writer cuts off. Readers use all pairs of the folder, so a clip that another task shares is found.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from evar.progress import say

KEY_BYTES = 16


def fingerprint_of(facts: Mapping[str, Any]) -> str:
    """Return a checksum (hex, 32 digits) of JSON-able facts."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def clip_key(content: bytes, window: str) -> bytes:
    """Return the key of a (clip, window): 16 bytes from the file's checksum and the window's name."""
    return hashlib.blake2b(content + window.encode(), digest_size=KEY_BYTES).digest()


class EmbeddingStore:
    """The embeddings of one fingerprint.

    Args:
        folder: where stores lie.
        facts: everything that determines an embedding beside the clip itself; kept in ``facts.json`` for people.
        dim: D, the length of a vector.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], dim: int) -> None:
        self.fingerprint = fingerprint_of(facts)
        self.folder = folder / self.fingerprint[:2] / self.fingerprint
        self.dim = dim
        self.folder.mkdir(parents=True, exist_ok=True)
        description = self.folder / "facts.json"
        if not description.exists():
            write_atomically(description, json.dumps({**facts, "dim": dim}, indent=1, sort_keys=True, default=str))

    @contextmanager
    def writing(self, work: str) -> Iterator[Writer]:
        """Hold the lock of ``work`` and give a writer for it; waits while another process embeds the same clips."""
        lock = FileLock(self.folder / f"{work}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"another process is embedding the same clips ({self.folder.name[:8]}/{work}); waiting for it")
            lock.acquire()
        look_again(self.folder)
        try:
            yield Writer(self.folder / work, self.dim)
        finally:
            lock.release()

    def rows(self, keys: Sequence[bytes]) -> tuple[Vectors, NDArray[np.bool_]]:
        """Return ``(vectors in the order of keys, which of them are there)``."""
        where: dict[bytes, tuple[int, int]] = {}
        wanted = set(keys)
        files: list[NDArray[np.float32]] = []
        for path in sorted(self.folder.glob("*.keys")):
            stored, vectors = read_pair(path.with_suffix(""), self.dim)
            for row, key in enumerate(stored):
                if key in wanted:
                    where.setdefault(key, (len(files), row))
            files.append(vectors)
        there = np.array([key in where for key in keys], dtype=bool)
        places = np.array([where.get(key, (0, 0)) for key in keys], dtype=np.int64).reshape(-1, 2)
        return Vectors(files, places, self.dim), there


class Vectors:
    """Embeddings by row number, read from memory-mapped files only when asked for."""

    def __init__(self, files: list[NDArray[np.float32]], places: NDArray[np.int64], dim: int) -> None:
        self._files, self._places, self.dim = files, places, dim

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._places)

    def take(self, rows: NDArray[np.int64] | slice | None = None) -> NDArray[np.float32]:
        """Return a copy ``[len(rows), D]`` of the rows (all if None)."""
        places = self._places if rows is None else self._places[rows]
        out = np.empty((len(places), self.dim), dtype=np.float32)
        for number, vectors in enumerate(self._files):
            here = np.flatnonzero(places[:, 0] == number)
            if len(here):
                out[here] = vectors[places[here, 1]]
        return out


def read_pair(base: Path, dim: int) -> tuple[list[bytes], NDArray[np.float32]]:
    """Return the keys and the vectors (memory-mapped) of one pair of files; a half-written tail is left out.

    What there is, and how much, is asked of files that have been opened, the keys first: on NFS only an open is sure to
    show what another host has written, while ``exists`` and ``stat`` may answer from memory for up to a minute.
    """
    try:
        raw = base.with_suffix(".keys").read_bytes()
        with open(base.with_suffix(".vectors"), "rb") as handle:
            count = min(len(raw) // KEY_BYTES, os.fstat(handle.fileno()).st_size // (4 * dim))
            if count:
                keys = [raw[i * KEY_BYTES : (i + 1) * KEY_BYTES] for i in range(count)]
                return keys, np.memmap(handle, dtype="<f4", mode="r", shape=(count, dim))
    except FileNotFoundError:
        pass
    return [], np.empty((0, dim), dtype=np.float32)


class Writer:
    """Appends batches to one pair of files. Made by :meth:`EmbeddingStore.writing`, which holds the lock."""

    def __init__(self, base: Path, dim: int) -> None:
        self.base, self.dim = base, dim
        for suffix in (".keys", ".vectors"):  # made where missing, so that below no file is thought to be missing
            with open(base.with_suffix(suffix), "ab"):
                pass
        keys, _ = read_pair(base, dim)
        self._cut(".vectors", len(keys) * 4 * dim)
        self._cut(".keys", len(keys) * KEY_BYTES)

    def _cut(self, suffix: str, size: int) -> None:
        with open(self.base.with_suffix(suffix), "r+b") as handle:
            if os.fstat(handle.fileno()).st_size > size:
                os.ftruncate(handle.fileno(), size)

    def append(self, keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Append a batch: ``len(keys)`` rows of ``vectors [B, D]``. On disk when this returns."""
        if not keys:
            return
        rows = np.ascontiguousarray(vectors, dtype="<f4")
        if rows.shape != (len(keys), self.dim):
            raise ValueError(f"{len(keys)} keys, but vectors of shape {rows.shape}, expected (…, {self.dim})")
        _append(self.base.with_suffix(".vectors"), rows.tobytes())
        _append(self.base.with_suffix(".keys"), b"".join(keys))


def _append(path: Path, data: bytes) -> None:
    with open(path, "ab") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # process numbers repeat on other hosts
    try:
        with open(part, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def look_again(folder: Path) -> None:
    """Make an NFS client ask what is in a folder now: otherwise it remembers for up to a minute what was not there."""
    with suppress(OSError):
        os.utime(folder)
