"""MS-CLAP 2023 (Elizalde et al., ICASSP 2024): HTS-AT and GPT-2, joined in 1024 dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from model_adapters.base import ModelInfo, Skeleton, TextSide, Weights, parse_random
from model_adapters.htsat import same_filters, size_options
from model_adapters.networks.checkpoints import find_checkpoint, load_exactly, read_checkpoint, refuse_others
from model_adapters.networks.frontends import PANNS_32K, Spectrogram
from model_adapters.networks.htsat import htsat_from_state, mel_filters_of, random_htsat, shortened, under
from model_adapters.networks.options import seeded
from model_adapters.networks.text_towers import LazyTower, Reading, random_tower, tower_from_state
from model_adapters.networks.windowed import MsProjection, Windowed
from model_adapters.networks.windows import LongAudio, described, tiled, tiled_alike, window_counts
from model_adapters.wavcaps import checked_layer

READING = Reading("gpt2", "openai-community/gpt2", at="before_pad", max_tokens=77, suffix=" <|endoftext|>")
_JOINT = 1024
AUDIO_PARTS = ("audio_encoder.base.htsat.", "audio_encoder.projection.")


class MsHtsat(Windowed):
    """MS-CLAP 2023's audio side, which Pengi has too: 7 s at 44.1 kHz, HTS-AT, a projector.

    The log-mel's mel filters are those in the checkpoint; without one, those for 32 kHz that its code makes.
    """

    for_untrained = ("depth", "embed_dim")
    sample_rate = 44100
    window_samples = 7 * 44100
    family: ClassVar[str]
    """As misfits calls it."""
    parts: ClassVar[tuple[str, ...]]
    """How the names of a published file begin."""
    foreign: ClassVar[tuple[str, ...]] = ()
    """How names begin that show another model's file."""

    def __init__(
        self,
        *,
        weights: str,
        le_layer: Literal["joint", "encoder"] = "joint",
        long_audio: LongAudio = "seeded",
        window_seed: int = 0,
        depth: int = 0,
        embed_dim: int = 96,
    ) -> None:
        super().__init__()
        self.le_layer = checked_layer(le_layer)
        self.long_audio = described(long_audio, 7.0, window_seed)
        self.short_audio = "its real samples repeated until 7 s are full"
        self.rule, self.window_seed, self.draws_anew = long_audio, window_seed, long_audio == "random"
        seed, filters = parse_random(weights), None
        if seed is None:
            state, self.weights_sha256 = read_checkpoint(weights)
            what = f"in '{find_checkpoint(weights).name}'"
            audio = under(state, "audio_encoder.base.htsat.")
            self.network = htsat_from_state(audio, what, model=self.family, whole=state)
            refuse_others(state, self.parts, self.family, what, foreign=self.foreign)
            self.audio_proj = ms_projection(under(state, "audio_encoder.projection."), what)
            filters = mel_filters_of(audio, PANNS_32K, what)
            self._read_text(state, what)
        else:
            self.network = random_htsat(shortened(depth, embed_dim), seed)
            self.audio_proj = seeded(lambda: MsProjection(self.network.size.dim, _JOINT), seed + 1)
            self.weights_sha256 = f"random:{seed}"
            self._random_text(seed, depth)
        self.front_end = Spectrogram(PANNS_32K, filters)
        self.embedding_dim = self.audio_proj.linear1.out_features if le_layer == "joint" else self.network.size.dim
        self.eval()

    def _read_text(self, state: dict[str, Tensor], what: str) -> None:
        """Take the text side of a checkpoint, if the model has one."""

    def _random_text(self, seed: int, depth: int) -> None:
        """Make an untrained text side, if the model has one."""

    def windows(self, waveforms: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return windows of 7 s of the real samples; a short clip is repeated until one is full."""
        return tiled(waveforms, lengths, self.window_samples, self.rule, self.window_seed)

    def log_mel(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the log-mel ``[B, 1, n_mels, frames]`` in dB of ``[B, T]``, one window after the other.

        With ``lengths`` a short clip is repeated as in :meth:`embed`; without, all samples are its own.
        """
        if lengths is not None:
            pieces = tiled_alike(waveforms, lengths, self.window_samples, self.rule, self.window_seed)
            waveforms = torch.cat(pieces, dim=1)  # of which the windows are these again
        return super().log_mel(waveforms)

    def encode_window(self, log_mel: Tensor, layer: str) -> Tensor:
        """Return the projected vector ``[B, 1024]``, or the encoder's ``[B, 768]``."""
        pooled = self.network(log_mel)
        return self.audio_proj(pooled) if layer == "joint" else pooled

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, D]`` for linear evaluation: the projected vector, not normalised, or the encoder's."""
        return self._by_count(waveforms, lengths, self.le_layer)

    def _by_count(self, waveforms: Tensor, lengths: Tensor, layer: str) -> Tensor:
        """Return the clips' vectors; clips with equally many windows go together."""
        counts = torch.tensor(window_counts(lengths, self.window_samples, self.rule), device=waveforms.device)
        found: Tensor | None = None
        for count in counts.unique():
            rows = counts == count
            vectors = self._embedded(self._log_mels(waveforms[rows], lengths[rows.to(lengths.device)]), layer)
            found = vectors.new_empty(len(waveforms), vectors.shape[1]) if found is None else found
            found[rows] = vectors
        return found if found is not None else waveforms.new_zeros(0, self.embedding_dim)

    def _size_options(self) -> dict[str, str] | None:
        options = size_options(self.network.size)
        if options is None or not same_filters(self.front_end) or self.audio_proj.linear1.out_features != _JOINT:
            return None
        windows = {"long_audio": self.rule, "window_seed": str(self.window_seed)}
        return options | windows | {"le_layer": self.le_layer}


