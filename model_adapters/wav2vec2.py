"""wav2vec 2.0 (Baevski et al., NeurIPS 2020), through transformers."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from evar.errors import UserError
from model_adapters.base import ModelInfo, Weights
from model_adapters.networks.hf_adapter import Normalise, Padding, SpeechAdapter
from model_adapters.networks.hf_layers import Combine, time_maximum
from model_adapters.networks.options import one_of


class Wav2Vec2(SpeechAdapter):
    """wav2vec 2.0: the mean over time of its transformer's output (768 or 1024), or its convolutional features.

    Parameters
    ----------
    weights: a folder in transformers' layout, ``ORG/NAME`` on the Hugging Face hub, or ``random[:SEED]``; left out, the
        hub's facebook/wav2vec2-base-960h.
    features: ``context`` (the paper's Wav2Vec2-C), or ``conv``: maximum plus mean over time of the convolutions' 512
        features (Wav2Vec2-F); ``layers`` is then not used.
    normalise: ``clip`` gives every clip mean 0 and variance 1; ``checkpoint`` does what the weights' own
        preprocessor_config.json says; ``none``.

    The other parameters are those of :class:`SpeechAdapter`.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="wav2vec 2.0",
        kind="audio",
        paper="Baevski et al., wav2vec 2.0: A Framework for Self-Supervised Learning of Speech, NeurIPS 2020",
        code_licence="Apache-2.0 (transformers)",
        weights=Weights(
            source="https://huggingface.co/facebook/wav2vec2-base-960h",
            licence="Apache-2.0",
            hub="facebook/wav2vec2-base-960h",
            hub_size=378_000_000,
        ),
        needs_weights=False,
        trained_on=("librispeech",),
        probe_lr=3e-4,
        paper_rows=("Wav2Vec2-C", "Wav2Vec2-F"),
    )
    model_type = "wav2vec2"

    def __init__(
        self,
        *,
        weights: str = "",
        features: Literal["context", "conv"] = "context",
        layers: str = "last",
        combine: Combine = "concat",
        normalise: Normalise = "clip",
        padding: Padding = "heard",
        chunk_seconds: float = 0.0,
        hidden_size: int = 0,
        depth: int = 0,
    ) -> None:
        one_of("features", features, "context", "conv")
        if features == "conv" and layers != "last":
            raise UserError("--features=conv is before all layers: leave out --layers")
        super().__init__(
            weights=weights,
            layers=layers if features == "context" else "conv",
            combine=combine,
            normalise=normalise,
            padding=padding,
            chunk_seconds=chunk_seconds,
            hidden_size=hidden_size,
            depth=depth,
        )
        self.features = features

    def pool(self, frames: Tensor, counts: Tensor) -> Tensor:
        """Return the mean over time ``[B, D]``; of the convolutional features maximum plus mean."""
        mean = super().pool(frames, counts)
        return mean if self.features == "context" else mean + time_maximum(frames, counts)


ADAPTER = Wav2Vec2
