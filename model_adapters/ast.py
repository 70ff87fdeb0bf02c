"""AST: audio spectrogram transformer (Gong et al., Interspeech 2021), through transformers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from evar.errors import UserError
from model_adapters.base import Adapter, ModelInfo, Skeleton, TrainingClips, Weights, parse_random
from model_adapters.byol_a import STATISTICS_CLIPS, exact_statistics, moments, reference_statistics
from model_adapters.networks import frontends_kaldi
from model_adapters.networks.frame_chunks import mean_of_chunks
from model_adapters.networks.frontends_kaldi import KaldiFbank
from model_adapters.networks.hf_adapter import made_by
from model_adapters.networks.hf_ast import pooled, proportions, read_ast, untrained_ast
from model_adapters.networks.m2d_files import parse_norm_stats
from model_adapters.networks.options import one_of

HUB = "MIT/ast-finetuned-audioset-10-10-0.4593"
AUDIOSET_STATS = (-4.2677393, 4.5689974)
"""Mean and deviation of AudioSet's log-mels; they are divided by twice the deviation."""
CHUNK_FRAMES = 1024


class AstAdapter(Adapter):
    """AST: Kaldi log-mel, overlapping patches, the mean of the class and the distillation token. A tagger.

    Parameters
    ----------
    weights: a folder in transformers' layout or a hub id (the published model if left out), or ``random[:SEED]``.
    stats: standardise with the mean and deviation of the task's training clips (``dataset``, as the reference platform
        does) or of AudioSet (``audioset``). Tags are always found with AudioSet's, which the head was trained with.
    norm_stats: ``MEAN,STD`` of the log-mel instead, for tags too.
    statistics: ``reference``: means over mini-batches, the first of which the reference's helper loses (ODDITIES 18);
        ``exact``: of all values.
    statistics_seed: order of the clips for the statistics.
    long_audio: ``whole``: all of a clip in one pass, the positions stretched, as the reference platform does;
        ``chunks`` of 10.24 s, averaged.
    depth, embed_dim: size of a random network.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="AST",
        kind="audio",
        paper="Gong et al., AST: Audio Spectrogram Transformer, Interspeech 2021",
        code_licence="Apache-2.0 (transformers)",
        weights=Weights(source=f"https://huggingface.co/{HUB}", licence="BSD-3-Clause", hub=HUB, hub_size=346_000_000),
        needs_weights=False,
        trained_on=("as20k", "as2m", "as"),
        probe_lr=3e-4,
        paper_rows=("AST", "AST_single-P/S"),
    )
    for_untrained = ("depth", "embed_dim")
    sample_rate = 16000
    short_audio = "zeros at the end, up to the task's window (at least one patch, 0.175 s)"
    class_names: tuple[str, ...]
    """Of the head; absent if the weights have none."""
    tags_need_prepare = False
    """Tags are standardised with given statistics (``tag_stats``)."""

    def __init__(
        self,
        *,
        weights: str = HUB,
        stats: Literal["dataset", "audioset"] = "dataset",
        norm_stats: str = "",
        statistics: Literal["reference", "exact"] = "reference",
        statistics_seed: int = 42,
        long_audio: Literal["whole", "chunks"] = "whole",
        depth: int = 12,
        embed_dim: int = 768,
    ) -> None:
        super().__init__()
        one_of("stats", stats, "dataset", "audioset")
        one_of("statistics", statistics, "reference", "exact")
        one_of("long_audio", long_audio, "whole", "chunks")
        seed = parse_random(weights)
        parts = read_ast(weights) if seed is None else untrained_ast(seed, depth, embed_dim)
        self.network, self.head, self.weights_sha256 = parts.encoder, parts.head, parts.sha256
        self.settings_sha256 = parts.settings_sha256
        if parts.class_names:
            self.class_names = parts.class_names
        given = parse_norm_stats(norm_stats) if norm_stats else None
        self.tag_stats = given or AUDIOSET_STATS
        self.norm_stats = given or (AUDIOSET_STATS if stats == "audioset" else None)
        self.needs_prepare = self.norm_stats is None
        self.statistics, self.statistics_seed = statistics, statistics_seed
        encoder: Any = self.network
        self.config: Any = encoder.config
        self.front_end = KaldiFbank(replace(frontends_kaldi.AST, mean=0.0, std=1.0, remove_clip_mean=True))
        self.chunked = long_audio == "chunks"
        self.embedding_dim = int(self.config.hidden_size)
        self.long_audio = f"chunks of {CHUNK_FRAMES} frames" if self.chunked else "whole clip, positions stretched"
        self.eval()

    def prepare(self, unit_seconds: float, training_clips: TrainingClips) -> None:
        """Take mean and deviation of the log-mel from at least the first 5000 training clips in shuffled order."""
        if not self.needs_prepare:
            return
        batches = training_clips.batches(
            self.sample_rate, training_clips.batch_size, shuffle_seed=self.statistics_seed, limit=STATISTICS_CLIPS
        )
        take = reference_statistics if self.statistics == "reference" else exact_statistics
        with torch.no_grad():
            log_mels = (self._raw_log_mel(batch.waveforms.to(self.device)) for batch in batches)
            self.norm_stats = take([moments(log_mel) for log_mel in log_mels])

    def _raw_log_mel(self, waveforms: Tensor) -> Tensor:
        spec = self.front_end.spec
        needed = spec.frame_samples + (self.config.patch_size - 1) * spec.hop
        if waveforms.shape[1] < needed:
            waveforms = F.pad(waveforms, (0, needed - waveforms.shape[1]))
        return self.front_end(waveforms).transpose(1, 2)[:, None]

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Return the standardised log-mel ``[B, 1, 128, frames]`` of ``[B, T]``, at least one patch long."""
        if self.norm_stats is None:
            raise UserError(
                "ast takes its statistics from a task's training clips; without one: --stats=audioset, or "
                "--norm_stats=MEAN,STD"
            )
        return _standardised(self._raw_log_mel(waveforms), self.norm_stats)

    def encode(self, log_mel: Tensor) -> Tensor:
        """Return clip embeddings ``[B, D]`` of a standardised log-mel ``[B, 1, 128, frames]``."""
        frames = CHUNK_FRAMES if self.chunked else log_mel.shape[3]
        return mean_of_chunks(
            log_mel, frames, self.config.patch_size, lambda x: pooled(self.network, x[:, 0].transpose(1, 2))
        )

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, D]``; padding counts as sound, as in the published evaluation."""
        return self.encode(self.log_mel(waveforms))

    def tag_probabilities(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the probabilities ``[B, C]`` of ``class_names`` by the head, each class for itself."""
        if self.head is None:
            raise UserError("these AST weights have no tagging head")
        return self.head(self.encode(_standardised(self._raw_log_mel(waveforms), self.tag_stats))).float().sigmoid()

    def skeleton(self) -> Skeleton | None:
        """Return an untrained model of this size and statistics; None where options cannot express it."""
        depth, dim = self.config.num_hidden_layers, self.config.hidden_size
        if self.norm_stats is None or dim % 64:
            return None
        if any(getattr(self.config, name) != value for name, value in proportions(depth, dim).items()):
            return None
        options = {
            "depth": str(depth),
            "embed_dim": str(dim),
            "norm_stats": ",".join(repr(float(x)) for x in self.norm_stats),
            "long_audio": "chunks" if self.chunked else "whole",
        }
        return Skeleton("ast", options, spare=("head.",))

    def made_of(self) -> dict[str, Any]:
        """Return also what made an untrained network's numbers."""
        return super().made_of() | made_by(self.weights_sha256)

    def state(self) -> dict[str, Any]:
        """Return mean and deviation in use (None before ``prepare``)."""
        return {"norm_stats": list(self.norm_stats) if self.norm_stats else None}


def _standardised(log_mel: Tensor, stats: tuple[float, float]) -> Tensor:
    return (log_mel - stats[0]) / (2 * stats[1])


ADAPTER = AstAdapter
