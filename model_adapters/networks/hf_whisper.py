"""Whisper's encoder (of transformers) with its log-mel front end in torch: 30-second windows, 50 frames a second."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_adapters.networks.frontends import Spectrogram, SpectrogramSpec
from model_adapters.networks.hf_layers import Layers

RATE = 16000
STRIDE = 320
"""Samples from one frame to the next: two log-mel frames."""


class WhisperLogMel(nn.Module):
    """Windows ``[B, samples]`` to log-mels ``[B, mels, frames]``: log10, floored 8 under the window's maximum."""

    def __init__(self, mels: int) -> None:
        super().__init__()
        # In units of (log10 + 4) / 4, which is what the network takes.
        spec = SpectrogramSpec(RATE, 400, 400, 160, mels, 0.0, 8000.0, mean=-40.0, std=40.0)
        self.spectrogram = Spectrogram(spec)

    def forward(self, windows: Tensor) -> Tensor:
        """Return the log-mel without its last frame, which begins where the window ends."""
        log_mel = self.spectrogram(windows)[..., :-1]
        return torch.maximum(log_mel, log_mel.amax(dim=(1, 2), keepdim=True) - 2.0)


class WhisperFrames(nn.Module):
    """Waveforms ``[B, T]`` to frames ``[B, ceil(T / 320), D]``, of consecutive windows (30 s).

    Parameters
    ----------
    encoder: transformers' ``WhisperEncoder``.
    layers: which of its layers.
    """

    def __init__(self, encoder: nn.Module, layers: Layers) -> None:
        super().__init__()
        config: Any = encoder.config
        self.window = config.max_source_positions * STRIDE
        self.layers = layers
        self.width = config.d_model * layers.times
        self.front_end = WhisperLogMel(config.num_mel_bins)
        trunk: Any = encoder
        trunk.layers = trunk.layers[: layers.blocks_needed]
        self.trunk = trunk

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``(frames [B, T', D], their number per clip [B])``; frames beyond that number are 0.

        lengths: samples ``[B]`` of which the frames are kept (what follows must be 0); None for all of ``waveforms``.
        """
        samples = waveforms.shape[1]
        found = []
        for start in range(0, max(samples, 1), self.window):
            window = waveforms[:, start : start + self.window]
            keep = max(1, -(-window.shape[1] // STRIDE))
            found.append(self._hear(F.pad(window, (0, self.window - window.shape[1])))[:, :keep])
        frames = found[0] if len(found) == 1 else torch.cat(found, dim=1)
        if lengths is None:
            return frames, torch.full((len(frames),), frames.shape[1], device=frames.device)
        counts = lengths.to(frames.device).add(STRIDE - 1).div(STRIDE, rounding_mode="floor").clamp(min=1)
        real = torch.arange(frames.shape[1], device=frames.device) < counts[:, None]
        return frames * real[:, :, None], counts

    def _hear(self, windows: Tensor) -> Tensor:
        return self.layers.of(self.trunk(self.front_end(windows), output_hidden_states=not self.layers.only_last))
