"""BYOL-A: BYOL for Audio (Niizumi et al., IJCNN 2021; IEEE/ACM TASLP 2023)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from evar.audio.log_mel import BYOL_A_16K, LogMel
from evar.errors import UserError
from model_adapters.base import Adapter, ModelInfo, Skeleton, TrainingClips, Weights, WeightsFile, parse_random
from model_adapters.m2d import NTT_LICENCE
from model_adapters.networks.audio_ntt import AudioNTT, AudioNTTSize, size_of, tidy
from model_adapters.networks.checkpoints import find_checkpoint, load_exactly, read_checkpoint, unfilled
from model_adapters.networks.m2d_files import parse_norm_stats
from model_adapters.networks.options import at_least, one_of

STATISTICS_CLIPS = 5000
"""Training clips from which the reference takes its statistics (ODDITIES 18)."""
V2_PROBE_LRS = {
    "esc50": 1e-3,
    "us8k": 3e-5,
    "spcv2": 3e-5,
    "nsynth": 1e-3,
    "vc1": 4e-5,
    "voxforge": 1e-4,
    "cremad": 3e-4,
    "surge": 3e-5,
    "gtzan": 1e-3,
}
"""Of the reference probe for v2 (RUNNERS 1.5)."""


class ByolA(Adapter):
    """BYOL-A v1 (AudioNTT2020) and v2: 64-band log-mel, small CNN, maximum plus mean over time.

    Parameters
    ----------
    weights: a checkpoint's path (the version and size are read from it), or ``random[:SEED]`` for an untrained v1.
    norm_stats: ``MEAN,STD`` of the log-mel; else they are taken from the task's training clips.
    statistics: ``reference``: means over mini-batches, the first of which the reference's helper loses (ODDITIES 18);
        ``exact``: of all values.
    statistics_seed: order of the clips for the statistics.
    feature_d: width of an untrained network.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="BYOL-A",
        kind="audio",
        paper="Niizumi et al., BYOL for Audio: Exploring Pre-trained General-purpose Audio Representations, TASLP 2023",
        code_licence="MIT (this implementation, from the papers)",
        weights=Weights(
            source="https://github.com/nttcslab/byol-a",
            licence=NTT_LICENCE,
            file_name="AudioNTT2022-BYOLA-64x96d2048.pth",
            note="v2",
            files=tuple(WeightsFile(f"AudioNTT2020-BYOLA-64x96d{dim}.pth", note="v1") for dim in (2048, 1024, 512)),
        ),
        trained_on=("as20k", "as2m", "as"),
        probe_lr=3e-4,
        paper_rows=("BYOL-A",),
    )
    for_untrained = ("feature_d",)
    sample_rate = 16000
    long_audio = "whole clip"
    short_audio = "zeros at the end, up to the task's window (at least 0.07 s; v2 0.03 s)"

    def __init__(
        self,
        *,
        weights: str,
        norm_stats: str = "",
        statistics: Literal["reference", "exact"] = "reference",
        statistics_seed: int = 42,
        feature_d: int = 2048,
    ) -> None:
        super().__init__()
        one_of("statistics", statistics, "reference", "exact")
        self.statistics, self.statistics_seed = statistics, statistics_seed
        seed = parse_random(weights)
        if seed is None:
            path = find_checkpoint(weights)
            raw, self.weights_sha256 = read_checkpoint(path)
            state = tidy(raw)
            what = f"in '{path.name}'"
            self.network = unfilled(lambda: AudioNTT(size_of(state, what, raw)))
            load_exactly(self.network, state, what=what)
        else:
            at_least(1, feature_d=feature_d)
            self.weights_sha256 = f"random:{seed}"
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.network = AudioNTT(AudioNTTSize(hidden=feature_d, out=feature_d))
        self.probe_lrs = V2_PROBE_LRS if self.network.size.blocks == 2 else {}
        self.front_end = LogMel(BYOL_A_16K)
        self.embedding_dim = self.network.size.dim
        self.norm_stats = parse_norm_stats(norm_stats) if norm_stats else None
        self.needs_prepare = self.norm_stats is None
        self._given = bool(norm_stats)
        self.eval()

    def prepare(self, unit_seconds: float, training_clips: TrainingClips) -> None:
        """Take mean and deviation of the log-mel from at least the first 5000 training clips in shuffled order."""
        if self._given:
            return
        batches = training_clips.batches(
            self.sample_rate, training_clips.batch_size, shuffle_seed=self.statistics_seed, limit=STATISTICS_CLIPS
        )
        take = reference_statistics if self.statistics == "reference" else exact_statistics
        with torch.no_grad():
            log_mels = (self.front_end(batch.waveforms.to(self.device)) for batch in batches)
            self.norm_stats = take([moments(log_mel) for log_mel in log_mels])

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Return the standardised log-mel ``[B, 1, 64, frames]`` of ``[B, T]``, long enough for one embedding."""
        if self.norm_stats is None:
            raise UserError(
                "byol_a takes its statistics from a task's training clips; without one: --norm_stats=MEAN,STD"
            )
        needed = ((1 << self.network.size.blocks) - 1) * self.front_end.spec.hop
        if waveforms.shape[1] < needed:
            waveforms = F.pad(waveforms, (0, needed - waveforms.shape[1]))
        mean, deviation = self.norm_stats
        return ((self.front_end(waveforms) - mean) / deviation)[:, None]

    def encode(self, log_mel: Tensor) -> Tensor:
        """Return clip embeddings ``[B, D]``: over time, the maximum plus the mean."""
        frames = self.network(log_mel[:, 0])
        return frames.amax(1) + frames.mean(1)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, D]``; padding counts as sound, as in the published evaluation."""
        return self.encode(self.log_mel(waveforms))

    def embed_frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
        """Return ``([B, T', D], seconds per frame)``: one frame for every 8 (v2: 4) of the log-mel."""
        frames = self.network(self.log_mel(waveforms)[:, 0])
        return frames, self.front_end.frame_seconds * (1 << self.network.size.blocks)

    def skeleton(self) -> Skeleton | None:
        """Return an untrained v1 with this size and statistics; None for a network of another form (v2)."""
        size = self.network.size
        if self.norm_stats is None or size != AudioNTTSize(hidden=size.hidden, out=size.hidden):
            return None
        stats = ",".join(repr(float(x)) for x in self.norm_stats)
        return Skeleton("byol_a", {"feature_d": str(size.hidden), "norm_stats": stats})

    def state(self) -> dict[str, Any]:
        """Return mean and deviation in use (None before ``prepare``)."""
        return {"norm_stats": list(self.norm_stats) if self.norm_stats else None}


