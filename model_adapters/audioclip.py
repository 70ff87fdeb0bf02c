"""AudioCLIP (Guzhov et al., ICASSP 2022): ESResNeXt-fbsp for audio beside CLIP's image and text sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor

from evar.errors import UserError
from model_adapters.base import Adapter, ModelInfo, Skeleton, TextSide, Weights, WeightsFile, parse_random
from model_adapters.networks.checkpoints import find_checkpoint, load_exactly, read_checkpoint, refuse_others, unfilled
from model_adapters.networks.conv_common import mean_of_windows, untrained
from model_adapters.networks.esresnext import DEPTHS, EsResNeXt, esresnext_of
from model_adapters.networks.htsat import under
from model_adapters.networks.options import one_of
from model_adapters.networks.resnet import STAGES
from model_adapters.networks.text_towers import CLIP_LICENCE, LazyTower, Reading, random_tower, tower_from_state

READING = Reading("clip", "openai/clip-vit-base-patch32", at="last", max_tokens=77)
"""All of OpenAI's CLIPs have one vocabulary; the one named is the smallest whose files lie on the hub."""
CHUNK_SECONDS = 10
_RELEASE = "https://github.com/AndreyGuzhov/AudioCLIP/releases/download/v0.1"
_JOINT = 1024
_PARTS = (
    "audio.", "visual.", "transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection",
    "logit_scale", "input_resolution", "context_length", "vocab_size",
)  # fmt: skip
"""How the names of a published file begin: CLIP's beside ``audio.``; the last three are facts, not weights."""


class AudioClip(Adapter):
    """AudioCLIP's audio side: a learned filterbank, ResNeXt-50 with attention, 2048 features; text by CLIP's.

    A file of ESResNeXt-fbsp alone (trained on AudioSet before it met CLIP) is read, too; it has no joint space.

    Parameters
    ----------
    weights: path of ``AudioCLIP-Full-Training.pt``, or ``random[:SEED]`` for an untrained network.
    le_layer: what linear evaluation gets: the ``encoder``'s 2048 features, as the reference platform does, or the
        ``joint`` vector.
    long_audio: ``whole``: all of a clip in one pass; ``chunks`` of 10 s, averaged.
    tokenizer: hub id or folder of CLIP's tokenizer.
    depth: blocks in each stage of an untrained network, and layers of its text tower; 0 for the published sizes.
    width: channels after the stem of an untrained network, a multiple of 16; 64 is the published one.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="AudioCLIP",
        kind="audio-language",
        paper="Guzhov et al., AudioCLIP: Extending CLIP to Image, Text and Audio, ICASSP 2022; ESResNe(X)t-fbsp: "
        "Learning Robust Time-Frequency Transformation of Audio, IJCNN 2021",
        code_licence="MIT (this implementation; text: transformers' CLIP, Apache-2.0)",
        weights=Weights(
            source="https://github.com/AndreyGuzhov/AudioCLIP/releases",
            licence="MIT",
            url=f"{_RELEASE}/AudioCLIP-Full-Training.pt",
            file_name="AudioCLIP-Full-Training.pt",
            files=(
                WeightsFile(
                    "AudioCLIP-Partial-Training.pt",
                    url=f"{_RELEASE}/AudioCLIP-Partial-Training.pt",
                    note="only the audio side was trained",
                ),
                WeightsFile(
                    "ESRNXFBSP.pt", url=f"{_RELEASE}/ESRNXFBSP.pt", note="ESResNeXt-fbsp alone: no joint space"
                ),
            ),
            text=(TextSide(READING.tokenizer, CLIP_LICENCE),),
        ),
        trained_on=("as20k", "as2m", "as"),
        probe_lr=3e-4,
        paper_rows=("AudioCLIP", "ESResNeXt"),
    )
    for_untrained = ("depth", "width")
    sample_rate = 44100
    short_audio = "zeros at the end, up to the task's window"

    def __init__(
        self,
        *,
        weights: str,
        le_layer: Literal["encoder", "joint"] = "encoder",
        long_audio: Literal["whole", "chunks"] = "whole",
        tokenizer: str = "",
        depth: int = 0,
        width: int = 64,
    ) -> None:
        super().__init__()
        one_of("long_audio", long_audio, "whole", "chunks")
        one_of("le_layer", le_layer, "encoder", "joint")
        self.le_layer = le_layer
        self.chunked = long_audio == "chunks"
        self.long_audio = f"chunks of {CHUNK_SECONDS} s, averaged" if self.chunked else "whole clip"
        seed = parse_random(weights)
        if seed is None:
            self._read(weights, tokenizer)
        else:
            if depth < 0 or width < 16 or width % 16:
                raise UserError(f"--depth must be 0 or more and --width a multiple of 16, not {depth} and {width}")
            depths = (depth,) * STAGES if depth else DEPTHS
            self.network = untrained(lambda: EsResNeXt(_JOINT, depths, width), seed)
            self._text = LazyTower(lambda: random_tower(READING, seed + 1, tokenizer, depth, projection=_JOINT))
            self.joint_dim, self.weights_sha256 = _JOINT, f"random:{seed}"
        if le_layer == "joint" and not self.joint_dim:
            raise UserError("these weights have no joint space: leave --le_layer=encoder")
        self.embedding_dim = self.joint_dim if le_layer == "joint" else self.network.dim
        self.eval()

    def _read(self, weights: str, tokenizer: str) -> None:
        state, self.weights_sha256 = read_checkpoint(weights)
        what = f"in '{find_checkpoint(weights).name}'"
        audio = under(state, "audio.")
        alone = not audio
        outputs, depths, width = esresnext_of(audio or state, what, state)
        self.network = unfilled(lambda: EsResNeXt(outputs, depths, width))
        load_exactly(self.network, audio or state, what=what)
        if not alone:
            refuse_others(state, _PARTS, "AudioCLIP", what)
            self.joint_dim = outputs
            text = {k: v for k, v in state.items() if not k.startswith(("audio.", "visual."))}
            self._text = LazyTower(lambda: tower_from_state(text, READING, tokenizer, what))

    def _features(self, waveforms: Tensor) -> Tensor:
        samples = CHUNK_SECONDS * self.sample_rate if self.chunked else 0
        return mean_of_windows(self.network.encode, waveforms, samples)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, 2048]`` (or the joint vectors); padding counts as sound, as in the published evaluation."""
        features = self._features(waveforms)
        return self.network.fc(features) if self.le_layer == "joint" else features

    def embed_audio(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the joint vectors ``[B, 1024]``, not normalised."""
        self._require_joint()
        return self.network.fc(self._features(waveforms))

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Return the joint vectors ``[C, 1024]`` of sentences, not normalised."""
        self._require_joint()
        return self._text.on(self.device).encode(texts)

    def text_facts(self) -> dict[str, Any]:
        """Return the name and the checksum of the tokenizer, which does not come with the weights."""
        self._require_joint()
        return self._text.facts()

    def _require_joint(self) -> None:
        if not self.joint_dim:
            raise UserError("these weights are of ESResNeXt-fbsp alone: they have no joint space with text")

    def skeleton(self) -> Skeleton | None:
        """Return an untrained network of this size; None where an option cannot express it."""
        depths = self.network.depths
        depth = 0 if depths == DEPTHS else depths[0]
        if self.network.fc.out_features != _JOINT or (depth and depths != (depth,) * STAGES):
            return None
        options = {"depth": str(depth), "width": str(self.network.width), "le_layer": self.le_layer}
        return Skeleton("audioclip", options | {"long_audio": "chunks" if self.chunked else "whole"})


ADAPTER = AudioClip
