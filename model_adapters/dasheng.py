"""Dasheng: masked audio encoders of up to 1.2 billion parameters (Dinkel et al., Interspeech 2024)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from evar.errors import UserError
from model_adapters.base import Adapter, ModelInfo, Skeleton, Weights, WeightsFile, parse_random
from model_adapters.networks.audio_vit import AudioViTSize, initialise
from model_adapters.networks.checkpoints import load_exactly, unfilled
from model_adapters.networks.frontends import CED as DASHENG_FRONT_END
from model_adapters.networks.frontends import Spectrogram
from model_adapters.networks.hf_files import read_file_or_hub
from model_adapters.networks.mel_vit import MelViT, encoder_size

PIECE_FRAMES = 1008
"""Frames (10.08 s) that the encoder takes at once."""
_SIZES = {"base": (768, 12, 12), "0.6B": (1280, 32, 16), "1.2B": (1536, 40, 24)}
_HEADS = {dim: heads for dim, _, heads in _SIZES.values()}


class Dasheng(Adapter):
    """Dasheng's encoder: one token per 40 ms, pieces of 10.08 s, the mean over all tokens.

    Parameters
    ----------
    weights: a checkpoint's path, a repository on the Hugging Face hub (``mispeech/dasheng-base``, ``-0.6B``,
        ``-1.2B``), or ``random[:SEED]``. The default is what the reference platform evaluates.
    size, depth: of a random network: base, 0.6B or 1.2B; number of blocks (0: the published number).
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="Dasheng",
        kind="audio",
        paper="Dinkel et al., Scaling up masked audio encoder learning for general audio classification, "
        "Interspeech 2024",
        code_licence="MIT (this implementation, from the paper and the published file's shapes)",
        weights=Weights(
            source="https://huggingface.co/mispeech (dasheng-base, -0.6B, -1.2B); https://zenodo.org/records/11511780",
            licence="Apache-2.0",
            hub="mispeech/dasheng-1.2B",
            files=tuple(
                WeightsFile(name, url=f"https://zenodo.org/records/11511780/files/{name}?download=1", note=size)
                for name, size in (
                    ("dasheng_12b.pt", "1.2B, 1536 dims: the authors' own file of the default"),
                    ("dasheng_06b.pt", "0.6B, 1280 dims"),
                    ("dasheng_base.pt", "base, 768 dims"),
                )
            ),
        ),
        needs_weights=False,
        trained_on=("as", "as20k", "as2m"),
        probe_lr=3e-4,
        paper_rows=("Dasheng 1.2B",),
    )
    for_untrained = ("size", "depth")
    sample_rate = DASHENG_FRONT_END.sample_rate
    embedding_dim = 1536
    """Of the weights that are taken when none are named."""
    long_audio = "pieces of 1008 frames"
    short_audio = "zeros at the end, up to the task's window (at least one patch, 0.04 s)"

    def __init__(
        self,
        weights: str = "mispeech/dasheng-1.2B",
        *,
        size: Literal["base", "0.6B", "1.2B"] = "base",
        depth: int = 0,
    ) -> None:
        super().__init__()
        seed = parse_random(weights)
        if seed is None:
            raw, self.weights_sha256 = read_file_or_hub(weights)
            state = published_names(raw)
            found = encoder_size(state, "Dasheng", _HEADS, f"in '{weights}'", raw)
            self.encoder = unfilled(lambda: MelViT(found, PIECE_FRAMES, pad_last=False, nested=True))
            load_exactly(self.encoder, state, ignore=("front_end.", "outputlayer."), what=f"in '{weights}'")
        else:
            if size not in _SIZES or depth < 0:
                raise UserError(f"--size must be one of {', '.join(_SIZES)} and --depth 0 or more, not {size}, {depth}")
            self.weights_sha256 = f"random:{seed}"
            dim, blocks, heads = _SIZES[size]
            found = AudioViTSize(dim=dim, depth=depth or blocks, heads=heads, patch=(64, 4), grid=(1, 252))
            self.encoder = unfilled(lambda: MelViT(found, PIECE_FRAMES, pad_last=False, nested=True))
            initialise(self.encoder, seed)
        self.front_end = Spectrogram(DASHENG_FRONT_END)
        self.embedding_dim = found.dim
        self.eval()

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Return the log-mel ``[B, 1, 64, frames]`` of ``[B, T]``, standardised by the model's own batch norm."""
        return self.encoder.standardise(self.front_end(waveforms))

    def encode(self, log_mel: Tensor) -> Tensor:
        """Return the mean of all tokens ``[B, D]`` of a standardised log-mel ``[B, 1, 64, frames]``."""
        return self.encoder.grid(log_mel).mean(dim=(1, 2))

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return clip embeddings ``[B, D]``; padding counts as sound, as in the published evaluation."""
        return self.encode(self.log_mel(waveforms))

    def embed_frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
        """Return ``([B, T', D], 0.04)``: one token every 40 ms."""
        return self.encoder.grid(self.log_mel(waveforms)).mean(1), 4 * self.front_end.frame_seconds

    def skeleton(self) -> Skeleton | None:
        """Return an untrained encoder of this size."""
        size = self.encoder.size
        names = [name for name, (dim, _, heads) in _SIZES.items() if (dim, heads) == (size.dim, size.n_heads)]
        if not names or (size.patch, size.grid) != ((64, 4), (1, 252)):
            return None
        return Skeleton("dasheng", {"size": names[0], "depth": str(size.depth)})


def published_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names of the ``dasheng`` package's files, which transformers' port prefixes."""
    if any(key.startswith("encoder.") for key in state):
        state = {key.removeprefix("encoder."): value for key, value in state.items()}
    flat = {f"init_bn.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    return {key.replace("init_bn.", "init_bn.1.") if key in flat else key: value for key, value in state.items()}


ADAPTER = Dasheng
