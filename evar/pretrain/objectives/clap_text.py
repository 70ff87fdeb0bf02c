"""M2D-CLAP 2025, stages 2 and 2.1: a text encoder learns to follow the audio encoder (MODELS 4.4).

    L = L_clap(audio_proj(f(x_visible)), text_proj(g(caption)))

f is the audio encoder of stage 1 (or 1.1), which stays as it is unless ``train_encoder``; audio_proj begins anew; g is
a text encoder of which every layer is trained. There is no masked prediction: the mask only leaves patches out.

Stage 2.1 goes on from a file of stage 2 with other data and no mask: from a file with a text encoder the projectors and
the temperature are taken too, from any other only the audio encoder (:meth:`ClapText.import_names`).

The state dict is the published form (MODELS 4.5) with no renaming: ``backbone.*`` (audio encoder, ``norm_stats``,
``audio_proj``), ``logit_scale``, ``text_encoder.text_encoder.*``; where the dimensions differ also ``text_proj.*``. For
text encoders other than a BERT read at [CLS] see :mod:`evar.pretrain.text_side`.

The published training did not average gradients over its four ranks, so that each learnt from its own 512 clips and
negatives; here the batch is one (MODELS 4.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import ClassVar, Literal

import torch
from torch import Tensor

from evar import ranks
from evar.errors import UserError
from evar.pretrain import masks
from evar.pretrain.base import Batch, DataFacts, Objective, TextInput
from evar.pretrain.contrastive import clamp_logit_scale, contrastive_losses, new_logit_scale
from evar.pretrain.projectors import new_audio_projector, new_text_projector
from evar.pretrain.settings import PretrainSettings
from evar.pretrain.text_side import load_trained_text_encoder
from evar.pretrain.trunk import initialise
from model_adapters.networks.m2d import kept_by_patchout, sincos_2d
from model_adapters.networks.m2d_files import DEFAULT_NORM_STATS, sort_out
from model_adapters.networks.vit import ViT, ViTSize

_KEEPS: dict[str, Literal["marked", "unmarked"]] = {"structured_reference": "marked", "structured": "unmarked"}


class Backbone(ViT):
    """The audio encoder with what the published file keeps beside it."""

    norm_stats: Tensor

    def __init__(self, s: PretrainSettings, norm_stats: tuple[float, float]) -> None:
        rows, columns = s.grid
        size = ViTSize(s.dim, s.depth, s.heads, 4 * s.dim, s.patch_size, positions=1 + rows * columns)
        super().__init__(size)
        initialise(self)
        self.pos_embed.data.copy_(sincos_2d(s.dim, rows, columns))
        self.requires_grad_(s.train_encoder)
        self.pos_embed.requires_grad_(False)
        self.register_buffer("norm_stats", torch.tensor(norm_stats))
        self.audio_proj = new_audio_projector(s.projector, s.projector_depth, s.dim)


class ClapText(Objective):
    """An audio encoder as it is, and a text encoder that learns to meet it."""

    text_input: ClassVar[TextInput] = "captions"
    data_stats: Tensor

    def __init__(self, settings: PretrainSettings, facts: DataFacts) -> None:
        super().__init__()
        masks.check(settings.mask, settings.grid, settings.mask_ratio, predicts=False)
        if settings.mask_ratio and settings.mask not in ("random", *_KEEPS):
            raise UserError(f"--mask={settings.mask} is not for this objective: random, {' or '.join(_KEEPS)}")
        self.settings = settings
        self.backbone = Backbone(settings, facts.norm_stats)
        # A published encoder may have been trained with other statistics than those the batches come with.
        self.register_buffer("data_stats", torch.tensor(facts.norm_stats), persistent=False)
        self.text_encoder = load_trained_text_encoder(settings.text_encoder)
        self.text_proj = new_text_projector(self.text_encoder.dim, self.backbone.audio_proj.out_dim)
        self.logit_scale = new_logit_scale(settings.temperature)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows (frequency) and columns (time) of patches."""
        return self.settings.grid

    def patches(self) -> int:
        """Return N, the number of patches of an input."""
        return self.grid[0] * self.grid[1]

    def draw(self, rows: int) -> Tensor:
        """Return the patches that this rank's rows of ``rows`` keep, ``[B, K]`` numbers, ascending; K is 0 for all.

        ``structured_reference`` keeps the rows and columns that the published code meant to leave out (MODELS 2.8).
        """
        s = self.settings
        mine = ranks.my_rows(rows)
        if not s.mask_ratio:
            return torch.zeros(mine.stop - mine.start, 0, dtype=torch.long)
        if s.mask != "random":
            return kept_by_patchout(mine.stop - mine.start, s.grid, s.mask_ratio, _KEEPS[s.mask])
        order = super().draw(rows).argsort(dim=1)
        return order[:, : masks.visible_count(self.patches(), s.mask_ratio)].sort(dim=1).values

    def losses(self, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """Return ``loss``, the contrastive one of all ranks' rows, each ``[B]``.

        Args:
            batch: with ``captions``.
            noise: the patches kept, of :meth:`draw`.
        """
        if batch.captions is None:
            raise UserError("clap_text trains on captions: give --captions")
        audio, text = (
            self.embed_audio(batch.log_mel, noise.to(batch.log_mel.device, non_blocking=True)),
            self.text_proj(self.text_encoder(batch.captions)),
        )
        return {"loss": contrastive_losses(audio, text, self.logit_scale, self.settings.clap_grad_scale)}

    def embed_audio(self, log_mel: Tensor, kept: Tensor) -> Tensor:
        """Return ``[B, D]`` of ``log_mel [B, 1, n_mels, frames]`` and the patches kept ``[B, K]``, all if K is 0."""
        mean, deviation = self.data_stats
        own_mean, own_deviation = self.backbone.norm_stats
        x = log_mel * (deviation / own_deviation) + (mean - own_mean) / own_deviation
        # Nothing of a frozen encoder is kept for the way back.
        with nullcontext() if self.settings.train_encoder else torch.no_grad():
            tokens = self.backbone(x, keep=kept if kept.shape[1] else None)[0]
        return self.backbone.audio_proj(tokens)

    def after_step(self, step: int) -> None:
        """Keep the temperature within its bounds."""
        clamp_logit_scale(self.logit_scale)

    def figures(self) -> Mapping[str, float]:
        """Return the temperature."""
        return {"temperature": float(torch.exp(-self.logit_scale.detach()))}

    def import_names(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what to take from another checkpoint (any published form), under the names of this state dict."""
        parts = sort_out(found)
        state = {f"backbone.{name}": tensor for name, tensor in parts.encoder.items()}
        state["backbone.norm_stats"] = torch.tensor(parts.norm_stats or DEFAULT_NORM_STATS)
        if parts.text_encoder:
            state |= {f"backbone.audio_proj.{name}": tensor for name, tensor in parts.audio_proj.items()}
            state |= {f"text_proj.{name}": tensor for name, tensor in parts.text_proj.items()}
            state |= {n: t for n, t in found.items() if n.startswith("text_encoder.") or n == "logit_scale"}
        return state


OBJECTIVE = ClapText
