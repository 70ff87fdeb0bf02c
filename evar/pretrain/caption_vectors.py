"""The vectors of captions in one safetensors file, written block by block so that a killed run goes on.

The file's header says beforehand how many vectors there will be and of what; they follow as they are made. Until the
last one is written the file has another name.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evar.errors import UserError
from evar.progress import bar, say

TENSOR = "embeddings"
BLOCK = 256
"""Captions that are embedded and put on disk together; a killed run loses no more."""
_MOST_HEADER = 1 << 20

Encode = Callable[[Sequence[str]], NDArray[np.floating]]
"""From texts to vectors ``[len(texts), E]``."""


@dataclass(frozen=True)
class VectorFile:
    """A file of float16 vectors ``[rows, dim]`` that is there or is being made."""

    path: Path
    rows: int
    dim: int
    fingerprint: str
    """Of the texts and the encoder; stands in the file, so that nothing else is gone on with."""

    @property
    def part(self) -> Path:
        """The file while it is being made."""
        return self.path.with_name(self.path.name + ".part")

    def header(self) -> bytes:
        """Return the file's first bytes: the format's length field and the description, padded to 8 bytes."""
        tensor = {"dtype": "F16", "shape": [self.rows, self.dim], "data_offsets": [0, 2 * self.rows * self.dim]}
        text = json.dumps({"__metadata__": {"fingerprint": self.fingerprint}, TENSOR: tensor}).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text

    def is_there(self) -> bool:
        """Say whether the finished file is the one that is wanted."""
        header = self.header()
        return _starts_with(self.path, header) and self.path.stat().st_size == len(header) + 2 * self.rows * self.dim

    def write(self, texts: Sequence[str], encode: Encode, block: int = BLOCK) -> int:
        """Make the file, going on with what a run before has left; return how many texts were embedded now.

        A row is embedded with the same others whether or not the run was interrupted, so that the file is the same.
        Raises :class:`UserError` for a vector that is NaN or beyond float16, of another length, or a full disk.
        """
        if self.is_there():
            return 0
        header = self.header()
        try:
            done = self._left(header, block)
            if done:
                say(f"{self.path.name}: going on after {done:,} of {self.rows:,} captions")
            with open(self.part, "r+b" if done else "wb") as handle:
                if done:
                    handle.truncate(len(header) + 2 * done * self.dim)
                    handle.seek(0, os.SEEK_END)
                else:
                    handle.write(header)
                with bar("embedding captions", self.rows, done, "caption") as progress:
                    for start in range(done, self.rows, block):
                        some = texts[start : start + block]
                        handle.write(self._checked(encode(some), some).tobytes())
                        handle.flush()
                        os.fsync(handle.fileno())
                        progress.update(len(some))
            os.replace(self.part, self.path)
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}); what is embedded is kept") from None
        return self.rows - done

    def _left(self, header: bytes, block: int) -> int:
        """Return how many rows of whole blocks an earlier run has left."""
        if not _starts_with(self.part, header):
            return 0
        there = (self.part.stat().st_size - len(header)) // (2 * self.dim)
        return min(there // block * block, self.rows)

    def _checked(self, vectors: NDArray[np.floating], texts: Sequence[str]) -> NDArray[np.float16]:
        if vectors.shape != (len(texts), self.dim):
            raise UserError(f"the text encoder gives {vectors.shape} for {len(texts)} captions, not (…, {self.dim})")
        with np.errstate(over="ignore"):
            stored = np.asarray(vectors, dtype="<f2")
        wrong = np.flatnonzero(~np.isfinite(stored).all(axis=1))
        if len(wrong):
            raise UserError(f"the text encoder gives NaN, or more than float16 holds, for: {texts[wrong[0]][:80]}")
        return stored


def _starts_with(path: Path, start: bytes) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as handle:
        return handle.read(len(start)) == start


def read_vectors(path: Path) -> tuple[NDArray[np.float16], str]:
    """Return ``(vectors [R, E], memory-mapped, fingerprint)``; :class:`UserError` if the file is missing or damaged."""
    try:
        with open(path, "rb") as handle:
            (size,) = struct.unpack("<Q", handle.read(8))
            about = json.loads(handle.read(min(size, _MOST_HEADER)))
        rows, dim = map(int, about[TENSOR]["shape"])
        fingerprint = str(about["__metadata__"]["fingerprint"])
        whole = about[TENSOR]["dtype"] == "F16" and path.stat().st_size == 8 + size + 2 * rows * dim
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        whole = False
    if not whole:
        raise UserError(f"{path} is missing or damaged: run python -m evar.pretrain.captions again")
    return np.memmap(path, dtype="<f2", mode="r", offset=8 + size, shape=(rows, dim)), fingerprint
