"""PANNs' CNN14: the convolutional AudioSet tagger (Kong et al., IEEE/ACM TASLP 2020), at 16 or 32 kHz."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar, Literal

from torch import Tensor

from evar.audioset import display_names
from evar.errors import UserError
from model_adapters.base import Adapter, ModelInfo, Skeleton, Weights, WeightsFile, parse_random
from model_adapters.networks.checkpoints import find_checkpoint, load_exactly, read_checkpoint, unfilled
from model_adapters.networks.cnn14 import BLOCKS, Cnn14, Cnn14Size, size_of
from model_adapters.networks.conv_common import untrained
from model_adapters.networks.frame_chunks import mean_of_chunks
from model_adapters.networks.frontends import PANNS_16K, PANNS_32K
from model_adapters.networks.options import one_of

CHUNK_SECONDS = 10
"""The length of AudioSet's clips, on which the network was trained."""


class Panns(Adapter):
    """CNN14: 64-band log-mel in dB, six blocks of convolutions, maximum plus mean over time, a dense layer with ReLU.

    Also a tagger of AudioSet's 527 classes (``tag_text:panns``).

    Parameters
    ----------
    weights: a checkpoint's path (``Cnn14_16k_mAP=0.438.pth``, ``Cnn14_mAP=0.431.pth``: the rate is read from it), or
        ``random[:SEED]`` for an untrained network.
    long_audio: ``whole``: all of a clip in one pass, as the reference platform does; ``chunks`` of 10 s, averaged.
    sample_rate, width: of an untrained network: 16000 (the reference platform's) or 32000; channels of the first block.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="PANNs CNN14",
        kind="audio",
        paper="Kong et al., PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition, "
        "IEEE/ACM TASLP 28, 2020",
        code_licence="MIT (this implementation)",
        weights=Weights(
            source="https://zenodo.org/records/3987831",
            licence="CC BY 4.0 (their code: MIT)",
            url="https://zenodo.org/records/3987831/files/Cnn14_16k_mAP%3D0.438.pth?download=1",
            file_name="Cnn14_16k_mAP=0.438.pth",
            size=358668570,
            # Size and checksum as the card of a conversion states them (dev-e/panns-cnn14-16k-coreml on the hub).
            sha256="e2ee543a27919542c2ea03eabaa70b24dcd4e6c8e05621de6b67a94e4c5058e6",
            files=(
                WeightsFile(
                    "Cnn14_mAP=0.431.pth",
                    url="https://zenodo.org/records/3987831/files/Cnn14_mAP%3D0.431.pth?download=1",
                    note="32 kHz",
                ),
            ),
        ),
        trained_on=("as20k", "as2m", "as"),
        probe_lr=3e-4,
        paper_rows=("PANNs CNN14",),
    )
    probe_lrs = MappingProxyType({"nsynth": 1e-5})
    for_untrained = ("sample_rate", "width")
    short_audio = "zeros at the end, up to the task's window (at least 0.31 s)"

    class_names: tuple[str, ...]
    """In AudioSet's order; absent for a checkpoint with other classes."""

    def __init__(
        self,
        *,
        weights: str,
        long_audio: Literal["whole", "chunks"] = "whole",
        sample_rate: int = 16000,
        width: int = 64,
    ) -> None:
        super().__init__()
        one_of("long_audio", long_audio, "whole", "chunks")
        seed = parse_random(weights)
        if seed is None:
            state, self.weights_sha256 = read_checkpoint(weights)
            what = f"in '{find_checkpoint(weights).name}'"
            size = size_of(state, what=what)
            self.network = unfilled(lambda: Cnn14(size))
            load_exactly(self.network, state, what=what)
        else:
            size = _random_size(sample_rate, width)
            self.network = untrained(lambda: Cnn14(size), seed)
            self.weights_sha256 = f"random:{seed}"
        if size.classes == len(display_names()):
            self.class_names = tuple(display_names())
        self.sample_rate, self.embedding_dim = size.spec.sample_rate, size.dim
        self.chunked = long_audio == "chunks"
        self.long_audio = f"chunks of {CHUNK_SECONDS} s, averaged" if self.chunked else "whole clip"
        self.eval()

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Return the standardised log-mel ``[B, 1, 64, frames]`` of ``[B, T]``, at least 32 frames long.

        In fine-tuning its statistics, those of pre-training, stay as they are.
        """
        return self.network.log_mel(waveforms)

    def encode(self, log_mel: Tensor) -> Tensor:
        """Return clip embeddings ``[B, 2048]`` of a standardised log-mel."""
        if not self.chunked:
            return self.network.encode(log_mel)
        frames = CHUNK_SECONDS * self.sample_rate // self.network.spec.hop
        return mean_of_chunks(log_mel, frames, 1 << (BLOCKS - 1), self.network.encode)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, 2048]``; padding counts as sound, as in the published evaluation."""
        return self.encode(self.log_mel(waveforms))

    def embed_frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
        """Return ``([B, T', 2048], 0.32)``: the last block's output, before pooling and the dense layer."""
        seconds = self.network.spec.hop * (1 << (BLOCKS - 1)) / self.sample_rate
        return self.network.frames(self.log_mel(waveforms)), seconds

    def tag_probabilities(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the probabilities ``[B, 527]`` of ``class_names``; of chunks, the classifier on their mean."""
        return self.network.probabilities(self.embed(waveforms, lengths))

    def skeleton(self) -> Skeleton | None:
        """Return an untrained network of this size; None for one with other classes."""
        size = self.network.size
        if size.classes != len(display_names()):
            return None
        options = {
            "sample_rate": str(self.sample_rate),
            "width": str(size.width),
            "long_audio": "chunks" if self.chunked else "whole",
        }
        return Skeleton("panns", options)


def _random_size(sample_rate: int, width: int) -> Cnn14Size:
    specs = {spec.sample_rate: spec for spec in (PANNS_16K, PANNS_32K)}
    if sample_rate not in specs:
        raise UserError(f"CNN14 was made for 16000 or 32000 Hz, not {sample_rate}")
    if width < 1:
        raise UserError(f"--width must be 1 or more, not {width}")
    return Cnn14Size(specs[sample_rate], width)


ADAPTER = Panns
