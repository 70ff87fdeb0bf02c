"""Writing a packed store: samples before the records that name them, so that what a killed process leaves is whole.

A record of the index always stands for samples that are on disk. The next writer keeps all records whose samples are
there, cuts off what follows them, and goes on; a shard that was deleted or cut short loses its records and no others.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from evar.audio.pack_format import DESCRIPTION, INDEX, RECORD, PackSpec, read_records, shard_path
from evar.store import write_atomically

SHARD_BYTES = 1 << 30
_FLUSH_BYTES = 1 << 25  # what a kill can lose: 32 MiB of decoded audio, seconds of work


class PackWriter:
    """Appends clips to a pack. The caller holds the pack's lock. A context manager: leaving it puts all on disk.

    Args:
        folder: the pack's.
        spec: what is stored.
        fingerprint: of spec and clips.
        shard_bytes: a shard is closed before it grows larger, unless a single clip is.
    """

    def __init__(self, folder: Path, spec: PackSpec, fingerprint: str, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self.spec, self.fingerprint, self.shard_bytes = folder, spec, fingerprint, shard_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._describe(complete=False)
        self.records = recover(folder, spec)
        """What was there when the writer began."""
        last = self.records[-1] if len(self.records) else None
        self._number = 0 if last is None else int(last["shard"])
        self._end = 0 if last is None else int(last["offset"] + last["length"])
        self._crc = 0 if last is None else int(last["crc"])
        self._pending: list[tuple[Any, ...]] = []
        self._pending_bytes = 0
        self._handle: BinaryIO | None = None

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):  # a full disk: what has its records stays, the rest is cut off next time
            self._pending = []
        self.flush()

    def append(self, key: bytes, clip: NDArray[Any], lost: int) -> None:
        """Append a clip as stored, ``[length]`` or ``[frames, n_mels]``, of which ``lost`` numbers were clipped."""
        data = np.ascontiguousarray(clip, dtype=self.spec.stored).reshape(-1).view(np.uint8).data
        if self._end and self._end * self.spec.row_bytes + data.nbytes > self.shard_bytes:
            self.flush()
            self._number, self._end, self._crc = self._number + 1, 0, 0
        if self._handle is None:
            # Closed by flush.
            self._handle = open(shard_path(self.folder, self._number), "ab")  # noqa: SIM115
        self._handle.write(data)
        self._crc = zlib.crc32(data, self._crc)
        self._pending.append((key, self._number, self._crc, self._end, len(clip), lost))
        self._end += len(clip)
        self._pending_bytes += data.nbytes
        if self._pending_bytes >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Put the samples on disk, then the records that name them."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with handle:
                handle.flush()
                os.fsync(handle.fileno())
        fresh, self._pending, self._pending_bytes = np.array(self._pending, RECORD), [], 0
        if len(fresh):
            with open(self.folder / INDEX, "ab") as index:
                index.write(fresh.tobytes())
                index.flush()
                os.fsync(index.fileno())

    def finish(self, left_out: Sequence[bytes] = ()) -> None:
        """Say that the pack is complete, but for the clips ``left_out``; from now on it can be opened."""
        self.flush()
        self._describe(complete=True, left_out=left_out)

    def _describe(self, *, complete: bool, left_out: Sequence[bytes] = ()) -> None:
        about: dict[str, Any] = {"complete": complete, "fingerprint": self.fingerprint, "facts": self.spec.facts()}
        if complete:
            rows = read_records(self.folder)
            last = np.flatnonzero(np.diff(rows["shard"].astype(np.int64), append=-1))
            about["clips"] = len(rows)
            about["lost"] = int(rows["lost"].sum())
            about["shards"] = [self._shard_facts(rows[n]) for n in last]
            about["index"] = {"file": INDEX, "bytes": rows.nbytes, "crc32": zlib.crc32(rows.tobytes())}
            about["left_out"] = [key.hex() for key in left_out]
        write_atomically(self.folder / DESCRIPTION, json.dumps(about, indent=1))

    def _shard_facts(self, last: Any) -> dict[str, Any]:
        size = int(last["offset"] + last["length"]) * self.spec.row_bytes
        return {"file": shard_path(self.folder, int(last["shard"])).name, "bytes": size, "crc32": int(last["crc"])}


def recover(folder: Path, spec: PackSpec) -> NDArray[Any]:
    """Return the records whose samples are on disk; cut off, from index and shards, whatever else is there."""
    records = read_records(folder)
    files = {int(path.stem.rpartition("-")[2]): path for path in folder.glob("shard-*.bin")}
    sizes = {number: path.stat().st_size for number, path in files.items()}
    there = np.array([sizes.get(int(n), -1) for n in records["shard"]], dtype=np.int64)
    kept = records[(records["offset"] + records["length"]) * spec.row_bytes <= there]
    index = folder / INDEX
    if not index.exists() or index.stat().st_size != kept.nbytes:
        part = index.with_suffix(".part")
        part.write_bytes(kept.tobytes())
        os.replace(part, index)
    for number, path in files.items():
        mine = kept[kept["shard"] == number]
        end = int((mine["offset"] + mine["length"]).max()) * spec.row_bytes if len(mine) else 0
        if end == 0:
            path.unlink()
        elif end < sizes[number]:
            os.truncate(path, end)
    return kept
