"""PaSST: patchout audio spectrogram transformer (Koutini et al., Interspeech 2022)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from evar.audioset import display_names
from evar.errors import UserError
from model_adapters.base import Adapter, ModelInfo, Skeleton, Weights, parse_random
from model_adapters.networks.checkpoints import load_exactly, read_checkpoint, unfilled
from model_adapters.networks.frame_chunks import mean_of_chunks
from model_adapters.networks.frontends import PASST, Spectrogram
from model_adapters.networks.options import one_of
from model_adapters.networks.passt import PasstNetwork, PasstSize, initialise_passt, size_of, tidy

STRIDE = 10
"""Step from patch to patch of the published networks whose 12 rows fill 128 bands."""
CHUNK_FRAMES = 1000
"""Frames of ten seconds."""
WINDOW_SECONDS, WINDOW_HOP_SECONDS = 10.0, 2.5
_WINDOWS_AT_ONCE = 16


class Passt(Adapter):
    """PaSST: log-mel at 32 kHz, overlapping patches, the mean of the class and the distillation token. A tagger.

    Parameters
    ----------
    weights: a checkpoint's path (``passt-s-…-p16-s10-…``), or ``random[:SEED]``.
    output: ``tokens`` (768), or ``hear``: the class scores beside them (1295), as the authors' HEAR package gives.
    long_audio: beyond 10 s, ``windows``: of 10 s every 2.5 s, centred, averaged (the HEAR package); ``chunks``: of 10 s
        end to end.
    depth, embed_dim: size of a random network.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="PaSST",
        kind="audio",
        paper="Koutini et al., Efficient Training of Audio Transformers with Patchout, Interspeech 2022",
        code_licence="MIT (this implementation)",
        weights=Weights(
            source="https://github.com/kkoutini/PaSST/releases",
            licence="Apache-2.0",
            url="https://github.com/kkoutini/PaSST/releases/download/v0.0.1-audioset/"
            "passt-s-f128-p16-s10-ap.476-swa.pt",
            file_name="passt-s-f128-p16-s10-ap.476-swa.pt",
        ),
        trained_on=("as20k", "as2m", "as"),
        probe_lr=3e-4,
    )
    for_untrained = ("depth", "embed_dim")
    sample_rate = 32000
    short_audio = "zeros at the end, up to the task's window (at least one patch, 0.15 s)"
    class_names: tuple[str, ...]
    """AudioSet's classes; absent for a head of another number of outputs, which is no tagger here."""

    def __init__(
        self,
        *,
        weights: str,
        output: Literal["tokens", "hear"] = "tokens",
        long_audio: Literal["windows", "chunks"] = "windows",
        depth: int = 12,
        embed_dim: int = 768,
    ) -> None:
        super().__init__()
        one_of("output", output, "tokens", "hear")
        one_of("long_audio", long_audio, "windows", "chunks")
        seed = parse_random(weights)
        if seed is None:
            raw, self.weights_sha256 = read_checkpoint(weights)
            state = tidy(raw, f"in '{weights}'")
            size = size_of(state, STRIDE)
            if size.bands > PASST.n_mels or size.bands + STRIDE <= PASST.n_mels:
                raise UserError(f"{size.rows} rows of patches are not those of a PaSST with a stride of {STRIDE}")
            self.network = unfilled(lambda: PasstNetwork(size))
            load_exactly(self.network, state, what=f"in '{weights}'")
        else:
            if depth < 1 or embed_dim < 64 or embed_dim % 64:
                raise UserError("a random network needs --depth of 1 or more and --embed_dim divisible by 64")
            self.weights_sha256 = f"random:{seed}"
            size = PasstSize(dim=embed_dim, depth=depth, mlp_dim=4 * embed_dim)
            self.network = unfilled(lambda: PasstNetwork(size))
            initialise_passt(self.network, seed)
        if size.classes == len(display_names()):
            self.class_names = tuple(display_names())
        self.front_end = Spectrogram(PASST)
        self.output, self.chunked = output, long_audio == "chunks"
        self.embedding_dim = size.dim + (size.classes if output == "hear" else 0)
        self.long_audio = "chunks of 10 s" if self.chunked else "windows of 10 s every 2.5 s, averaged"
        self.eval()

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Return the standardised log-mel ``[B, 1, 128, frames]`` of ``[B, T]``, at least one patch long."""
        needed = self.network.size.patch * PASST.hop
        if waveforms.shape[1] < needed:
            waveforms = F.pad(waveforms, (0, needed - waveforms.shape[1]))
        return self.front_end(waveforms)[:, None]

    def encode(self, log_mel: Tensor) -> Tensor:
        """Return clip embeddings ``[B, D]`` of a standardised log-mel ``[B, 1, 128, frames]``; chunks where longer."""
        return mean_of_chunks(log_mel, CHUNK_FRAMES, self.network.size.patch, self._encode_chunk)

    def _encode_chunk(self, log_mel: Tensor) -> Tensor:
        tokens, _ = self.network(log_mel)
        return torch.cat([tokens, self.network.head(tokens)], dim=1) if self.output == "hear" else tokens

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, D]``; padding counts as sound."""
        return self._over_windows(waveforms, lambda x: self.encode(self.log_mel(x)))

    def _over_windows(self, waveforms: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the mean of what ``function`` makes of each window of long waveforms, or of whole short ones."""
        window, hop = (int(s * self.sample_rate) for s in (WINDOW_SECONDS, WINDOW_HOP_SECONDS))
        if self.chunked or waveforms.shape[1] <= window:
            return function(waveforms)
        reflected = F.pad(waveforms[:, None], (window // 2, window // 2), mode="reflect")[:, 0]
        windows = reflected.unfold(1, window, hop)
        found = [function(piece) for piece in windows.flatten(0, 1).split(_WINDOWS_AT_ONCE)]
        return torch.cat(found).unflatten(0, windows.shape[:2]).mean(1)

    def embed_frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
        """Return ``([B, T', D], 0.1)``: the mean over frequency of the patches' tokens, in chunks of 10 s."""
        patch, stride = self.network.size.patch, self.network.size.stride
        log_mel = self.log_mel(waveforms)
        pieces = []
        # Chunks that end where the next one's first patch begins keep the step from patch to patch.
        step = CHUNK_FRAMES - stride
        for start in range(0, max(1, log_mel.shape[3] - patch + 1), step):
            piece = log_mel[..., start : start + step + patch - stride]
            pieces.append(self.network(piece)[1].mean(1))
        return torch.cat(pieces, dim=1), stride * PASST.hop / PASST.sample_rate

    def tag_probabilities(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the probabilities ``[B, 527]`` of ``class_names``; of long clips the mean over the windows."""
        return self._over_windows(waveforms, self._tag)

    def _tag(self, waveforms: Tensor) -> Tensor:
        return mean_of_chunks(
            self.log_mel(waveforms),
            CHUNK_FRAMES,
            self.network.size.patch,
            lambda x: self.network.head(self.network(x)[0]).float().sigmoid(),
        )

    def skeleton(self) -> Skeleton | None:
        """Return an untrained network of this size; None where options cannot express it."""
        size = self.network.size
        if size != PasstSize(size.dim, size.depth, 4 * size.dim):
            return None
        options = {"depth": str(size.depth), "embed_dim": str(size.dim), "output": self.output}
        return Skeleton("passt", options | {"long_audio": "chunks" if self.chunked else "windows"})


ADAPTER = Passt
