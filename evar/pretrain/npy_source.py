"""The reference's own layout (MODELS 10): a folder of log-mels ``.npy`` ``(1, 80, T)`` and a CSV that lists them.

Files are memory-mapped and only the crop is read; nothing in them is ever unpickled. M2D-S's files, ``.npz``, have a
log-mel and features of a speech model (:mod:`evar.pretrain.npz_files`), and are read whole.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evar.audio.pack import PackSpec
from evar.errors import UserError
from evar.pretrain.corpus_files import SEPARATOR, Corpus, label_sets, read_table
from evar.pretrain.crops import mel_for
from evar.pretrain.npz_files import SUFFIX, read_log_mel
from evar.store import fingerprint_of
from tasks._audioset import LABELS


class NpyFiles:
    """Log-mels in files of their own, by row number; takes the place of a :class:`evar.audio.pack.Pack`.

    Args:
        folder: of the files.
        files: their paths below it.
        spec: what they hold.
    """

    def __init__(self, folder: Path, files: Sequence[str], spec: PackSpec) -> None:
        self.folder, self.files, self.spec = folder, tuple(files), spec

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.files)

    def stored(self, rows: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Return log-mels ``[T, n_mels]``, memory-mapped; raise :class:`UserError` that names a file it cannot use."""
        return [self._one(self.folder / self.files[row]) for row in rows.tolist()]

    def _one(self, path: Path) -> NDArray[Any]:
        log_mel = read_npy(path)
        bands = self.spec.tail[0]
        if log_mel.shape[0] != bands:
            raise UserError(f"{path} has {log_mel.shape[0]} mel bands, the others have {bands}")
        return log_mel.T


def read_npy(path: Path) -> NDArray[Any]:
    """Return the log-mel ``[n_mels, T]`` of a file, memory-mapped; raise :class:`UserError` that names it."""
    try:
        npz = path.suffix == SUFFIX
        array = read_log_mel(path) if npz else np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: take it out of the list, or make it again") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read as a log-mel ({str(error).splitlines()[0]}): make it again") from None
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3) or array.dtype.kind != "f" or 0 in array.shape:
        raise UserError(f"{path} holds no log-mel (1, bands, frames) of floats: make it again")
    if array.ndim == 3 and array.shape[0] != 1:
        raise UserError(f"{path} has the shape {array.shape}; (1, bands, frames) is expected")
    return array if array.ndim == 2 else array[0]


def open_npy_corpus(table: Path, lms: Path | None = None, sample_rate: int = 16000) -> Corpus:
    """Return the corpus of a CSV with a column file_name, and label (ids joined by , or ;) and weight if it has them.

    Args:
        table: the CSV.
        lms: the folder that its files are relative to; None: its own.
        sample_rate: from which the log-mels were made (Hz); the files do not tell.

    Raises:
        UserError: the table is not right, or files are missing (each folder is listed once; none is opened but one).
    """
    columns = read_table(table, "file_name", ("label", "weight"))
    files = columns["file_name"]
    folder = lms if lms is not None else table.parent
    if not folder.is_dir():
        raise UserError(f"--lms={folder}: there is no such folder")
    _check_there(folder, files, table)
    if len(set(files)) < len(files):
        twice = next(name for n, name in enumerate(files) if name in files[:n])
        raise UserError(f"{table} lists {twice} twice: remove one of the two")
    bands, kind = read_npy(folder / files[0]).shape[0], read_npy(folder / files[0]).dtype
    mel = mel_for(sample_rate, bands)
    spec = PackSpec(sample_rate, "float16" if kind == np.float16 else "float32", None, mel)
    labels = [text.replace(",", SEPARATOR) for text in columns.get("label", [""] * len(files))]
    present = {x for text in set(labels) for x in text.split(SEPARATOR) if x}
    # AudioSet's 527 classes all count, though a list of some clips may not have them all.
    classes = tuple(LABELS if present and present <= set(LABELS) else sorted(present))
    weights = np.array(columns["weight"], dtype=np.float64) if "weight" in columns else None
    digests = [fingerprint_bytes(name) for name in files]
    fingerprint = fingerprint_of({"layout": "npy", "spec": spec.facts(), "files": files, "labels": labels})
    return Corpus(
        table.parent, tuple(files), np.arange(len(files)), digests, np.full(len(files), np.nan),
        label_sets(labels, classes, table), classes, weights, NpyFiles(folder, files, spec), fingerprint,
    )  # fmt: skip


def fingerprint_bytes(name: str) -> bytes:
    """Return 16 bytes that stand for a file that nobody has read: of its name."""
    return bytes.fromhex(fingerprint_of({"file": name}))


def _check_there(folder: Path, files: Sequence[str], table: Path) -> None:
    listed: dict[str, set[str]] = {}
    missing = []
    for file in files:
        below, _, name = file.rpartition("/")
        if below not in listed:
            place = folder / below
            listed[below] = {entry.name for entry in os.scandir(place)} if place.is_dir() else set()
        if name not in listed[below]:
            missing.append(file)
    if missing:
        raise UserError(
            f"{len(missing)} of {len(files)} files of {table} are not in {folder}, the first: {missing[0]}; "
            "--lms=DIR names the folder that they are relative to"
        )
