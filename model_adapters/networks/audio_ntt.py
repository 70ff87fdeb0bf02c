"""BYOL-A's small convolutional network, AudioNTT2020 (v1) and its successor of 2022 (v2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evar.errors import UserError
from model_adapters.networks.checkpoints import require
from model_adapters.networks.dense import linear

CHANNELS = 64
_CONV_NUMBERS = 6_000_000
"""Numbers in the first convolution's output for the clips that pass a CPU at once. At 24 MB the allocator hands the
same memory out again; above 32 MB it asks the system for fresh zeroed pages each time, which doubled the time."""
_DENSE_NUMBERS = 8_000_000


@dataclass(frozen=True)
class AudioNTTSize:
    """Size of the network: v1 has three convolution blocks, v2 two, and puts their output beside the dense layers'."""

    blocks: int = 3
    hidden: int = 2048
    out: int = 2048
    n_mels: int = 64

    @property
    def conv_dim(self) -> int:
        """Length of the convolutions' output at one time step."""
        return CHANNELS * (self.n_mels >> self.blocks)

    @property
    def dim(self) -> int:
        """Length of the embedding."""
        return self.out + (self.conv_dim if self.blocks == 2 else 0)


def tidy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the network's tensors under their own names, whatever prefix a training program gave them."""
    marker = "features.0.weight"
    prefix = next((key[: -len(marker)] for key in state if key.endswith(marker)), "")
    names = {key: key[len(prefix) :] for key in state if key.startswith(prefix)}
    return {name: state[key] for key, name in names.items() if name.startswith(("features.", "fc."))}


def size_of(state: Mapping[str, Tensor], what: str = "", whole: Mapping[str, Tensor] | None = None) -> AudioNTTSize:
    """Return the size of the network ``state`` was saved from; raise :class:`UserError` if it is another network."""
    needed = ("features.0.weight", "features.4.weight", "fc.0.weight", "fc.3.weight")
    require(state, needed, "BYOL-A", what, whole)
    blocks = 3 if "features.8.weight" in state else 2
    hidden, conv_dim = state["fc.0.weight"].shape
    size = AudioNTTSize(blocks, hidden, len(state["fc.3.weight"]), conv_dim // CHANNELS << blocks)
    if size.n_mels != 64:
        raise UserError(f"these BYOL-A weights take {size.n_mels} mel bands; the front end here has 64")
    return size


class AudioNTT(nn.Module):
    """Convolution blocks over log-mel, then two dense layers per time step. Names are the published checkpoints'."""

    def __init__(self, size: AudioNTTSize) -> None:
        super().__init__()
        self.size = size
        layers: list[nn.Module] = []
        for i in range(size.blocks):
            convolution = nn.Conv2d(CHANNELS if i else 1, CHANNELS, 3, padding=1)
            layers += [convolution, nn.BatchNorm2d(CHANNELS), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.fc = nn.Sequential(
            nn.Linear(size.conv_dim, size.hidden),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(size.hidden, size.out),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return frame embeddings ``[B, T', D]`` of a standardised log-mel ``[B, n_mels, T]``, T' = T // 8 (v2: 4).

        Evaluation without gradients takes a faster way to the same numbers (:meth:`fast`).
        """
        if not self.training and not torch.is_grad_enabled():
            return self.fast(x)
        # Mel bands outside, channels inside: the order in which the dense layers expect them.
        conv = self.features(x[:, None]).permute(0, 3, 2, 1).flatten(2)
        return self._join(conv, self.fc(conv))

    def _join(self, conv: Tensor, dense: Tensor) -> Tensor:
        return torch.cat([conv, dense], dim=2) if self.size.blocks == 2 else dense

    def fast(self, x: Tensor) -> Tensor:
        """Return what ``forward`` returns in evaluation mode, to rounding.

        Batch norm is folded into the convolutions; time takes the image's height and channels lie innermost, so that
        the dense layers read the convolutions' memory as it is; the pooling comes before the ReLU, with which it
        commutes; clips pass in groups that fit the allocator's free lists (CPU).
        """
        folded = [self._folded(4 * i) for i in range(self.size.blocks)]
        clips = len(x)
        if x.device.type == "cpu":
            clips = max(1, _CONV_NUMBERS // max(1, x[0].numel() * CHANNELS)) if clips else 1
        pieces = [_convolve(piece.transpose(1, 2), folded) for piece in x.split(max(clips, 1))]
        conv = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        rows = conv.flatten(0, 1)
        at_once = len(rows) if x.device.type != "cpu" else _DENSE_NUMBERS // self.size.hidden
        dense = [self._dense(piece) for piece in rows.split(max(at_once, 1))]
        return self._join(conv, (dense[0] if len(dense) == 1 else torch.cat(dense)).unflatten(0, conv.shape[:2]))

    def _folded(self, index: int) -> tuple[Tensor, Tensor]:
        convolution, norm = self.features[index], self.features[index + 1]
        assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        assert norm.running_var is not None and norm.running_mean is not None and convolution.bias is not None
        gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
        weight = (convolution.weight * gain[:, None, None, None]).transpose(2, 3)
        bias = (convolution.bias - norm.running_mean) * gain + norm.bias
        return weight.contiguous(memory_format=torch.channels_last), bias

    def _dense(self, rows: Tensor) -> Tensor:
        first, second = self.fc[0], self.fc[3]
        assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
        hidden = linear(rows, first.weight, first.bias).relu_()
        return linear(hidden, second.weight, second.bias).relu_()


def _convolve(x: Tensor, folded: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the convolutions' output ``[B, T', n_mels' * C]`` of ``[B, T, n_mels]``."""
    y = x.contiguous()[..., None].permute(0, 3, 1, 2)
    for weight, bias in folded:
        y = F.conv2d(y, weight, bias, padding=1)
        time, mels = y.shape[2] // 2 * 2, y.shape[3] // 2 * 2
        # Pairwise maxima: torch's max_pool2d took 20 to 100 times as long on this memory layout.
        y = torch.maximum(y[:, :, 0:time:2], y[:, :, 1:time:2])
        y = torch.maximum(y[..., 0:mels:2], y[..., 1:mels:2]).relu_()
    return y.permute(0, 2, 3, 1).flatten(2)
