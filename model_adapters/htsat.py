"""HTS-AT: the hierarchical token-semantic audio transformer (Chen et al., ICASSP 2022), an AudioSet tagger."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from evar.audioset import display_names
from evar.errors import UserError
from model_adapters.base import ModelInfo, Skeleton, Weights, parse_random
from model_adapters.networks.checkpoints import find_checkpoint, load_exactly, read_checkpoint
from model_adapters.networks.frontends import PANNS_32K, Spectrogram
from model_adapters.networks.htsat import (
    HtsatSize,
    htsat_from_state,
    mel_filters_of,
    random_htsat,
    shortened,
    under,
)
from model_adapters.networks.options import seeded
from model_adapters.networks.windowed import Windowed

_HEAD = "tscam_conv."


class HtsAt(Windowed):
    """HTS-AT: log-mel of ten seconds, a Swin transformer, the mean of its last map.

    A clip is heard in pieces of 10 s, the last one as long as it is; a short piece's log-mel is repeated whole times.
    The vectors of the pieces are averaged. Also a tagger of AudioSet's classes (``tag_text:htsat``).

    Parameters
    ----------
    weights: path of a checkpoint (``HTSAT_AudioSet_Saved_1.ckpt``), or ``random[:SEED]`` for an untrained network.
    depth: blocks in each of the four stages of an untrained network; 0 for the published 2, 2, 6, 2.
    embed_dim: width of its first stage.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="HTS-AT",
        kind="audio",
        paper="Chen et al., HTS-AT: A Hierarchical Token-Semantic Audio Transformer for Sound Classification and "
        "Detection, ICASSP 2022",
        code_licence="Apache-2.0 (transformers' ClapAudioEncoder)",
        weights=Weights(
            source="https://github.com/RetroCirce/HTS-Audio-Transformer (Google Drive)",
            licence="MIT",
            file_name="HTSAT_AudioSet_Saved_1.ckpt",
        ),
        trained_on=("as2m", "as20k", "as"),
        probe_lr=3e-4,
        paper_rows=("HTS-AT",),
    )
    for_untrained = ("depth", "embed_dim")
    sample_rate = 32000
    window_samples = 320000
    long_audio = "pieces of 10 s, averaged"
    short_audio = "zeros up to the task's window; the log-mel is then repeated whole times, up to 10.24 s"

    class_names: tuple[str, ...]
    """Of the published classifier, in AudioSet's order; absent with another one."""

    def __init__(self, *, weights: str, depth: int = 0, embed_dim: int = 96) -> None:
        super().__init__()
        seed = parse_random(weights)
        filters: Tensor | None = None
        head: dict[str, Tensor] = {}
        if seed is None:
            raw, self.weights_sha256 = read_checkpoint(weights)
            state, what = under(raw, "sed_model.") or raw, f"in '{find_checkpoint(weights).name}'"
            self.network = htsat_from_state(state, what, repeats=True, whole=raw)
            filters, head = mel_filters_of(state, PANNS_32K, what), under(state, _HEAD)
        else:
            self.network = random_htsat(shortened(depth, embed_dim), seed, repeats=True)
            self.weights_sha256 = f"random:{seed}"
        self.front_end = Spectrogram(PANNS_32K, filters)
        self.embedding_dim = self.network.size.dim
        self._read_tagger(head, seed)
        self.eval()

    def _read_tagger(self, head: dict[str, Tensor], seed: int | None) -> None:
        """Take the token-semantic layer: a convolution over the last map, two rows high and three steps long."""
        self.tscam_conv: nn.Conv2d | None = None
        if seed is not None:
            names = display_names()
            self.tscam_conv = seeded(
                lambda: nn.Conv2d(self.embedding_dim, len(names), (2, 3), padding=(0, 1)), seed + 1
            )
        elif "weight" in head:
            classes, channels, rows, columns = head["weight"].shape
            self.tscam_conv = nn.Conv2d(channels, classes, (rows, columns), padding=(0, columns // 2))
            load_exactly(self.tscam_conv, head, what="of the token-semantic layer")
        if self.tscam_conv is not None and self.tscam_conv.out_channels == len(display_names()):
            self.class_names = tuple(display_names())

    def windows(self, waveforms: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return consecutive pieces of 10 s, the last one not padded."""
        return list(waveforms.split(self.window_samples, dim=1))

    def encode_window(self, log_mel: Tensor, layer: str) -> Tensor:
        """Return the mean of the last map ``[B, 768]``."""
        return self.network(log_mel)

    def tag_probabilities(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the probabilities ``[B, 527]`` of ``class_names``, the mean over pieces"""
        if self.tscam_conv is None:
            raise UserError("these HTS-AT weights have no tagging layer (tscam_conv)")
        frames = self.front_end.frames(self.window_samples)
        found = []
        for piece in self.log_mel(waveforms).split(frames, dim=3):
            steps = self.tscam_conv(self.network.feature_map(piece))
            found.append(steps.flatten(2).mean(dim=2).float().sigmoid())
        return torch.stack(found).mean(dim=0)

    def skeleton(self) -> Skeleton | None:
        """Return an untrained network of this size; None where options cannot express it, or the mel filters differ."""
        options = size_options(self.network.size)
        if options is None or not same_filters(self.front_end):
            return None
        return Skeleton("htsat", options, spare=(_HEAD,))


def size_options(size: HtsatSize) -> dict[str, str] | None:
    """Return the options ``depth`` and ``embed_dim`` of an untrained network of this size; None if there are none."""
    depth = 0 if size.depths == HtsatSize.depths else size.depths[0]
    usual = size.width >= 8 and size.width % 4 == 0
    if not usual or size != shortened(depth, size.width):
        return None
    return {"depth": str(depth), "embed_dim": str(size.width)}


def same_filters(front_end: Spectrogram) -> bool:
    """Say whether a front end's mel filters (which a file may have brought) are those that its constants give."""
    assert front_end.filters is not None
    plain = Spectrogram(front_end.spec).filters
    return plain is not None and torch.allclose(front_end.filters.cpu(), plain, atol=1e-6)


ADAPTER = HtsAt
