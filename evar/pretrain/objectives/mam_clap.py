"""MAM-CLAP: masked modelling of a CLAP model's features (Xin, Peng and Lu, Interspeech 2023).

A frozen audio encoder t (of a CLAP model, or any other) hears the whole spectrogram. Its features are learnt for the
visible patches from what the encoder f makes of them, and for the masked ones from the decoder g; one head h serves
both. There is no reconstruction of pixels and no target network::

    L = w_m2d D(h(g(f(x_v))), standardise(t(x)_m)) + w_other D(h(f(x_v)), standardise(t(x)_v))

The paper's distance, weights, teacher layer and alignment of grids are not public (MODELS 6). Ours: the distance D is
``distance``, equal weights in the preset, the teacher's last layer unless ``--teacher`` ends in ``@LAYERS``, its grid
averaged or linearly interpolated to ours, and M2D's encoder in place of AudioMAE's.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from evar.pretrain import losses
from evar.pretrain.base import Batch, DataFacts, Objective
from evar.pretrain.settings import PretrainSettings
from evar.pretrain.teacher import features_of, open_teacher, resized
from evar.pretrain.trunk import Masked, MaskedViT, initialise, pick
from model_adapters.networks.vit import Linear


class MamClap(MaskedViT, Objective):
    """Masked prediction of a teacher's features, for visible patches as well."""

    takes_features: ClassVar[bool] = True

    def __init__(self, settings: PretrainSettings, facts: DataFacts) -> None:
        losses.distance(settings.distance)
        teacher = open_teacher(settings, facts)
        super().__init__(settings, facts)
        self.teacher = teacher
        self.distil_head = Linear(settings.dim, facts.feature_dim if teacher is None else teacher.dim)
        initialise(self.distil_head)

    def losses(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Return ``loss``, and its parts ``masked`` and ``visible``, each ``[B]``.

        Where background noise was mixed in, the network hears it and the teacher does not.
        """
        masked = self.masked_pass(batch.log_mel if batch.noisy is None else batch.noisy, noise)
        hidden, visible = distilled(
            masked, self.distil_head, features_of(self.teacher, batch), self.grid, self.settings
        )
        loss = self.settings.w_m2d * hidden + self.settings.w_other * visible
        return {"loss": loss, "masked": hidden, "visible": visible}


def distilled(
    masked: Masked, head: Linear, features: Tensor, grid: tuple[int, int], settings: PretrainSettings
) -> tuple[Tensor, Tensor]:
    """Return the losses ``[B]`` of masked and of visible patches, for a teacher's features ``[B, F', T', D]``.

    Stored features have one row (F' = 1): all patches of a time step learn the same.
    """
    target = resized(features, grid).flatten(1, 2)
    if settings.standardise_targets:
        target = losses.standardise(target)
    distance = losses.distance(settings.distance)
    visible = distance(head(masked.visible), pick(target, masked.order[:, : masked.keep]))
    return distance(head(masked.prediction), pick(target, masked.hidden)), visible


OBJECTIVE = MamClap
