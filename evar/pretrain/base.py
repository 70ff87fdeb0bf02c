"""What the parts of pre-training hand to each other: a batch, and what an objective is.

corpus -> feed -> Batch -> Objective.losses -> evar.training.Trainer.step -> Objective.after_step
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evar import ranks

TextInput = Literal["none", "embeddings", "captions"]


@dataclass(frozen=True)
class Batch:
    """This rank's rows of one step (or of one part of it), on the training device."""

    clips: NDArray[np.int64]
    """``[B]``: their numbers in the corpus."""
    log_mel: Tensor
    """``[B, 1, n_mels, frames]``, float32, standardised by the corpus's mean and deviation."""
    text: Tensor | None = None
    """``[B, E]``, float32: the sentence embedding of one caption per clip, drawn anew at every step."""
    captions: tuple[str, ...] | None = None
    """The drawn captions themselves, where the text encoder is trained."""
    labels: Tensor | None = None
    """``[B, C]``, float32, multi-hot."""
    noisy: Tensor | None = None
    """As ``log_mel``, with background noise mixed in; None where none is asked for."""
    features: Tensor | None = None
    """``[B, T', D]``, float32: stored features of a teacher (M2D-S), one row per time step of patches."""

    def __len__(self) -> int:
        return len(self.clips)

    def part(self, rows: slice) -> Batch:
        """Return some of the rows."""

        def cut(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[rows]

        captions = None if self.captions is None else self.captions[rows]
        return Batch(
            self.clips[rows], self.log_mel[rows], cut(self.text), captions, cut(self.labels), cut(self.noisy),
            cut(self.features),
        )  # fmt: skip


@dataclass(frozen=True)
class DataFacts:
    """What an objective must know of the data to build its network."""

    norm_stats: tuple[float, float]
    """Mean and deviation that standardise the log-mel; kept in the checkpoint."""
    text_dim: int = 0
    """E, the length of a sentence embedding; 0 without captions."""
    classes: tuple[str, ...] = ()
    """The labels' names; empty without labels."""
    feature_dim: int = 0
    """D of stored teacher features; 0 without."""


class Objective(nn.Module):
    """A network with its loss. State-dict names are those of the published checkpoints (MODELS 2.3)."""

    text_input: ClassVar[TextInput] = "none"
    """Which side of the captions it takes."""
    takes_labels: ClassVar[bool] = False
    takes_features: ClassVar[bool] = False
    norm_stats: Tensor

    @abstractmethod
    def losses(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Return ``loss`` (minimised) and its parts (logged), each ``[B]``: one number per clip.

        A part that only exists for the whole batch is expanded to all of its rows.

        Args:
            batch: this rank's rows.
            noise: ``[B, N]``, uniform in [0, 1), of :meth:`draw`: the order of the N patches; the first are visible.
        """

    @abstractmethod
    def patches(self) -> int:
        """Return N, the number of patches of an input."""

    def draw(self, rows: int) -> Tensor:
        """Return this rank's rows of the noise ``[B, N]`` for a global batch of ``rows``, from torch's CPU generator.

        Every rank draws for all rows alike, so that one process and many mask the same patches.
        """
        return ranks.mine(torch.rand(rows, self.patches()))

    def plan(self, total_steps: int) -> None:
        """Hear how many optimiser steps the run will have, before the first (the moving average's schedule)."""

    def after_step(self, step: int) -> None:
        """Do what follows optimiser step number ``step``: move the target network, clamp the temperature."""

    def figures(self) -> Mapping[str, float]:
        """Return what the log should show beside the losses (temperature, variance of targets)."""
        return {}
