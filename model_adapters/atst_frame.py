"""ATST-Frame (Li, Shao and Li, IEEE/ACM TASLP 2024)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from model_adapters.base import Adapter, ModelInfo, Skeleton, Weights, parse_random
from model_adapters.networks.atst import FRAME_SIZE, AtstFrame, load_atst, random_atst
from model_adapters.networks.frontends import ATST, Spectrogram


class ATSTFrame(Adapter):
    """ATST-Frame's teacher: all blocks' tokens side by side, their mean in each chunk of 10.01 s, the chunks' mean.

    Chunks count alike, however short the last one is, as in the published code.

    Parameters
    ----------
    weights: path of the published ``atstframe_base.ckpt`` (or of the encoder's own state dict), or ``random[:SEED]``.
    depth: blocks of a random network.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="ATST-Frame",
        kind="audio",
        paper="Li et al., Self-supervised audio teacher-student transformer for both clip-level and frame-level tasks, "
        "TASLP 2024",
        code_licence="MIT (this implementation, from the paper and the published file's shapes)",
        weights=Weights(
            source="https://github.com/Audio-WestlakeU/audiossl (Google Drive)",
            licence="CC BY 4.0",
            file_name="atstframe_base.ckpt",
        ),
        trained_on=("as", "as20k", "as2m"),
        probe_lr=3e-5,
        paper_rows=("ATST-Frame",),
    )
    for_untrained = ("depth",)
    sample_rate = ATST.sample_rate
    short_audio = "zeros at the end, up to the task's window (at least one patch, 0.04 s)"
    long_audio = "chunks of 1001 frames"

    def __init__(self, weights: str, *, depth: int = 12) -> None:
        super().__init__()
        seed = parse_random(weights)
        if seed is None:
            self.encoder, self.weights_sha256 = load_atst(AtstFrame, FRAME_SIZE, weights)
        else:
            self.encoder, self.weights_sha256 = random_atst(AtstFrame, FRAME_SIZE, depth, seed), f"random:{seed}"
        self.front_end = Spectrogram(ATST)
        self.embedding_dim = self.encoder.size.dim * self.encoder.size.depth
        self.eval()

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Return the log-mel ``[B, 1, 64, frames]`` of ``[B, T]``, decibels mapped to about -1 to 1."""
        return self.front_end(waveforms)[:, None]

    def encode(self, log_mel: Tensor) -> Tensor:
        """Return clip embeddings ``[B, depth * D]`` of a normalised log-mel ``[B, 1, 64, frames]``."""
        return torch.stack([chunk.mean(1) for chunk in self.encoder.chunks(log_mel)]).mean(0)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return clip embeddings ``[B, depth * D]``; padding counts as sound, as in the published evaluation."""
        return self.encode(self.log_mel(waveforms))

    def embed_frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
        """Return ``([B, T', depth * D], 0.04)``: one embedding every 40 ms."""
        frames = torch.cat(self.encoder.chunks(self.log_mel(waveforms)), dim=1)
        return frames, self.encoder.size.patch[1] * self.front_end.frame_seconds

    def skeleton(self) -> Skeleton | None:
        """Return an untrained encoder of this size."""
        size = self.encoder.size
        return Skeleton("atst_frame", {"depth": str(size.depth)}) if size.dim == FRAME_SIZE.dim else None


ADAPTER = ATSTFrame
