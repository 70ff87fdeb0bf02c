"""SupMAM: a masked autoencoder that also learns labels (Xin, Peng and Lu, Interspeech 2023, after SupMAE).

The mean of the encoded visible patches is classified by one linear layer, beside the reconstruction of pixels::

    L = w_m2d L_masked + w_other BCE(sup_head(mean f(x_v)), labels)

L_masked is MSM-MAE's loss; with a ``teacher`` (or stored features) it is the sum of MAM-CLAP's two, unweighted: the
paper's SupMAM-CLAP. Its weights are not public (MODELS 6): ``w_other`` is ours, as is M2D's encoder in place of
AudioMAE's.
"""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from evar.pretrain import losses
from evar.pretrain.base import Batch, DataFacts, Objective
from evar.pretrain.objectives.m2d_as import label_count, label_loss
from evar.pretrain.objectives.mam_clap import distilled
from evar.pretrain.objectives.msm_mae import pixel_loss
from evar.pretrain.settings import PretrainSettings
from evar.pretrain.teacher import features_of, open_teacher
from evar.pretrain.trunk import Masked, MaskedViT, initialise
from model_adapters.networks.vit import Linear


class SupMam(MaskedViT, Objective):
    """Masked prediction of pixels, or of a teacher's features, and a supervised loss on the visible patches."""

    takes_labels: ClassVar[bool] = True
    takes_features: ClassVar[bool] = True

    def __init__(self, settings: PretrainSettings, facts: DataFacts) -> None:
        losses.distance(settings.distance)
        classes = label_count(settings, facts)
        distils = bool(settings.teacher or facts.feature_dim)
        teacher = open_teacher(settings, facts) if distils else None
        super().__init__(settings, facts, outputs=None if distils else math.prod(settings.patch_size))
        self.distils, self.teacher = distils, teacher
        self.sup_head = Linear(settings.dim, classes)
        initialise(self.sup_head)
        if self.distils:
            self.distil_head = Linear(settings.dim, facts.feature_dim if teacher is None else teacher.dim)
            initialise(self.distil_head)

    def losses(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Return ``loss``, and its parts ``labels`` and ``pixels`` (or ``masked`` and ``visible``), each ``[B]``."""
        masked = self.masked_pass(batch.log_mel if batch.noisy is None else batch.noisy, noise)
        parts = self._masked_losses(masked, batch)
        labels = label_loss(self.sup_head(masked.visible.mean(1)), batch)
        loss = self.settings.w_m2d * sum(parts.values()) + self.settings.w_other * labels
        return {"loss": loss, "labels": labels, **parts}

    def _masked_losses(self, masked: Masked, batch: Batch) -> dict[str, Tensor]:
        if not self.distils:
            return {"pixels": pixel_loss(masked, batch.log_mel, self.settings)}
        features = features_of(self.teacher, batch)
        hidden, visible = distilled(masked, self.distil_head, features, self.grid, self.settings)
        return {"masked": hidden, "visible": visible}


OBJECTIVE = SupMam
