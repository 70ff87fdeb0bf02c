"""aiSFX (Ma and Lerch, ISMIR 2022): front end, network and checkpoint. Parameter names are the checkpoint's.

The front end is Essentia's mel spectrogram with the paper's settings, from Essentia's documentation and checked against
its output (within 3e-6): Essentia itself is not needed. Nothing of the ``aisfx`` package's code is used, whose own
dependencies are pinned to versions of 2022; only the weights that it carries are read.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evar.errors import UserError
from model_adapters.networks.checkpoints import find_checkpoint, read_checkpoint, read_content, sha256_of
from model_adapters.networks.cnn14 import ConvBlock
from model_adapters.networks.conv_common import in_pieces
from model_adapters.networks.mel_filters import mel_filters

RATE, WINDOW, HOP, BANDS = 44100, 2048, 1024, 96
BLOCK, BLOCK_HOP = 100, 50
"""Frames that the network hears at once (2.3 s), and from one such block to the next."""
LARGEST = 9.457798957824707
"""The largest value in the training set's spectrograms: they are divided by it."""
SHA256 = "499ea75909c932a2f94c35fa722fa4fabc5bcb7e84917209cc5f7402627b7eb5"
DIM = 512


class AisfxLogMel(nn.Module):
    """Waveforms ``[B, T]`` at 44.1 kHz to log-mels ``[B, 96, 1 + ceil(T / 1024)]``: log10(1 + 10000 p) / 9.458.

    Frames are centred on multiples of 1024 samples, zeros beyond the ends; the triangles of the 96 bands are drawn over
    the mel axis (HTK's scale) and their weights sum to 1.
    """

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        filters = mel_filters("kaldi", RATE, WINDOW, BANDS, 0.0, RATE / 2)
        self.register_buffer("window", torch.hann_window(WINDOW, periodic=False), persistent=False)
        self.register_buffer("filters", filters / filters.sum(dim=0), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return the log-mels of float waveforms, in float32 under autocast, too."""
        frames = 1 - (-waveforms.shape[1] // HOP)
        end = (frames - 1) * HOP + WINDOW - WINDOW // 2 - waveforms.shape[1]
        with torch.autocast(waveforms.device.type, enabled=False):
            padded = F.pad(waveforms.float(), (WINDOW // 2, end))
            spectrum = torch.stft(padded, WINDOW, HOP, window=self.window, center=False, return_complex=True)
            power = torch.view_as_real(spectrum).square().sum(dim=-1)
            return torch.log10(1.0 + 1e4 * (power.transpose(1, 2) @ self.filters)).transpose(1, 2) / LARGEST


class AisfxNet(nn.Module):
    """Log-mels ``[B, 1, 96, T]`` to embeddings ``[B, 512]`` of one block each."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.width, self.dim = width, 8 * width
        widths = [1, *(width << i for i in range(4))]
        for i in range(4):
            self.add_module(f"conv_block{i + 1}", ConvBlock(widths[i], widths[i + 1], 1))

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return ``[B, 8 · width]``: the mean over frequency, then the maximum over time."""
        return in_pieces(self._embed, log_mel, log_mel[:1].numel() * self.width)

    def _embed(self, log_mel: Tensor) -> Tensor:
        x = log_mel.transpose(2, 3)
        for i in range(4):
            x = self.get_submodule(f"conv_block{i + 1}")(x)
            x = F.max_pool2d(x, 2) if i < 3 else x
        return x.mean(dim=3).amax(dim=2)


def blocks_of(log_mel: Tensor) -> Tensor:
    """Return the blocks ``[B, N, 96, 100]`` of a log-mel ``[B, 96, T]``, each begun 50 frames after the last.

    What is left after the last whole block (less than 50 frames) is not heard; a clip shorter than one is zero-padded.
    """
    if (short := BLOCK - log_mel.shape[2]) > 0:
        log_mel = F.pad(log_mel, (0, short))
    return log_mel.unfold(2, BLOCK, BLOCK_HOP).transpose(1, 2)


def packaged_weights() -> str:
    """Return the checkpoint's path in the installed ``aisfx`` package, whose code is not run."""
    found = importlib.util.find_spec("aisfx")
    path = Path(next(iter(found.submodule_search_locations or [""]))) / "models" / "checkpoint.pth" if found else None
    if path is None or not path.is_file():
        raise UserError(
            "the weights of aisfx are not installed: pip install --no-deps aisfx==0.1.2 (its pinned dependencies are "
            "not needed), or --weights=PATH, or --weights=random"
        )
    return str(path)


def read_weights(path: str) -> tuple[dict[str, Tensor], str]:
    """Return the network's weights by name, without the classifiers of its training sets, and the file's SHA-256.

    The published file is a pair: the weights, and how many classes each training set has.
    """
    file = find_checkpoint(path)
    content = read_content(file)
    if isinstance(content, tuple) and content and isinstance(content[0], Mapping):
        state, sha256 = dict(content[0]), sha256_of(file)
    else:
        state, sha256 = read_checkpoint(file)
    prefix = "embedding_net."
    return {key.removeprefix(prefix): value for key, value in state.items() if not key.startswith("fc.")}, sha256
