"""Residual networks over spectrograms: Wav2CLIP's ResNet-18 and AudioCLIP's ESResNeXt-50 with attention.

He et al., CVPR 2016; Xie et al., CVPR 2017; Guzhov et al., "ESResNet", ICPR 2020 and "ESResNe(X)t-fbsp", IJCNN 2021.
Parameter names are the published checkpoints'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STAGES = 4


def _shortcut(channels: int, out: int, stride: int) -> nn.Sequential | None:
    if channels == out and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


class Basic(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = _shortcut(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, out, H / stride, W / stride]`` of ``[B, channels, H, W]``."""
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu_()))
        return (y + (x if self.downsample is None else self.downsample(x))).relu_()


class Bottleneck(nn.Module):
    """1×1, grouped 3×3 and 1×1 convolutions beside a shortcut; half as wide inside as outside (32 groups of 4)."""

    GROUPS = 32

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        inner = out // 2
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=self.GROUPS, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = _shortcut(channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, out, H / stride, W / stride]`` of ``[B, channels, H, W]``."""
        y = self.bn1(self.conv1(x)).relu_()
        y = self.bn2(self.conv2(y)).relu_()
        y = self.bn3(self.conv3(y))
        return (y + (x if self.downsample is None else self.downsample(x))).relu_()


class Attention(nn.Module):
    """Weights between 0 and 1 for a stage's output, from its input: depthwise and 1×1 convolution, batch norm."""

    def __init__(self, channels: int, out: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv_depth = nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels)
        self.conv_point = nn.Conv2d(channels, out, 1)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Return weights ``[B, out, *size]`` of ``x [B, channels, H, W]``."""
        x = F.adaptive_max_pool2d(x, (size[0], size[1]))
        return torch.sigmoid(self.bn(self.conv_point(self.conv_depth(x))))


class ResNet(nn.Module):
    """Stem, four stages, average over the plane: images ``[B, C, H, W]`` to ``[B, D]``.

    Parameters
    ----------
    channels: of the image.
    kind: ``basic`` (ResNet-18's blocks, D = 8 · width) or ``bottleneck`` (ResNeXt's, D = 32 · width).
    depths: blocks per stage.
    attention: a branch of attention beside every stage and the average.
    width: channels after the stem; 64 in the published networks.
    """

    _KERNELS = ((3, 1), (1, 5), (3, 1), (1, 5), (3, 5))

    def __init__(
        self,
        channels: int,
        kind: Literal["basic", "bottleneck"],
        depths: Sequence[int],
        attention: bool = False,
        width: int = 64,
    ) -> None:
        super().__init__()
        block, widest = (Basic, 8 * width) if kind == "basic" else (Bottleneck, 32 * width)
        self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.dim, self.width, self.attention, self.depths = widest, width, attention, tuple(depths)
        for stage in range(STAGES):
            out = widest >> (STAGES - 1 - stage)
            blocks = [block(width if n == 0 else out, out, 2 if stage and n == 0 else 1) for n in range(depths[stage])]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            if attention:
                self.add_module(f"att{stage + 1}", Attention(width, out, self._KERNELS[stage]))
            width = out
        if attention:
            self.att5 = Attention(width, width, self._KERNELS[STAGES])

    def forward(self, image: Tensor) -> Tensor:
        """Return ``[B, D]``."""
        x = F.max_pool2d(self.bn1(self.conv1(image)).relu_(), 3, 2, 1)
        for stage in range(1, STAGES + 1):
            y = self.get_submodule(f"layer{stage}")(x)
            x = y * self.get_submodule(f"att{stage}")(x, y.shape[2:]) if self.attention else y
        mean = x.mean((2, 3), keepdim=True)
        return (mean * self.att5(x, (1, 1)) if self.attention else mean).flatten(1)


def depths_of(names: Iterable[str]) -> tuple[int, ...]:
    """Return how many blocks each stage has, from the names of a checkpoint's tensors."""
    found = [re.match(r"layer(\d)\.(\d+)\.", name) for name in names]
    blocks = [(int(m[1]), int(m[2])) for m in found if m]
    return tuple(1 + max((n for stage, n in blocks if stage == wanted), default=0) for wanted in range(1, STAGES + 1))
