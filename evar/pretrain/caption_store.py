"""A corpus's captions on disk: ``captions.csv``, ``embeddings.safetensors`` and ``captions.json``.

``captions.csv`` has a line per clip and caption (clip, caption, row, source), clips in the corpus's order; ``row`` is
the caption's place in ``embeddings.safetensors``, where equal captions stand once. ``captions.json`` says of what they
were made; it is written last, so that it is there only when all is.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from evar.errors import UserError
from evar.pretrain.caption_vectors import read_vectors
from evar.store import write_atomically

TABLE, VECTORS, ABOUT = "captions.csv", "embeddings.safetensors", "captions.json"
COLUMNS = ("clip", "caption", "row", "source")
FORMAT = 1


@dataclass(frozen=True)
class Captions:
    """The captions of N clips, L in all, R different ones."""

    folder: Path
    facts: Mapping[str, Any]
    """``captions.json``."""
    names: tuple[str, ...]
    """``[N]``: the clips; a clip's number is its place here."""
    starts: NDArray[np.int64]
    """``[N + 1]``: clip n has ``rows[starts[n]:starts[n + 1]]``."""
    rows: NDArray[np.int32]
    """``[L]``: numbers of captions, 0 to R - 1."""
    vectors: NDArray[np.float16] | None
    """``[R, E]``, memory-mapped; None where the captions were not embedded."""

    @property
    def dim(self) -> int:
        """E, the length of an embedding; 0 without embeddings."""
        return 0 if self.vectors is None else self.vectors.shape[1]

    @property
    def encoder(self) -> str:
        """The text encoder's id; empty without embeddings."""
        return str((self.facts["encoder"] or {}).get("name", ""))

    @property
    def pooling(self) -> str:
        """How the encoder's tokens became a sentence; empty without embeddings."""
        return str((self.facts["encoder"] or {}).get("pooling", ""))

    @property
    def normalised(self) -> bool | None:
        """Whether the encoder's vectors have length one; None where that is not stated."""
        found = (self.facts["encoder"] or {}).get("normalise")
        return None if found is None else bool(found)

    @property
    def fingerprint(self) -> str:
        """Checksum of clips, captions and encoder."""
        return str(self.facts["fingerprint"])

    @cached_property
    def captioned(self) -> NDArray[np.int64]:
        """Numbers of the clips that have a caption: all of them, unless clips may be without."""
        return np.flatnonzero(np.diff(self.starts))

    def for_corpus(self, names: Sequence[str], allow_missing: bool | None = None) -> Captions:
        """Return the captions of the clips ``names``, which from now on are numbered by their place there.

        Args:
            allow_missing: whether clips may be without a caption; None: if they might when the store was made.

        Raises:
            UserError: a clip has none, and may not.
        """
        names = tuple(names)
        same = names == self.names
        place = np.arange(len(names)) if same else pd.Index(self.names).get_indexer(pd.Index(names))
        counts = np.append(np.diff(self.starts), 0)[place]  # -1, a clip that is not there, is the last place
        lacking = np.flatnonzero(counts == 0)
        allowed = bool(self.facts["allow_missing"]) if allow_missing is None else allow_missing
        if len(lacking) == len(names) or (len(lacking) and not allowed):
            raise no_captions(
                [names[n] for n in lacking[:3]], len(lacking), len(names), f"{self.folder} was made for another corpus"
            )
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        lines = np.arange(starts[-1]) + np.repeat(self.starts[place] - starts[:-1], counts)
        return replace(self, names=names, starts=starts, rows=self.rows[lines])

    def drawn(self, clips: NDArray[np.int64], seed: int, step: int) -> NDArray[np.int64]:
        """Return the number of one caption of each clip ``[B]``, each of a clip's captions being equally likely.

        A function of (seed, step, clip) alone. -1 stands for a clip without captions.
        """
        clips = np.asarray(clips, np.int64)
        first, counts = self.starts[clips], self.starts[clips + 1] - self.starts[clips]
        line = first + np.minimum((uniform(seed, step, clips) * counts).astype(np.int64), np.maximum(counts - 1, 0))
        if not len(self.rows):
            return np.full(len(clips), -1)
        return np.where(counts > 0, self.rows[np.minimum(line, len(self.rows) - 1)], -1).astype(np.int64)

    def embeddings(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the vectors ``[B, E]`` (float32, CPU) of captions by number; zeros for -1."""
        if self.vectors is None:
            raise UserError(
                f"{self.folder} has captions without embeddings: run python -m evar.pretrain.captions with --encoder"
            )
        found = torch.zeros(len(rows), self.dim)
        there = np.flatnonzero(rows >= 0)
        found[torch.from_numpy(there)] = torch.from_numpy(self.vectors[rows[there]].astype(np.float32))
        return found

    def texts(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """Return captions by number; "" for -1. Raises :class:`UserError` if the store has vectors only."""
        if not self.facts["texts"]:
            raise UserError(
                f"{self.folder} was converted from files of embeddings, which have no text: make the captions from "
                "their tables (python -m evar.pretrain.captions --tables=…)"
            )
        return tuple(self._texts[row] if row >= 0 else "" for row in rows)

    @cached_property
    def _texts(self) -> NDArray[np.object_]:
        table = _read(self.folder, self.facts, ["caption", "row"])
        texts = np.empty(int(self.facts["captions"]), dtype=object)
        texts[table["row"].to_numpy()] = table["caption"].to_numpy(dtype=object)
        return texts


def uniform(seed: int, step: int, clips: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each clip: a function of (seed, step, clip) alone.

    By the mixing of SplitMix64 (Steele et al. 2014), in one pass over the batch; a generator would have to be made anew
    for each clip.
    """
    when = _mixed(_mixed(np.array([seed & (2**64 - 1)], np.uint64)) ^ np.uint64(step))
    return (_mixed(_mixed(np.asarray(clips, np.uint64)) ^ when) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)  # arrays of uint64 wrap around
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def no_captions(names: Sequence[str], lacking: int, clips: int, why: str) -> UserError:
    """Return the error for clips without a caption; ``names`` are some of them."""
    more = ", …" if lacking > len(names) else ""
    return UserError(f"{lacking:,} of {clips:,} clips have no caption ({', '.join(names)}{more}): {why}")


def write_table(folder: Path, names: Sequence[str], captions: Sequence[str], rows: Any, sources: Sequence[str]) -> int:
    """Write ``captions.csv``, a line per caption, and return its CRC-32; nothing is written if it is there already."""
    text = pd.DataFrame(dict(zip(COLUMNS, (names, captions, rows, sources), strict=True))).to_csv(
        index=False, lineterminator="\n"
    )
    raw = text.encode()
    path = folder / TABLE
    if not (path.is_file() and path.stat().st_size == len(raw) and path.read_bytes() == raw):
        (folder / ABOUT).unlink(missing_ok=True)  # it may not stand beside a table that it does not describe
        write_atomically(path, text)
    return zlib.crc32(raw)


def open_captions(folder: Path) -> Captions:
    """Return the captions in ``folder``, of the clips that they were made for.

    Raises:
        UserError: there are none, they are not finished, or a file is damaged.
    """
    path = folder / ABOUT
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = facts["format"]
    except (FileNotFoundError, NotADirectoryError):
        state = "not finished: run the same command again" if (folder / TABLE).is_file() else "not there"
        raise UserError(f"{folder}: the captions are {state} (python -m evar.pretrain.captions)") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} cannot be read: run python -m evar.pretrain.captions again") from None
    if version != FORMAT:
        raise UserError(f"{folder} has captions of format {version}, this program reads {FORMAT}: make them again")
    table = _read(folder, facts, ["clip", "row"])
    clip = table["clip"].to_numpy(dtype=object)
    begins = np.flatnonzero(np.concatenate([np.ones(min(1, len(clip)), bool), clip[1:] != clip[:-1]]))
    vectors = None
    if facts["encoder"] is not None:
        vectors, of = read_vectors(folder / VECTORS)
        if of != facts["fingerprint"] or len(vectors) != facts["captions"]:
            raise UserError(f"{folder / VECTORS} belongs to other captions: run python -m evar.pretrain.captions again")
    starts = np.append(begins, len(clip)).astype(np.int64)
    return Captions(folder, facts, tuple(clip[begins]), starts, table["row"].to_numpy(np.int32), vectors)


def _read(folder: Path, facts: Mapping[str, Any], columns: list[str]) -> pd.DataFrame:
    path = folder / TABLE
    raw = path.read_bytes() if path.is_file() else b""
    if zlib.crc32(raw) != facts["table_crc32"]:
        raise UserError(f"{path} is missing or was changed: run python -m evar.pretrain.captions again")
    types = {name: np.int32 if name == "row" else str for name in columns}
    return pd.read_csv(io.BytesIO(raw), usecols=columns, dtype=types, keep_default_na=False, na_filter=False)
