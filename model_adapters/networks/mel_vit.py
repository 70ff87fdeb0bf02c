"""The encoders of CED and Dasheng: a batch norm over mel bands, then a vision transformer on pieces of the clip.

Dinkel et al., "CED: Consistent ensemble distillation for audio tagging", ICASSP 2024; "Scaling up masked audio encoder
learning for general audio classification" (Dasheng), Interspeech 2024. Parameter names are the published files'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evar.errors import UserError
from model_adapters.networks.audio_vit import AudioViT, AudioViTSize
from model_adapters.networks.checkpoints import require

N_MELS = 64
_BATCH_NORM_EPS = 1e-5
PATCHES = {"CED": ((16, 16), (4, 63)), "Dasheng": ((64, 4), (1, 252))}
"""Of the published files: height and width of a patch, rows and columns of patches in the tables of positions."""


class MelViT(AudioViT):
    """The encoder with its batch norm, and its way with clips longer than one pass.

    unit: frames of a piece. pad_last: whether the last piece is padded with zeros (after the norm) to a whole one.
    split_order: a published fault, see :meth:`grid`.
    nested: whether the batch norm is called ``init_bn.1`` (Dasheng) instead of ``init_bn`` (CED).
    """

    def __init__(
        self, size: AudioViTSize, unit: int, *, pad_last: bool, nested: bool, split_order: bool = False
    ) -> None:
        super().__init__(size)
        norm = nn.BatchNorm2d(N_MELS, eps=_BATCH_NORM_EPS)
        self.init_bn: nn.Module = nn.Sequential(nn.Identity(), norm) if nested else norm
        self.piece_frames, self.pad_last, self.split_order = unit, pad_last, split_order

    def standardise(self, decibels: Tensor) -> Tensor:
        """Return ``[B, 1, n_mels, frames]`` of decibels ``[B, n_mels, frames]``.

        The batch norm uses its stored statistics in training too: they belong to the pre-training's millions of clips,
        and augmentation acts on what comes out.
        """
        norm = self.init_bn[1] if isinstance(self.init_bn, nn.Sequential) else self.init_bn
        assert isinstance(norm, nn.BatchNorm2d)
        x = F.batch_norm(decibels, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, eps=norm.eps)
        return x[:, None]

    def grid(self, x: Tensor) -> Tensor:
        """Return the patch tokens ``[B, F, T', D]`` of ``[B, 1, n_mels, frames]``, piece after piece.

        With ``split_order`` a batch of long clips comes out as from CED's published port: the pieces are encoded in the
        order (piece, clip) and read back as if it were (clip, piece), so that a clip's tokens are partly another
        clip's; and a last piece that needs no padding is left out.
        """
        if x.shape[3] <= self.piece_frames:
            return self._as_grid(self(x)[0])
        pieces = list(x.split(self.piece_frames, dim=3))
        if self.split_order:
            return self._mixed(pieces)
        rest = pieces.pop() if pieces[-1].shape[3] < self.piece_frames else None
        full = self._as_grid(self(torch.stack(pieces, dim=1).flatten(0, 1))[0]).unflatten(0, (len(x), len(pieces)))
        found = list(full.unbind(1))
        if rest is not None and self.pad_last:
            rest = F.pad(rest, (0, self.piece_frames - rest.shape[3]))
        if rest is not None and rest.shape[3] >= self.size.patch[1]:
            found.append(self._as_grid(self(rest)[0]))
        return torch.cat(found, dim=2)

    def _mixed(self, pieces: list[Tensor]) -> Tensor:
        last = pieces.pop()
        missing = self.piece_frames - last.shape[3]
        if missing:
            pieces.append(F.pad(last, (0, missing)))
        found = self._as_grid(self(torch.cat(pieces))[0])
        return torch.cat(list(found.unflatten(0, (-1, len(pieces))).unbind(1)), dim=2)

    def _as_grid(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(1, (self.size.grid[0], -1))


def encoder_size(
    state: Mapping[str, Tensor],
    model: Literal["CED", "Dasheng"],
    heads: Mapping[int, int],
    what: str = "",
    whole: Mapping[str, Tensor] | None = None,
) -> AudioViTSize:
    """Return the size of the encoder whose tensors ``state`` holds.

    heads: attention heads by width, where it is not one per 64 dimensions. what, whole: the file, and all of its
    tensors, for the message of the :class:`UserError` that is raised if ``state`` holds no such encoder: the two models
    have the same names, so that only the patches tell them apart.
    """
    needed = ("patch_embed.proj.weight", "time_pos_embed", "freq_pos_embed", "blocks.0.norm1.weight")
    require(state, needed, model, what, whole)
    weight, time, frequency = (state[name] for name in needed[:3])
    found = (tuple(weight.shape[2:]), (frequency.shape[2], time.shape[3]))
    if found != PATCHES[model]:
        (high, wide), (rows, columns) = found
        other = next((name for name, patches in PATCHES.items() if patches == found), "")
        instead = f"they are those of {other}: evaluate them as model '{other.lower()}'" if other else "of another one"
        raise UserError(
            f"the weights {what or 'given'} are not those of {model}, with {rows}x{columns} patches of {high}x{wide}: "
            f"{instead}"
        )
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    return AudioViTSize(
        dim=len(weight), depth=depth, heads=heads.get(len(weight), 0), patch=PATCHES[model][0], grid=PATCHES[model][1]
    )
