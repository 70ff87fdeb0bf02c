"""aiSFX: sound-effects embeddings with CC BY 4.0 weights in a PyPI wheel: real without a model hub.

Ma and Lerch, "Representation Learning for the Automatic Indexing of Sound Effects Libraries", ISMIR 2022.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from model_adapters.base import Adapter, ModelInfo, Weights, parse_random
from model_adapters.networks.aisfx import (
    BLOCK_HOP,
    HOP,
    RATE,
    SHA256,
    AisfxLogMel,
    AisfxNet,
    blocks_of,
    packaged_weights,
    read_weights,
)
from model_adapters.networks.checkpoints import load_exactly, unfilled
from model_adapters.networks.conv_common import untrained
from model_adapters.networks.options import at_least


class Aisfx(Adapter):
    """A CNN on blocks of 2.3 s that overlap by half; a clip's embedding is the mean over its blocks.

    Parameters
    ----------
    weights: the published checkpoint's path, or ``random[:SEED]``; left out, the one in the installed package
        (``pip install --no-deps aisfx==0.1.2``).
    width: channels of the first block of an untrained network (the published one: 64).
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="aiSFX (sound effects, X-Sequential-CE)",
        kind="audio",
        paper="Ma and Lerch, Representation Learning for the Automatic Indexing of Sound Effects Libraries, ISMIR 2022",
        code_licence="MIT (this implementation)",
        weights=Weights(
            source="https://pypi.org/project/aisfx/0.1.2/ (aisfx/models/checkpoint.pth in the wheel)",
            licence="CC BY 4.0",
            file_name="aisfx/checkpoint.pth",
            size=24900277,
            sha256=SHA256,
        ),
        needs_weights=False,
        probe_lr=3e-4,
    )
    for_untrained = ("width",)
    sample_rate = RATE
    short_audio = "zeros at the end, up to the task's window; then zeros in the log-mel, up to 2.3 s"
    long_audio = "blocks of 2.3 s, one every 1.2 s; a rest of less than 1.2 s is not heard"

    def __init__(self, *, weights: str = "", width: int = 64) -> None:
        super().__init__()
        self.front_end = AisfxLogMel()
        seed = parse_random(weights)
        if seed is not None:
            at_least(1, width=width)
            self.network = untrained(lambda: AisfxNet(width), seed)
            self.weights_sha256 = f"random:{seed}"
        else:
            path = weights or packaged_weights()
            state, self.weights_sha256 = read_weights(path)
            self.network = unfilled(AisfxNet)
            load_exactly(self.network, state, what=f"in '{path}'")
        self.embedding_dim = self.network.dim
        self.eval()

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Return the log-mel ``[B, 1, 96, T]`` of waveforms, between 0 and about 1."""
        return self.front_end(waveforms)[:, None]

    def blocks(self, log_mel: Tensor) -> Tensor:
        """Return one embedding per block ``[B, N, 512]`` of a log-mel ``[B, 1, 96, T]``."""
        blocks = blocks_of(log_mel[:, 0])
        return self.network(blocks.flatten(0, 1)[:, None]).unflatten(0, blocks.shape[:2])

    def encode(self, log_mel: Tensor) -> Tensor:
        """Return clip embeddings ``[B, 512]`` of a log-mel ``[B, 1, 96, T]``."""
        return self.blocks(log_mel).mean(dim=1)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean over blocks ``[B, 512]``; zeros at the end are heard as silence."""
        return self.encode(self.log_mel(waveforms))

    def embed_frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
        """Return ``([B, N, 512], 1.16)``: block i begins at i times that and lasts twice as long."""
        return self.blocks(self.log_mel(waveforms)), BLOCK_HOP * HOP / RATE


ADAPTER = Aisfx
