"""Mel filter banks: HTK's and Slaney's scale with triangles in Hz, Kaldi's with triangles in mel."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evar.audio.log_mel import MelSpec, mel_filterbank

Scale = Literal["slaney", "htk", "kaldi"]


def htk_mel(hz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return mels of Hz, 2595 log10(1 + f/700): O'Shaughnessy's formula, that of HTK."""
    return 2595.0 * np.log10(1.0 + np.asarray(hz, dtype=np.float64) / 700.0)


def kaldi_mel(hz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return mels of Hz, 1127 ln(1 + f/700): Kaldi's form of the same scale."""
    return 1127.0 * np.log1p(np.asarray(hz, dtype=np.float64) / 700.0)


def mel_filters(scale: Scale, sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float) -> Tensor:
    """Return the filters ``[n_fft // 2 + 1, n_mels]``, float32.

    scale: ``slaney`` divides each triangle by its area in Hz; ``htk`` leaves peaks of 1; ``kaldi`` draws the triangles
        over the mel axis (peaks of 1 where a bin meets the centre) and leaves out the bin at the Nyquist frequency.
    """
    if scale == "slaney":
        return torch.from_numpy(mel_filterbank(MelSpec(sample_rate, n_fft, 1, n_mels, fmin, fmax)).T.copy())
    bins = np.arange(n_fft // 2 + 1, dtype=np.float64) * (sample_rate / n_fft)
    if scale == "htk":
        edges = 700.0 * (10.0 ** (np.linspace(htk_mel(fmin), htk_mel(fmax), n_mels + 2) / 2595.0) - 1.0)
        bank = _triangles(bins, edges)
    else:
        bank = _triangles(kaldi_mel(bins), np.linspace(kaldi_mel(fmin), kaldi_mel(fmax), n_mels + 2))
        bank[-1] = 0.0
    return torch.from_numpy(bank.astype(np.float32))


def _triangles(bins: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins[:, None] - left) / (centre - left), (right - bins[:, None]) / (right - centre)
    return np.maximum(np.minimum(rising, falling), 0.0)
