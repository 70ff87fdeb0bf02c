"""The GPVAD teacher: a convolutional recurrent AudioSet tagger of 0.8 M parameters, and its log-mel front end.

Dinkel, Wang, Xu, Wu and Yu, "Voice activity detection in the wild: A data-driven approach using teacher-student
training", IEEE/ACM TASLP 29, 2021. Parameter names follow the published file.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evar.audio.log_mel import MelSpec, mel_filterbank

SAMPLE_RATE = 22050
N_CLASSES = 527
FRAME_SAMPLES = 441
"""Hop of the spectrogram (20 ms)."""
POOLED_FRAMES = 4
"""Spectrogram frames per frame of the network (80 ms)."""
SHORTEST = (POOLED_FRAMES - 1) * FRAME_SAMPLES
"""Samples that give one frame of the network; shorter clips are zero-padded to this."""

_MEL = MelSpec(sample_rate=SAMPLE_RATE, n_fft=2048, hop=FRAME_SAMPLES, n_mels=64, fmin=0.0, fmax=SAMPLE_RATE / 2)
_WINDOW = 882
_EPS = 2.220446049250313e-16  # the spacing of float64 at 1, which the authors added before the logarithm
_FLOOR = 1e-7


class FrontEnd(nn.Module):
    """Waveforms ``[B, T]`` at 22,050 Hz to log-mel spectrograms ``[B, 1 + T // 441, 64]``.

    Power spectrum (transform 2048, periodic Hann window of 882 samples in its middle, hop 441), centred with
    zeros beyond the edges, 64 Slaney mel bands from 0 to 11,025 Hz, natural logarithm of (power + 2.2e-16).
    """

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(_WINDOW, periodic=True), persistent=False)
        self.register_buffer("filters", torch.from_numpy(mel_filterbank(_MEL).T.copy()), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return the log-mel; waveforms under :data:`SHORTEST` samples are zero-padded to it. Always in float32."""
        short = SHORTEST - waveforms.shape[-1]
        if short > 0:
            waveforms = F.pad(waveforms, (0, short))
        with torch.autocast(waveforms.device.type, enabled=False):
            spectrum = torch.stft(
                waveforms.float(),
                _MEL.n_fft,
                _MEL.hop,
                _WINDOW,
                window=self.window,
                center=True,
                pad_mode="constant",  # measured: reflecting costs the figures of the published notice 0.1 to 0.3 points
                return_complex=True,
            )
            parts = torch.view_as_real(spectrum.transpose(1, 2))
            power = parts[..., 0].square() + parts[..., 1].square()
            return torch.log(power @ self.filters + _EPS)


def lp_pool(x: Tensor, kernel: tuple[int, int]) -> Tensor:
    """Return the 4-norm of each ``kernel`` window of ``x [B, C, T, F]``: ``[B, C, T // kernel[0], F // kernel[1]]``.

    The same as ``torch.nn.LPPool2d(4, kernel)``, by squares and square roots, which are faster than powers.
    """
    fourth = F.avg_pool2d(x.square().square(), kernel) * (kernel[0] * kernel[1])
    return fourth.sqrt().sqrt()


class _Block(nn.Module):
    """Batch normalisation, 3x3 convolution, leaky rectifier; then pooling, if there is any."""

    def __init__(self, inputs: int, outputs: int, pool: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False),
            nn.LeakyReLU(0.1, inplace=True),
        )
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, inputs, T, F]`` to ``[B, outputs, T', F']``."""
        x = self.block(x)
        return x if self.pool is None else lp_pool(x, self.pool)


class TagOutput(NamedTuple):
    """What the network says of a batch: ``frames [B, T', 256]``, ``probabilities [B, T', 527]`` (80 ms a frame)."""

    frames: Tensor
    probabilities: Tensor


class Crnn(nn.Module):
    """Log-mel ``[B, T, 64]`` to recurrent features and class probabilities per 80 ms; ``T' = T // 4``."""

    width = 256

    def __init__(self) -> None:
        super().__init__()
        # The numbers are those of the published file, where pooling layers counted too.
        self.features = nn.ModuleDict(
            {
                "0": _Block(1, 32, pool=(2, 4)),
                "2": _Block(32, 128),
                "3": _Block(128, 128, pool=(2, 4)),
                "5": _Block(128, 128),
                "6": _Block(128, 128, pool=(1, 4)),
            }
        )
        self.dropout = nn.Dropout(0.3)
        self.gru = nn.GRU(128, 128, bidirectional=True, batch_first=True)
        self.outputlayer = nn.Linear(self.width, N_CLASSES)

    def encode(self, log_mel: Tensor) -> Tensor:
        """Return the recurrent features ``[B, T', 256]``."""
        x = log_mel.unsqueeze(1)
        for block in self.features.values():
            x = block(x)
        x = self.dropout(x)  # [B, 128, T', 1]
        return self.gru(x.flatten(2).transpose(1, 2))[0]

    def forward(self, log_mel: Tensor) -> TagOutput:
        """Return features and frame probabilities, the latter within [1e-7, 1]."""
        frames = self.encode(log_mel)
        return TagOutput(frames, self.outputlayer(frames).float().sigmoid().clamp(_FLOOR, 1.0))


def linear_softmax(probabilities: Tensor, input_frames: int) -> Tensor:
    """Return clip probabilities ``[B, C]`` of frame probabilities ``[B, T', C]``: sum of squares over sum.

    The frames are first interpolated linearly to the ``input_frames`` of the spectrogram, as in the published program.
    The pooling is that of Wang, Li and Metze, "A comparison of five multiple instance learning pooling functions",
    ICASSP 2019.
    """
    dense = F.interpolate(probabilities.float().transpose(1, 2), input_frames, mode="linear", align_corners=False)
    return (dense.square().sum(-1) / dense.sum(-1)).clamp(_FLOOR, 1.0)
