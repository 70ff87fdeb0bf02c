"""Any audio model of transformers behind its own feature extractor: windows to one vector each."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from evar.errors import UserError, did_you_mean
from model_adapters.networks.hf_layers import Layers, parse_layers
from model_adapters.networks.hf_models import first_line

Pooling = Literal["auto", "mean", "max", "mean_max", "first", "pooler"]


class FeatureEncoder(nn.Module):
    """Waveforms ``[B, T]`` of one length to vectors ``[B, D]``, through the model's own feature extractor.

    Parameters
    ----------
    model: a transformers model; of one with a decoder the encoder is taken, of one with a text side the audio side.
    extractor: its feature extractor.
    layers, combine: which hidden states (see :func:`~model_adapters.networks.hf_layers.parse_layers`).
    pooling: over the tokens: ``mean``, ``max``, ``mean_max`` (their sum), ``first`` (the CLS token), ``pooler`` (what
        the model itself pools); ``auto`` is the model's own where it has one, else the mean.
    """

    def __init__(self, model: nn.Module, extractor: Any, layers: str, combine: Any, pooling: Pooling) -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise UserError(f"pooling '{pooling}' is not known.{did_you_mean(pooling, get_args(Pooling))}")
        whole: Any = model
        self.extractor, self.pooling, self.rate = extractor, pooling, int(extractor.sampling_rate)
        self.joint = hasattr(whole, "get_audio_features")
        if self.joint and (layers != "last" or pooling not in ("auto", "pooler")):
            raise UserError(f"{type(model).__name__} gives one vector of a joint space: no choice of layers or pooling")
        encodes = getattr(whole.config, "is_encoder_decoder", False) and not self.joint
        self.trunk: Any = whole.get_encoder() if encodes else whole
        self.layers = None if self.joint else parse_layers(layers, _depth(self.trunk.config), combine)
        self.window = window_of(extractor)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Return ``[B, D]``; ``waveforms`` are no longer than the extractor's window."""
        clips = [clip.float().cpu().numpy() for clip in waveforms]
        with np.errstate(divide="ignore", invalid="ignore"):  # extractors that standardise divide silence by 0
            inputs = self.extractor(clips, sampling_rate=self.rate, return_tensors="pt")
        if "is_longer" in inputs:  # of a fused CLAP: its extractor marks one clip of a batch at random where none is
            inputs["is_longer"] = torch.zeros_like(torch.as_tensor(inputs["is_longer"]), dtype=torch.bool)
        # Silence is the logarithm of 0 to an extractor without a floor: 0 after its standardisation.
        numbers = {name: value.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for name, value in inputs.items()}
        given = {name: value.to(waveforms.device) for name, value in numbers.items()}
        if self.joint:
            found = self.trunk.get_audio_features(**given)
            vectors = found if isinstance(found, Tensor) else found.pooler_output
        else:
            vectors = self._pooled(self.trunk(**given, output_hidden_states=not self._layers().only_last))
        if vectors is None or vectors.ndim != 2 or len(vectors) != len(waveforms):
            raise UserError(f"{type(self.trunk).__name__} gives no single vector per clip; try another --pooling")
        return vectors.float()

    def _layers(self) -> Layers:
        assert self.layers is not None
        return self.layers

    def _pooled(self, output: Any) -> Tensor:
        layers, own = self._layers(), getattr(output, "pooler_output", None)
        if self.pooling == "pooler" or (self.pooling == "auto" and own is not None and layers.only_last):
            if own is None or not layers.only_last:
                raise UserError(f"{type(self.trunk).__name__} does not pool this itself; use --pooling=mean")
            return own
        tokens = layers.of(output)
        if tokens.ndim != 3:
            raise UserError(f"{type(self.trunk).__name__} has no rows of tokens (its output is {list(tokens.shape)})")
        if self.pooling == "first":
            return tokens[:, 0]
        if self.pooling == "max":
            return tokens.amax(dim=1)
        mean = tokens.mean(dim=1)
        return mean + tokens.amax(dim=1) if self.pooling == "mean_max" else mean

    @torch.no_grad()
    def measure(self) -> int:
        """Return the length D of the vectors, as one second of silence shows; :class:`UserError` if none come out."""
        try:
            return self(torch.zeros(1, min(self.rate, self.window or self.rate))).shape[1]
        except (TypeError, ValueError, AttributeError, KeyError, RuntimeError) as error:
            raise UserError(f"{type(self.trunk).__name__} cannot be used on audio alone: {first_line(error)}") from None


def window_of(extractor: Any) -> int:
    """Return how many samples a feature extractor takes before it cuts; 0 if it takes any number."""
    for name in ("n_samples", "nb_max_samples"):  # Whisper's, CLAP's
        if getattr(extractor, name, 0):
            return int(getattr(extractor, name))
    frames = getattr(extractor, "max_length", 0)
    if frames and "num_mel_bins" in vars(extractor):  # AST: Kaldi's frames of 25 ms, every 10 ms
        return int(extractor.sampling_rate * (0.025 + 0.010 * (frames - 1)) + 0.5)
    return 0


def _depth(config: Any) -> int:
    for name in ("encoder_layers", "num_hidden_layers"):
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    raise UserError(f"a {config.model_type} does not say how many layers it has: it cannot be used by hf:")
