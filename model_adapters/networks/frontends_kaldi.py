"""Kaldi's log-mel filter bank features in plain torch, as BEATs, AST, EAT and SSLAM take them: batched, no dither.

Povey et al., "The Kaldi speech recognition toolkit", ASRU 2011. Kaldi's ``htk_compat`` only says where the energy is
put, and no model here has the energy among its features; ``use_energy`` is therefore not offered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evar.audio.log_mel import FLOAT32_EPS
from model_adapters.networks.mel_filters import mel_filters

_CPU_PIECE = 4_000_000


@dataclass(frozen=True)
class KaldiSpec:
    """What fixes the features. The result x is returned as ``(x - mean) / std``."""

    window: Literal["povey", "hanning"] = "povey"
    """Symmetric Hann, to the power of 0.85 for ``povey``."""
    gain: float = 1.0
    """What the waveform is multiplied by first (2^15 for models that were trained on 16-bit integers)."""
    remove_clip_mean: bool = False
    """The mean of the whole waveform is subtracted first (each frame's own always is, as ``remove_dc_offset``)."""
    mean: float = 0.0
    std: float = 1.0
    sample_rate: int = 16000
    frame_samples: int = 400
    hop: int = 160
    n_fft: int = 512
    n_mels: int = 128
    fmin: float = 20.0
    fmax: float = 8000.0
    pre_emphasis: float = 0.97


BEATS = KaldiSpec("povey", gain=2.0**15, mean=15.41663, std=2 * 6.55582)
"""BEATs, OpenBEATs."""
AST = KaldiSpec("hanning", mean=-4.2677393, std=2 * 4.5689974)
"""AST as transformers' feature extractor computes it; EVAR sets ``remove_clip_mean`` and the task's statistics."""
EAT = KaldiSpec("hanning", remove_clip_mean=True, mean=-4.268, std=2 * 4.569)
"""EAT, SSLAM."""


class KaldiFbank(nn.Module):
    """Waveforms ``[B, T]`` to log-mel features ``[B, frames, n_mels]``; only whole frames (``snip_edges``)."""

    window: Tensor
    filters: Tensor

    def __init__(self, spec: KaldiSpec) -> None:
        super().__init__()
        self.spec = spec
        window = torch.hann_window(spec.frame_samples, periodic=False)
        self.register_buffer("window", window.pow(0.85) if spec.window == "povey" else window, persistent=False)
        filters = mel_filters("kaldi", spec.sample_rate, spec.n_fft, spec.n_mels, spec.fmin, spec.fmax)
        self.register_buffer("filters", filters, persistent=False)

    def frames(self, samples: int) -> int:
        """Return the number of frames of a waveform with this many samples (at least one: shorter ones are padded)."""
        return 1 + max(0, samples - self.spec.frame_samples) // self.spec.hop

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return ``[B, frames, n_mels]``; a waveform shorter than one frame is zero-padded to it."""
        short = self.spec.frame_samples - waveforms.shape[-1]
        with torch.autocast(waveforms.device.type, enabled=False):
            x = waveforms.float()
            if self.spec.remove_clip_mean:
                x = x - x.mean(-1, keepdim=True)
            if short > 0:
                x = F.pad(x, (0, short))
            numbers = self.frames(x.shape[-1]) * (self.spec.n_fft + 2)
            at_once = max(1, _CPU_PIECE // numbers) if x.device.type == "cpu" else max(1, len(x))
            pieces = [self._piece(piece) for piece in x.split(at_once)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _piece(self, waveforms: Tensor) -> Tensor:
        spec = self.spec
        frames = (waveforms * spec.gain).unfold(-1, spec.frame_samples, spec.hop)
        frames = frames - frames.mean(-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)  # the first sample is its own predecessor
        frames = (frames - spec.pre_emphasis * before) * self.window
        power = torch.view_as_real(torch.fft.rfft(frames, spec.n_fft)).square().sum(-1)
        log = (power @ self.filters).clamp(min=FLOAT32_EPS).log()
        return (log - spec.mean) / spec.std
