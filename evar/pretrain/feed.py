"""Feeding pre-training: random crops as standardised log-mels on the device, made ahead of the step in threads.

Where a crop lies is a function of the clip's content, the seed, the epoch and how often the clip occurs in it; nothing
depends on threads, processes or resuming.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evar import sampling
from evar.ahead import made_ahead
from evar.audio.windows import random_position
from evar.errors import UserError
from evar.pretrain.base import Batch
from evar.pretrain.corpus_files import Corpus
from evar.pretrain.crops import Cropper, RawCrops
from evar.pretrain.feature_crops import FeatureCrops
from evar.pretrain.feature_store import Features
from evar.pretrain.noise import mix_noise, noise_order
from evar.pretrain.order import epoch_batches, items_per_epoch, split_items, steps_per_epoch
from evar.pretrain.settings import PretrainSettings
from evar.pretrain.stats import crop_rule, norm_stats_of

__all__ = ["PretrainFeed", "epoch_batches", "items_per_epoch", "split_items", "steps_per_epoch"]


class PretrainFeed:
    """Gives batches of crops of a corpus.

    Args:
        corpus: the clips.
        settings: input_size, sample_rate, short_clips, min_seconds, noise_ratio, seed.
        norm_stats: mean and deviation that standardise the log-mels.
        device: where batches are wanted.
        noise: the corpus of background sounds, needed where noise_ratio is above 0 and only used there.
        workers: reading threads; None: one per core, at most eight; on the CPU at most two, the step needs the rest.
        labels: whether batches have labels; None: if the corpus has them.
        features: a model's features of the clips, of which each batch gets those of its crops' time.

    Raises:
        UserError: the corpus is stored at another rate, lacks labels or noise that are asked for, or the settings are
            out of range.
    """

    def __init__(
        self,
        corpus: Corpus,
        settings: PretrainSettings,
        norm_stats: tuple[float, float],
        *,
        device: torch.device | str = "cpu",
        noise: Corpus | None = None,
        workers: int | None = None,
        labels: bool | None = None,
        features: Features | None = None,
    ) -> None:
        self.corpus, self.settings, self.norm_stats = corpus, settings, norm_stats
        self.device = torch.device(device)
        self.workers = 2 if workers is None and self.device.type == "cpu" else workers
        self.labels = corpus.need_labels() if labels else corpus.labels if labels is None else None
        self.cropper = Cropper(corpus.source.spec, crop_rule(corpus, settings), self.device)
        self.features = None if features is None else FeatureCrops(features, settings)
        self.noise = None
        if not 0 <= settings.noise_ratio < 1:
            raise UserError(f"--noise_ratio={settings.noise_ratio:g}: a share from 0 to below 1")
        if settings.noise_ratio:
            if noise is None:
                raise UserError(f"--noise_ratio={settings.noise_ratio:g} needs --noise=CORPUS, of background sounds")
            self.noise = noise
            rule = replace(crop_rule(noise, settings), short="repeat", min_seconds=0.0)
            self._noise_cropper = Cropper(noise.source.spec, rule, self.device)
            self._noise_mean = norm_stats_of(noise, settings)[0]

    def epoch(self, batches: Iterable[sampling.Batch], epoch: int) -> Iterator[Batch]:
        """Yield this rank's rows of the ``batches`` (of items, see :func:`epoch_batches`), in order.

        A batch has clips, log_mel, labels (where the corpus has them), noisy (where noise is asked for) and features
        (where there are any).
        """
        order = noise_order(len(self.noise), self.settings.seed, epoch) if self.noise is not None else None
        items = (np.asarray(batch.mine, np.int64) for batch in batches)
        return made_ahead(lambda one: self._make(one, epoch, order), items, self.device, _tensors, self.workers)

    def _make(self, items: NDArray[np.int64], epoch: int, noise_of: NDArray[np.int64] | None) -> Batch:
        clips, times = split_items(items, len(self.corpus))
        raw, cut = self._crops(self.cropper, self.corpus, clips, times, epoch, "")
        noisy = None
        if self.noise is not None and noise_of is not None:
            numbers, again = split_items(items, len(self.noise))
            noise, _ = self._crops(self._noise_cropper, self.noise, noise_of[numbers], again, epoch, "noise")
            noisy = mix_noise(raw, noise, self.norm_stats, self._noise_mean, self.settings.noise_ratio)
            noisy = noisy.unsqueeze_(1)
        mean, deviation = self.norm_stats
        log_mel = raw.sub_(mean).div_(deviation).unsqueeze_(1)
        return Batch(clips, log_mel, labels=self._labels(clips), noisy=noisy, features=self._features(clips, cut))

    def _crops(
        self,
        cropper: Cropper,
        corpus: Corpus,
        clips: NDArray[np.int64],
        times: NDArray[np.int64],
        epoch: int,
        salt: str,
    ) -> tuple[Tensor, RawCrops]:
        """Return raw log-mels ``[B, n_mels, U]`` of the clips, and as what they were cut."""
        places = crop_positions([corpus.digests[n] for n in clips.tolist()], times, self.settings.seed, epoch, salt)
        stored = corpus.source.stored(corpus.rows[clips])
        cut = cropper.cut(stored, places, pin=self.device.type == "cuda")
        return cropper.log_mel(cut), cut

    def _features(self, clips: NDArray[np.int64], cut: RawCrops) -> Tensor | None:
        """Return the features of the crops' time ``[B, T', D]``, float32; the stored type crosses the bus."""
        if self.features is None:
            return None
        found = self.features.cut(clips, cut.starts, cut.real, pin=self.device.type == "cuda")
        return found.to(self.device, non_blocking=True).float()

    def _labels(self, clips: NDArray[np.int64]) -> Tensor | None:
        if self.labels is None:
            return None
        labels = torch.from_numpy(self.labels[clips])
        return labels if self.device.type == "cpu" else labels.pin_memory().to(self.device, non_blocking=True)


def crop_positions(
    digests: list[bytes], times: NDArray[np.int64], seed: int, epoch: int, salt: str = ""
) -> NDArray[np.float64]:
    """Return each crop's place in [0, 1) among all possible ones: of content, seed, epoch and occurrence alone."""
    when = salt.encode() + epoch.to_bytes(8, "little")
    pairs = zip(digests, times.tolist(), strict=True)
    return np.array([random_position(d + when + n.to_bytes(8, "little"), seed) for d, n in pairs], dtype=np.float64)


def _tensors(batch: Batch) -> Iterable[Tensor]:
    return [tensor for tensor in (batch.log_mel, batch.labels, batch.noisy, batch.features) if tensor is not None]
