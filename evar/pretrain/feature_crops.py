"""Features of the same time as a crop of the log-mel.

A crop begins at ``start`` frames of the log-mel; of it, the whole patches count (W seconds). In every crop alike these
are T' = W / step rows, rounded, for the usual ``step`` (seconds per row). Row j is the clip's row that begins nearest
to ``start + j W / T'``, the earlier of two as near. Times before the clip's end at which it has no row (models leave
out less than one or two at the end) get its last one. After the clip's end come zeros: a network that learns directions
(norm_mse, cosine) learns nothing from them, whatever follows a short clip in the log-mel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evar.errors import UserError
from evar.pretrain.corpus_files import Corpus
from evar.pretrain.crops import mel_for
from evar.pretrain.feature_store import Features, open_features
from evar.pretrain.npy_source import NpyFiles
from evar.pretrain.npz_files import SUFFIX, NpzFeatures
from evar.pretrain.settings import PretrainSettings

_TIE = 1e-6
"""Rows: a crop may begin in the middle of a row, and rounding errors may not decide which way it goes."""


def features_of_corpus(corpus: Corpus, folder: Path | None) -> Features | None:
    """Return the features in ``folder`` by the corpus's clip numbers, else those in its own .npz files, else None."""
    if folder is not None:
        return open_features(folder).for_corpus(corpus)
    source = corpus.source
    if isinstance(source, NpyFiles) and all(source.files[row].endswith(SUFFIX) for row in corpus.rows.tolist()):
        return NpzFeatures(source.folder, source.files, corpus.rows)
    return None


class FeatureCrops:
    """Cuts crops of features. Threads may share it.

    Args:
        features: of the corpus's clips.
        settings: input_size, patch_size, sample_rate.

    Raises:
        UserError: a crop is shorter than half a row.
    """

    def __init__(self, features: Features, settings: PretrainSettings) -> None:
        mel = mel_for(settings.sample_rate, settings.input_size[0])
        self.features = features
        self.frame = mel.hop / mel.sample_rate
        self.width = settings.grid[1] * settings.patch_size[1] * self.frame
        self.count = round(self.width / features.step)
        """T'."""
        if not self.count:
            raise UserError(
                f"--features: one row is {features.step:g} s, a crop (--input_size) only {self.width:g} s: too short"
            )

    def cut(
        self, clips: NDArray[np.int64], starts: NDArray[np.int64], real: NDArray[np.int64], *, pin: bool = False
    ) -> Tensor:
        """Return ``[B, T', D]``, float16 (float32 if stored so), on the CPU.

        Args:
            clips: ``[B]``, their numbers.
            starts: ``[B]``, the frame of the log-mel at which each crop begins.
            real: ``[B]``, how many frames of the log-mel each whole clip has, not lengthened.
            pin: in page-locked memory, for a GPU.
        """
        found = self.features.of(clips)
        dtype = torch.float16 if all(one.frames.dtype == np.float16 for one in found) else torch.float32
        out = torch.empty((len(clips), self.count, self.features.dim), dtype=dtype, pin_memory=pin)
        for row, one, start, frames in zip(out.numpy(), found, starts.tolist(), real.tolist(), strict=True):
            begin = start * self.frame
            rows = rows_at(begin, self.width, self.count, one.step)
            left = min(frames * self.frame, one.end) - begin
            there = min(max(int(np.ceil(left / self.width * self.count - _TIE)), 0), self.count)
            row[:there] = one.frames[np.minimum(rows[:there], len(one.frames) - 1)]
            row[there:] = 0
        return out


def rows_at(begin: float, width: float, count: int, step: float) -> NDArray[np.int64]:
    """Return the rows ``[count]`` of ``step`` seconds nearest to times that divide ``width`` seconds from ``begin``."""
    first = np.floor(begin / step + 0.5 - _TIE)
    further = np.floor(np.arange(count) * (width / count / step) + 0.5 - _TIE)
    return (first + further).astype(np.int64)
