"""M2D-CLAP: masked prediction and language at once (Niizumi et al., Interspeech 2024; IEEE Access 2025, stage 1).

Beside M2D's own loss, the visible patches z_v of the online network meet the clip's caption e, whose sentence embedding
is computed once and stays as it is::

    a = audio_proj(z_v),   t = text_proj(e)
    L = w_m2d L_m2d + w_other L_clap(a, t),   L_clap: evar.pretrain.contrastive          (2024: Eq. 1 to 4)

2024 has ``projector=mean``, and 2025 ``projector=semantic`` (MODELS 3, 4.2). The class token takes no part.
``text_proj`` is nothing where the embedding is as long as the encoder's, else one linear layer.

The published weight of 0.01 was used on four GPUs, where the gradient of L_clap into the networks came out as a quarter
of what is exact; ``clap_grad_scale=0.25`` repeats that (MODELS 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from evar.errors import UserError
from evar.pretrain.base import Batch, DataFacts, TextInput
from evar.pretrain.contrastive import clamp_logit_scale, contrastive_losses, new_logit_scale
from evar.pretrain.objectives.m2d import M2D
from evar.pretrain.projectors import new_audio_projector, new_text_projector
from evar.pretrain.settings import PretrainSettings


class M2DClap(M2D):
    """M2D, and a joint space of the visible patches and captions' embeddings."""

    text_input: ClassVar[TextInput] = "embeddings"

    def __init__(self, settings: PretrainSettings, facts: DataFacts) -> None:
        super().__init__(settings, facts)
        if not facts.text_dim:
            raise UserError("m2d_clap trains on the embeddings of captions: give --captions")
        self.audio_proj = new_audio_projector(settings.projector, settings.projector_depth, settings.dim)
        self.text_proj = new_text_projector(facts.text_dim, self.audio_proj.out_dim)
        self.logit_scale = new_logit_scale(settings.temperature)

    def losses(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Return ``loss`` and its parts ``m2d`` and ``clap``, unweighted, each ``[B]``.

        The contrastive part is among the clips of this (micro) batch of all ranks.
        """
        if batch.text is None:
            raise UserError("m2d_clap trains on the embeddings of captions: give --captions")
        s = self.settings
        masked, m2d = self.predicted(batch, noise)
        audio, text = self.audio_proj(masked.visible), self.text_proj(batch.text)
        clap = contrastive_losses(audio, text, self.logit_scale, s.clap_grad_scale)
        return {"loss": s.w_m2d * m2d + s.w_other * clap, "m2d": m2d, "clap": clap}

    def after_step(self, step: int) -> None:
        """Move the target network, and keep the temperature within its bounds."""
        super().after_step(step)
        clamp_logit_scale(self.logit_scale)

    def figures(self) -> Mapping[str, float]:
        """Return M2D's, and ``temperature``."""
        return dict(super().figures()) | {"temperature": float(torch.exp(-self.logit_scale.detach()))}


OBJECTIVE = M2DClap
