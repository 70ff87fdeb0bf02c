"""CNN14, the convolutional AudioSet tagger of PANNs (Kong et al., IEEE/ACM TASLP 28, 2020), also MS-CLAP 2022's tower.

Parameter names are the published checkpoints'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from evar.errors import UserError
from model_adapters.networks.checkpoints import require
from model_adapters.networks.cnn_frontends import DbLogMel
from model_adapters.networks.conv_common import in_pieces
from model_adapters.networks.frontends import PANNS_16K, PANNS_32K, SpectrogramSpec

BLOCKS = 6
SHORTEST = 32
"""Frames of log-mel that give one step of the network, after five halvings."""


@dataclass(frozen=True)
class Cnn14Size:
    """Size of the network: front end, channels of the first block (the published ones: 64), classes."""

    spec: SpectrogramSpec
    width: int = 64
    classes: int = 527

    @property
    def dim(self) -> int:
        """Length of the embedding."""
        return self.width << (BLOCKS - 1)


class ConvBlock(nn.Module):
    """Twice: 3×3 convolution, batch norm, ReLU; then an average over 2×2 (or not)."""

    def __init__(self, channels: int, out: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, out, T // pool, F // pool]`` of ``[B, channels, T, F]``."""
        x = self.bn1(self.conv1(x)).relu_()
        x = self.bn2(self.conv2(x)).relu_()
        return F.avg_pool2d(x, self.pool) if self.pool > 1 else x


class Cnn14(DbLogMel):
    """Front end and network: waveforms ``[B, T]`` to embeddings ``[B, 32 · width]``."""

    def __init__(self, size: Cnn14Size) -> None:
        super().__init__(size.spec)
        self.size = size
        self.bn0 = nn.BatchNorm2d(size.spec.n_mels)
        widths = [1, *(size.width << i for i in range(BLOCKS))]
        for i in range(BLOCKS):
            self.add_module(f"conv_block{i + 1}", ConvBlock(widths[i], widths[i + 1], 2 if i < BLOCKS - 1 else 1))
        self.fc1 = nn.Linear(size.dim, size.dim)
        self.fc_audioset = nn.Linear(size.dim, size.classes)

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Return the log-mel ``[B, 1, F, T]``, each band standardised by the statistics seen in pre-training."""
        log_mel = self(waveforms, SHORTEST)[:, :, None]  # [B, F, 1, T]: bands as channels
        bn = self.bn0
        # Never with the batch's own statistics, not even in fine-tuning: it is the first stage, before augmentation.
        log_mel = F.batch_norm(log_mel, bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0.0, bn.eps)
        return log_mel.transpose(1, 2)

    def frames(self, log_mel: Tensor) -> Tensor:
        """Return ``[B, T // 32, D]``, the mean over frequency of the last block, of a log-mel ``[B, 1, F, T]``."""
        return in_pieces(self._frames, log_mel, log_mel[:1].numel() * self.size.width)

    def _frames(self, log_mel: Tensor) -> Tensor:
        x = log_mel.transpose(2, 3)
        for i in range(BLOCKS):
            x = self.get_submodule(f"conv_block{i + 1}")(x)
        return x.mean(3).transpose(1, 2)

    def encode(self, log_mel: Tensor) -> Tensor:
        """Return ``[B, D]`` of a standardised log-mel: maximum plus mean over time, then a dense layer with ReLU."""
        frames = self.frames(log_mel)
        return F.relu(self.fc1(frames.amax(1) + frames.mean(1)))

    def probabilities(self, embeddings: Tensor) -> Tensor:
        """Return the classes' probabilities ``[B, classes]`` of embeddings ``[B, D]``."""
        return self.fc_audioset(embeddings).float().sigmoid()


def size_of(
    state: Mapping[str, Tensor],
    spec: SpectrogramSpec | None = None,
    what: str = "",
    *,
    model: str = "a CNN14 of PANNs",
    whole: Mapping[str, Tensor] | None = None,
) -> Cnn14Size:
    """Return the size of the network ``state`` was saved from; without ``spec``, PANNs' of the stored transform.

    what, model, whole: the file, the model of which the network is a part, all of its tensors: for the message.
    """
    needed = ("logmel_extractor.melW", "fc1.weight", "fc_audioset.weight")
    require(state, needed, model, what, whole)
    n_fft = 2 * (len(state["logmel_extractor.melW"]) - 1)
    known = {s.n_fft: s for s in (PANNS_16K, PANNS_32K)}
    found = spec if spec is not None else known.get(n_fft)
    if found is None:
        raise UserError(f"these CNN14 weights have a transform of {n_fft} samples; known: 512 (16 kHz), 1024 (32 kHz)")
    return Cnn14Size(found, len(state["fc1.weight"]) >> (BLOCKS - 1), len(state["fc_audioset.weight"]))
