"""The files of the published M2D-S training (MODELS 5): ``.npz`` with a log-mel, a speech model's features, a length.

``arr_0`` is the log-mel ``(1, 80, T)``, ``arr_1`` the states ``(L, D)`` (layer 9 of HuBERT-base), ``arr_2`` the length
before the clip was lengthened. The files tell neither the states' rate, which is 50 a second in the paper, nor the unit
of the length: here one that fits the states is read as frames of the log-mel, a far larger one as samples.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evar.errors import UserError
from evar.pretrain.feature_store import ClipFeatures
from evar.store import fingerprint_of

SUFFIX = ".npz"
LOG_MEL, STATES, LENGTH = "arr_0", "arr_1", "arr_2"
STEP = 0.02
"""Seconds per row of the states."""
_FRAME = 0.01
_FRAMES_PER_STATE = 2


def read_member(path: Path, name: str) -> NDArray[Any] | None:
    """Return an array of a file, None if it has none of that name; never unpickled.

    Raises :class:`UserError` that names a file that cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as members:
            return members[name] if name in members.files else None
    except FileNotFoundError:
        raise UserError(f"{path} is missing: take it out of the list, or make it again") from None
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read as .npz ({str(error).splitlines()[0]}): make it again") from None


def read_log_mel(path: Path) -> NDArray[Any]:
    """Return the log-mel of a file as it is stored; raise :class:`UserError` if it has none."""
    found = read_member(path, LOG_MEL)
    if found is None:
        raise UserError(f"{path} has no {LOG_MEL}, the log-mel: make it again")
    return found


class NpzFeatures:
    """The features in such files (:class:`evar.pretrain.feature_store.Features`).

    Args:
        folder: of the files.
        files: their paths below it.
        rows: ``[N]``: each clip's file.

    Raises:
        UserError: the first file has no states, or they do not cover its log-mel at 50 a second.
    """

    step = STEP

    def __init__(self, folder: Path, files: Sequence[str], rows: NDArray[np.int64]) -> None:
        self.folder, self.files, self.rows = folder, files, rows
        path = folder / files[int(rows[0])]
        self.dim = 0
        first = self._one(path)
        self.dim = first.frames.shape[1]
        covered, whole = len(first.frames) * STEP, read_log_mel(path).shape[-1] * _FRAME
        if abs(covered - min(whole, first.end)) > 0.25 and abs(covered - whole) > 0.25:
            raise UserError(
                f"{path}: {len(first.frames)} states cover {covered:.2f} s at 50 a second, its log-mel {whole:.2f} s; "
                "features at another rate come in through python -m evar.pretrain.features"
            )
        self.fingerprint = fingerprint_of({"layout": "npz", "step": STEP, "dim": self.dim})

    def of(self, clips: NDArray[np.int64]) -> list[ClipFeatures]:
        """Return the features of the clips ``[B]``; raise :class:`UserError` that names a file it cannot use."""
        return [self._one(self.folder / self.files[row]) for row in self.rows[clips].tolist()]

    def _one(self, path: Path) -> ClipFeatures:
        states, length = read_member(path, STATES), read_member(path, LENGTH)
        if states is not None and states.ndim == 3 and len(states) == 1:
            states = states[0]
        if states is None or states.ndim != 2 or states.dtype.kind != "f" or 0 in states.shape:
            raise UserError(f"{path} has no {STATES} of floats (states, features): make it again")
        if self.dim and states.shape[1] != self.dim:
            raise UserError(f"{path} has {states.shape[1]} features per state, the others have {self.dim}")
        if length is None or length.size != 1:
            return ClipFeatures(states, STEP, float("inf"))
        number = float(length.reshape(()))
        in_frames = number <= 10 * _FRAMES_PER_STATE * len(states)
        return ClipFeatures(states, STEP, number * _FRAME if in_frames else number / 16000)
