"""AudioCLIP's front end: complex frequency B-spline wavelets with learned parameters (Guzhov et al., IJCNN 2021).

Waveforms ``[B, T]`` at 44.1 kHz to three-channel images ``[B, 3, 341, frames]`` in dB (F12).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_adapters.networks.cnn_frontends import padded_to

SAMPLE_RATE = 44100
N_FFT, WINDOW, HOP = 2048, 1654, 561
BINS = N_FFT // 2 + 1
CHANNELS, BANDS = 3, 341
"""The first 1023 of 1025 bins, cut into three bands, are the image's three channels."""
SHORTEST = WINDOW
"""Samples below which a clip is padded with zeros."""
_FLOOR = 1e-18
"""Power of -180 dB: less is no sound."""
_BLACKMAN_HARRIS = (0.35875, 0.48829, 0.14128, 0.01168)


def blackman_harris(length: int) -> Tensor:
    """Return the periodic window ``[length]``, the sum of four cosines (Harris 1978)."""
    angles = 2 * math.pi / length * torch.arange(length, dtype=torch.float64)
    terms = [(-1) ** k * a * torch.cos(k * angles) for k, a in enumerate(_BLACKMAN_HARRIS)]
    return torch.stack(terms).sum(0).float()


class FbspBank(nn.Module):
    """The filters' parameters, one of each for every bin: order m, bandwidth fb, centre fc (in bins)."""

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.zeros(BINS))
        self.fb = nn.Parameter(torch.ones(BINS))
        self.fc = nn.Parameter(torch.arange(BINS, dtype=torch.float32))
        self.register_buffer("bias", torch.zeros(0))
        self._made: tuple[object, Tensor] | None = None

    def kernels(self) -> Tensor:
        """Return the filters' real and imaginary parts, ``[N_FFT, 2 * BINS]``; without gradient, made only once."""
        if torch.is_grad_enabled():
            return self._kernels()
        state = [(p.data_ptr(), p._version) for p in self.parameters()]
        if self._made is None or self._made[0] != state:
            self._made = (state, self._kernels())
        return self._made[1]

    def _kernels(self) -> Tensor:
        """Compute the filters.

        In float32, in which they were trained: rounding of the phase (up to 3200 rad) shows in the high bins.
        """
        t = math.pi * torch.linspace(-1.0, 1.0, N_FFT, device=self.m.device)[:, None]
        x = self.fb * t / (self.m + 1e-8)  # never 0: the axis is symmetric and has an even number of points
        sinc = torch.sin(x) / x
        # The power of a negative number: its order begins at 0, but a trained one is no whole number.
        envelope = self.fb.sqrt() * sinc.abs().pow(self.m) / math.sqrt(N_FFT)
        phase = torch.where(sinc < 0, math.pi * self.m, 0.0) - self.fc * t
        return torch.cat([envelope * phase.cos(), envelope * phase.sin()], dim=1)


def to_unit_range(waveforms: Tensor, full_scale: float) -> Tensor:
    """Return what the network makes of waveforms times ``full_scale``: -32768 ... 32767 becomes -1 ... 1.

    Leaves a constant of 1.5e-5, which the lowest filter hears.
    """
    return waveforms * (full_scale * 2.0 / 65535.0) + 1.0 / 65535.0


def frames_of(waveforms: Tensor) -> Tensor:
    """Return ``[B, frames, WINDOW]``: enough frames for all samples, which stand in the middle of zeros."""
    waveforms = padded_to(waveforms, SHORTEST)
    samples = waveforms.shape[1]
    frames = 1 + math.ceil((samples - WINDOW) / HOP)
    missing = WINDOW + (frames - 1) * HOP - samples
    return F.pad(waveforms, (missing // 2, missing - missing // 2)).unfold(1, WINDOW, HOP)


def power_spectrum(frames: Tensor, window: Tensor, kernels: Tensor) -> Tensor:
    """Return the power ``[B, frames, BINS]`` of ``frames [B, frames, WINDOW]``."""
    before = (N_FFT - WINDOW) // 2
    # The windowed frame stands in the middle of the filters: what lies beside it need not be multiplied.
    parts = (frames * window) @ kernels[before : before + WINDOW]
    return parts[..., :BINS].square() + parts[..., BINS:].square()


def image(power: Tensor) -> Tensor:
    """Return ``[B, 3, 341, frames]`` in dB of a power ``[B, frames, BINS]``.

    The published code puts the floor under zeros only; what lies between is the rounding error of digital silence,
    which differs with the batch.
    """
    decibels = 10.0 * power.clamp_min(_FLOOR).log10()
    return decibels[..., : CHANNELS * BANDS].transpose(1, 2).unflatten(1, (CHANNELS, BANDS))
