"""LAION-CLAP (Wu et al., ICASSP 2023): HTS-AT and RoBERTa, joined in 512 dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evar.errors import UserError
from model_adapters.base import ModelInfo, Skeleton, TextSide, Weights, WeightsFile, parse_random
from model_adapters.htsat import same_filters, size_options
from model_adapters.networks.frontends import LAION_CLAP, Spectrogram
from model_adapters.networks.htsat import Htsat, HtsatSize, shortened
from model_adapters.networks.laion_files import JOINT, ClapFile, read_clap, untrained_clap
from model_adapters.networks.text_towers import LazyTower, Reading, TextTower, words_of
from model_adapters.networks.windowed import Windowed
from model_adapters.networks.windows import LongAudio, described, repeat_pad, windows
from model_adapters.wavcaps import checked_layer

HUB = "laion/clap-htsat-unfused"
READING = Reading("roberta", "FacebookAI/roberta-base", at="pooler", max_tokens=77)


class LaionClap(Windowed):
    """LAION-CLAP without fusion, through transformers' ClapModel or the package laion-clap.

    A clip shorter than 10 s is repeated whole times, then padded with zeros. Of a longer one the published code takes a
    random window; here it is one whose place the clip itself decides, so that a clip has one embedding.

    Parameters
    ----------
    weights: hub repository (left out: ``laion/clap-htsat-unfused``, which is 630k-audioset-best), a folder of it, a
        ``.pt`` of LAION, or ``random[:SEED]`` for an untrained network.
    backend: ``transformers``, or ``laion`` for the package laion-clap (an extra), which reads LAION's ``.pt`` only.
    le_layer: what linear evaluation gets: the ``joint`` vector of length one, as the reference platform does, or the
        ``encoder``'s.
    long_audio: what is heard of a clip over 10 s: one window, ``seeded`` by the clip, or ``random``, as the reference
        draws it, ``first``, ``centre``; or ``chunks``, averaged.
    window_seed: another number, other seeded windows.
    tokenizer: hub id or folder of RoBERTa's tokenizer, where the weights come without.
    depth: blocks in each stage of an untrained network, and layers of its text side; 0 for the published sizes.
    embed_dim: width of its first stage.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="LAION-CLAP (630k-audioset-best)",
        kind="audio-language",
        paper="Wu et al., Large-scale Contrastive Language-Audio Pretraining with Feature Fusion and "
        "Keyword-to-Caption Augmentation, ICASSP 2023",
        code_licence="Apache-2.0 (transformers' ClapModel); laion-clap: CC0-1.0",
        weights=Weights(
            source=f"https://huggingface.co/{HUB}; https://huggingface.co/lukewys/laion_clap",
            licence="Apache-2.0 as the hub's card states it",
            hub=HUB,
            hub_size=615_000_000,
            files=(
                WeightsFile(
                    "630k-audioset-best.pt",
                    url="https://huggingface.co/lukewys/laion_clap/resolve/main/630k-audioset-best.pt",
                    sha256="8053c9775516af2f4902e1e8281e356cc1bf7a85e8b761908170767b77c3f037",
                    note="LAION's own file of the same weights",
                ),
            ),
            text=(TextSide(READING.tokenizer, "MIT", default=False, note="with LAION's own file"),),
        ),
        needs_weights=False,
        trained_on=("as2m", "as20k", "as", "fsd50k", "audiocaps", "clotho"),
        probe_lr=3e-4,
        paper_rows=("LAION-CLAP",),
    )
    for_untrained = ("depth", "embed_dim")
    sample_rate = 48000
    window_samples = 480000
    short_audio = "zeros up to the task's window; that is repeated whole times, then zeros, up to 10 s"

    def __init__(
        self,
        *,
        weights: str = HUB,
        backend: Literal["transformers", "laion"] = "transformers",
        le_layer: Literal["joint", "encoder"] = "joint",
        long_audio: LongAudio = "seeded",
        window_seed: int = 0,
        tokenizer: str = "",
        depth: int = 0,
        embed_dim: int = 96,
    ) -> None:
        super().__init__()
        self.le_layer, self.backend = checked_layer(le_layer), backend
        self.long_audio = described(long_audio, 10.0, window_seed)
        self.rule, self.window_seed, self.draws_anew = long_audio, window_seed, long_audio == "random"
        seed = parse_random(weights)
        filters: Tensor | None = None
        if backend == "laion":
            if tokenizer or depth or embed_dim != 96:
                raise UserError("--backend=laion has its own: leave out --tokenizer, --depth and --embed_dim")
            self._read_package(weights, seed)
        elif backend == "transformers":
            size = shortened(depth, embed_dim)
            untrained = seed is not None
            file = (
                ClapFile(untrained_clap(size, seed or 0, text_layers=depth), size, f"random:{seed}", None, "")
                if untrained
                else read_clap(weights)
            )
            filters = file.filters
            self._take_apart(file, tokenizer)
        else:
            raise UserError(f"--backend must be transformers or laion, not '{backend}'")
        self.front_end = Spectrogram(LAION_CLAP, filters)
        self.embedding_dim = self.joint_dim if le_layer == "joint" else self.network.size.dim
        self.eval()

    def _take_apart(self, file: ClapFile, tokenizer: str) -> None:
        """Keep ClapModel's audio side and projections; its text side waits for the first sentence."""
        clap: Any = file.model
        self.network = Htsat(file.size, encoder=clap.audio_model.audio_encoder)
        self.audio_proj, self.text_proj = clap.audio_projection, clap.text_projection
        self.joint_dim, self.weights_sha256 = int(self.audio_proj.linear2.out_features), file.sha256
        self.settings_sha256 = file.settings_sha256
        text: nn.Module = clap.text_model

        def tower() -> TextTower:
            words, facts = words_of(READING, tokenizer or file.tokenizer)
            if len(words) > text.config.vocab_size:  # type: ignore[union-attr, operator]
                raise UserError(f"the tokenizer has {len(words)} tokens, more than the text side's")
            return TextTower(text, words, READING, facts)

        self._text = LazyTower(tower)

    def _read_package(self, weights: str, seed: int | None) -> None:
        from model_adapters.networks.laion_package import LaionPackage

        if self.le_layer != "joint":
            raise UserError("backend=laion gives the joint vector only; le_layer=encoder needs backend=transformers")
        if weights == HUB:
            raise UserError("backend=laion needs LAION's own file: --weights=630k-audioset-best.pt")
        self.package = LaionPackage(weights, seed)
        self.joint_dim, self.weights_sha256 = JOINT, self.package.weights_sha256

    def windows(self, waveforms: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return windows of 10 s; shorter clips are repeated and padded."""
        pieces = windows(waveforms, self.window_samples, self.rule, self.window_seed)
        return [repeat_pad(piece, self.window_samples) for piece in pieces]

    def encode_window(self, log_mel: Tensor, layer: str) -> Tensor:
        """Return the joint vector ``[B, 512]``, of length one, or the encoder's ``[B, 768]``."""
        pooled = self.network(log_mel)
        return F.normalize(self.audio_proj(pooled), dim=-1) if layer == "joint" else pooled

    def pooled(self, vectors: Tensor, layer: str) -> Tensor:
        """Return the mean of the windows' vectors; of joint ones, brought to length one again."""
        mean = vectors.mean(dim=0)
        return F.normalize(mean, dim=-1) if layer == "joint" else mean

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Return the log-mel ``[B, 1, 64, frames]`` in dB of ``[B, T]``, one window after the other."""
        if self.backend == "laion":
            raise UserError("backend=laion has no log-mel of its own to augment: fine-tune with backend=transformers")
        return super().log_mel(waveforms)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, D]`` for linear evaluation."""
        return self.embed_audio(waveforms, lengths) if self.le_layer == "joint" else super().embed(waveforms, lengths)

    def embed_audio(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the joint vectors ``[B, 512]``, of length one."""
        if self.backend == "laion":
            pieces = windows(waveforms, self.window_samples, self.rule, self.window_seed)
            vectors = torch.stack([self.package.embed_audio(piece) for piece in pieces])
            return vectors[0] if len(vectors) == 1 else self.pooled(vectors, "joint")
        return self._embedded(self._log_mels(waveforms, lengths), "joint")

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Return the joint vectors ``[C, 512]`` of sentences, of length one."""
        if self.backend == "laion":
            return self.package.embed_text(texts)
        return F.normalize(self.text_proj(self._text.on(self.device).encode(texts)), dim=-1)

    def text_facts(self) -> dict[str, Any]:
        """Return the name and the checksum of the tokenizer, or which release of laion-clap has it."""
        return self.package.facts() if self.backend == "laion" else self._text.facts()

    def skeleton(self) -> Skeleton | None:
        """Return an untrained network of this size; None where options cannot express it, or the mel filters differ."""
        size = self.network.size if self.backend == "transformers" else HtsatSize(depths=())
        options = size_options(size) if size.depths else None
        if options is None or not same_filters(self.front_end) or self.joint_dim != JOINT:
            return None
        rule = {"long_audio": self.rule, "window_seed": str(self.window_seed), "le_layer": self.le_layer}
        return Skeleton("laion_clap", options | rule, spare=("text_proj.",))


ADAPTER = LaionClap
