"""MSM-MAE: masked spectrogram modelling with a masked autoencoder (Niizumi et al., HEAR 2021, PMLR 166).

A small decoder g (384-d, 4 blocks, 6 heads in the papers' model) paints the masked patches from the visible ones::

    L = mean over masked patches and their pixels of ( g(f(x_v))_m - standardise(x_m) )^2

Patches are standardised each by itself where ``standardise_targets`` is on, as in MAE with normalised pixels (He et
al., 2022; MODELS 2.7). There is no target network.
"""

from __future__ import annotations

import math

from torch import Tensor

from evar.pretrain import losses
from evar.pretrain.base import Batch, DataFacts, Objective
from evar.pretrain.settings import PretrainSettings
from evar.pretrain.trunk import Masked, MaskedViT, pick


class MsmMae(MaskedViT, Objective):
    """Masked prediction of pixels."""

    def __init__(self, settings: PretrainSettings, facts: DataFacts) -> None:
        super().__init__(settings, facts, outputs=math.prod(settings.patch_size))
        losses.distance(settings.loss)

    def losses(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Return ``loss`` ``[B]``. Where background noise was mixed in, it is heard, and the clean patches painted."""
        masked = self.masked_pass(batch.log_mel if batch.noisy is None else batch.noisy, noise)
        return {"loss": pixel_loss(masked, batch.log_mel, self.settings)}


def pixel_loss(masked: Masked, log_mel: Tensor, settings: PretrainSettings) -> Tensor:
    """Return the reconstruction's loss ``[B]`` on the masked patches of ``[B, 1, n_mels, frames]``."""
    target = pick(losses.patchify(log_mel, settings.patch_size), masked.hidden)
    if settings.standardise_targets:
        target = losses.standardise(target)
    return losses.distance(settings.loss)(masked.prediction, target)


OBJECTIVE = MsmMae
