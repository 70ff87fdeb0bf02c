"""ATST-Clip (Li, Shao and Li, Interspeech 2022; IEEE/ACM TASLP 2024)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from model_adapters.base import Adapter, ModelInfo, Skeleton, Weights, parse_random
from model_adapters.networks.atst import CLIP_SIZE, AtstClip, TokenAverage, load_atst, random_atst
from model_adapters.networks.frontends import ATST, Spectrogram
from model_adapters.networks.options import length_or_all, one_of


class ATSTClip(Adapter):
    """ATST-Clip's teacher: the class token and the mean of the patch tokens, averaged over chunks of 6.01 s.

    Parameters
    ----------
    weights: path of the published ``base.ckpt`` (or of the encoder's own state dict), or ``random[:SEED]``.
    max_seconds: of a longer clip only so much from its middle is heard, as on the reference platform; 0 for all.
    token_average: ``reference`` divides a chunk's sum of tokens by the number of tokens up to the clip's end, as the
        published code does (chunks before the last one then weigh less); ``chunk`` by its own number.
    depth: blocks of a random network.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="ATST-Clip",
        kind="audio",
        paper="Li et al., Self-supervised audio teacher-student transformer for both clip-level and frame-level tasks, "
        "TASLP 2024",
        code_licence="MIT (this implementation, from the paper and the published file's shapes)",
        weights=Weights(
            source="https://github.com/Audio-WestlakeU/audiossl (link in methods/atst)",
            licence="CC BY 4.0",
            file_name="base.ckpt",
        ),
        trained_on=("as", "as20k", "as2m"),
        probe_lr=3e-4,
        paper_rows=("ATST-Clip",),
    )
    for_untrained = ("depth",)
    sample_rate = ATST.sample_rate
    short_audio = "zeros at the end, up to the task's window (at least one patch, 0.04 s)"

    def __init__(
        self,
        weights: str,
        *,
        max_seconds: float = 12.0,
        token_average: TokenAverage = "reference",
        depth: int = 12,
    ) -> None:
        super().__init__()
        one_of("token_average", token_average, "reference", "chunk")
        length_or_all("max_seconds", max_seconds)
        self.token_average: TokenAverage = token_average
        self.max_seconds = max_seconds
        seed = parse_random(weights)
        if seed is None:
            self.encoder, self.weights_sha256 = load_atst(AtstClip, CLIP_SIZE, weights)
        else:
            self.encoder, self.weights_sha256 = random_atst(AtstClip, CLIP_SIZE, depth, seed), f"random:{seed}"
        self.front_end = Spectrogram(ATST)
        self.embedding_dim = 2 * self.encoder.size.dim
        heard = f"the middle {max_seconds:g} s in " if max_seconds else ""
        self.long_audio = f"{heard}chunks of 601 frames"
        self.eval()

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Return the log-mel ``[B, 1, 64, frames]`` of ``[B, T]``, decibels mapped to about -1 to 1."""
        keep = int(self.max_seconds * self.sample_rate) or waveforms.shape[1]
        begin = max(0, (waveforms.shape[1] - keep) // 2)
        return self.front_end(waveforms[:, begin : begin + keep])[:, None]

    def encode(self, log_mel: Tensor) -> Tensor:
        """Return clip embeddings ``[B, 2 D]`` of a normalised log-mel ``[B, 1, 64, frames]``."""
        return self.encoder.clip_embedding(log_mel, self.token_average)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return clip embeddings ``[B, 2 D]``; padding counts as sound, as in the published evaluation."""
        return self.encode(self.log_mel(waveforms))

    def skeleton(self) -> Skeleton | None:
        """Return an untrained encoder of this size."""
        options = {
            "depth": str(self.encoder.size.depth),
            "max_seconds": str(self.max_seconds),
            "token_average": self.token_average,
        }
        return Skeleton("atst_clip", options) if self.encoder.size.dim == CLIP_SIZE.dim else None


ADAPTER = ATSTClip
