"""The network of PaSST (Koutini et al., Interspeech 2022): overlapping patches, positions by time and by pitch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evar.errors import UserError
from model_adapters.networks.checkpoints import require
from model_adapters.networks.vit import Block, initialise

_NUMBERS_AT_ONCE = 8_000_000
"""Numbers in the MLP's hidden layer of the clips that pass a CPU at once."""


@dataclass(frozen=True)
class PasstSize:
    """Size of the network; the defaults are those of passt_s with stride 10, made for ten seconds."""

    dim: int = 768
    depth: int = 12
    mlp_dim: int = 3072
    patch: int = 16
    stride: int = 10
    rows: int = 12
    """Patches along the frequency."""
    columns: int = 99
    """The most patches along the time."""
    classes: int = 527

    @property
    def bands(self) -> int:
        """Mel bands that fill the rows."""
        return self.patch + (self.rows - 1) * self.stride

    @property
    def frames(self) -> int:
        """The fewest frames that fill the columns."""
        return self.patch + (self.columns - 1) * self.stride


class Patches(nn.Module):
    """Overlapping patches to a grid of tokens."""

    def __init__(self, size: PasstSize) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, size.dim, size.patch, size.stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, D, F, T]`` of ``[B, 1, bands, frames]``."""
        return self.proj(x)


class PasstNetwork(nn.Module):
    """Standardised log-mels to the mean of the class and the distillation token, and that to class scores."""

    def __init__(self, size: PasstSize) -> None:
        super().__init__()
        if size.dim % 64:
            raise UserError(f"PaSST's width must be divisible by 64, not {size.dim}")
        self.size = size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.new_pos_embed = nn.Parameter(torch.zeros(1, 2, size.dim))
        self.freq_new_pos_embed = nn.Parameter(torch.zeros(1, size.dim, size.rows, 1))
        self.time_new_pos_embed = nn.Parameter(torch.zeros(1, size.dim, 1, size.columns))
        self.patch_embed = Patches(size)
        self.blocks = nn.ModuleList(Block(size.dim, size.dim // 64, size.mlp_dim, eps=1e-6) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.dim, eps=1e-6)
        self.head = nn.Sequential(nn.LayerNorm(size.dim), nn.Linear(size.dim, size.classes))
        # Trained along and published, but no part of the published outputs.
        self.head_dist = nn.Linear(size.dim, size.classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two tokens' mean ``[B, D]`` and the patches' tokens ``[B, F, T, D]``, all normalised.

        x: standardised log-mels ``[B, 1, bands, frames]`` of at least one patch; frames beyond the table of positions
            are left out.
        """
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return self._tokens(x)
        numbers = (2 + self.size.rows * (x.shape[3] // self.size.stride)) * self.size.mlp_dim
        pieces = [self._tokens(piece) for piece in x.split(max(1, _NUMBERS_AT_ONCE // numbers))]
        means, patches = zip(*pieces, strict=True)
        return torch.cat(means), torch.cat(patches)

    def _tokens(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size = self.size
        grid = self.patch_embed(x[..., : size.frames + size.stride - 1])
        columns = grid.shape[3]
        grid = grid + self.time_new_pos_embed[..., :columns] + self.freq_new_pos_embed
        first = torch.cat([self.cls_token, self.dist_token], dim=1) + self.new_pos_embed
        tokens = torch.cat([first.expand(len(x), -1, -1), grid.flatten(2).transpose(1, 2)], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        return tokens[:, :2].mean(1), tokens[:, 2:].unflatten(1, (size.rows, columns))


def initialise_passt(network: PasstNetwork, seed: int) -> None:
    """Fill a network with seeded random weights."""
    initialise(network, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("_token", "pos_embed")):
                parameter.normal_(0.0, 0.02, generator=generator)


def tidy(raw: Mapping[str, Tensor], what: str = "") -> dict[str, Tensor]:
    """Return the network's tensors; a prefix that a training wrapper put before every name is taken off."""
    marker = "time_new_pos_embed"
    prefix = next((key.removesuffix(marker) for key in raw if key.endswith(marker)), None)
    if prefix is None:
        require(raw, (marker,), "PaSST", what)
        prefix = ""
    return {key.removeprefix(prefix): value for key, value in raw.items() if key.startswith(prefix)}


def size_of(state: Mapping[str, Tensor], stride: int) -> PasstSize:
    """Return the size of the network that tidied tensors belong to; the patches' stride is not in them."""
    needed = ("patch_embed.proj.weight", "freq_new_pos_embed", "head.1.weight", "blocks.0.mlp.fc1.weight")
    if absent := [name for name in needed if name not in state]:
        raise UserError(f"these PaSST weights are incomplete or of another form: {', '.join(absent)} not among them")
    patches = state["patch_embed.proj.weight"]
    return PasstSize(
        dim=patches.shape[0],
        depth=len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
        mlp_dim=len(state["blocks.0.mlp.fc1.weight"]),
        patch=patches.shape[2],
        stride=stride,
        rows=state["freq_new_pos_embed"].shape[2],
        columns=state["time_new_pos_embed"].shape[3],
        classes=len(state["head.1.weight"]),
    )
