"""The network of BEATs and OpenBEATs (Chen et al., ICML 2023): post-norm transformer, gated relative positions.

Patches of a log-mel become tokens in order of time (all frequencies of a time step side by side). DeepNorm scales the
residual path (Wang et al., 2022); one table of relative positions, T5-style buckets (Raffel et al., 2020), is shared by
all blocks, and a gate computed from each query scales it (WavLM: Chen et al., 2022). Names are the checkpoints'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_adapters.networks.dense import Linear
from model_adapters.networks.vit import initialise

_NUMBERS_AT_ONCE = {"cpu": 8_000_000, "other": 256_000_000}
"""Numbers in the gated position biases ``[B, heads, N, N]`` (or the MLP's hidden layer, if those are more) of the clips
that pass at once without gradients."""
_GATE_OUTPUTS = 8


@dataclass(frozen=True)
class BeatsSize:
    """Size and constants of a network; the defaults are iter3's and iter3+'s."""

    dim: int = 768
    depth: int = 12
    heads: int = 12
    mlp_dim: int = 3072
    patch: int = 16
    patch_dim: int = 512
    conv_width: int = 128
    conv_groups: int = 16
    buckets: int = 320
    max_distance: int = 800
    deep_norm: bool = True
    classes: int = 0
    """Outputs of the tagging head; 0 for none."""

    @property
    def alpha(self) -> float:
        """What DeepNorm multiplies the residual path by."""
        return (2.0 * self.depth) ** 0.25 if self.deep_norm else 1.0


def relative_buckets(offsets: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Return the bucket of each offset (key's place minus query's): half of them to either side.

    A quarter of all buckets is for one exact distance each; the next quarter widens logarithmically up to
    ``max_distance``, and everything beyond shares the last bucket.
    """
    side, exact = buckets // 2, buckets // 4
    distance = offsets.abs()
    growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (growth * (side - exact)).long()).clamp(max=side - 1)
    return torch.where(distance < exact, distance, far) + side * (offsets > 0).long()


