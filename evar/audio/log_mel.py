"""Log-mel spectrograms in plain torch: batched, on any device, in float32 even under autocast.

The front end of M2D, M2D-CLAP, MSM-MAE and BYOL-A: power spectrum (periodic Hann, centred, reflect padding), mel
filters on Slaney's scale with Slaney's area normalisation, natural logarithm of (power + eps).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

FLOAT32_EPS = 1.1920929e-07

_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0

_CPU_PIECE = 4_000_000
"""Numbers in the complex spectrum of the clips that are transformed at once on a CPU: 16 MB stay in the allocator's
free lists, where larger blocks are fetched from the system and zeroed each time (measured: 1.7 times slower)."""


@dataclass(frozen=True)
class MelSpec:
    """What fixes a log-mel front end. The window is as long as the transform."""

    sample_rate: int
    n_fft: int
    hop: int
    n_mels: int
    fmin: float
    fmax: float
    eps: float = FLOAT32_EPS


M2D_16K = MelSpec(16000, 400, 160, 80, 50.0, 8000.0)
"""M2D, M2D-CLAP and MSM-MAE at 16 kHz: 25-ms window, 10-ms hop."""
M2D_32K = MelSpec(32000, 800, 320, 80, 50.0, 16000.0)
"""The same in milliseconds at 32 kHz."""
BYOL_A_16K = MelSpec(16000, 1024, 160, 64, 60.0, 7800.0)
"""BYOL-A: 64-ms window, 10-ms hop."""


def slaney_mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return frequencies in Hz: 200/3 Hz per mel below 1 kHz, a ratio of 6.4 per 27 mels above (Slaney 1998)."""
    return np.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL)))


def slaney_hz_to_mel(hz: float) -> float:
    """Return the mel of a frequency in Hz (inverse of :func:`slaney_mel_to_hz`)."""
    if hz < _BREAK_HZ:
        return hz / _HZ_PER_MEL
    return float(_BREAK_MEL + np.log(hz / _BREAK_HZ) / _LOG_STEP)


def mel_filterbank(spec: MelSpec) -> NDArray[np.float32]:
    """Return the filters ``[n_mels, n_fft // 2 + 1]``: triangles equally spaced in mel, each of unit area in Hz."""
    low, high = slaney_hz_to_mel(spec.fmin), slaney_hz_to_mel(spec.fmax)
    edges = slaney_mel_to_hz(np.linspace(low, high, spec.n_mels + 2))
    bins = np.arange(spec.n_fft // 2 + 1) * (spec.sample_rate / spec.n_fft)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    return (np.maximum(triangles, 0.0) * (2.0 / (right - left))).astype(np.float32)


class LogMel(nn.Module):
    """Waveforms ``[B, T]`` to log-mel spectrograms ``[B, n_mels, 1 + T // hop]``."""

    window: Tensor
    filters: Tensor

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("window", torch.hann_window(spec.n_fft, periodic=True), persistent=False)
        self.register_buffer("filters", torch.from_numpy(mel_filterbank(spec).T.copy()), persistent=False)

    def frames(self, samples: int) -> int:
        """Return the number of frames of a waveform with this many samples."""
        return 1 + samples // self.spec.hop

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return self.spec.hop / self.spec.sample_rate

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return the log-mel ``[B, n_mels, frames]`` of float waveforms ``[B, T]``.

        The result is a transposed view of ``[B, frames, n_mels]``. A waveform too short to be reflected at its edges
        (``n_fft // 2`` samples or fewer) is zero-padded first, and gives the frames that its own length entitles it to.
        """
        frames = self.frames(waveforms.shape[-1])
        short = self.spec.n_fft // 2 + 1 - waveforms.shape[-1]
        if short > 0:
            waveforms = F.pad(waveforms, (0, short))
        with torch.autocast(waveforms.device.type, enabled=False):
            pieces = [self._piece(piece.float(), frames) for piece in waveforms.split(self._clips_at_once(waveforms))]
        return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).transpose(1, 2)

    def _clips_at_once(self, waveforms: Tensor) -> int:
        if waveforms.device.type != "cpu" or len(waveforms) == 0:
            return max(len(waveforms), 1)
        numbers = self.frames(waveforms.shape[-1]) * (self.spec.n_fft + 2)
        return max(1, _CPU_PIECE // numbers)

    def _piece(self, waveforms: Tensor, frames: int) -> Tensor:
        spectrum = torch.stft(
            waveforms,
            self.spec.n_fft,
            self.spec.hop,
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        # stft computes [B, frames, bins] and returns its transpose: undone here, so that all is contiguous.
        parts = torch.view_as_real(spectrum.transpose(1, 2)[:, :frames])
        # Four times as fast as a sum over the last axis, whose length is 2.
        power = parts[..., 0].square().add_(parts[..., 1].square())
        return (power @ self.filters).add_(self.spec.eps).log_()
