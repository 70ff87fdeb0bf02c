"""M2D-AS: M2D with AudioSet's labels as the second task (Niizumi et al., TASLP 2024).

As in M2D-X, encoded visible and predicted masked patches make a whole grid, whose time steps one linear layer
(``offline_predictor``) maps to the classes' scores, averaged over time::

    L = w_m2d L_m2d + w_other BCE(mean over time of offline_predictor(time steps), labels)

The layer is linear, hence the time steps are averaged before it, which costs less and gives the same.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from evar.errors import UserError
from evar.pretrain import losses
from evar.pretrain.base import Batch, DataFacts
from evar.pretrain.objectives.m2d import M2D
from evar.pretrain.objectives.m2d_x import time_steps
from evar.pretrain.settings import PretrainSettings
from evar.pretrain.trunk import initialise
from model_adapters.networks.vit import Linear


class M2DAS(M2D):
    """M2D's loss and a supervised one."""

    takes_labels: ClassVar[bool] = True

    def __init__(self, settings: PretrainSettings, facts: DataFacts) -> None:
        classes = label_count(settings, facts)
        super().__init__(settings, facts)
        self.offline_predictor = Linear(settings.dim * self.grid[0], classes)
        initialise(self.offline_predictor)

    def losses(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Return ``loss``, and its parts ``m2d`` and ``labels``, each ``[B]``."""
        masked, m2d = self.predicted(batch, noise)
        logits = self.offline_predictor(time_steps(masked, self.grid).mean(1))
        labels = label_loss(logits, batch)
        return {"loss": self.settings.w_m2d * m2d + self.settings.w_other * labels, "m2d": m2d, "labels": labels}


def label_count(settings: PretrainSettings, facts: DataFacts) -> int:
    """Return the number of classes; raise :class:`UserError` if the corpus has no labels."""
    if not facts.classes:
        raise UserError(f"{settings.objective} learns from labels, and the corpus has none")
    return len(facts.classes)


def label_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Return the binary cross-entropy ``[B]`` of ``[B, C]`` with the batch's labels."""
    if batch.labels is None:
        raise ValueError("the batch has no labels")
    return losses.labels(logits, batch.labels)


OBJECTIVE = M2DAS
