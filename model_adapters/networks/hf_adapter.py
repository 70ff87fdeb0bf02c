"""What the adapters of transformers' speech encoders share: options, weights, pooling."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from evar.errors import UserError
from model_adapters.base import Adapter, parse_random
from model_adapters.networks.hf_files import locate, sha256_of_settings, sha256_of_weights
from model_adapters.networks.hf_layers import Combine, parse_layers, time_mean
from model_adapters.networks.hf_models import default_config, first_line, read_config, read_model, resize, untrained
from model_adapters.networks.hf_speech import WaveEncoder
from model_adapters.networks.options import length_or_all, one_of

Padding = Literal["heard", "cut"]
Normalise = Literal["clip", "checkpoint", "none"]
RATE = 16000


class FramesAdapter(Adapter):
    """An adapter around an encoder with frames in time: their mean is the clip's embedding."""

    encoder: Any
    padding: Padding
    frame_seconds: float = 0.02

    def frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(frames [B, T', D], their number per clip [B])``; those beyond the number are 0."""
        return self.encoder(waveforms, lengths if self.padding == "cut" else None)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return one vector per clip ``[B, D]``: the mean over time, unless the model says otherwise."""
        return self.pool(*self.frames(waveforms, lengths))

    def pool(self, frames: Tensor, counts: Tensor) -> Tensor:
        """Return ``[B, D]`` of the first ``counts [B]`` of the frames ``[B, T', D]``."""
        return time_mean(frames, counts)

    def embed_frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
        """Return ``([B, T', D], 0.02)``; frame i begins at i times that."""
        return self.frames(waveforms, lengths)[0], self.frame_seconds


class SpeechAdapter(FramesAdapter):
    """An encoder of transformers that hears the waveform, one frame per 20 ms; a clip's embedding is their mean.

    Parameters
    ----------
    weights: a folder in transformers' layout, ``ORG/NAME`` on the Hugging Face hub, or ``random[:SEED]``; left out, the
        hub's model that ``info`` names.
    layers: ``last``, ``all`` or numbers such as ``9`` or ``3,6,9`` (0 is what enters the first block).
    combine: several layers side by side (``concat``), or their mean.
    normalise: ``clip`` gives every clip mean 0 and variance 1, as the reference platform for all of these models;
        ``checkpoint`` does what the weights' own preprocessor_config.json says; ``none``.
    padding: ``heard``: zeros at the end are sound, as on the reference platform; ``cut``: each clip is heard in its own
        length, by attention mask or, where a model is not deaf to what is masked, by itself.
    chunk_seconds: length of the pieces in which long clips are heard, which bounds memory; 0 for the whole clip.
    hidden_size, depth: size of an untrained network; 0 for that of the published base model.
    """

    model_type: ClassVar[str]
    for_untrained = ("hidden_size", "depth")
    sample_rate = RATE

    def __init__(
        self,
        *,
        weights: str = "",
        layers: str = "last",
        combine: Combine = "concat",
        normalise: Normalise = "clip",
        padding: Padding = "heard",
        chunk_seconds: float = 0.0,
        hidden_size: int = 0,
        depth: int = 0,
    ) -> None:
        super().__init__()
        self.padding = checked(padding)
        model, own_rule, self.weights_sha256 = self._model(weights, hidden_size, depth)
        config: Any = model.config
        chosen = None if layers == "conv" else parse_layers(layers, config.num_hidden_layers, combine)
        normalised = own_rule if normalise == "checkpoint" else normalise == "clip"
        self.encoder = WaveEncoder(model, chosen, normalise=normalised, chunk=chunk_samples(chunk_seconds, RATE))
        self.frame_seconds = self.encoder.stride / RATE
        self.embedding_dim = self.encoder.width
        if chunk_seconds:
            self.long_audio = f"pieces of {chunk_seconds:g} s"
        self.eval()

    def _model(self, weights: str, hidden_size: int, depth: int) -> tuple[nn.Module, bool, str]:
        """Return ``(model, whether its own preprocessor normalises, checksum)``."""
        assert self.info.weights is not None
        name = weights or self.info.weights.hub
        seed = parse_random(name)
        if seed is not None:
            config = resize(default_config(self.model_type), hidden_size, depth)
            return untrained(config, seed), True, f"random:{seed}"
        folder = locate(name)
        kind = read_config(folder).model_type
        if kind != self.model_type:
            raise UserError(f"'{name}' is a {kind}, not a {self.model_type}; try hf:{name}, which takes either")
        extractor = read_extractor(folder, name)
        self.settings_sha256 = sha256_of_settings(folder)
        return read_model(folder, name), bool(getattr(extractor, "do_normalize", True)), sha256_of_weights(folder)

    def state(self) -> dict[str, Any]:
        """Return what the weights' folder may have decided, and what made the numbers of an untrained network."""
        return {"normalised": self.encoder.normalise} | made_by(self.weights_sha256)


def made_by(weights_sha256: str) -> dict[str, Any]:
    """Return the version of transformers for an untrained network: versions draw its numbers differently."""
    import transformers

    return {"transformers": transformers.__version__} if weights_sha256.startswith("random:") else {}


def checked(padding: Padding) -> Padding:
    """Return ``padding`` if it is a known one; raise :class:`UserError`."""
    one_of("padding", padding, "heard", "cut")
    return padding


def chunk_samples(seconds: float, rate: int) -> int:
    """Return the samples of a piece; 0 for the whole clip. Raises :class:`UserError` below a tenth of a second."""
    length_or_all("chunk_seconds", seconds)
    return round(seconds * rate)


def read_extractor(folder: Any, name: str) -> Any:
    """Return the feature extractor in a folder, None if it has none; :class:`UserError` if it cannot be read."""
    from transformers import AutoFeatureExtractor

    if not (folder / "preprocessor_config.json").is_file() and not (folder / "processor_config.json").is_file():
        return None
    try:
        return AutoFeatureExtractor.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds for settings that it cannot use
        raise UserError(f"'{name}' has no feature extractor that can be read: {first_line(error)}") from None
