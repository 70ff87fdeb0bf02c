"""HuBERT (Hsu et al., TASLP 2021), through transformers. Its layer 9 is what M2D-S learns from."""

from __future__ import annotations

from typing import ClassVar

from model_adapters.base import ModelInfo, Weights
from model_adapters.networks.hf_adapter import SpeechAdapter


class Hubert(SpeechAdapter):
    """HuBERT: the mean over time of its transformer's output (768 or 1024), or of another layer.

    Parameters
    ----------
    weights: a folder in transformers' layout, ``ORG/NAME`` on the Hugging Face hub, or ``random[:SEED]``; left out, the
        hub's facebook/hubert-base-ls960.

    The other parameters are those of :class:`SpeechAdapter`.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="HuBERT",
        kind="audio",
        paper=(
            "Hsu et al., HuBERT: Self-Supervised Speech Representation Learning by Masked Prediction of Hidden "
            "Units, TASLP 2021"
        ),
        code_licence="Apache-2.0 (transformers)",
        weights=Weights(
            source="https://huggingface.co/facebook/hubert-base-ls960",
            licence="Apache-2.0",
            hub="facebook/hubert-base-ls960",
        ),
        needs_weights=False,
        trained_on=("librispeech",),
        probe_lr=3e-4,
    )
    model_type = "hubert"


ADAPTER = Hubert
