"""The log-mel front ends of the published models, in plain torch: batched, on any device, in float32 under autocast.

One module, :class:`Spectrogram`, and one constant per published front end. All have a centred short-time transform
with reflection at the edges. Kaldi's filter banks are in :mod:`model_adapters.networks.frontends_kaldi`; those of M2D,
M2D-CLAP, MSM-MAE and BYOL-A in :mod:`evar.audio.log_mel`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_adapters.networks.mel_filters import Scale, mel_filters

_CPU_PIECE = 4_000_000
"""Numbers in the complex spectrum of the clips transformed at once on a CPU (see :mod:`evar.audio.log_mel`)."""


@dataclass(frozen=True)
class SpectrogramSpec:
    """What fixes a front end.

    ``log`` of the mel powers p: ``db`` is 10 log10(max(p, offset)), ``ln`` is ln(p + offset). The result x is returned
    as ``(x - mean) / std``.
    """

    sample_rate: int
    n_fft: int
    window: int
    """Samples of the Hann window, in the middle of the transform."""
    hop: int
    n_mels: int = 0
    """Mel bands; 0 for the bare spectrum of n_fft // 2 + 1 bins."""
    fmin: float = 0.0
    fmax: float = 0.0
    scale: Scale = "slaney"
    log: Literal["db", "ln"] = "db"
    offset: float = 1e-10
    top_db: float = 0.0
    """What lies so many dB under the clip's own maximum is raised to it; 0 for no such floor."""
    magnitude: bool = False
    """Mel bands of the spectrum's magnitude instead of its power."""
    periodic: bool = True
    """The Hann window is periodic, not symmetric."""
    pre_emphasis: float = 0.0
    """x[i + 1] - pre_emphasis * x[i], one sample shorter; 0 for none."""
    mean: float = 0.0
    std: float = 1.0

    @property
    def bins(self) -> int:
        """Bands of the result."""
        return self.n_mels or self.n_fft // 2 + 1


PANNS_32K = SpectrogramSpec(32000, 1024, 1024, 320, 64, 50.0, 14000.0)
"""HTS-AT, WavCaps, CNN14 at 32 kHz; MS-CLAP 2023 and Pengi too, on 44.1-kHz audio."""
PANNS_16K = SpectrogramSpec(16000, 512, 512, 160, 64, 50.0, 8000.0)
"""CNN14 at 16 kHz."""
MSCLAP_2022 = SpectrogramSpec(44100, 1024, 1024, 320, 64, 50.0, 14000.0)
"""MS-CLAP 2022's CNN14."""
LAION_CLAP = SpectrogramSpec(48000, 1024, 1024, 480, 64, 50.0, 14000.0)
"""LAION-CLAP without fusion."""
_ATST_RANGE = (-79.6482, 50.6842)
ATST = SpectrogramSpec(
    16000,
    1024,
    1024,
    160,
    64,
    60.0,
    7800.0,
    scale="htk",
    top_db=80.0,
    mean=sum(_ATST_RANGE) / 2,  # the published range of decibels is mapped to -1 ... 1
    std=(_ATST_RANGE[1] - _ATST_RANGE[0]) / 2,
)
"""ATST-Clip and ATST-Frame."""
CED = SpectrogramSpec(16000, 512, 512, 160, 64, 0.0, 8000.0, scale="htk", top_db=120.0)
"""CED, Dasheng, GLAP. The published code takes the maximum for ``top_db`` over the whole batch; here it is the clip's,
so that a clip's embedding does not depend on the others."""
PASST = SpectrogramSpec(
    32000,
    1024,
    800,
    320,
    128,
    0.0,
    15000.0,
    scale="kaldi",
    log="ln",
    offset=1e-5,
    periodic=False,
    pre_emphasis=0.97,
    mean=-4.5,
    std=5.0,
)
"""PaSST."""
VGGISH = SpectrogramSpec(16000, 512, 400, 160, 64, 125.0, 7500.0, scale="htk", log="ln", offset=0.001, magnitude=True)
"""VGGish as the PyTorch port whose values are recorded computes it; the network takes patches of 96 frames.

The original adds 0.01 before the logarithm, the port 0.001 (measured: with it the recorded values agree to 3e-6)."""
WAV2CLIP = SpectrogramSpec(16000, 512, 512, 353, log="ln", offset=1e-7)
"""Wav2CLIP: the power spectrum itself. The z-score that follows (of the clip) is not part of it."""


class Spectrogram(nn.Module):
    """Waveforms ``[B, T]`` to log spectrograms ``[B, bins, 1 + T // hop]`` as a :class:`SpectrogramSpec` says.

    spec: one of the constants of this module, or your own.
    filters: mel filters ``[n_fft // 2 + 1, n_mels]`` from a checkpoint, in the place of the specification's.
    """

    window: Tensor
    filters: Tensor | None

    def __init__(self, spec: SpectrogramSpec, filters: Tensor | None = None) -> None:
        super().__init__()
        self.spec = spec
        if filters is None and spec.n_mels:
            filters = mel_filters(spec.scale, spec.sample_rate, spec.n_fft, spec.n_mels, spec.fmin, spec.fmax)
        window = torch.hann_window(spec.window, periodic=spec.periodic)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", None if filters is None else filters.float(), persistent=False)

    def frames(self, samples: int) -> int:
        """Return the number of frames of a waveform with this many samples."""
        return 1 + (samples - bool(self.spec.pre_emphasis)) // self.spec.hop

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return self.spec.hop / self.spec.sample_rate

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return ``[B, bins, frames]`` of float waveforms ``[B, T]``: a transposed view of ``[B, frames, bins]``.

        A waveform too short to be reflected (``n_fft // 2`` samples or fewer) is zero-padded first, and gives the
        frames that its own length entitles it to.
        """
        frames = max(1, self.frames(waveforms.shape[-1]))
        short = self.spec.n_fft // 2 + 1 + bool(self.spec.pre_emphasis) - waveforms.shape[-1]
        if short > 0:
            waveforms = F.pad(waveforms, (0, short))
        with torch.autocast(waveforms.device.type, enabled=False):
            pieces = [self._piece(piece.float(), frames) for piece in waveforms.split(self._clips_at_once(waveforms))]
        return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).transpose(1, 2)

    def _clips_at_once(self, waveforms: Tensor) -> int:
        if waveforms.device.type != "cpu" or len(waveforms) == 0:
            return max(len(waveforms), 1)
        return max(1, _CPU_PIECE // (self.frames(waveforms.shape[-1]) * (self.spec.n_fft + 2)))

    def _piece(self, waveforms: Tensor, frames: int) -> Tensor:
        spec = self.spec
        if spec.pre_emphasis:
            waveforms = waveforms[:, 1:] - spec.pre_emphasis * waveforms[:, :-1]
        spectrum = torch.stft(
            waveforms,
            spec.n_fft,
            spec.hop,
            spec.window,
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        # stft computes [B, frames, bins] and returns its transpose: undone here, so that all is contiguous.
        parts = torch.view_as_real(spectrum.transpose(1, 2)[:, :frames])
        power = parts[..., 0].square() + parts[..., 1].square()
        if spec.magnitude:
            power = power.sqrt()
        return (self._logarithm(power if self.filters is None else power @ self.filters) - spec.mean) / spec.std

    def _logarithm(self, power: Tensor) -> Tensor:
        if self.spec.log == "ln":
            return (power + self.spec.offset).log()
        db = 10.0 * power.clamp(min=self.spec.offset).log10()
        if self.spec.top_db:
            db = torch.maximum(db, db.amax(dim=(1, 2), keepdim=True) - self.spec.top_db)
        return db
