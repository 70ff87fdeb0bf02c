"""Measurements of protocol_effects.py that concern what a model hears, and zero-shot classification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from protocol_effects_bench import Bench, Effect, compared, embedded
from torch import Tensor

from evar import metrics
from evar.audio.loading import load_batches
from evar.audio.windows import unit_samples
from evar.clips import Clips, training_clips
from evar.extract import embed_clips
from evar.zeroshot import captions_of, text_vectors
from model_adapters.base import Adapter
from model_adapters.networks.frontends import CED, Spectrogram
from model_adapters.registry import load_model

NEIGHBOURS = 64
"""Clips in a batch, where a clip's neighbours matter."""


def byol_a_statistics(bench: Bench) -> Iterator[Effect]:
    """Mean and deviation of the log-mel as the platform's helper finds them, or exact (untrained network)."""
    for task in ("fsdd", "us8k"):
        clips = bench.clips(task)
        scores, found = [], []
        for kind in ("reference", "exact"):
            model = bench.model("byol_a", statistics=kind, feature_d="512")
            scores.append(embedded(model, clips).scores(bench.seeds))
            adapter: Any = model.adapter
            if adapter.norm_stats is None:  # the embeddings were stored
                adapter.prepare(clips.task.unit_seconds, training_clips(clips))
            found.append("mean {:.3f}, deviation {:.3f}".format(*adapter.norm_stats))
        effect = compared("BYOL-A's statistics: first batch lost → exact", task, scores[0], scores[1])
        yield replace(effect, default=f"{effect.default} ({found[0]})", other=f"{effect.other} ({found[1]})")


class SixteenBit(Adapter):
    """An adapter that hears what is left of a waveform after it was stored as 16-bit samples."""

    def __init__(self, base: Adapter) -> None:
        super().__init__()
        self.base, self.sample_rate, self.embedding_dim = base, base.sample_rate, base.embedding_dim

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Round to steps of 1/32768, clip beyond full scale, and embed."""
        stored = (waveforms * 32768).round().clamp(-32768, 32767) / 32768
        return self.base.embed(stored, lengths)


def sixteen_bit(bench: Bench) -> Iterator[Effect]:
    """Float on the way from file to model, or resampled copies of 16 bits: it depends on the front end's floor."""
    models = {
        "gpvad": bench.model(),
        "log_mel_stats": load_model("log_mel_stats", None, {}),
        "beats (untrained, one block)": load_model("beats", "random", {"depth": "1", "embed_dim": "192"}),
    }
    for name, model in models.items():
        copies = replace(model, name=f"{model.name}_16bit", adapter=SixteenBit(model.adapter))
        for task in ("esc50", "fsdd") if name == "gpvad" else ("fsdd",):
            as_float = embedded(model, bench.clips(task))
            stored = embedded(copies, bench.clips(task))
            what = "resampling: in float, on the way → 16-bit copies"
            yield compared(what, f"{task}, {name}", as_float.scores(bench.seeds), stored.scores(bench.seeds))


def neighbours(bench: Bench) -> Iterator[Effect]:
    """What a clip's neighbours in the batch do where the published code takes a statistic over the batch."""
    clips = bench.clips("esc50")
    order = np.random.RandomState(0).permutation(len(clips))[: 2 * NEIGHBOURS].tolist()
    model = load_model("wav2clip", "random", {"standardise": "batch"}).adapter
    first, second = order[:NEIGHBOURS], [*order[:1], *order[NEIGHBOURS : 2 * NEIGHBOURS - 1]]
    with torch.inference_mode():
        a, b = (model.embed(*waveforms(clips, rows, model.sample_rate)) for rows in (first, second))
    away = 100 * float((a[0] - b[0]).norm() / a[0].norm())
    yield Effect("Wav2CLIP: standardised per clip → per batch", "esc50, one clip among others", "0 %", f"{away:.1f} %")
    floorless = Spectrogram(replace(CED, top_db=0.0))
    db = floorless(waveforms(clips, first, CED.sample_rate)[0])
    per_clip = torch.maximum(db, db.amax(dim=(1, 2, 3) if db.ndim == 4 else (1, 2), keepdim=True) - CED.top_db)
    per_batch = torch.maximum(db, db.amax() - CED.top_db)
    changed, most = 100 * float((per_clip != per_batch).float().mean()), float((per_clip - per_batch).abs().max())
    what = "CED, Dasheng: floor 120 dB under the clip's maximum → the batch's"
    yield Effect(
        what, f"esc50, {NEIGHBOURS} clips, log-mel", "0 %", f"{changed:.1f} % of the values, by up to {most:.0f} dB"
    )


def waveforms(clips: Clips, rows: Sequence[int], rate: int) -> tuple[Tensor, Tensor]:
    """Return the front windows of some clips as one batch, with their lengths."""
    unit = unit_samples(rate, clips.task.unit_seconds)
    (loaded,) = load_batches([[clips.item(row) for row in rows]], rate, unit)
    return loaded.clips.waveforms, loaded.clips.lengths


def zero_shot(bench: Bench) -> Iterator[Effect]:
    """Captions of zero-shot classification; similarities that saturate."""
    model, clips = load_model("tag_text:gpvad", bench.weights, {}), bench.clips("esc50")
    nobody = np.empty(0, dtype=np.int64)
    audio = embed_clips(model, clips, front=np.arange(len(clips)), training=nobody, space="joint").vectors.take()
    audio /= np.maximum(np.linalg.norm(audio, axis=1, keepdims=True), 1e-12)

    def cosines(captions: list[list[str]]) -> NDArray[np.float32]:
        return np.asarray(audio @ text_vectors(model, captions).T, dtype=np.float32)

    own = cosines(captions_of(clips.task, ()))
    base = 100 * metrics.accuracy(own, clips.targets)
    templates = ("{label}", "This is a sound of {label}", "The sound of {label}", "a recording of {label}")
    tried: dict[str, list[list[str]]] = {f"'{t}'": captions_of(clips.task, (t,)) for t in templates}
    tried["mean of all five"] = [*captions_of(clips.task, ()), *captions_of(clips.task, templates)]
    tried["underscores left in"] = [[f"{label} can be heard" for label in clips.task.labels]]
    for name, captions in tried.items():
        found = 100 * metrics.accuracy(cosines(captions), clips.targets)
        what = f"caption: '… can be heard' → {name}"
        yield Effect(what, "esc50, zero-shot", f"{base:.1f}", f"{found:.1f}", f"{found - base:+.2f}")
    one_hot = np.eye(len(clips.task.labels), dtype=np.float32)[clips.targets]
    raw = 100 * metrics.mean_average_precision(own, one_hot)
    for scale in (33.0, 100.0):
        saturated = torch.sigmoid(torch.from_numpy(own) * scale).numpy()
        found, ones = 100 * metrics.mean_average_precision(saturated, one_hot), 100 * np.mean(saturated == 1)
        what = f"ranked by: cosine → float32 sigmoid of {scale:g} × cosine ({ones:.0f} % are 1.0)"
        yield Effect(what, "esc50 as 50 yes-no tasks (mAP)", f"{raw:.1f}", f"{found:.1f}", f"{found - raw:+.2f}")
