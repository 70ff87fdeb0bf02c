"""Any audio model on the Hugging Face hub: ``hf:ORG/NAME`` (AutoModel and AutoFeatureExtractor of transformers)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from evar.errors import UserError
from model_adapters.base import ModelInfo, Weights, parse_random
from model_adapters.networks.hf_adapter import (
    FramesAdapter,
    Normalise,
    Padding,
    checked,
    chunk_samples,
    made_by,
    read_extractor,
)
from model_adapters.networks.hf_features import FeatureEncoder, Pooling
from model_adapters.networks.hf_files import locate, sha256_of_settings, sha256_of_weights
from model_adapters.networks.hf_layers import Combine, parse_layers
from model_adapters.networks.hf_models import default_config, read_config, read_model, resize, untrained
from model_adapters.networks.hf_speech import MODEL_TYPES, WaveEncoder
from model_adapters.networks.hf_whisper import WhisperFrames


class HuggingFace(FramesAdapter):
    """``hf:ORG/NAME``, ``hf:FOLDER``, or ``hf:KIND`` with ``weights=random`` (``hf:hubert``).

    Speech encoders that hear the waveform, and Whisper's, are treated as by the models of those names. Others get their
    own feature extractor's input, in windows as long as it takes; a clip's embedding is the mean over its windows.

    Parameters
    ----------
    weights: a folder or another hub id to take in the place of the name after the colon; ``random[:SEED]`` for an
        untrained network of that configuration.
    pooling: over tokens: ``mean``, ``max``, ``mean_max`` (their sum), ``first`` (CLS), ``pooler`` (the model's own);
        ``auto``: the model's own where it has one, else the mean. Models with frames in time: ``auto`` or ``mean``.
    layers: ``last``, ``all`` or numbers such as ``9`` or ``3,6,9`` (0 is what enters the first block).
    combine: several layers side by side (``concat``), or their mean.
    normalise: of models that hear the waveform: ``checkpoint`` does what their preprocessor_config.json says, ``clip``
        gives every clip mean 0 and variance 1, ``none``. Others leave it to their feature extractor.
    padding: ``heard``: zeros at the end are sound, as on the reference platform; ``cut``: each clip in its own length.
    chunk_seconds: length of the pieces that are heard; 0 for as long as the model takes.
    hidden_size, depth: size of an untrained network; 0 for that of the configuration.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="any audio model on the Hugging Face hub (hf:ORG/NAME)",
        kind="audio",
        paper="the model's own",
        code_licence="Apache-2.0 (transformers)",
        weights=Weights(source="https://huggingface.co/models?other=audio", licence="the model's own"),
        needs_weights=False,
        probe_lr=3e-4,
    )
    for_untrained = ("hidden_size", "depth")

    @classmethod
    def weights_of(cls, base: str) -> Weights | None:
        """Return the repository (or folder) after the colon; None for a KIND, which has no weights of its own."""
        if "/" not in base and not Path(base).is_dir():
            return None
        source = base if Path(base).is_dir() else f"https://huggingface.co/{base}"
        return Weights(source=source, licence="the model's own", hub=base)

    def __init__(
        self,
        base: str = "",
        *,
        weights: str = "",
        pooling: Pooling = "auto",
        layers: str = "last",
        combine: Combine = "concat",
        normalise: Normalise = "checkpoint",
        padding: Padding = "heard",
        chunk_seconds: float = 0.0,
        hidden_size: int = 0,
        depth: int = 0,
    ) -> None:
        super().__init__()
        self.padding = checked(padding)
        model, extractor = self._model(base, weights, hidden_size, depth)
        config: Any = model.config
        self.sample_rate = int(getattr(extractor, "sampling_rate", 16000))
        self.chunk = chunk_samples(chunk_seconds, self.sample_rate)
        own: Any = model
        if config.model_type in MODEL_TYPES:
            chosen = parse_layers(layers, config.num_hidden_layers, combine)
            said = bool(getattr(extractor, "do_normalize", True))
            normalised = said if normalise == "checkpoint" else normalise == "clip"
            self.encoder = WaveEncoder(model, chosen, normalise=normalised, chunk=self.chunk)
            self.frame_seconds = self.encoder.stride / self.sample_rate
        elif config.model_type == "whisper":
            self.encoder = WhisperFrames(own.get_encoder(), parse_layers(layers, config.encoder_layers, combine))
        else:
            self.encoder = FeatureEncoder(model, extractor, layers, combine, pooling)
        self.in_time = not isinstance(self.encoder, FeatureEncoder)
        if self.in_time and pooling not in ("auto", "mean"):
            raise UserError(f"--pooling={pooling}: the frames of a {config.model_type} are averaged over time")
        self._say_windows()
        self.eval()
        self.embedding_dim = self.encoder.width if self.in_time else self.encoder.measure()

    def _say_windows(self) -> None:
        encoder = self.encoder
        window = encoder.chunk if isinstance(encoder, WaveEncoder) else encoder.window
        if self.chunk and not isinstance(encoder, WaveEncoder):
            if window and self.chunk > window:
                raise UserError(f"--chunk_seconds: the model takes at most {window / self.sample_rate:g} s")
            if isinstance(encoder, WhisperFrames):
                raise UserError(f"--chunk_seconds: this model always hears {window / self.sample_rate:g} s")
            encoder.window = window = self.chunk
        if window:
            self.long_audio = f"windows of {window / self.sample_rate:g} s"

    def _model(self, base: str, weights: str, hidden_size: int, depth: int) -> tuple[nn.Module, Any]:
        if not base and not weights:
            raise UserError("hf needs a model's name: hf:ORG/NAME, a folder, or hf:KIND with --weights=random")
        seed = parse_random(weights)
        if seed is None:
            name = weights or base
            folder = locate(name)
            extractor = read_extractor(folder, name) or _default_extractor(read_config(folder))
            self.weights_sha256, self.settings_sha256 = sha256_of_weights(folder), sha256_of_settings(folder)
            return read_model(folder, name), extractor
        if not base:
            raise UserError("an untrained network needs a configuration: hf:hubert, hf:ORG/NAME or hf:FOLDER")
        self.weights_sha256 = f"random:{seed}"
        if "/" not in base:
            config = resize(default_config(base), hidden_size, depth)
            return untrained(config, seed), _default_extractor(config)
        folder = locate(base, weights=False)
        config = resize(read_config(folder), hidden_size, depth)
        return untrained(config, seed), read_extractor(folder, base) or _default_extractor(config)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return one vector per clip ``[B, D]``."""
        if self.in_time:
            return super().embed(waveforms, lengths)
        if self.padding == "heard" or bool((lengths == waveforms.shape[1]).all()):
            return self._windows(waveforms)
        found = waveforms.new_zeros(len(waveforms), self.embedding_dim)
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            found[rows] = self._windows(waveforms[rows, : max(length, 1)])
        return found

    def _windows(self, waveforms: Tensor) -> Tensor:
        """Return the mean over windows, each weighted by its samples."""
        samples = waveforms.shape[1]
        step = self.encoder.window or max(samples, 1)
        total: Tensor | float = 0.0
        for start in range(0, max(samples, 1), step):
            piece = waveforms[:, start : start + step]
            heard = torch.nn.functional.pad(piece, (0, max(0, self.sample_rate // 10 - piece.shape[1])))
            total = total + self.encoder(heard) * (piece.shape[1] / max(samples, 1))
        assert isinstance(total, Tensor)
        return total

    def embed_frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
        """Return ``([B, T', D], seconds per frame)``; a :class:`UserError` for a model whose tokens are not in time."""
        if not self.in_time:
            raise UserError("this model's tokens are not known to follow time: it has no frames")
        return super().embed_frames(waveforms, lengths)

    def state(self) -> dict[str, Any]:
        """Return what the files beside the weights have decided, and what made an untrained network's numbers."""
        facts = {"rate": self.sample_rate} | made_by(self.weights_sha256)
        if isinstance(self.encoder, WaveEncoder):
            facts["normalised"] = self.encoder.normalise
        if isinstance(self.encoder, FeatureEncoder):
            facts["extractor"] = {k: v for k, v in self.encoder.extractor.to_dict().items() if _plain(v)}
        return facts


def _plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)


def _default_extractor(config: Any) -> Any:
    """Return the feature extractor that transformers has for a kind of model, with its defaults."""
    from transformers import FEATURE_EXTRACTOR_MAPPING

    mapping: Any = FEATURE_EXTRACTOR_MAPPING
    try:
        return mapping[type(config)]()
    except (KeyError, TypeError):
        raise UserError(f"transformers has no feature extractor for a {config.model_type}: it hears no audio") from None


ADAPTER = HuggingFace