class MsClap2023(MsHtsat):
    """MS-CLAP 2023: HTS-AT and GPT-2.

    The published code reads whole files: a clip shorter than 7 s is repeated, of a longer one a random window is taken.
    Here the window lies in the task's clip, and the same clip always gives the same one (``long_audio``).

    Parameters
    ----------
    weights: path of ``CLAP_weights_2023.pth``, or ``random[:SEED]`` for an untrained network.
    le_layer: what linear evaluation gets: the ``joint`` vector, as the reference platform does, or the ``encoder``'s.
    long_audio: what is heard of a clip over 7 s: one window, ``seeded`` by the clip, or ``random``, ``first``,
        ``centre``; or ``chunks``, averaged.
    window_seed: another number, other seeded windows.
    tokenizer: hub id or folder of GPT-2's tokenizer.
    depth: blocks in each stage of an untrained network, and layers of its text tower; 0 for the published sizes.
    embed_dim: width of its first stage.
    """

    family = "MS-CLAP 2023"
    parts = (*AUDIO_PARTS, "caption_encoder.base.", "caption_encoder.projection.", "logit_scale")
    info: ClassVar[ModelInfo] = ModelInfo(
        title="MS-CLAP 2023",
        kind="audio-language",
        paper="Elizalde et al., Natural Language Supervision for General-Purpose Audio Representations, ICASSP 2024",
        code_licence="Apache-2.0 (transformers' ClapAudioEncoder and GPT2Model)",
        weights=Weights(
            source="https://huggingface.co/microsoft/msclap",
            licence="MS-PL as tagged on the hub (MIT in the authors' repository)",
            url="https://huggingface.co/microsoft/msclap/resolve/main/CLAP_weights_2023.pth",
            file_name="CLAP_weights_2023.pth",
            text=(TextSide(READING.tokenizer, "MIT"),),
        ),
        trained_on=("as2m", "as20k", "as", "fsd50k", "nsynth", "audiocaps", "clotho"),
        probe_lr=3e-4,
        paper_rows=("CLAP_2023",),
    )

    def __init__(
        self,
        *,
        weights: str,
        le_layer: Literal["joint", "encoder"] = "joint",
        long_audio: LongAudio = "seeded",
        window_seed: int = 0,
        tokenizer: str = "",
        depth: int = 0,
        embed_dim: int = 96,
    ) -> None:
        self._tokenizer = tokenizer
        super().__init__(
            weights=weights,
            le_layer=le_layer,
            long_audio=long_audio,
            window_seed=window_seed,
            depth=depth,
            embed_dim=embed_dim,
        )

    def _read_text(self, state: dict[str, Tensor], what: str) -> None:
        self.text_proj = ms_projection(under(state, "caption_encoder.projection."), what)
        text = under(state, "caption_encoder.base.")
        self._text = LazyTower(lambda: tower_from_state(text, READING, self._tokenizer, what))
        self.joint_dim = self.audio_proj.linear1.out_features

    def _random_text(self, seed: int, depth: int) -> None:
        self.text_proj = seeded(lambda: MsProjection(128 if depth else 768, _JOINT), seed + 2)
        self._text = LazyTower(lambda: random_tower(READING, seed + 3, self._tokenizer, depth))
        self.joint_dim = _JOINT

    def embed_audio(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the joint vectors ``[B, 1024]``, not normalised."""
        return self._by_count(waveforms, lengths, "joint")

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Return the joint vectors ``[C, 1024]`` of sentences, not normalised."""
        return self.text_proj(self._text.on(self.device).encode(texts))

    def text_facts(self) -> dict[str, Any]:
        """Return the name and the checksum of the tokenizer, which does not come with the weights."""
        return self._text.facts()

    def skeleton(self) -> Skeleton | None:
        """Return an untrained network of this size; None where options cannot express it, or the mel filters differ."""
        options = self._size_options()
        return None if options is None else Skeleton("msclap_2023", options, spare=("text_proj.",))


def ms_projection(state: dict[str, Tensor], what: str) -> MsProjection:
    """Return the projector of the sizes in ``state``; raise :class:`UserError` if its tensors do not fit."""
    out_dim, in_dim = state.get("linear1.weight", torch.zeros(1, 1)).shape
    projector = MsProjection(in_dim, out_dim)
    load_exactly(projector, state, what=f"of a projector {what}")
    return projector


ADAPTER = MsClap2023
