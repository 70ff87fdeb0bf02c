"""Speech encoders of transformers that hear the waveform: wav2vec 2.0, HuBERT, WavLM, data2vec-audio, UniSpeech."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_adapters.networks.hf_layers import Layers

MODEL_TYPES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat")


def standardised(waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Return ``[B, T]`` with mean 0 and variance 1 per clip, over its first ``lengths [B]`` samples; 0 beyond them.

    As transformers' ``Wav2Vec2FeatureExtractor`` with ``do_normalize`` (variance + 1e-7).
    """
    if lengths is None:
        variance, mean = torch.var_mean(waveforms, dim=1, keepdim=True, correction=0)
        return (waveforms - mean) / (variance + 1e-7).sqrt()
    real = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None]
    number = lengths[:, None].clamp(min=1)
    mean = (waveforms * real).sum(1, keepdim=True) / number
    centred = (waveforms - mean) * real
    return centred / (centred.square().sum(1, keepdim=True) / number + 1e-7).sqrt()


class WaveEncoder(nn.Module):
    """Waveforms ``[B, T]`` to frames ``[B, T', D]``, one every 20 ms in the published models.

    Parameters
    ----------
    model: one of transformers' models of :data:`MODEL_TYPES`.
    layers: which of its layers; None for the output of its convolutions (512 wide), before any transformer block.
    normalise: whether each clip gets mean 0 and variance 1 first.
    chunk: samples that are heard at once, the clip being normalised as a whole; 0 for the whole clip.
    """

    def __init__(self, model: nn.Module, layers: Layers | None, *, normalise: bool, chunk: int = 0) -> None:
        super().__init__()
        config: Any = model.config
        self.layers, self.normalise = layers, normalise
        self.kernels, self.strides = tuple(config.conv_kernel), tuple(config.conv_stride)
        self.width = (config.hidden_size * layers.times) if layers else config.conv_dim[-1]
        # Group norm takes its statistics over the padding, too, and data2vec's positions reach into it: an attention
        # mask does not make those models deaf to it.
        norm = getattr(config, "feat_extract_norm", "")
        self.maskable = norm == "layer" and config.model_type != "data2vec-audio"
        self.chunk = max(chunk, self.receptive) if chunk else 0
        trunk: Any = model
        if layers is None:
            trunk = trunk.feature_extractor
        else:
            trunk.encoder.layers = trunk.encoder.layers[: layers.blocks_needed]
        self.trunk = trunk

    @property
    def stride(self) -> int:
        """Samples from one frame to the next."""
        return int(torch.tensor(self.strides).prod())

    @property
    def receptive(self) -> int:
        """Samples that a frame is made of."""
        reach, step = 1, 1
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            reach, step = reach + (kernel - 1) * step, step * stride
        return reach

    def frames(self, samples: Tensor) -> Tensor:
        """Return how many frames clips of so many samples give; at least one."""
        return (samples - self.receptive).clamp(min=0).div(self.stride, rounding_mode="floor") + 1

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``(frames [B, T', D], their number per clip [B])``; frames beyond that number are 0.

        lengths: the samples ``[B]`` that are heard of each clip, as if it stood alone; None for all of ``waveforms``.
        """
        if lengths is not None and bool((lengths == waveforms.shape[1]).all()):
            lengths = None
        if self.normalise:
            waveforms = standardised(waveforms, lengths)
        parts = [self._part(piece, its_lengths) for piece, its_lengths in self._pieces(waveforms, lengths)]
        if len(parts) == 1:
            return parts[0]
        # All but a clip's last piece are full, so its frames lie together.
        return torch.cat([part for part, _ in parts], dim=1), torch.stack([n for _, n in parts]).sum(dim=0)

    def _pieces(self, waveforms: Tensor, lengths: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield what is heard at once; a last piece of less than a frame is left out."""
        samples = waveforms.shape[1]
        for start in range(0, max(samples, 1), self.chunk or max(samples, 1)):
            piece = waveforms[:, start : start + self.chunk] if self.chunk else waveforms
            if start and piece.shape[1] < self.receptive:
                return
            left = None if lengths is None else (lengths - start).clamp(0, piece.shape[1])
            if left is not None and start:
                left = torch.where(left < self.receptive, 0, left)
            yield piece, left

    def _part(self, waveforms: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        if (short := self.receptive - waveforms.shape[1]) > 0:
            waveforms = F.pad(waveforms, (0, short))
        if lengths is None:
            counts = self.frames(torch.full((len(waveforms),), waveforms.shape[1], device=waveforms.device))
            return self._hear(waveforms, None), counts
        counts = torch.where(lengths > 0, self.frames(lengths), 0)
        if self.maskable and int(lengths.min()) > 0:
            mask = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None].clamp(
                min=self.receptive
            )
            heard = self._hear(waveforms, mask.long())
            real = torch.arange(heard.shape[1], device=heard.device) < counts[:, None]
            return heard * real[:, :, None], counts
        most = int(self.frames(torch.tensor(waveforms.shape[1])))
        found = waveforms.new_zeros(len(waveforms), most, self.width)
        for length in lengths.unique().tolist():
            if length:
                rows = (lengths == length).nonzero()[:, 0]
                heard = self._hear(waveforms[rows, : max(length, self.receptive)], None)
                found[rows, : heard.shape[1]] = heard.to(found.dtype)
        return found, counts

    def _hear(self, waveforms: Tensor, mask: Tensor | None) -> Tensor:
        if self.layers is None:
            return self.trunk(waveforms).transpose(1, 2)
        wanted = not self.layers.only_last
        return self.layers.of(self.trunk(waveforms, attention_mask=mask, output_hidden_states=wanted))
