"""VGGish (Hershey et al., ICASSP 2017): a VGG over patches of 0.96 s. Names are those of the PyTorch port's file."""

from __future__ import annotations

from torch import Tensor, nn

_PLAN = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0)
"""Channels of the convolutions; 0 for a maximum over 2×2."""


class Vggish(nn.Module):
    """Patches ``[N, 1, 96, 64]`` to ``[N, 128]``, or to the 4096 features of the first dense layer.

    width: channels are divided by 64 / width, dense layers by (64 / width)²; 64 is the published network.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for planned in _PLAN:
            if not planned:
                layers.append(nn.MaxPool2d(2))
                continue
            out = planned * width // 64
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
            channels = out
        self.hidden = width * width
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(channels * 6 * 4, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, 128),
            nn.ReLU(),
        )

    def forward(self, patches: Tensor, dense: int = 3) -> Tensor:
        """Return what comes out of the first ``dense`` dense layers, each with its ReLU."""
        maps = self.features(patches).permute(0, 2, 3, 1)  # flattened as in TensorFlow: channels last
        return self.embeddings[: 2 * dense](maps.flatten(1))
