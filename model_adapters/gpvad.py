"""GPVAD's teacher: a small AudioSet tagger with MIT-licensed weights, real without a model hub.

Dinkel et al., "Voice activity detection in the wild", IEEE/ACM TASLP 29, 2021. A clip's embedding is the mean over time
of the recurrent layer's output (256 numbers every 80 ms), or mean and maximum side by side.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from evar.audioset import display_names
from evar.fetch.published import download
from model_adapters.base import Adapter, ModelInfo, Weights, parse_random
from model_adapters.networks import crnn
from model_adapters.networks.checkpoints import load_exactly, read_checkpoint
from model_adapters.networks.options import seeded

WEIGHTS = Weights(
    source="https://github.com/RicherMans/Datadriven-GPVAD (pretrained_models/teacher2/model.pth)",
    licence="MIT",
    url="https://raw.githubusercontent.com/RicherMans/Datadriven-GPVAD/79adfdcbed97c0bf7058a506ad7487c42ab0a982/"
    "pretrained_models/teacher2/model.pth",
    sha256="49ad72bd983f0ae974aebc8ad9b38e8d6995270b90362789139a8625601bd775",
    file_name="gpvad_teacher2.pth",
)
_CLIPS_AT_ONCE = 16
"""More at once do not fit a CPU's cache, and gain nothing on it."""


class Gpvad(Adapter):
    """The tagger. It hears all of the waveform it is given; zeros at the end are heard as silence.

    Parameters
    ----------
    weights: path of the published file, or ``random[:SEED]``; left out, it is downloaded into the weights folder.
    pooling: of the recurrent features over time: ``mean``, or ``mean_max`` (both, side by side).
    """

    info = ModelInfo(
        title="GPVAD teacher (CRNN AudioSet tagger)",
        kind="audio",
        paper="Dinkel et al., Voice activity detection in the wild, IEEE/ACM TASLP 29, 2021",
        code_licence="MIT",
        weights=WEIGHTS,
        needs_weights=False,
        trained_on=("as", "as20k"),
        probe_lr=3e-4,
    )
    sample_rate = crnn.SAMPLE_RATE

    def __init__(self, weights: str | None = None, pooling: Literal["mean", "mean_max"] = "mean") -> None:
        super().__init__()
        self.pooling = pooling
        self.embedding_dim = crnn.Crnn.width * (2 if pooling == "mean_max" else 1)
        self.class_names: tuple[str, ...] = tuple(sorted(display_names()))  # the outputs are in alphabetical order
        self.front_end = crnn.FrontEnd()
        seed = parse_random(weights) if weights is not None else None
        if seed is not None:
            self.network = seeded(crnn.Crnn, seed)
            self.weights_sha256 = f"random:{seed}"
        else:
            self.network = crnn.Crnn()
            state, self.weights_sha256 = read_checkpoint(weights if weights is not None else published_weights())
            load_exactly(self.network, state, what=f"in '{weights or WEIGHTS.file_name}'")
        self.eval()

    def embed_frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
        """Return ``([B, T', 256], 0.08)``: the recurrent features, each of 80 ms."""
        found = [self.network.encode(self.front_end(piece)) for piece in waveforms.split(_CLIPS_AT_ONCE)]
        return torch.cat(found), crnn.POOLED_FRAMES * crnn.FRAME_SAMPLES / crnn.SAMPLE_RATE

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, 256]`` (mean over time) or ``[B, 512]`` (mean and maximum)."""
        frames, _ = self.embed_frames(waveforms, lengths)
        mean = frames.mean(dim=1)
        return torch.cat([mean, frames.amax(dim=1)], dim=1) if self.pooling == "mean_max" else mean

    def tag_probabilities(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the probabilities ``[B, 527]`` of ``class_names``, pooled over time by the linear softmax."""
        pieces = []
        for piece in waveforms.split(_CLIPS_AT_ONCE):
            log_mel = self.front_end(piece)
            pieces.append(crnn.linear_softmax(self.network(log_mel).probabilities, log_mel.shape[1]))
        return torch.cat(pieces)


def published_weights() -> str:
    """Return the path of the published weights in the weights folder, downloaded (3.3 MB) and checked on first use."""
    return str(download(WEIGHTS.all_files()[0]))


ADAPTER = Gpvad
