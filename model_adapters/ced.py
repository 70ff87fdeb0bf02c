"""CED: Consistent Ensemble Distillation for audio tagging (Dinkel et al., ICASSP 2024)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from evar.audioset import display_names
from evar.errors import UserError
from model_adapters.base import Adapter, ModelInfo, Skeleton, Weights, parse_random
from model_adapters.networks.audio_vit import AudioViTSize, initialise
from model_adapters.networks.checkpoints import load_exactly, unfilled
from model_adapters.networks.frontends import CED as CED_FRONT_END
from model_adapters.networks.frontends import Spectrogram
from model_adapters.networks.hf_files import read_file_or_hub
from model_adapters.networks.mel_vit import MelViT, encoder_size

PIECE_FRAMES = 1012
"""Frames (10.12 s) that the published encoder takes at once."""
N_CLASSES = 527
_DIMS = {"tiny": 192, "mini": 256, "small": 384, "base": 768}


class CedNetwork(nn.Module):
    """Encoder and tagging head, under the published names."""

    def __init__(self, size: AudioViTSize, classes: int, *, split_order: bool) -> None:
        super().__init__()
        self.encoder = MelViT(size, PIECE_FRAMES, pad_last=True, nested=False, split_order=split_order)
        if classes:
            self.outputlayer = nn.Sequential(nn.LayerNorm(size.dim), nn.Linear(size.dim, classes))
            self.outputlayer.requires_grad_(False)  # the embedding does not pass through it


class CED(Adapter):
    """CED's encoder and AudioSet tagger: pieces of 10.12 s, the mean over all tokens.

    Parameters
    ----------
    weights: a checkpoint's path, a repository on the Hugging Face hub (``mispeech/ced-tiny``, ``-mini``, ``-small``,
        ``-base``), or ``random[:SEED]``.
    reference_split_order: clips over 10.12 s as in the published port, which gives a clip of a batch partly the pieces
        of other clips, and leaves out a last piece that is whole. The default keeps every clip's pieces together.
    size, depth: of a random network: tiny, mini, small or base; number of blocks.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="CED (Consistent Ensemble Distillation)",
        kind="audio",
        paper="Dinkel et al., CED: Consistent ensemble distillation for audio tagging, ICASSP 2024",
        code_licence="MIT (this implementation, from the paper and the published port's shapes)",
        weights=Weights(
            source="https://huggingface.co/mispeech/ced-base",
            licence="Apache-2.0 (the authors' Hugging Face port; their original repository is GPL-3.0)",
            hub="mispeech/ced-base",
            hub_size=343_000_000,
        ),
        needs_weights=False,
        trained_on=("as", "as20k", "as2m"),
        probe_lr=3e-4,
        paper_rows=("CED",),
    )
    for_untrained = ("size", "depth")
    sample_rate = CED_FRONT_END.sample_rate
    short_audio = "zeros at the end, up to the task's window (at least one patch, 0.16 s)"
    class_names: tuple[str, ...]
    """The 527 classes of AudioSet; absent if the weights have no head for them."""

    def __init__(
        self,
        weights: str = "mispeech/ced-base",
        *,
        reference_split_order: bool = False,
        size: Literal["tiny", "mini", "small", "base"] = "base",
        depth: int = 12,
    ) -> None:
        super().__init__()
        seed = parse_random(weights)
        if seed is None:
            state, self.weights_sha256 = read_file_or_hub(weights)
            found = encoder_size(_encoder(state), "CED", {}, f"in '{weights}'", state)
            classes = len(state.get("outputlayer.1.weight", ()))
            self.network = unfilled(lambda: CedNetwork(found, classes, split_order=reference_split_order))
            load_exactly(self.network, state, ignore=("feature_extractor.", "front_end."), what=f"in '{weights}'")
        else:
            if size not in _DIMS or depth < 1:
                raise UserError(f"--size must be one of {', '.join(_DIMS)} and --depth 1 or more, not {size}, {depth}")
            self.weights_sha256, classes = f"random:{seed}", N_CLASSES
            found = AudioViTSize(dim=_DIMS[size], depth=depth, patch=(16, 16), grid=(4, 63))
            self.network = unfilled(lambda: CedNetwork(found, classes, split_order=reference_split_order))
            initialise(self.network, seed)
        if classes == N_CLASSES:
            self.class_names = tuple(display_names())
        self.front_end = Spectrogram(CED_FRONT_END)
        self.embedding_dim = found.dim
        self.batch_matters = reference_split_order
        self.long_audio = "pieces of 1012 frames" + (", mixed within a batch" if reference_split_order else "")
        self.eval()

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Return the log-mel ``[B, 1, 64, frames]`` of ``[B, T]``, standardised by the model's own batch norm."""
        return self.network.encoder.standardise(self.front_end(waveforms))

    def encode(self, log_mel: Tensor) -> Tensor:
        """Return the mean of all tokens ``[B, D]`` of a standardised log-mel ``[B, 1, 64, frames]``."""
        return self.network.encoder.grid(log_mel).mean(dim=(1, 2))

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return clip embeddings ``[B, D]``; padding counts as sound, as in the published evaluation."""
        return self.encode(self.log_mel(waveforms))

    def embed_frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
        """Return ``([B, T', D], 0.16)``: the mean over frequency every 160 ms, without the padding of the last piece.

        A whole piece holds 63 steps and 4 frames (40 ms) that no patch covers.
        """
        x = self.log_mel(waveforms)
        steps = self.network.encoder.grid(x).mean(1)
        whole, rest = divmod(x.shape[3], PIECE_FRAMES)
        heard = whole * (PIECE_FRAMES // 16) + -(-rest // 16)
        return steps[:, : max(heard, 1)], 16 * self.front_end.frame_seconds

    def tag_probabilities(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the probabilities ``[B, 527]`` of ``class_names``."""
        if not hasattr(self.network, "outputlayer"):
            raise UserError("these weights have no tagging head (outputlayer)")
        logits: Tensor = self.network.outputlayer(self.embed(waveforms, lengths))
        return logits.float().sigmoid()

    def skeleton(self) -> Skeleton | None:
        """Return an untrained network of this size."""
        size = self.network.encoder.size
        names = [name for name, dim in _DIMS.items() if dim == size.dim]
        if not names or size.grid != (4, 63) or size.patch != (16, 16):
            return None
        options = {
            "size": names[0],
            "depth": str(size.depth),
            "reference_split_order": str(self.network.encoder.split_order).lower(),
        }
        return Skeleton("ced", options, spare=("network.outputlayer.",))


def _encoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")} or state


ADAPTER = CED
