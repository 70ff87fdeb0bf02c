"""Matrix products on the CPU by the faster of the two libraries in torch."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Network = TypeVar("Network", bound=nn.Module)
_FEW_ROWS = 256
_ROWS_PER_IMAGE = range(64, 7, -1)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight.T + bias``, like ``torch.nn.functional.linear``; ``x [..., K]``, ``weight [N, K]``.

    In float32 on a CPU with AVX-512, the product (and its gradients) are written as a 1x1 convolution, which torch
    hands to oneDNN, where ``linear`` goes to MKL. MKL does not use AVX-512 on AMD: measured on two EPYC threads 450
    against 207 GFLOP/s (1528 x 768 x 3072). The results differ by rounding (7e-6 at outputs of about 1).
    """
    if not _by_convolution(x, weight):
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    images, size = _images(len(rows))
    main = images * size
    pixels = rows[:main].view(images, size, 1, x.shape[-1]).permute(0, 3, 1, 2)
    out = F.conv2d(pixels, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(main, len(weight))
    if main < len(rows):
        out = torch.cat([out, F.linear(rows[main:], weight, bias)])
    return out.view(*x.shape[:-1], len(weight))


def _by_convolution(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() >= _FEW_ROWS * x.shape[-1]
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


def _images(rows: int) -> tuple[int, int]:
    """Into how many images of how many rows each they are cut, so that torch takes oneDNN and few rows are left over.

    On one thread torch gives 1x1 convolutions to oneDNN only for 16 images or more.
    """
    if torch.get_num_threads() > 1:
        return 1, rows
    size = min((size for size in _ROWS_PER_IMAGE if rows // size >= 16), key=lambda size: rows % size)
    return rows // size, size


class Linear(nn.Linear):
    """A linear layer that takes the faster library (see :func:`linear`)."""

    def forward(self, input: Tensor) -> Tensor:
        """Return ``[..., out]`` of ``[..., in]``."""
        return linear(input, self.weight, self.bias)


def take_faster(network: Network) -> Network:
    """Let the linear layers of another package's network compute by :func:`linear`; return the network."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
    return network
