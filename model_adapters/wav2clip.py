"""Wav2CLIP (Wu et al., ICASSP 2022): a ResNet-18 over spectra, distilled from CLIP's image side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from evar.errors import UserError
from model_adapters.base import Adapter, ModelInfo, Skeleton, TextSide, Weights, parse_random
from model_adapters.networks.checkpoints import find_checkpoint, load_exactly, read_checkpoint, unfilled
from model_adapters.networks.cnn_frontends import StandardisedSpectrum
from model_adapters.networks.conv_common import in_pieces, mean_of_windows, untrained
from model_adapters.networks.htsat import under
from model_adapters.networks.options import one_of
from model_adapters.networks.resnet import STAGES, ResNet, depths_of
from model_adapters.networks.text_towers import (
    CLIP_LICENCE,
    LazyTower,
    Reading,
    TextTower,
    random_tower,
    tower_from_state,
)

CLIP = "openai/clip-vit-base-patch32"
READING = Reading("clip", CLIP, at="last", max_tokens=77)
CHUNK_SECONDS = 10
DEPTHS = (2, 2, 2, 2)


class Wav2Clip(Adapter):
    """Wav2CLIP: standardised log power spectrum, ResNet-18, 512 features; in CLIP's space after a small network.

    A file without that network (``audio_transform``) is read, too; it has no joint space.

    The published code standardises the spectra of a batch together, so that a clip's embedding depends on its
    neighbours; here each clip by itself.

    Parameters
    ----------
    weights: path of ``Wav2CLIP.pt``, or ``random[:SEED]`` for an untrained network.
    standardise: ``clip``; ``batch`` as published: then embeddings depend on the order of clips and the batch size.
    long_audio: ``whole``: all of a clip in one pass, as published; ``chunks`` of 10 s, averaged.
    text_encoder: hub id or folder of the CLIP whose text side belongs to it (ViT-B/32), with its tokenizer.
    depth: blocks in each stage of an untrained network, and layers of its text tower; 0 for the published sizes.
    width: channels after the stem of an untrained network; 64 is the published one.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="Wav2CLIP",
        kind="audio-language",
        paper="Wu et al., Wav2CLIP: Learning Robust Audio Representations From CLIP, ICASSP 2022",
        code_licence="MIT (this implementation; text: transformers' CLIP, Apache-2.0)",
        weights=Weights(
            source="https://github.com/descriptinc/lyrebird-wav2clip/releases",
            licence="MIT",
            url="https://github.com/descriptinc/lyrebird-wav2clip/releases/download/v0.1.0-alpha/Wav2CLIP.pt",
            file_name="Wav2CLIP.pt",
            text=(TextSide(CLIP, CLIP_LICENCE, weights=True),),
        ),
        trained_on=("vggsound",),
        probe_lr=3e-4,
        paper_rows=("Wav2CLIP",),
    )
    for_untrained = ("depth", "width")
    sample_rate = 16000

    def __init__(
        self,
        *,
        weights: str,
        standardise: Literal["clip", "batch"] = "clip",
        long_audio: Literal["whole", "chunks"] = "whole",
        text_encoder: str = CLIP,
        depth: int = 0,
        width: int = 64,
    ) -> None:
        super().__init__()
        one_of("standardise", standardise, "clip", "batch")
        one_of("long_audio", long_audio, "whole", "chunks")
        self.chunked = long_audio == "chunks"
        self.long_audio = f"chunks of {CHUNK_SECONDS} s, averaged" if self.chunked else "whole clip"
        self.front_end = StandardisedSpectrum(standardise)
        self.batch_matters = standardise == "batch"
        seed = parse_random(weights)
        if seed is None:
            self._read(weights)
            self._text = LazyTower(lambda: _text_side(text_encoder, self.joint_dim))
        else:
            if depth < 0 or width < 1:
                raise UserError(f"--depth must be 0 or more and --width 1 or more, not {depth} and {width}")
            depths = (depth,) * STAGES if depth else DEPTHS
            self.network = untrained(lambda: ResNet(1, "basic", depths, width=width), seed)
            self.audio_transform: nn.Module = untrained(lambda: _transform(self.network.dim), seed + 1)
            joint = self.network.dim
            self._text = LazyTower(lambda: random_tower(READING, seed + 2, text_encoder, depth, projection=joint))
            self.joint_dim, self.weights_sha256 = joint, f"random:{seed}"
        self.embedding_dim = self.network.dim
        self.eval()

    def _read(self, weights: str) -> None:
        state, self.weights_sha256 = read_checkpoint(weights)
        what = f"in '{find_checkpoint(weights).name}'"
        # The stem's name tells what stands before the network's own names.
        prefix = next((key.removesuffix("bn1.weight") for key in state if key.endswith("encoder.bn1.weight")), "")
        encoder = under(state, prefix) if prefix else state
        self.network = unfilled(lambda: ResNet(1, "basic", depths_of(encoder), width=_width(encoder)))
        load_exactly(self.network, encoder, ignore=("spectrogram.", "audio_transform."), what=what)
        beside = prefix[: prefix.rstrip(".").rfind(".") + 1]
        joint = under(state, f"{beside}audio_transform.sequential.")
        self.audio_transform = nn.Identity() if not joint else unfilled(lambda: _transform(self.network.dim))
        if joint:
            self.joint_dim = self.network.dim
            load_exactly(self.audio_transform, joint, what=f"of audio_transform {what}")

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the ResNet's ``[B, 512]``; padding counts as sound."""
        samples = CHUNK_SECONDS * self.sample_rate if self.chunked else 0
        return mean_of_windows(self._features, waveforms, samples)

    def _features(self, waveforms: Tensor) -> Tensor:
        spectrum = self.front_end(waveforms)
        return in_pieces(self.network, spectrum, 16 * spectrum[:1].numel())

    def embed_audio(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the joint vectors ``[B, 512]``, not normalised."""
        self._require_joint()
        return self.audio_transform(self.embed(waveforms, lengths))

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Return CLIP's joint vectors ``[C, 512]`` of sentences, not normalised."""
        self._require_joint()
        return self._text.on(self.device).encode(texts)

    def text_facts(self) -> dict[str, Any]:
        """Return names and checksums of CLIP's text weights and tokenizer."""
        self._require_joint()
        return self._text.facts()

    def _require_joint(self) -> None:
        if not self.joint_dim:
            raise UserError("these weights are of Wav2CLIP's encoder alone: without audio_transform no joint space")

    def skeleton(self) -> Skeleton | None:
        """Return an untrained network of this size; None where an option cannot express it."""
        depths = self.network.depths
        depth = 0 if depths == DEPTHS else depths[0]
        if depth and depths != (depth,) * STAGES:
            return None
        options = {"depth": str(depth), "width": str(self.network.width), "standardise": self.front_end.over}
        options["long_audio"] = "chunks" if self.chunked else "whole"
        return Skeleton("wav2clip", options, spare=("audio_transform.",))


def _width(state: Mapping[str, Tensor]) -> int:
    return len(state["conv1.weight"]) if "conv1.weight" in state else 64


def _transform(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, width))


def _text_side(spec: str, joint_dim: int) -> TextTower:
    """Return the text side of a CLIP from its folder or hub id, tokenizer included.

    Raises :class:`UserError` if its vectors are not of the audio side's length ``joint_dim``.
    """
    from model_adapters.networks.text_files import locate

    files = locate(spec)
    files.require_weights()
    state, sha256 = read_checkpoint(files.weights()[0])
    text = {k: v for k, v in state.items() if k.startswith(("text_model.", "text_projection"))}
    tower = tower_from_state(text, READING, spec, f"of the text side in '{spec}'", sha256)
    if tower.width != joint_dim:
        raise UserError(
            f"the text side of '{spec}' gives {tower.width} dimensions and the audio side {joint_dim}: set "
            f"--text_encoder to the CLIP these weights were trained with ({CLIP})"
        )
    return tower


ADAPTER = Wav2Clip
