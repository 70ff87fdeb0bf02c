"""Tiny speech models of transformers with random weights, in folders as the hub's, and transformers' own answer."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    Data2VecAudioConfig,
    HubertConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
)

CONFIGS = {
    "wav2vec2": Wav2Vec2Config,
    "hubert": HubertConfig,
    "wavlm": WavLMConfig,
    "data2vec_audio": Data2VecAudioConfig,
}
DEPTH = 3


def save_speech(folder: Path, name: str, *, large: bool = False, do_normalize: bool = True) -> Path:
    """Save a tiny model; ``large``: with the layer norms of the published large ones. Return its folder."""
    how = {"do_stable_layer_norm": large, "feat_extract_norm": "layer" if large else "group", "conv_bias": large}
    config = CONFIGS[name](
        hidden_size=32,
        num_hidden_layers=DEPTH,
        num_attention_heads=2,
        intermediate_size=48,
        conv_dim=(16,) * 7,
        num_conv_pos_embedding_groups=4,
        **({"num_conv_pos_embeddings": 32} if name != "data2vec_audio" else {}),
        **(how if name != "data2vec_audio" else {}),
    )
    return _save(folder, config, Wav2Vec2FeatureExtractor(do_normalize=do_normalize, return_attention_mask=large))


def save_whisper(folder: Path, mels: int = 80) -> Path:
    """Save a tiny Whisper and return its folder."""
    config = WhisperConfig(
        d_model=32,
        num_mel_bins=mels,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        vocab_size=50,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=1,
    )
    return _save(folder, config, WhisperFeatureExtractor(feature_size=mels))


def _save(folder: Path, config, extractor) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        AutoModel.from_config(config).save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


@cache
def _loaded(folder: Path):
    model = AutoModel.from_pretrained(folder).eval()
    return AutoFeatureExtractor.from_pretrained(folder), model


def reference(folder: Path, clip: np.ndarray, rate: int = 16000):
    """Return what transformers' own pipeline gives for one clip: its output with all hidden states."""
    extractor, model = _loaded(folder)
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    inputs = extractor(clip, sampling_rate=rate, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs, output_hidden_states=True)


def tones(*samples: int, rate: int = 16000, total: int = 0) -> torch.Tensor:
    """Return clips ``[len(samples), total]`` of a tone in noise each, zero-padded; ``total`` 0 is the longest."""
    clips = torch.zeros(len(samples), total or max(samples))
    for k, n in enumerate(samples):
        t = np.arange(n) / rate
        wave = 0.05 * np.random.RandomState(k).standard_normal(n) + 0.3 * np.sin(2 * np.pi * (300 + 200 * k) * t) + 0.02
        clips[k, :n] = torch.from_numpy(wave.astype(np.float32))
    return clips


def heard(adapter, waveforms: torch.Tensor, lengths=None) -> torch.Tensor:
    """Return an adapter's embeddings; ``lengths`` None: clips as long as the waveforms."""
    lengths = torch.full((len(waveforms),), waveforms.shape[1]) if lengths is None else torch.tensor(lengths)
    with torch.inference_mode():
        return adapter.embed(waveforms, lengths)
