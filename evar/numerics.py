"""What kind of numbers a GPU computes with."""

from __future__ import annotations

import torch


def full_float32() -> None:
    """Let convolutions compute in whole float32, as matrix products do by default: TF32 rounds them to ten bits.

    PyTorch's default would make an embedding depend on which command asked for it.
    """
    torch.backends.cudnn.allow_tf32 = False
