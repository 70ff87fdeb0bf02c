"""AudioCLIP's audio tower: FBSP filters, ESResNeXt-50 with attention (Guzhov et al., IJCNN 2021 and ICASSP 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from model_adapters.networks import fbsp
from model_adapters.networks.checkpoints import require
from model_adapters.networks.conv_common import in_pieces
from model_adapters.networks.resnet import ResNet, depths_of

DEPTHS = (3, 4, 6, 3)


class EsResNeXt(ResNet):
    """Waveforms ``[B, T]`` at 44.1 kHz to 2048 features (``encode``), and those to the joint space (``fc``).

    full_scale: what samples are multiplied by, as the network was trained on 16-bit numbers: 32767 on the reference
        platform, 32768 where the golden values were made.
    """

    window: Tensor

    def __init__(
        self, outputs: int = 1024, depths: Sequence[int] = DEPTHS, width: int = 64, full_scale: float = 32767.0
    ) -> None:
        super().__init__(fbsp.CHANNELS, "bottleneck", depths, attention=True, width=width)
        self.fc = nn.Linear(self.dim, outputs)
        self.fbsp = fbsp.FbspBank()
        self.full_scale = full_scale
        self.register_buffer("window", fbsp.blackman_harris(fbsp.WINDOW))

    def image(self, waveforms: Tensor) -> Tensor:
        """Return the spectrum in dB as three-channel images ``[B, 3, 341, frames]``."""
        return self._image(waveforms, self.fbsp.kernels())

    def _image(self, waveforms: Tensor, kernels: Tensor) -> Tensor:
        with torch.autocast(waveforms.device.type, enabled=False):
            frames = fbsp.frames_of(fbsp.to_unit_range(waveforms.float(), self.full_scale))
            return fbsp.image(fbsp.power_spectrum(frames, self.window, kernels))

    def encode(self, waveforms: Tensor) -> Tensor:
        """Return ``[B, 2048]``."""
        kernels = self.fbsp.kernels()
        numbers = waveforms.shape[1] * 10  # the image's 1023 numbers per 561 samples, five times as many in a stage
        return in_pieces(lambda piece: self(self._image(piece, kernels)), waveforms, numbers)


def esresnext_of(
    state: Mapping[str, Tensor], what: str = "", whole: Mapping[str, Tensor] | None = None
) -> tuple[int, tuple[int, ...], int]:
    """Return outputs, blocks per stage and width of the network ``state`` was saved from.

    what, whole: the file, and all of its tensors: for the message of the :class:`UserError` if it is another network.
    """
    require(state, ("fbsp.fc", "fc.weight", "att1.conv_depth.weight"), "AudioCLIP", what, whole)
    return len(state["fc.weight"]), depths_of(state), len(state["att1.conv_depth.weight"])
