"""Whisper's encoder (Radford et al., ICML 2023), through transformers."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from evar.errors import UserError
from model_adapters.base import ModelInfo, Weights, parse_random
from model_adapters.networks.dense import take_faster
from model_adapters.networks.hf_adapter import FramesAdapter, Padding, checked, made_by
from model_adapters.networks.hf_files import locate, sha256_of_settings, sha256_of_weights
from model_adapters.networks.hf_layers import Combine, parse_layers
from model_adapters.networks.hf_models import quiet, read_config, read_model, resize
from model_adapters.networks.hf_whisper import RATE, STRIDE, WhisperFrames


class Whisper(FramesAdapter):
    """Whisper's encoder: 30-second windows one after another, the mean over the frames that hold sound.

    Parameters
    ----------
    weights: a folder in transformers' layout, ``ORG/NAME`` on the Hugging Face hub (openai/whisper-large-v3), or
        ``random[:SEED]``; left out, the hub's openai/whisper-base.
    layers: ``last``, ``all`` or numbers such as ``4`` or ``2,4`` (0 is what enters the first block).
    combine: several layers side by side (``concat``), or their mean.
    padding: ``heard``: zeros up to the task's window are sound, as on the reference platform, those up to 30 s are not;
        ``cut``: frames of the clip's own length only (the encoder hears the zeros all the same: it knows no mask).
    hidden_size, depth: size of an untrained network; 0 for that of Whisper base.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="Whisper (encoder)",
        kind="audio",
        paper="Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, ICML 2023",
        code_licence="Apache-2.0 (transformers)",
        weights=Weights(
            source="https://huggingface.co/openai/whisper-base",
            licence="Apache-2.0 as tagged on the hub (MIT in the authors' repository)",
            hub="openai/whisper-base",
            hub_size=290_000_000,
        ),
        needs_weights=False,
        probe_lr=3e-4,
        paper_rows=("Whisper base", "Whisper large v3"),
    )
    for_untrained = ("hidden_size", "depth")
    sample_rate = RATE
    frame_seconds = STRIDE / RATE
    long_audio = "windows of 30 s"
    short_audio = "zeros at the end, up to 30 s; frames of the task's window are kept"

    def __init__(
        self,
        *,
        weights: str = "",
        layers: str = "last",
        combine: Combine = "concat",
        padding: Padding = "heard",
        hidden_size: int = 0,
        depth: int = 0,
    ) -> None:
        super().__init__()
        assert self.info.weights is not None
        self.padding = checked(padding)
        name = weights or self.info.weights.hub
        seed = parse_random(name)
        if seed is not None:
            encoder, self.weights_sha256 = untrained_encoder(seed, hidden_size, depth), f"random:{seed}"
        else:
            folder = locate(name)
            if (kind := read_config(folder).model_type) != "whisper":
                raise UserError(f"'{name}' is a {kind}, not a whisper; try hf:{name}, which takes either")
            model: Any = read_model(folder, name)
            encoder, self.weights_sha256 = model.get_encoder(), sha256_of_weights(folder)
            self.settings_sha256 = sha256_of_settings(folder)
        config: Any = encoder.config
        self.encoder = WhisperFrames(encoder, parse_layers(layers, config.encoder_layers, combine))
        self.embedding_dim = self.encoder.width
        self.eval()

    def state(self) -> dict[str, Any]:
        """Return what made the numbers of an untrained network."""
        return made_by(self.weights_sha256)


def untrained_encoder(seed: int, hidden_size: int, depth: int) -> nn.Module:
    """Return Whisper base's encoder, or one of another size, with weights that depend on ``seed`` alone."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    base = WhisperConfig(d_model=512, encoder_layers=6, encoder_attention_heads=8, encoder_ffn_dim=2048)
    config = resize(base, hidden_size, depth)
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        return take_faster(WhisperEncoder(config).eval())


ADAPTER = Whisper
