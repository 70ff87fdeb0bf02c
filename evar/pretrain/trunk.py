"""The network that all objectives share: an encoder of visible patches, a predictor of the others, a target network.

Names in the state dict are those of the published checkpoints (MODELS 2.3). The paths are the fast ones (MODELS 11):
attention does not care in which order tokens come, so the predictor takes them in shuffled order, each with its own
position, and the masked ones are simply its last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from evar import schedules
from evar.errors import UserError
from evar.pretrain import ema, masks
from evar.pretrain.base import DataFacts
from evar.pretrain.settings import PretrainSettings
from model_adapters.networks.m2d import sincos_2d
from model_adapters.networks.vit import Block, Linear, ViT, ViTSize


@dataclass(frozen=True)
class Masked:
    """What the masked pass made of a batch."""

    tokens: Tensor
    """``[B, N, D]``: all patches, embedded, with their positions."""
    order: Tensor
    """``[B, N]``: the patches' numbers, the visible ones first."""
    keep: int
    """How many are visible."""
    latent: Tensor
    """``[B, 1 + keep, D]``: the class token and the visible patches, encoded, after the final norm."""
    prediction: Tensor
    """``[B, N - keep, out]``: for the masked patches, in ``order``."""

    @property
    def visible(self) -> Tensor:
        """``[B, keep, D]``: the visible patches, encoded."""
        return self.latent[:, 1:]

    @property
    def hidden(self) -> Tensor:
        """``[B, N - keep]``: the numbers of the masked patches."""
        return self.order[:, self.keep :]


