"""Front ends of the convolutional baselines: log-mel in dB with stored filters, VGGish's patches, Wav2CLIP's spectra.

All take waveforms ``[B, T]`` and compute in float32 whatever the autocast. Waveforms too short for one output of the
network behind them are zero-padded at the end.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_adapters.networks.frontends import VGGISH, WAV2CLIP, Spectrogram, SpectrogramSpec
from model_adapters.networks.mel_filters import mel_filters

_CPU_PIECE = 4_000_000
"""Numbers in the complex spectrum of the clips transformed at once on a CPU (see :mod:`evar.audio.log_mel`)."""


def padded_to(waveforms: Tensor, samples: int) -> Tensor:
    """Return waveforms ``[B, T]``, with zeros at the end if T is under ``samples``."""
    missing = samples - waveforms.shape[-1]
    return F.pad(waveforms, (0, missing)) if missing > 0 else waveforms


def _stored_transform(n_fft: int) -> tuple[Tensor, Tensor]:
    """Return a transform as banks of convolution kernels ``[bins, 1, n_fft]``: windowed cosines and negative sines."""
    turns = torch.arange(n_fft // 2 + 1, dtype=torch.float64)[:, None] * torch.arange(n_fft) % n_fft
    angles, window = 2 * torch.pi / n_fft * turns, torch.hann_window(n_fft, dtype=torch.float64)
    return (window * angles.cos()).float()[:, None], (-window * angles.sin()).float()[:, None]


class DbLogMel(nn.Module):
    """Log-mel in dB whose window and filters are tensors of the checkpoint, named as there (ADAPTERS 2, F3).

    ``[B, T]`` to ``[B, n_mels, 1 + T // hop]``: power spectrum, stored mel filters, 10 log10 of at least 1e-10. What a
    checkpoint stores is what is computed: MS-CLAP 2022's settings, code and audio disagree about its filters.
    """

    def __init__(self, spec: SpectrogramSpec) -> None:
        super().__init__()
        self.spec = spec
        self.spectrogram_extractor, self.logmel_extractor = nn.Module(), nn.Module()
        self.spectrogram_extractor.stft = nn.Module()
        for name, kernels in zip(("conv_real", "conv_imag"), _stored_transform(spec.n_fft), strict=True):
            bank = nn.Module()
            bank.register_buffer("weight", kernels)
            self.spectrogram_extractor.stft.add_module(name, bank)
        filters = mel_filters(spec.scale, spec.sample_rate, spec.n_fft, spec.n_mels, spec.fmin, spec.fmax)
        self.logmel_extractor.register_buffer("melW", filters)

    @property
    def window(self) -> Tensor:
        """The window ``[n_fft]``: the kernel of 0 Hz is the window times one. No other kernel is read."""
        return self.get_buffer("spectrogram_extractor.stft.conv_real.weight")[0, 0]

    def forward(self, waveforms: Tensor, frames: int = 1) -> Tensor:
        """Return the log-mel of waveforms, zero-padded if they would give fewer than ``frames`` frames."""
        shortest = max((frames - 1) * self.spec.hop, self.spec.n_fft // 2 + 1)
        waveforms = padded_to(waveforms, shortest)
        with torch.autocast(waveforms.device.type, enabled=False):
            numbers = (1 + waveforms.shape[1] // self.spec.hop) * (self.spec.n_fft + 2)
            step = max(1, _CPU_PIECE // numbers) if waveforms.device.type == "cpu" else max(1, len(waveforms))
            return torch.cat([self._piece(piece.float()) for piece in waveforms.split(step)]).transpose(1, 2)

    def _piece(self, waveforms: Tensor) -> Tensor:
        n_fft, hop = self.spec.n_fft, self.spec.hop
        spectrum = torch.stft(
            waveforms, n_fft, hop, window=self.window, center=True, pad_mode="reflect", return_complex=True
        )
        parts = torch.view_as_real(spectrum.transpose(1, 2))
        power = parts[..., 0].square() + parts[..., 1].square()
        mel = power @ self.logmel_extractor.get_buffer("melW")
        return 10.0 * mel.clamp_min(self.spec.offset).log10()


class StandardisedSpectrum(nn.Module):
    """Wav2CLIP's input ``[B, 1, 257, frames]``: log power spectrum at 16 kHz, then mean 0 and deviation 1.

    over: ``clip``, or ``batch`` as the published code does, which makes an embedding depend on its neighbours.
    """

    _SILENCE = 1e-3
    """Deviation below which a spectrum is one value and rounding errors, which must not be blown up to noise."""

    def __init__(self, over: Literal["clip", "batch"]) -> None:
        super().__init__()
        self.over = over
        self.front_end = Spectrogram(WAV2CLIP)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return the standardised log spectrum; of silence, zeros."""
        spectrum = self.front_end(waveforms)
        axes = (1, 2) if self.over == "clip" else (0, 1, 2)
        deviation = spectrum.std(axes, keepdim=True)
        centred = spectrum - spectrum.mean(axes, keepdim=True)
        return torch.where(deviation > self._SILENCE, centred / deviation, 0.0)[:, None]


class VggishPatches(nn.Module):
    """VGGish's input ``[B, N, 1, 96, 64]``: patches of 0.96 s of a log-mel at 16 kHz, side by side.

    What is left over at the end is not heard; clips under 0.96 s are zero-padded to one patch.
    """

    FRAMES = 96

    def __init__(self) -> None:
        super().__init__()
        self.front_end = Spectrogram(VGGISH)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return the patches."""
        log_mel = self.front_end(padded_to(waveforms, (self.FRAMES - 1) * VGGISH.hop)).transpose(1, 2)
        patches = log_mel.shape[1] // self.FRAMES
        return log_mel[:, : patches * self.FRAMES].unflatten(1, (patches, 1, self.FRAMES))
