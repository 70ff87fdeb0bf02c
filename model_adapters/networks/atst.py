"""ATST's encoders: clip and frame embeddings of recordings of any length.

Li, Shao and Li, "Self-supervised audio teacher-student transformer for both clip-level and frame-level tasks", IEEE/ACM
TASLP 32, 2024; "ATST: Audio representation learning with teacher-student transformer", Interspeech 2022. Parameter
names are those of the published files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from evar.errors import UserError
from model_adapters.networks.audio_vit import AudioViT, AudioViTSize, initialise
from model_adapters.networks.checkpoints import load_exactly, read_checkpoint, unfilled
from model_adapters.networks.misfits import of_another_model

CLIP_FRAMES = 601
"""Frames (6.01 s) of ATST-Clip's chunks."""
FRAME_FRAMES = 1001
"""Frames (10.01 s) of ATST-Frame's chunks."""
_SHORTEST_REST = 300
"""A last chunk of ATST-Clip counts only above so many frames."""
_TABLE = AudioViTSize(
    patch=(64, 4), grid=(1, 250), positions="table", cls=True, qkv_bias=False, patch_name="patch_embed"
)
CLIP_SIZE = _TABLE
FRAME_SIZE = replace(_TABLE, cls=False, norm="norm_frame")

TokenAverage = Literal["reference", "chunk"]
Encoder = TypeVar("Encoder", bound=AudioViT)


class AtstClip(AudioViT):
    """ATST-Clip: class token and mean of the patch tokens of the last block."""

    def __init__(self, size: AudioViTSize = CLIP_SIZE) -> None:
        super().__init__(size)
        # Of the pre-training; it is in the published files.
        self.mask_embed = nn.Parameter(torch.zeros(1, 1, size.dim), requires_grad=False)

    def clip_embedding(self, x: Tensor, average: TokenAverage = "reference") -> Tensor:
        """Return ``[B, 2 D]`` of a normalised log-mel ``[B, 1, 64, frames]``: the mean over chunks of 601 frames.

        average: ``reference`` divides the sum of a chunk's tokens by the number of tokens from its beginning to the
            clip's end, as the published code does, so that all chunks but the last one count for less than a mean;
            ``chunk`` by the chunk's own number.
        """
        frames, width = x.shape[3], self.size.patch[1]
        found = []
        for begin in range(0, max(frames, 1), CLIP_FRAMES):
            rest = frames - begin
            if begin and rest <= _SHORTEST_REST:
                break
            tokens = self(x[..., begin : begin + CLIP_FRAMES])[0]
            patches = tokens.shape[1] - 1
            divisor = max(rest // width, 1) if average == "reference" else patches
            found.append(torch.cat([tokens[:, 0], tokens[:, 1:].sum(1) / divisor], dim=1))
        return torch.stack(found).mean(0)


class AtstFrame(AudioViT):
    """ATST-Frame: the patch tokens of every block."""

    def __init__(self, size: AudioViTSize = FRAME_SIZE) -> None:
        super().__init__(size)
        self.mask_embed = nn.Parameter(torch.zeros(1, 1, size.dim), requires_grad=False)

    def chunks(self, x: Tensor) -> list[Tensor]:
        """Return the tokens ``[B, T', depth * D]`` of each chunk of 1001 frames of ``[B, 1, 64, frames]``.

        Each block's output passes the final norm. A rest of fewer frames than a patch gives no chunk.
        """
        layers, width = tuple(range(len(self.blocks))), self.size.patch[1]
        pieces = x.split(FRAME_FRAMES, dim=3)
        return [
            torch.cat(self(piece, layers), dim=2) for n, piece in enumerate(pieces) if not n or piece.shape[3] >= width
        ]


_PREFIXES = ("model.teacher.encoder.", "teacher.encoder.", "module.backbone.", "backbone.", "module.", "encoder.", "")


def teacher(state: Mapping[str, Tensor], norm: str, what: str = "") -> dict[str, Tensor]:
    """Return the encoder's tensors under their own names, of any form in which ATST's checkpoints are published.

    norm: name of the final norm. Forms: the bare encoder; a DINO-style teacher (``module.backbone.``); Lightning's
    ``model.teacher.encoder.``: the teacher is what the authors evaluate. Raises :class:`UserError` for others.
    """
    for prefix in _PREFIXES:
        found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if f"{norm}.weight" in found and "patch_embed.patch_embed.weight" in found:
            return found
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    beside = f"{norm}.weight beside patch_embed.patch_embed.weight"
    raise UserError(of_another_model("this ATST model", (beside,), shapes, what))


def load_atst(build: Callable[[AudioViTSize], Encoder], size: AudioViTSize, weights: str) -> tuple[Encoder, str]:
    """Return the encoder that a published file holds, its size read from the tensors, and the file's SHA-256."""
    state, sha = read_checkpoint(weights, wrappers=("state_dict", "teacher", "model"))
    state = teacher(state, size.norm, f"in '{weights}'")
    depth = 1 + max((int(key.split(".")[1]) for key in state if key.startswith("blocks.")), default=0)
    size = replace(size, dim=len(state["patch_embed.patch_embed.weight"]), depth=depth)
    encoder = unfilled(lambda: build(size))
    load_exactly(encoder, state, ignore=("head.", "projector.", "predictor."), what=f"in '{weights}'")
    return encoder, sha


def random_atst(build: Callable[[AudioViTSize], Encoder], size: AudioViTSize, depth: int, seed: int) -> Encoder:
    """Return an untrained encoder, seeded."""
    if depth < 1:
        raise UserError(f"--depth must be 1 or more, not {depth}")
    encoder = unfilled(lambda: build(replace(size, depth=depth)))
    initialise(encoder, seed)
    return encoder
