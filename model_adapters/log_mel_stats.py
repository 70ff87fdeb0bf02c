"""Mean and standard deviation of the log-mel bands over time: the floor that every learnt model must beat."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from evar.audio.log_mel import M2D_16K, LogMel
from model_adapters.base import Adapter, ModelInfo


class LogMelStats(Adapter):
    """No weights, no training: 80 means and 80 deviations of M2D's log-mel front end."""

    info: ClassVar[ModelInfo] = ModelInfo(
        title="log-mel statistics",
        kind="baseline",
        paper="none: the floor of this benchmark",
        code_licence="MIT",
        needs_weights=False,
        probe_lr=3e-4,
    )
    sample_rate = 16000
    embedding_dim = 160

    def __init__(self) -> None:
        super().__init__()
        self.front_end = LogMel(M2D_16K)
        self.eval()

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, 160]``: means, then deviations, over the frames centred on real samples (padding left out)."""
        log_mel = self.front_end(waveforms)
        frames = torch.clamp(1 + lengths.to(log_mel.device) // self.front_end.spec.hop, max=log_mel.shape[2])
        real = torch.arange(log_mel.shape[2], device=log_mel.device) < frames[:, None]
        weight = (real / frames[:, None]).to(log_mel.dtype)[:, None]
        mean = (log_mel * weight).sum(2)
        variance = ((log_mel - mean[..., None]).square() * weight).sum(2)
        return torch.cat([mean, variance.sqrt()], dim=1)

    def embed_frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
        """Return the log-mel itself ``([B, frames, 80], seconds per frame)``."""
        return self.front_end(waveforms).transpose(1, 2), self.front_end.frame_seconds


ADAPTER = LogMelStats
