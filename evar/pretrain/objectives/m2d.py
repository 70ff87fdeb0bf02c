"""M2D: Masked Modeling Duo (Niizumi et al., ICASSP 2023; IEEE/ACM TASLP 2024).

The online network encodes the visible patches x_v and predicts from them what the target network makes of the masked
ones x_m, which see only each other::

    z_v = f(x_v),   z^_m = g(z_v, mask tokens),   z_m = standardise(f'(x_m))
    L = mean over masked patches of || l2(z^_m) - l2(z_m) ||^2  =  2 - 2 <z^_m, z_m> / (|z^_m| |z_m|)      (Eq. 2)
    f' <- tau f' + (1 - tau) f     after every step, tau rising linearly

With ``target_sees=all`` the target network sees all patches: the data2vec-like ablation (MODELS 2.5).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from evar.pretrain import losses
from evar.pretrain.base import Batch, DataFacts, Objective
from evar.pretrain.settings import PretrainSettings
from evar.pretrain.trunk import M2DNetwork, Masked

WATCHED = 32
"""Clips whose targets are kept for a figure until the next step: copied, so that the others' memory is free."""


class M2D(M2DNetwork, Objective):
    """Masked prediction of the target network's features. Other objectives add a second loss to it."""

    def __init__(self, settings: PretrainSettings, facts: DataFacts) -> None:
        super().__init__(settings, facts)
        self.distance = losses.distance(settings.loss)
        self._some_targets: Tensor | None = None

    def losses(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Return ``loss`` ``[B]``."""
        return {"loss": self.predicted(batch, noise)[1]}

    def predicted(self, batch: Batch, noise: Tensor) -> tuple[Masked, Tensor]:
        """Return the masked pass of a batch and M2D's loss ``[B]``; subclasses go on from both.

        Where background noise was mixed in, the network hears it; a second loss's teacher does not.
        """
        masked = self.masked_pass(batch.log_mel if batch.noisy is None else batch.noisy, noise)
        target = self.targets(masked.tokens, masked.order, masked.keep)
        self._some_targets = target[:WATCHED].clone()
        if self.settings.standardise_targets:
            target = losses.standardise(target)
        return masked, self.distance(masked.prediction, target)

    def figures(self) -> Mapping[str, float]:
        """Return ``target_variance``: how much a feature of the last targets varies over patches; near 0 is collapse.

        Measured before the targets are standardised, on the first clips of this rank's last micro batch. The host waits
        for the device here, not in the step.
        """
        if self._some_targets is None or self._some_targets[..., 0].numel() < 2:
            return {}
        return {"target_variance": float(self._some_targets.float().flatten(0, 1).var(0).mean())}


OBJECTIVE = M2D
