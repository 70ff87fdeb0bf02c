"""data2vec for speech (Baevski et al., ICML 2022), through transformers."""

from __future__ import annotations

from typing import ClassVar

from model_adapters.base import ModelInfo, Weights
from model_adapters.networks.hf_adapter import SpeechAdapter


class Data2VecAudio(SpeechAdapter):
    """data2vec's speech model: the mean over time of its output (768 or 1024), or of another layer.

    Parameters
    ----------
    weights: a folder in transformers' layout, ``ORG/NAME`` on the Hugging Face hub, or ``random[:SEED]``; left out, the
        hub's facebook/data2vec-audio-base-960h.
    normalise: ``clip`` gives every clip mean 0 and variance 1; ``checkpoint`` does what the weights' own
        preprocessor_config.json says; ``none``.

    The other parameters are those of :class:`SpeechAdapter`.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="data2vec (audio)",
        kind="audio",
        paper=(
            "Baevski et al., data2vec: A General Framework for Self-supervised Learning in Speech, Vision and "
            "Language, ICML 2022"
        ),
        code_licence="Apache-2.0 (transformers)",
        weights=Weights(
            source="https://huggingface.co/facebook/data2vec-audio-base-960h",
            licence="Apache-2.0 as tagged on the hub (MIT in the authors' repository)",
            hub="facebook/data2vec-audio-base-960h",
        ),
        needs_weights=False,
        trained_on=("librispeech",),
        probe_lr=3e-4,
    )
    model_type = "data2vec-audio"


ADAPTER = Data2VecAudio
