"""An audio side that hears windows: what HTS-AT and the CLAPs on it have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model_adapters.base import Adapter
from model_adapters.networks.frontends import Spectrogram
from model_adapters.networks.htsat import Htsat


class Windowed(Adapter):
    """A log-mel per window, an embedding per window, their mean per clip.

    Subclasses set ``front_end``, ``network`` and ``window_samples`` and write ``windows`` and ``encode_window``. The
    log-mels of a clip's windows lie one after the other in ``log_mel``; ``encode`` cuts there, so that ``embed`` is the
    one after the other. ``le_layer`` is the vector that linear evaluation gets, ``joint`` or ``encoder``.
    """

    front_end: Spectrogram
    network: Htsat
    window_samples: int
    le_layer: str = "encoder"

    def windows(self, waveforms: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return the windows of clips ``[B, T]``, each ``[B, samples]``."""
        raise NotImplementedError

    def encode_window(self, log_mel: Tensor, layer: str) -> Tensor:
        """Return the embeddings ``[B, D]`` of one window's log-mel ``[B, 1, n_mels, T]``."""
        raise NotImplementedError

    def pooled(self, vectors: Tensor, layer: str) -> Tensor:
        """Return ``[B, D]`` of the windows' ``[windows, B, D]``, which :meth:`encode_window` gave for ``layer``."""
        return vectors.mean(dim=0)

    def _log_mels(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        pieces = self.windows(waveforms, lengths)
        return self.network.standardise(torch.cat([self.front_end(piece) for piece in pieces], dim=2)[:, None])

    def _embedded(self, log_mel: Tensor, layer: str) -> Tensor:
        frames = self.front_end.frames(self.window_samples)
        vectors = [self.encode_window(piece, layer) for piece in log_mel.split(frames, dim=3)]
        return vectors[0] if len(vectors) == 1 else self.pooled(torch.stack(vectors), layer)

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Return the standardised log-mel ``[B, 1, n_mels, frames]`` of ``[B, T]``, one window after the other."""
        return self._log_mels(waveforms, torch.full((len(waveforms),), waveforms.shape[1]))

    def encode(self, log_mel: Tensor, patchout: float = 0.0) -> Tensor:
        """Return the clip embeddings ``[B, D]`` of :meth:`log_mel`'s result."""
        return self._embedded(log_mel, self.le_layer)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, D]`` for linear evaluation."""
        return self._embedded(self._log_mels(waveforms, lengths), self.le_layer)


def two_layers(in_dim: int, hidden: int, out_dim: int) -> nn.Sequential:
    """Return Linear, ReLU, Linear: tensors ``0.*`` and ``2.*``, the projectors of WavCaps and LAION-CLAP."""
    return nn.Sequential(nn.Linear(in_dim, hidden), nn.ReLU(), nn.Linear(hidden, out_dim))


class MsProjection(nn.Module):
    """MS-CLAP's projector: LayerNorm(e + Linear(GELU(e))), e = Linear(x), without biases."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(in_dim, out_dim, bias=False)
        self.linear2 = nn.Linear(out_dim, out_dim, bias=False)
        self.layer_norm = nn.LayerNorm(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[..., out_dim]`` of ``[..., in_dim]``."""
        first = self.linear1(x)
        return self.layer_norm(first + self.linear2(nn.functional.gelu(first)))
