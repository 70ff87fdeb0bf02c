"""M2D-S: M2D for speech, distilling a speech model (Niizumi et al., Interspeech 2023; TASLP 2024).

As M2D-X (which see), with stored features (:mod:`evar.pretrain.features`, or the reference's .npz files): for the
published models layer 9 of HuBERT-base, 50 a second, averaged where there are several in one time step of patches
(MODELS 5).
"""

from __future__ import annotations

from evar.errors import UserError
from evar.pretrain.base import DataFacts
from evar.pretrain.objectives.m2d_x import M2DX
from evar.pretrain.settings import PretrainSettings


class M2DS(M2DX):
    """M2D's loss and the distillation of stored features."""

    def __init__(self, settings: PretrainSettings, facts: DataFacts) -> None:
        if not facts.feature_dim or settings.teacher:
            raise UserError(
                "m2d_s learns stored features of a speech model: --features=DIR, made by python -m "
                "evar.pretrain.features, and no --teacher"
            )
        super().__init__(settings, facts)


OBJECTIVE = M2DS