class PositionConv(nn.Module):
    """A wide grouped convolution over the tokens, its weights normalised over all but the kernel's axis."""

    def __init__(self, size: BeatsSize) -> None:
        super().__init__()
        self.groups, self.width = size.conv_groups, size.conv_width
        self.bias = nn.Parameter(torch.zeros(size.dim))
        self.weight_g = nn.Parameter(torch.ones(1, 1, size.conv_width))
        self.weight_v = nn.Parameter(torch.zeros(size.dim, size.dim // size.conv_groups, size.conv_width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the positions' part ``[B, N, D]`` of tokens ``[B, N, D]``."""
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))
        out = F.conv1d(x.transpose(1, 2), weight, self.bias, padding=self.width // 2, groups=self.groups)
        return F.gelu(out[..., : x.shape[1]]).transpose(1, 2)


class GatedAttention(nn.Module):
    """Multi-head self-attention with a relative position bias that every query scales for itself."""

    def __init__(self, size: BeatsSize, table: nn.Embedding) -> None:
        super().__init__()
        self.heads = size.heads
        self.k_proj = Linear(size.dim, size.dim)
        self.v_proj = Linear(size.dim, size.dim)
        self.q_proj = Linear(size.dim, size.dim)
        self.out_proj = Linear(size.dim, size.dim)
        self.grep_linear = nn.Linear(size.dim // size.heads, _GATE_OUTPUTS)
        self.grep_a = nn.Parameter(torch.ones(1, size.heads, 1, 1))
        self.relative_attention_bias = table

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return ``[B, N, D]`` of tokens ``[B, N, D]`` and the positions' bias ``[heads, N, N]``."""
        q, k, v = (p(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        gate = self.grep_linear(q).unflatten(3, (2, -1)).sum(4).sigmoid()
        scale = gate[..., :1] * (gate[..., 1:] * self.grep_a - 1.0) + 2.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=(scale * bias).to(q.dtype))
        return self.out_proj(out.transpose(1, 2).flatten(2))


class BeatsBlock(nn.Module):
    """A post-norm transformer block with a scaled residual path."""

    def __init__(self, size: BeatsSize, table: nn.Embedding) -> None:
        super().__init__()
        self.alpha = size.alpha
        self.self_attn = GatedAttention(size, table)
        self.self_attn_layer_norm = nn.LayerNorm(size.dim)
        self.fc1 = Linear(size.dim, size.mlp_dim)
        self.fc2 = Linear(size.mlp_dim, size.dim)
        self.final_layer_norm = nn.LayerNorm(size.dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return ``[B, N, D]`` of tokens ``[B, N, D]`` and the positions' bias ``[heads, N, N]``."""
        x = self.self_attn_layer_norm(self.alpha * x + self.self_attn(x, bias))
        return self.final_layer_norm(self.alpha * x + self.fc2(F.gelu(self.fc1(x))))


class BeatsEncoder(nn.Module):
    """The blocks, and the convolution that gives them positions."""

    def __init__(self, size: BeatsSize) -> None:
        super().__init__()
        self.size = size
        self.pos_conv = nn.Sequential(PositionConv(size))
        table = nn.Embedding(size.buckets, size.heads)
        self.layers = nn.ModuleList(BeatsBlock(size, table) for _ in range(size.depth))
        self.layer_norm = nn.LayerNorm(size.dim)

    def position_bias(self, tokens: int) -> Tensor:
        """Return the table's values ``[heads, N, N]`` for every query (row) and key (column)."""
        offsets = torch.arange(1 - tokens, tokens, device=self.layer_norm.weight.device)
        buckets = relative_buckets(offsets, self.size.buckets, self.size.max_distance)
        first = self.layers[0]
        assert isinstance(first, BeatsBlock)
        table = first.self_attn.relative_attention_bias  # the same in all blocks
        # Query i sees keys from offset -i on: windows of the row of offsets, the last one first.
        return table(buckets).T.unfold(1, tokens, 1).flip(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens ``[B, N, D]`` of tokens ``[B, N, D]``."""
        x = self.layer_norm(x + self.pos_conv(x))
        bias = self.position_bias(x.shape[1])
        for layer in self.layers:
            x = layer(x, bias)
        return x


class BeatsNetwork(nn.Module):
    """Log-mels to tokens, and tokens to class scores where the checkpoint was fine-tuned for tagging."""

    def __init__(self, size: BeatsSize) -> None:
        super().__init__()
        self.size = size
        self.post_extract_proj = Linear(size.patch_dim, size.dim) if size.patch_dim != size.dim else None
        self.patch_embedding = nn.Conv2d(1, size.patch_dim, size.patch, size.patch, bias=False)
        self.encoder = BeatsEncoder(size)
        self.layer_norm = nn.LayerNorm(size.patch_dim)
        self.predictor = nn.Linear(size.dim, size.classes) if size.classes else None

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens ``[B, T * F, D]``, time step after time step, of standardised log-mels ``[B, frames, bands]``.

        Frames that do not fill a patch are left out.
        """
        if torch.is_grad_enabled():
            return self._tokens(x)
        tokens = (x.shape[1] // self.size.patch) * (x.shape[2] // self.size.patch)
        numbers = tokens * max(self.size.heads * tokens, self.size.mlp_dim)
        limit = _NUMBERS_AT_ONCE["cpu" if x.device.type == "cpu" else "other"]
        pieces = [self._tokens(piece) for piece in x.split(max(1, limit // max(1, numbers)))]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _tokens(self, x: Tensor) -> Tensor:
        tokens = self.layer_norm(self.patch_embedding(x[:, None]).flatten(2).transpose(1, 2))
        return self.encoder(tokens if self.post_extract_proj is None else self.post_extract_proj(tokens))


def initialise_beats(network: BeatsNetwork, seed: int) -> None:
    """Fill a network with seeded random weights: Xavier, and what keeps every part of it at work."""
    initialise(network, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        conv = network.encoder.pos_conv[0]
        assert isinstance(conv, PositionConv)
        conv.weight_v.normal_(0.0, 2.0 / math.sqrt(conv.width * len(conv.bias)), generator=generator)
        conv.weight_g.copy_(conv.weight_v.norm(dim=(0, 1), keepdim=True))
        for module in network.modules():
            if isinstance(module, GatedAttention):
                module.grep_a.fill_(1.0)