class MaskedViT(ViT):
    """An encoder that sees some patches, and a predictor (decoder) of the others.

    Args:
        settings: sizes, mask and its ratio.
        facts: ``norm_stats``, kept in the state dict.
        outputs: length of a prediction; None for the encoder's dimension.

    Raises:
        UserError: sizes that do not fit together, a mask that hides nothing or everything.
    """

    norm_stats: Tensor

    def __init__(self, settings: PretrainSettings, facts: DataFacts, outputs: int | None = None) -> None:
        _check(settings)
        grid, dim, inner = settings.grid, settings.dim, settings.decoder_dim
        count = grid[0] * grid[1]
        super().__init__(ViTSize(dim, settings.depth, settings.heads, 4 * dim, settings.patch_size, count + 1))
        masks.check(settings.mask, grid, settings.mask_ratio)
        self.settings = settings
        self.grid = grid
        self.decoder_embed = Linear(dim, inner)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, inner))
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, count + 1, inner), requires_grad=False)
        self.decoder_blocks = nn.ModuleList(
            Block(inner, settings.decoder_heads, 4 * inner) for _ in range(settings.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(inner, eps=1e-6)
        self.decoder_pred = Linear(inner, outputs or dim)
        self.register_buffer("norm_stats", torch.tensor(facts.norm_stats))
        initialise(self)
        with torch.no_grad():
            self.pos_embed.copy_(sincos_2d(dim, *grid))
            self.decoder_pos_embed.copy_(sincos_2d(inner, *grid))

    def patches(self) -> int:
        """Return N, the number of patches of an input."""
        return self.grid[0] * self.grid[1]

    def draw(self, rows: int) -> Tensor:
        """Return this rank's rows of the noise ``[B, N]`` for a global batch of ``rows`` clips (``masks.draw``)."""
        return masks.draw(self.settings.mask, rows, self.grid, self.settings.mask_ratio)

    def tokens(self, log_mel: Tensor) -> Tensor:
        """Return all patches, embedded, with their positions: ``[B, N, D]`` of ``[B, 1, n_mels, frames]``."""
        embedded = self.patch_embed(log_mel)
        if tuple(embedded.shape[1:3]) != self.grid:
            raise ValueError(f"an input of {tuple(embedded.shape[1:3])} patches for a network of {self.grid}")
        return embedded.flatten(1, 2) + self.pos_embed[:, 1:]

    def order(self, noise: Tensor, device: torch.device) -> tuple[Tensor, int]:
        """Return the patches ``[B, N]`` on ``device``, visible ones first, and how many are visible (MODELS 2.5)."""
        if self.settings.mask in ("random", "blocks"):
            noise = noise.to(device, non_blocking=True)
        found, keep = masks.order(noise, self.settings.mask, self.grid, self.settings.mask_ratio)
        return found.to(device, non_blocking=True), keep

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Return ``[B, 1 + K, D]``, class token first, after all blocks and the norm, of patch tokens ``[B, K, D]``."""
        return self.norm(self.run(self.blocks, self.with_class_token(tokens)))

    def with_class_token(self, tokens: Tensor) -> Tensor:
        """Return ``[B, 1 + K, D]`` of patch tokens ``[B, K, D]``."""
        assert self.cls_token is not None
        first = self.cls_token + self.pos_embed[:, :1]
        return torch.cat([first.expand(len(tokens), -1, -1), tokens], dim=1)

    def decode(self, latent: Tensor, order: Tensor) -> Tensor:
        """Return the predictor's tokens ``[B, 1 + N, E]``, in ``order``, before its norm.

        latent: ``[B, 1 + keep, D]``, from :meth:`encode_tokens`.
        order: ``[B, N]``: which patch each token is, the visible ones first.
        """
        seen = self.decoder_embed(latent)
        places = self.decoder_pos_embed[0, 1:][order]
        keep = latent.shape[1] - 1
        x = torch.cat(
            [
                seen[:, :1] + self.decoder_pos_embed[:, :1],
                seen[:, 1:] + places[:, :keep],
                self.mask_token + places[:, keep:],
            ],
            dim=1,
        )
        return self.run(self.decoder_blocks, x)

    def predict(self, latent: Tensor, order: Tensor) -> Tensor:
        """Return the predictions for the masked patches ``[B, N - keep, out]``, in ``order`` (see :meth:`decode`)."""
        tail = self.decode(latent, order)[:, latent.shape[1] :]
        return self.decoder_pred(self.decoder_norm(tail))

    def masked_pass(self, log_mel: Tensor, noise: Tensor) -> Masked:
        """Encode the visible patches of ``[B, 1, n_mels, frames]`` and predict the others (MODELS 2.5, steps 1 to 4).

        noise: ``[B, N]``, of :meth:`draw`.
        """
        tokens = self.tokens(log_mel)
        order, keep = self.order(noise, tokens.device)
        latent = self.encode_tokens(pick(tokens, order[:, :keep]))
        return Masked(tokens, order, keep, latent, self.predict(latent, order))

    def run(self, blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
        """Return ``[B, K, D]`` after the blocks; with ``recompute`` only what enters each block is kept in memory."""
        for block in blocks:
            again = self.recompute and x.requires_grad
            x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False) if again else block(x)
        return x


class M2DNetwork(MaskedViT):
    """The online network and the target network that follows it (Niizumi et al., Masked Modeling Duo, 2023).

    The target has blocks and a norm of its own, initialised independently, and shares the rest (MODELS 2.4, 2.5).
    """

    def __init__(self, settings: PretrainSettings, facts: DataFacts) -> None:
        super().__init__(settings, facts)
        depth, dim = settings.depth, settings.dim
        if wrong := [layer for layer in settings.target_layers if not -depth <= layer < depth]:
            raise UserError(f"--target_layers: there is no block {wrong[0]}; the target has {depth} (0 to {depth - 1})")
        heads = settings.heads or max(1, dim // 64)
        self.target_blocks = nn.ModuleList(Block(dim, heads, 4 * dim) for _ in range(depth))
        self.target_norm = nn.LayerNorm(dim, eps=1e-6)
        for part in (self.target_blocks, self.target_norm):
            initialise(part)
            part.requires_grad_(False)
        self._decays: list[float] = []

    @torch.no_grad()
    def targets(self, tokens: Tensor, order: Tensor, keep: int) -> Tensor:
        """Return the target network's view of the masked patches ``[B, N - keep, D]``, in ``order``, without gradient.

        tokens: ``[B, N, D]`` of :meth:`tokens`. The network sees the masked patches only, or all of them
        (``target_sees``); ``target_layers`` averages the outputs of those blocks, before the norm (MODELS 2.5).
        """
        hidden = order[:, keep:]
        everything = self.settings.target_sees == "all"
        x = self.with_class_token(tokens if everything else pick(tokens, hidden))
        x = self._target_features(x)[:, 1:]
        return pick(x, hidden) if everything else x

    def _target_features(self, x: Tensor) -> Tensor:
        depth = len(self.target_blocks)
        layers = {layer % depth for layer in self.settings.target_layers} or {depth - 1}
        outputs = []
        for i, block in enumerate(self.target_blocks[: max(layers) + 1]):
            x = block(x)
            if i in layers:
                outputs.append(x)
        return self.target_norm(outputs[0] if len(outputs) == 1 else torch.stack(outputs).mean(0))

    def plan(self, total_steps: int) -> None:
        """Set the run's length in optimiser steps: the average's decay rises linearly over them (MODELS 2.6)."""
        self._decays = schedules.ema_decay(total_steps, *self.settings.ema).tolist()

    def after_step(self, step: int) -> None:
        """Move the target network towards the online one, as it is after optimiser step number ``step`` (from 0)."""
        if not self._decays:
            raise ValueError("the moving average needs the run's length: call plan(total_steps) first")
        self.move_target(self._decays[min(step, len(self._decays) - 1)])

    def move_target(self, decay: float) -> None:
        """Replace the target network by ``decay`` of itself and the rest of the online one."""
        ema.move(*ema.pairs([self.target_blocks, self.target_norm], [self.blocks, self.norm]), decay)


def pick(tokens: Tensor, which: Tensor) -> Tensor:
    """Return the tokens ``[B, K, D]`` with the numbers ``which`` ``[B, K]`` out of ``[B, N, D]``."""
    return tokens.gather(1, which[..., None].expand(-1, -1, tokens.shape[2]))


def in_grid_order(tokens: Tensor, order: Tensor) -> Tensor:
    """Return tokens ``[B, N, D]`` that come in ``order`` ``[B, N]`` as the grid has them: frequency rows, then time."""
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return pick(tokens, torch.empty_like(order).scatter_(1, order, places))


def initialise(module: nn.Module) -> None:
    """Fill a module as M2D is initialised, from torch's global generator (MODELS 2.4).

    Linear layers and the patch embedding are Xavier-uniform with zero biases (the patch embedding keeps torch's
    default bias), norms 1 and 0, tokens normal with deviation 0.02.
    """
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                if part.bias is not None:
                    part.bias.zero_()
            elif isinstance(part, nn.Conv2d):
                nn.init.xavier_uniform_(part.weight.view(len(part.weight), -1))
            elif isinstance(part, nn.LayerNorm):
                part.reset_parameters()
        for name, parameter in module.named_parameters():
            if name.endswith(("cls_token", "mask_token")):
                parameter.normal_(0.0, 0.02)


def _check(settings: PretrainSettings) -> None:
    (mels, frames), (height, width) = settings.input_size, settings.patch_size
    if min(height, width) < 1 or mels % height or frames < width:
        raise UserError(f"no whole patches of {height}x{width} in an input of {mels}x{frames}: set --patch_size")
    for option, width in (("dim", settings.dim), ("decoder_dim", settings.decoder_dim)):
        if width < 4 or width % 4:
            raise UserError(f"--{option} must be a multiple of 4, not {width}")
    if settings.depth < 1 or settings.decoder_depth < 1:
        raise UserError("--depth and --decoder_depth must be at least 1")
    if settings.decoder_heads < 1 or settings.decoder_dim % settings.decoder_heads:
        raise UserError(
            f"{settings.decoder_heads} attention heads do not divide the predictor's {settings.decoder_dim} "
            "dimensions: set --decoder_heads"
        )
