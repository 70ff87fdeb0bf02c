"""What a packed store holds: its settings, its files, one index record per clip, and the rule from samples to numbers.

A pack is a folder: ``shard-00000.bin`` … (clips end to end, little-endian), ``clips.index`` (a :data:`RECORD` per clip,
in the order of the shards) and ``pack.json`` (settings, checksums, whether it is complete).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evar.audio.decode import RESAMPLER
from evar.audio.log_mel import MelSpec
from evar.audio.windows import unit_samples
from evar.errors import UserError
from evar.store import KEY_BYTES, fingerprint_of

PackType = Literal["int16", "float16", "float32"]

DESCRIPTION = "pack.json"
INDEX = "clips.index"
FORMAT = 1

RECORD = np.dtype(
    [("key", f"V{KEY_BYTES}"), ("shard", "<u4"), ("crc", "<u4"), ("offset", "<i8"), ("length", "<i8"), ("lost", "<i8")]
)
"""A clip in the index: its key; the number of its shard; CRC-32 of the shard's bytes up to the clip's end (so the last
one is the file's own, and one clip can be checked from the record before it); where it starts and how long it is
(samples, or frames of a log-mel); how many of its numbers were outside the type's range."""

_FULL_SCALE = 32768.0
"""16-bit files decode to n / 32768: with the same scale they come back bit for bit when they are not resampled."""
_FLOAT16_MAX = 65504.0
_STORED = {"int16": "<i2", "float16": "<f2", "float32": "<f4"}
_TORCH = {"int16": torch.int16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class PackSpec:
    """What is stored of each clip: mono audio (int16 or float16) or its log-mel (float16 or float32)."""

    sample_rate: int
    """Hz."""
    dtype: PackType = "int16"
    seconds: float | None = None
    """Keep no more than this from the front of a clip; None: all of it."""
    mel: MelSpec | None = None
    """Store the log-mel of this front end, ``[frames, n_mels]``; None: the waveform."""

    def __post_init__(self) -> None:
        allowed = ("int16", "float16") if self.mel is None else ("float16", "float32")
        if self.dtype not in allowed:
            raise UserError(f"a pack of {self.kind} is stored as {' or '.join(allowed)}, not as {self.dtype}")
        if self.sample_rate <= 0 or (self.seconds is not None and unit_samples(self.sample_rate, self.seconds) < 1):
            raise UserError(f"a pack needs a positive rate and length, not {self.sample_rate} Hz and {self.seconds} s")
        if self.mel is not None and self.mel.sample_rate != self.sample_rate:
            raise UserError(
                f"the log-mel is made at {self.mel.sample_rate} Hz, the pack is to be at {self.sample_rate}"
            )

    @property
    def kind(self) -> str:
        """``audio`` or ``log_mel``."""
        return "audio" if self.mel is None else "log_mel"

    @property
    def stored(self) -> np.dtype:
        """The type of the numbers in the shards."""
        return np.dtype(_STORED[self.dtype])

    @property
    def tensor(self) -> torch.dtype:
        """The same as torch names it."""
        return _TORCH[self.dtype]

    @property
    def tail(self) -> tuple[int, ...]:
        """Shape of one sample ``()`` or frame ``(n_mels,)``."""
        return () if self.mel is None else (self.mel.n_mels,)

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample or frame."""
        return self.stored.itemsize * (1 if self.mel is None else self.mel.n_mels)

    @property
    def per_second(self) -> float:
        """Samples or frames per second."""
        return self.sample_rate if self.mel is None else self.sample_rate / self.mel.hop

    def facts(self) -> dict[str, Any]:
        """Return everything that determines the stored numbers beside the clips; JSON values only."""
        scale = "round(x * 32768), clipped to the type's range" if self.dtype == "int16" else "as they are"
        return {"format": FORMAT, "kind": self.kind, "resampler": RESAMPLER, "scale": scale, **asdict(self)}

    def fingerprint(self, keys: Sequence[bytes]) -> str:
        """Return the checksum that names the pack of the clips ``keys``, whatever their order."""
        clips = hashlib.blake2b(b"".join(sorted(set(keys))), digest_size=16).hexdigest()
        return fingerprint_of({**self.facts(), "clips": clips})


def spec_of(facts: dict[str, Any]) -> PackSpec:
    """Return the settings from :meth:`PackSpec.facts`."""
    mel = MelSpec(**facts["mel"]) if facts["mel"] else None
    return PackSpec(facts["sample_rate"], facts["dtype"], facts["seconds"], mel)


def to_stored(values: NDArray[np.float32], dtype: PackType) -> tuple[NDArray[Any], int]:
    """Return ``(values as stored, how many of them had to be clipped to the type's range)``.

    int16: ``round(x * 32768)``, within ±2^-16 of x unless clipped; float16: the nearest, within 2^-11 of ``|x|``
    (2^-25 near zero).
    """
    if dtype == "float32":
        return values.astype("<f4"), 0
    if dtype == "float16":
        lost = int(np.count_nonzero(np.abs(values) > _FLOAT16_MAX))
        return np.clip(values, -_FLOAT16_MAX, _FLOAT16_MAX).astype("<f2"), lost
    scaled = np.rint(values * np.float32(_FULL_SCALE))
    lost = int(np.count_nonzero((scaled > _FULL_SCALE - 1) | (scaled < -_FULL_SCALE)))
    return np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype("<i2"), lost


def from_stored(raw: Tensor) -> Tensor:
    """Return stored numbers as float32 on the device where they are; the inverse of :func:`to_stored`."""
    return raw.to(torch.float32).mul_(1.0 / _FULL_SCALE) if raw.dtype == torch.int16 else raw.float()


def shard_path(folder: Path, number: int) -> Path:
    """Return the path of a shard."""
    return folder / f"shard-{number:05d}.bin"


def read_records(folder: Path) -> NDArray[Any]:
    """Return the index ``[N]`` of :data:`RECORD`; a half-written record at its end is left out."""
    path = folder / INDEX
    count = path.stat().st_size // RECORD.itemsize if path.exists() else 0
    return np.fromfile(path, RECORD, count) if count else np.empty(0, RECORD)


def joined(keys: Sequence[bytes]) -> NDArray[np.bytes_]:
    """Return keys as an array that numpy can sort and search."""
    return np.frombuffer(b"".join(keys), f"S{KEY_BYTES}")
