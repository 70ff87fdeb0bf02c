"""M2D-CLAP: M2D joined with language (Niizumi et al., Interspeech 2024; IEEE Access 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor

from evar.errors import UserError
from model_adapters.base import ModelInfo, TextSide, Weights, WeightsFile
from model_adapters.m2d import M2D, M2D_RELEASES, NTT_LICENCE
from model_adapters.networks.checkpoints import load_exactly, unfilled
from model_adapters.networks.m2d import MeanProjector, audio_projector, text_projector
from model_adapters.networks.m2d_files import Parts
from model_adapters.networks.vit import initialise

if TYPE_CHECKING:
    from model_adapters.networks.text import TextEncoder

GTE_BASE = "thenlper/gte-base"
BERT_BASE = "google-bert/bert-base-uncased"
_OF_LETTER = {"": (GTE_BASE, "mean"), "A": (GTE_BASE, "mean"), "B": (BERT_BASE, "cls")}
"""Hub id and pooling of a text encoder that the folder's name gives as a letter (MODELS 4.2)."""


class M2DClap(M2D):
    """M2D-CLAP 2024 and 2025: the encoder of ``m2d``, and a joint space of audio and text.

    Parameters
    ----------
    text_encoder: hub id or local folder of the sentence encoder, where the file holds none; else by the letter in the
        folder's name (none or A: GTE-base; B: BERT's first token). For a file that holds BERT: where its tokenizer is.
    text_pooling: how that encoder's tokens become a sentence: ``mean``, ``cls``; ``auto``: as the weights were trained,
        by the file, the facts beside it or the letter (GTE-base: the mean, BERT: the first token).

    The other parameters are those of ``m2d``. The text encoder is loaded at the first ``embed_text``.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="M2D-CLAP",
        kind="audio-language",
        paper="Niizumi et al., M2D-CLAP: Masked Modeling Duo Meets CLAP, Interspeech 2024; M2D-CLAP: Exploring "
        "General-purpose Audio-Language Representations Beyond CLAP, IEEE Access 13, 2025",
        code_licence="MIT (this implementation, from the papers)",
        weights=Weights(
            source=M2D_RELEASES,
            licence=NTT_LICENCE,
            file_name="m2d_clap_vit_base-80x1001p16x16p16kpBpTI-2025/checkpoint-30.pth",
            size=1694677655,
            sha256="238521603c04862ab151cdd80980b591cb36ebe844d43203992fac9ef085c8a1",
            note="M2D-CLAP 2025, BERT inside; release v0.5.0",
            files=(WeightsFile("m2d_clap_vit_base-80x608p16x16-240128", note="M2D-CLAP 2024; v0.1.0"),),
            text=(
                TextSide(BERT_BASE, "Apache-2.0", note="2025"),
                TextSide(GTE_BASE, "MIT", weights=True, default=False, note="2024"),
            ),
        ),
        # Of 2025's files: what both have been trained on and more.
        trained_on=("as20k", "as2m", "as", "vggsound", "fsd50k", "audiocaps", "clotho"),
        probe_lr=3e-5,
        paper_rows=("M2D-CLAP/0.7", "M2D-CLAP_2025"),
    )

    def __init__(
        self,
        *,
        weights: str,
        text_encoder: str = "",
        text_pooling: Literal["auto", "mean", "cls"] = "auto",
        input_size: str = "",
        patch_size: str = "",
        sample_rate: int = 0,
        norm_stats: str = "",
        features: Literal["stacked", "flat"] = "stacked",
        layers: str = "-1",
        dur_frames: int = 0,
        heads: int = 0,
        depth: int = 12,
        embed_dim: int = 768,
    ) -> None:
        self._text_spec, self._text_pooling = text_encoder, text_pooling
        super().__init__(
            weights=weights,
            input_size=input_size,
            patch_size=patch_size,
            sample_rate=sample_rate,
            norm_stats=norm_stats,
            features=features,
            layers=layers,
            dur_frames=dur_frames,
            heads=heads,
            depth=depth,
            embed_dim=embed_dim,
        )

    def _read_parts(self, parts: Parts, seed: int | None) -> None:
        super()._read_parts(parts, seed)
        if parts.audio_proj:
            self.audio_proj = unfilled(lambda: audio_projector(parts.audio_proj))
            load_exactly(self.audio_proj, parts.audio_proj, what="of the audio projector")
        elif seed is not None:
            dim = parts.encoder["cls_token"].shape[-1]
            self.audio_proj = unfilled(lambda: MeanProjector(dim, dim, dim))
            initialise(self.audio_proj, seed + 1)
        else:
            raise UserError("these weights have no audio projector, so no joint space: evaluate them as model 'm2d'")
        self.joint_dim = self.audio_proj.out_dim
        if isinstance(self.audio_proj, MeanProjector) and not parts.text_proj and not parts.text_encoder:
            # 2024's: AudioSet, with captions of AudioCaps' clips. VGGSound, WavCaps (which has Freesound's clips, among
            # them FSD50K's) and Clotho came with 2025 (MODELS 4.1).
            self.trained_on = ("as20k", "as2m", "as", "audiocaps")
        self.text_proj = unfilled(lambda: text_projector(parts.text_proj))
        load_exactly(self.text_proj, parts.text_proj, what="of the text projector")
        # Not a submodule yet: linear evaluation needs no text encoder. A list hides the module from torch.
        self._text: list[TextEncoder] = []
        self._text_reading = parts.text_reading
        self._text_state = {key: value for key, value in parts.text_encoder.items() if not key.endswith("position_ids")}

    def embed_audio(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, J]``, not normalised: one vector for all chunks of a clip together."""
        return self.audio_proj(self.tokens_of(self.log_mel(waveforms)))

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Return ``[C, J]``, not normalised, on the adapter's device."""
        encoder = self.sentence_encoder()
        joint = self.text_proj(encoder.encode(texts))
        if joint.shape[1] != self.joint_dim:
            raise UserError(
                f"the text encoder {encoder.name} gives {joint.shape[1]} dimensions and the audio side "
                f"{self.joint_dim}: set --text_encoder to the one these weights were trained with"
            )
        return joint

    def sentence_encoder(self) -> TextEncoder:
        """Return the sentence encoder on the adapter's device; it is loaded when first asked for."""
        if not self._text:
            self._text.append(self._load_text_encoder().eval())
        return self._text[0].to(self.device)  # no submodule, so it does not move with the adapter by itself

    def text_facts(self) -> dict[str, Any]:
        """Return the sentence encoder's facts; loads it."""
        return self.sentence_encoder().facts()

    def _load_text_encoder(self) -> TextEncoder:
        from model_adapters.networks.text import BERT_TOKENIZER, bert_from_state, load_text_encoder

        if self._text_state:
            return bert_from_state(
                self._text_state,
                self._text_spec or self.made_by.get("text_encoder") or BERT_TOKENIZER,
                self._text_reading,
                self._text_pooling,
            )
        letter, normalise = self.geometry.text_encoder, None
        if self.made_by.get("text_encoder"):
            spec, pooling = self.made_by["text_encoder"], self.made_by.get("pooling") or "auto"
            normalise = self.made_by.get("normalise")
        elif letter in _OF_LETTER or self._text_spec:
            spec, pooling = _OF_LETTER.get(letter, ("", "auto"))
        else:
            raise UserError(
                f"these weights go with text encoder '{letter}' (the letter in the folder's name): give its hub id or "
                "folder with --text_encoder"
            )
        # The weights were trained with one way of pooling; where their encoder's files come from does not change it.
        if self._text_pooling != "auto":
            return load_text_encoder(self._text_spec or spec, self._text_pooling)
        return load_text_encoder(self._text_spec or spec, pooling, normalise)


ADAPTER = M2DClap
