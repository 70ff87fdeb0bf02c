"""EAT: efficient audio transformer (Chen et al., IJCAI 2024), and SSLAM, the same network."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from evar.errors import UserError
from model_adapters.base import Adapter, ModelInfo, Skeleton, Weights, parse_random
from model_adapters.networks.checkpoints import load_exactly, unfilled
from model_adapters.networks.eat import BANDS, FRAMES, PATCH, EatNetwork, EatSize, initialise_eat, size_of, tidy
from model_adapters.networks.frame_chunks import frame_chunks
from model_adapters.networks.frontends_kaldi import EAT, KaldiFbank
from model_adapters.networks.hf_files import read_file_or_hub
from model_adapters.networks.options import one_of

HUB = "worstchan/EAT-base_epoch30_pretrain"


class Eat(Adapter):
    """EAT: Kaldi log-mel of exactly 1024 frames, 16x16 patches, the mean of all tokens with the class token.

    Parameters
    ----------
    weights: path of a pre-trained checkpoint of EAT or SSLAM (fairseq's form or the hub's), a repository on the hub
        (the published EAT-base if left out), or ``random[:SEED]``.
    long_audio: ``first``: the first 10.24 s, as the reference platform does; ``chunks`` of 10.24 s, averaged.
    depth, embed_dim: size of a random network.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="EAT",
        kind="audio",
        paper="Chen et al., EAT: Self-Supervised Pre-Training with Efficient Audio Transformer, IJCAI 2024",
        code_licence="MIT (this implementation)",
        weights=Weights(
            source=f"https://huggingface.co/{HUB}",
            licence="MIT",
            hub=HUB,
            further_hubs=(
                ("worstchan/EAT-large_epoch20_pretrain", "EAT-large, 1024 dims"),
                ("ta012/SSLAM_pretrain", "SSLAM"),
            ),
        ),
        needs_weights=False,
        trained_on=("as20k", "as2m", "as"),
        probe_lr=3e-4,
        paper_rows=("EAT base", "SSLAM Base"),
    )
    for_untrained = ("depth", "embed_dim")
    sample_rate = 16000
    short_audio = "zeros in the log-mel, up to 1024 frames"

    def __init__(
        self,
        *,
        weights: str = HUB,
        long_audio: Literal["first", "chunks"] = "first",
        depth: int = 12,
        embed_dim: int = 768,
    ) -> None:
        super().__init__()
        one_of("long_audio", long_audio, "first", "chunks")
        seed = parse_random(weights)
        if seed is None:
            raw, self.weights_sha256 = read_file_or_hub(weights)
            state = tidy(raw, f"in '{weights}'")
            self.network = unfilled(lambda: EatNetwork(size_of(state)))
            load_exactly(self.network, state, what=f"in '{weights}'")
        else:
            if depth < 1 or embed_dim < 64 or embed_dim % 64:
                raise UserError("a random network needs --depth of 1 or more and --embed_dim divisible by 64")
            self.weights_sha256 = f"random:{seed}"
            size = EatSize(dim=embed_dim, depth=depth, mlp_dim=4 * embed_dim)
            self.network = unfilled(lambda: EatNetwork(size))
            initialise_eat(self.network, seed)
        self.front_end = KaldiFbank(EAT)
        self.chunked = long_audio == "chunks"
        self.embedding_dim = self.network.size.dim
        self.long_audio = f"chunks of {FRAMES} frames" if self.chunked else f"the first {FRAMES} frames"
        self.eval()

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Return the standardised log-mel ``[B, 1, 128, frames]`` of ``[B, T]``, as long as the waveform."""
        return self.front_end(waveforms).transpose(1, 2)[:, None]

    def tokens_of(self, log_mel: Tensor) -> list[Tensor]:
        """Return each chunk's tokens ``[B, 1 + T' * 8, D]`` of a standardised log-mel ``[B, 1, 128, frames]``."""
        pieces = frame_chunks(log_mel, FRAMES, PATCH) if self.chunked else (log_mel[..., :FRAMES],)
        spec = self.front_end.spec
        silence = -spec.mean / spec.std  # what was padded is a log-mel of 0, before it is standardised
        padded = (F.pad(piece, (0, FRAMES - piece.shape[3]), value=silence) for piece in pieces)
        return [self.network(piece[:, 0].transpose(1, 2)) for piece in padded]

    def encode(self, log_mel: Tensor) -> Tensor:
        """Return clip embeddings ``[B, D]`` of a standardised log-mel ``[B, 1, 128, frames]``."""
        return torch.stack([tokens.mean(1) for tokens in self.tokens_of(log_mel)]).mean(0)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean over all tokens ``[B, D]``; padding counts as sound, as in the published evaluation."""
        return self.encode(self.log_mel(waveforms))

    def embed_frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
        """Return ``([B, T', D], 0.16)``: the mean of each time step's tokens, without those of the padding."""
        log_mel = self.log_mel(waveforms)
        tokens = torch.cat([chunk[:, 1:] for chunk in self.tokens_of(log_mel)], dim=1)
        frames = tokens.unflatten(1, (-1, BANDS // PATCH)).mean(2)
        spec = self.front_end.spec
        return frames[:, : -(-log_mel.shape[3] // PATCH)], PATCH * spec.hop / spec.sample_rate

    def skeleton(self) -> Skeleton | None:
        """Return an untrained network of this size; None where options cannot express it."""
        size = self.network.size
        if size != EatSize(size.dim, size.depth, 4 * size.dim):
            return None
        options = {"depth": str(size.depth), "embed_dim": str(size.dim)}
        return Skeleton("eat", options | {"long_audio": "chunks" if self.chunked else "first"})


ADAPTER = Eat
