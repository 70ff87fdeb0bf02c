"""Writes a made data set: WAV files and one metadata table, complete or not at all."""

from __future__ import annotations

import hashlib
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import soundfile as sf
from filelock import FileLock
from tqdm import tqdm

from evar.errors import UserError
from tasks._pocket.sound import RATE, Wave

METADATA = "metadata-v1.csv"
"""The table's name carries the version of the synthesis: what an older version made is never taken for new."""
COLUMNS = ("file", "label", "split", "group", "caption")


@dataclass(frozen=True)
class Clip:
    """One clip to make: its row in the metadata table, and how its samples are made."""

    file: str
    label: str
    split: str
    group: str
    caption: str
    render: Callable[[], Wave]
    """Returns samples ``[N]`` at 16 kHz within ±1."""


def table_text(clips: Sequence[Clip]) -> str:
    """Return the metadata table as CSV text, one row per clip in the given order."""
    rows = [[getattr(clip, column) for column in COLUMNS] for clip in clips]
    return pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(index=False, lineterminator="\n")


def write(folder: Path, clips: Callable[[], Sequence[Clip]], checksum: str) -> None:
    """Make ``clips()`` in ``folder``: everything in a sibling folder first, put in place by one rename at the end.

    A killed run thus leaves no half data set, and of two processes at once the second waits and finds the work done.
    ``checksum`` is the recorded sha256 of the metadata table; another one means that numpy's random streams have
    changed and scores cannot be compared, which is warned of. Raises :class:`UserError` if the folder cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if not (folder / METADATA).is_file():
                _make(folder, clips(), checksum)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror or error}. Choose another place: --root=DIR") from error


def _make(folder: Path, clips: Sequence[Clip], checksum: str) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder} is there but has no {METADATA} (made by another version, or not by us): "
            "remove it or choose another place with --root=DIR"
        )
    partial = folder.parent / f".{folder.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)  # left by a killed run; the lock says that nobody is writing it
    text = table_text(clips)
    if hashlib.sha256(text.encode()).hexdigest() != checksum:
        warnings.warn(
            f"{folder.name}: made differently than by the version that scores were recorded with", stacklevel=4
        )
    for parent in sorted({(partial / clip.file).parent for clip in clips}):
        parent.mkdir(parents=True)
    for clip in tqdm(
        clips, f"making {folder.name}", unit="clip", delay=2.0, leave=False, disable=not sys.stderr.isatty()
    ):
        sf.write(partial / clip.file, clip.render(), RATE, subtype="PCM_16")
    (partial / METADATA).write_bytes(text.encode())
    if folder.exists():
        folder.rmdir()  # empty: some systems cannot rename onto a folder that is there
    partial.rename(folder)
