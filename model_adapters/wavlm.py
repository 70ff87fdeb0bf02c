"""WavLM (Chen et al., IEEE JSTSP 2022), through transformers."""

from __future__ import annotations

from typing import ClassVar

from model_adapters.base import ModelInfo, Weights
from model_adapters.networks.hf_adapter import SpeechAdapter


class WavLM(SpeechAdapter):
    """WavLM: the mean over time of its transformer's output (768 or 1024), or of another layer.

    Parameters
    ----------
    weights: a folder in transformers' layout, ``ORG/NAME`` on the Hugging Face hub, or ``random[:SEED]``; left out, the
        hub's microsoft/wavlm-base.

    The other parameters are those of :class:`SpeechAdapter`.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="WavLM",
        kind="audio",
        paper="Chen et al., WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing, IEEE "
        "JSTSP 2022",
        code_licence="Apache-2.0 (transformers)",
        weights=Weights(
            source="https://huggingface.co/microsoft/wavlm-base",
            licence="MIT (the authors' release, as torchaudio's documentation states it; not tagged on the hub)",
            hub="microsoft/wavlm-base",
            hub_size=378_000_000,
        ),
        needs_weights=False,
        trained_on=("librispeech",),
        probe_lr=3e-4,
    )
    model_type = "wavlm"


ADAPTER = WavLM