def moments(log_mel: Tensor) -> tuple[int, float, float]:
    """Return how many values a batch has, their sum and their sum of squares, in float64."""
    values = log_mel.double()
    return values.numel(), float(values.sum()), float(values.square().sum())


def _mean_and_deviation(count: int, total: float, squares: float) -> tuple[float, float]:
    mean = total / count
    variance = (squares - count * mean * mean) / max(count - 1, 1)
    return mean, max(variance, 0.0) ** 0.5


def reference_statistics(batches: list[tuple[int, float, float]]) -> tuple[float, float]:
    """Return the mean over batches of their means, and of their deviations, without the first batch (ODDITIES 18)."""
    if not batches:
        raise UserError("there are no training clips to take statistics from")
    counted = [_mean_and_deviation(*batch) for batch in batches[1:] or batches]
    mean = sum(mean for mean, _ in counted) / len(counted)
    return mean, sum(deviation for _, deviation in counted) / len(counted)


def exact_statistics(batches: list[tuple[int, float, float]]) -> tuple[float, float]:
    """Return mean and deviation of all values of all batches."""
    if not batches:
        raise UserError("there are no training clips to take statistics from")
    return _mean_and_deviation(
        sum(count for count, _, _ in batches), sum(total for _, total, _ in batches), sum(sq for _, _, sq in batches)
    )


ADAPTER = ByolA
