"""BEATs: audio pre-training with acoustic tokenizers (Chen et al., ICML 2023), and OpenBEATs, the same network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from evar.errors import UserError
from model_adapters.base import Adapter, ModelInfo, Skeleton, Weights, WeightsFile, parse_random
from model_adapters.networks.beats import BeatsNetwork, BeatsSize, initialise_beats
from model_adapters.networks.beats_files import BeatsFile, read_beats
from model_adapters.networks.checkpoints import load_exactly, unfilled
from model_adapters.networks.frame_chunks import frame_chunks
from model_adapters.networks.frontends_kaldi import BEATS, KaldiFbank
from model_adapters.networks.m2d_files import parse_norm_stats
from model_adapters.networks.options import one_of

CHUNK_FRAMES = 992
"""What the 998 frames of ten seconds, the longest clip in pre-training, fill of whole patches."""
NORM_STATS = (15.41663, 6.55582)
"""Mean and deviation of the log-mel; it is divided by twice the deviation."""


class Beats(Adapter):
    """BEATs: Kaldi log-mel, 16x16 patches, the mean of the last layer's tokens.

    A fine-tuned checkpoint is a tagger too (``tag_text:beats``); its classes are those of the file's own dictionary.

    Parameters
    ----------
    weights: a checkpoint's path (BEATs iter1 to iter3+, fine-tuned, OpenBEATs), or ``random[:SEED]``.
    long_audio: ``whole``: all of a clip in one pass, as the reference platform does; ``chunks`` of 9.92 s, whose tokens
        are averaged.
    norm_stats: ``MEAN,STD`` of the log-mel; else the file's, else 15.41663,6.55582.
    depth, embed_dim: size of a random network.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="BEATs",
        kind="audio",
        paper="Chen et al., BEATs: Audio Pre-Training with Acoustic Tokenizers, ICML 2023",
        code_licence="MIT (this implementation)",
        weights=Weights(
            source="https://github.com/microsoft/unilm/tree/master/beats (links reported dead, unilm issue 1671)",
            licence="MIT",
            file_name="BEATs_iter3_plus_AS2M.pt",
            files=(
                WeightsFile("BEATs_iter3.pt", note="iter3; the file above is iter3+"),
                WeightsFile(
                    "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt",
                    size=363145291,
                    # As several copies on the Hugging Face hub state it; the authors give none.
                    sha256="e5815275a04b6885e7b8af63d120b29bffae2cd2225cf4915e1ec6d819d3022c",
                    note="fine-tuned: a tagger",
                ),
            ),
        ),
        trained_on=("as20k", "as2m", "as"),
        probe_lr=3e-4,
        paper_rows=("BEATs_iter3", "BEATs_iter3+"),
    )
    for_untrained = ("depth", "embed_dim")
    sample_rate = 16000
    short_audio = "zeros at the end, up to the task's window (at least one patch, 0.175 s)"
    class_names: tuple[str, ...]
    """Of a fine-tuned checkpoint's head; absent for others, which are no taggers."""

    def __init__(
        self,
        *,
        weights: str,
        long_audio: Literal["whole", "chunks"] = "whole",
        norm_stats: str = "",
        depth: int = 12,
        embed_dim: int = 768,
    ) -> None:
        super().__init__()
        one_of("long_audio", long_audio, "whole", "chunks")
        seed = parse_random(weights)
        if seed is None:
            file = read_beats(weights)
            self.network = unfilled(lambda: BeatsNetwork(file.size))
            load_exactly(self.network, file.state, what=f"in '{weights}'")
        else:
            file = BeatsFile({}, random_size(depth, embed_dim), f"random:{seed}")
            self.network = unfilled(lambda: BeatsNetwork(file.size))
            initialise_beats(self.network, seed)
        self.weights_sha256 = file.sha256
        if file.class_names:
            self.class_names = file.class_names
        self.norm_stats = parse_norm_stats(norm_stats) if norm_stats else (file.norm_stats or NORM_STATS)
        self.front_end = KaldiFbank(replace(BEATS, mean=self.norm_stats[0], std=2 * self.norm_stats[1]))
        self.chunked = long_audio == "chunks"
        self.embedding_dim = file.size.dim
        self.long_audio = f"chunks of {CHUNK_FRAMES} frames" if self.chunked else "whole clip"
        self.eval()

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Return the standardised log-mel ``[B, 1, 128, frames]`` of ``[B, T]``, at least one patch long."""
        spec = self.front_end.spec
        needed = spec.frame_samples + (self.network.size.patch - 1) * spec.hop
        if waveforms.shape[1] < needed:
            waveforms = F.pad(waveforms, (0, needed - waveforms.shape[1]))
        return self.front_end(waveforms).transpose(1, 2)[:, None]

    def frames_of(self, log_mel: Tensor) -> Tensor:
        """Return the mean token of each time step ``[B, T', D]`` of a standardised log-mel ``[B, 1, 128, frames]``."""
        patch = self.network.size.patch
        pieces = frame_chunks(log_mel, CHUNK_FRAMES, patch) if self.chunked else (log_mel,)
        tokens = [self.network(piece[:, 0].transpose(1, 2)) for piece in pieces]
        return torch.cat(tokens, dim=1).unflatten(1, (-1, log_mel.shape[2] // patch)).mean(2)

    def encode(self, log_mel: Tensor) -> Tensor:
        """Return clip embeddings ``[B, D]`` of a standardised log-mel ``[B, 1, 128, frames]``."""
        return self.frames_of(log_mel).mean(1)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean over all tokens ``[B, D]``; padding counts as sound, as in the published evaluation."""
        return self.encode(self.log_mel(waveforms))

    def embed_frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
        """Return ``([B, T', D], 0.16)``: the mean of each time step's tokens, of 16 frames of 10 ms."""
        spec = self.front_end.spec
        return self.frames_of(self.log_mel(waveforms)), self.network.size.patch * spec.hop / spec.sample_rate

    def tag_probabilities(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the probabilities ``[B, C]`` of ``class_names`` by a fine-tuned checkpoint's head."""
        if self.network.predictor is None:
            raise UserError("these BEATs weights have no tagging head: it needs a fine-tuned checkpoint")
        if not hasattr(self, "class_names"):
            raise UserError("this BEATs file has no label_dict that names the outputs of its head: it cannot tag")
        # The head is linear: its mean over all tokens, which is published, is that of their mean.
        return self.network.predictor(self.embed(waveforms, lengths)).float().sigmoid()

    def skeleton(self) -> Skeleton | None:
        """Return an untrained network of this size and statistics; None where options cannot express them."""
        size = replace(self.network.size, classes=0)
        if size.dim % 64 or size != random_size(size.depth, size.dim):
            return None
        options = {
            "depth": str(size.depth),
            "embed_dim": str(size.dim),
            "norm_stats": ",".join(repr(float(x)) for x in self.norm_stats),
            "long_audio": "chunks" if self.chunked else "whole",
        }
        return Skeleton("beats", options, spare=("network.predictor.",))

    def state(self) -> dict[str, Any]:
        """Return the statistics in use: the file may have decided them."""
        return {"norm_stats": list(self.norm_stats)}


def random_size(depth: int, dim: int) -> BeatsSize:
    """Return the size of an untrained network: BEATs' proportions, one head per 64 dimensions."""
    if depth < 1 or dim < 64 or dim % 64:
        raise UserError(
            f"a random network needs --depth of 1 or more and --embed_dim divisible by 64, not {depth}, {dim}"
        )
    return BeatsSize(dim=dim, depth=depth, heads=dim // 64, mlp_dim=4 * dim)


ADAPTER = Beats
