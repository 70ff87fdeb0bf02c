"""Mean and deviation of a corpus's log-mels, by which crops are standardised: computed once and kept beside it.

The reference draws 5,000 crops anew on every process, so that each standardises a little differently (MODELS 10 and
12.6); here the crops are fixed, and every process reads the same two numbers.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evar.ahead import made_ahead
from evar.errors import UserError
from evar.feed import epoch_positions
from evar.pretrain.corpus_files import Corpus
from evar.pretrain.crops import Cropper, CropRule, mel_for
from evar.pretrain.npy_source import NpyFiles
from evar.pretrain.settings import PretrainSettings
from evar.progress import say, track
from evar.sampling import epoch_order
from evar.store import fingerprint_of, write_atomically

CROPS = 5000
_SEED = 0
_BATCH = 50


def crop_rule(corpus: Corpus, settings: PretrainSettings) -> CropRule:
    """Return which crops the settings ask of a corpus; log-mels of the reference have been lengthened already."""
    bands, frames = settings.input_size
    least = 0.0 if isinstance(corpus.source, NpyFiles) else settings.min_seconds
    return CropRule(mel_for(settings.sample_rate, bands), frames, settings.short_clips, least)


def norm_stats_of(corpus: Corpus, settings: PretrainSettings) -> tuple[float, float]:
    """Return the mean and the (unbiased) deviation of the raw log-mels of 5,000 random crops, one of each clip.

    A smaller corpus gives one of each clip that it has. They are kept in the corpus's folder, a file per geometry; a
    folder that cannot be written to costs their computation in every run.

    Raises :class:`UserError` if they are not finite, or all crops are alike.
    """
    path, facts = _place(corpus, settings)
    found = _read(path, facts)
    if found is None:
        found = compute_stats(corpus, settings)
        try:
            write_atomically(path, json.dumps({**facts, "mean": found[0], "deviation": found[1]}, indent=1) + "\n")
        except OSError as error:
            say(f"cannot keep the mean and deviation in {path} ({error.strerror}): every run computes them again")
    return found


def _place(corpus: Corpus, settings: PretrainSettings) -> tuple[Path, dict[str, object]]:
    facts: dict[str, object] = {
        "corpus": corpus.fingerprint,
        "input_size": list(settings.input_size),
        "sample_rate": settings.sample_rate,
        "short_clips": settings.short_clips,
        "min_seconds": settings.min_seconds,
        "crops": min(CROPS, len(corpus)),
    }
    bands, frames = settings.input_size
    return corpus.folder / f"norm_stats-{bands}x{frames}-{fingerprint_of(facts)[:12]}.json", facts


def _read(path: Path, facts: dict[str, object]) -> tuple[float, float] | None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        mean, deviation = float(stored["mean"]), float(stored["deviation"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or damaged: computed again
    return (mean, deviation) if all(stored.get(name) == value for name, value in facts.items()) else None


def compute_stats(corpus: Corpus, settings: PretrainSettings) -> tuple[float, float]:
    """Return what :func:`norm_stats_of` does, computed anew; on the CPU, so that every machine finds the same."""
    cropper = Cropper(corpus.source.spec, crop_rule(corpus, settings), torch.device("cpu"))
    chosen = epoch_order(len(corpus), _SEED, 0)[:CROPS]
    places = epoch_positions([corpus.digests[n] for n in chosen.tolist()], _SEED, 0)
    pieces = [slice(i, i + _BATCH) for i in range(0, len(chosen), _BATCH)]

    def sums(piece: slice) -> Tensor:
        clips = corpus.source.stored(corpus.rows[chosen[piece]])
        values = cropper.log_mel(cropper.cut(clips, places[piece])).double()
        mean = values.mean()
        return torch.stack([values.new_tensor(values.numel()), mean, (values - mean).square().sum()])

    made = made_ahead(sums, pieces, torch.device("cpu"), lambda one: [one])
    found = torch.stack(list(track(made, "mean and deviation of the log-mels", len(pieces), "batch"))).numpy()
    count, means, squares = found.T
    mean = float(np.average(means, weights=count))
    variance = float((squares.sum() + (count * (means - mean) ** 2).sum()) / (count.sum() - 1))
    if not (math.isfinite(variance) and variance > 0):
        raise UserError(f"the log-mels of the corpus at {corpus.folder} have no finite deviation: is it all silence?")
    return mean, math.sqrt(variance)
