"""Small corpora that the tests of the feed share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from helpers import noise, write_audio

from evar.audio.log_mel import M2D_16K, LogMel
from evar.pretrain.corpus import Corpus, corpus, open_corpus
from evar.pretrain.settings import PretrainSettings

RATE = 16000
SECONDS = (1.4, 0.9, 0.31, 1.1, 2.0, 0.6, 1.0, 0.8)
SETTINGS = PretrainSettings(input_size=(80, 48), min_seconds=0.4, batch_size=4, min_clips=20, seed=5)


def wave(number: int, seconds: float) -> np.ndarray:
    """Return noise whose loudness tells the clip."""
    return (noise(number, seconds, RATE) * 2.0**-number).astype(np.float32)


def write_corpus(folder: Path, name: str = "wild", seconds: tuple[float, ...] = SECONDS, **options: object) -> Corpus:
    """Write clips 000.wav … of these lengths with a label each, pack them and open the corpus."""
    for n, length in enumerate(seconds):
        write_audio(folder / name / f"{n:03d}.wav", wave(n, length), RATE, "FLOAT")
    lines = ["file,label", *(f"{n:03d}.wav,{'ab'[n % 2]}" for n in range(len(seconds)))]
    (folder / name / f"{name}.csv").write_text("\n".join(lines))
    corpus(folder / f"{name}.corpus", audio=(str(folder / name / f"{name}.csv"),), **options)  # type: ignore[arg-type]
    return open_corpus(folder / f"{name}.corpus")


def whole_log_mel(found: Corpus, number: int, min_seconds: float = 0.0) -> torch.Tensor:
    """Return the raw log-mel ``[80, T]`` of all of a clip as it is stored, lengthened with silence."""
    (clip,) = found.source.stored(found.rows[number : number + 1])
    samples = torch.from_numpy(clip.astype(np.float32) / 32768)
    silence = max(0, int(min_seconds * RATE) - len(samples))
    return LogMel(M2D_16K)(torch.nn.functional.pad(samples, (0, silence))[None])[0]
