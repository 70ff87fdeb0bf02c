"""M2D-X: M2D with a second task, here distilling a frozen teacher (Niizumi et al., TASLP 2024).

Encoded visible patches z_v and predicted masked ones z^_m together make a whole grid. The patches of one time step,
side by side, are mapped by one linear layer (``offline_predictor``) to the teacher's features t of that time step::

    y = offline_predictor(time steps of grid(z_v, z^_m)),    L = w_m2d L_m2d + w_other D(y, standardise(t))

D is M2D's normalised squared distance unless ``distance`` says otherwise. The teacher is an M2D (``teacher``) that
hears the same crop, or features that the corpus stores. With background noise (``noise_ratio``) the network hears the
mixture and the teacher the clean sound, which is what denoising means; in the published code it is the other way
about (MODELS 5).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from evar.pretrain import losses
from evar.pretrain.base import Batch, DataFacts
from evar.pretrain.objectives.m2d import M2D
from evar.pretrain.settings import PretrainSettings
from evar.pretrain.teacher import features_of, open_teacher, resized, side_by_side
from evar.pretrain.trunk import Masked, in_grid_order, initialise
from model_adapters.networks.vit import Linear


class M2DX(M2D):
    """M2D's loss and the distillation of features per time step."""

    takes_features: ClassVar[bool] = True

    def __init__(self, settings: PretrainSettings, facts: DataFacts) -> None:
        teacher = open_teacher(settings, facts)
        super().__init__(settings, facts)
        self.further = losses.distance(settings.distance)
        self.teacher = teacher
        dim = facts.feature_dim if teacher is None else teacher.frame_dim
        self.offline_predictor = Linear(settings.dim * self.grid[0], dim)
        initialise(self.offline_predictor)

    def losses(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Return ``loss``, and its parts ``m2d`` and ``distilled``, each ``[B]``."""
        masked, m2d = self.predicted(batch, noise)
        frames = side_by_side(features_of(self.teacher, batch))
        target = resized(frames[:, None], (1, self.grid[1]))[:, 0]
        if self.settings.standardise_targets:
            target = losses.standardise(target)
        distilled = self.further(self.offline_predictor(time_steps(masked, self.grid)), target)
        loss = self.settings.w_m2d * m2d + self.settings.w_other * distilled
        return {"loss": loss, "m2d": m2d, "distilled": distilled}


def time_steps(masked: Masked, grid: tuple[int, int]) -> Tensor:
    """Return the whole grid of encoded and predicted patches by time step: ``[B, T, F * D]`` (MODELS 5)."""
    tokens = torch.cat([masked.visible, masked.prediction], dim=1)
    return side_by_side(in_grid_order(tokens, masked.order).unflatten(1, grid))


OBJECTIVE = M2DX
