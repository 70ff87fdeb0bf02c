"""Audio-text retrieval in both directions (RUNNERS 4 of the specification).

    python -m evar.retrieval MODEL[,MODEL] clotho|audiocaps|csv:PATH[,…] [--weights=PATH]

1. The test clips, in the order of their names, are embedded whole, one at a time; each has as many captions as it has.
2. Text to audio: each caption ranks all clips. Audio to text: each clip ranks the captions of all clips; its rank is
   that of the best of its own. Ranks are by cosine; :mod:`evar.ranking` says how equal ones stand.
3. R@1, R@5, R@10, mAP@10, median and mean rank, each with a bootstrap 95 % interval over clips. The figure that stands
   in tables is R@1 from text to audio.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evar.cli import main
from evar.clips import Clips
from evar.command import at_least_one, options_of_models, pick_device, request, run_cells
from evar.efficiency import efficiency as measured_efficiency
from evar.errors import UserError
from evar.extract import Precision, embed_clips
from evar.paths import runs_dir
from evar.ranking import CUTOFFS, DEPTH, Pairs, Ranking, bootstrap, figures, rank_items
from evar.report import row_of
from evar.results import Result, now, result_path, run_id, run_once, versions, write_table
from evar.statistics import Interval, bounded
from evar.subject import data_facts, flags_of, input_facts, subject_facts, weights_facts
from evar.tables import Cell, Table, render
from model_adapters.base import AudioLanguage
from model_adapters.registry import Model
from tasks.base import Task

DIRECTIONS = {"t2a": "text to audio", "a2t": "audio to text"}
FIGURES = (*(f"R@{k}" for k in CUTOFFS), f"mAP@{DEPTH}", "medR", "meanR")
MAIN_FIGURE = "t2a_R@1"


def retrieval(
    model: tuple[str, ...],
    task: tuple[str, ...],
    *,
    weights: str | None = None,
    root: Path | None = None,
    data: Path | None = None,
    results: Path | None = None,
    draws: int = 10000,
    efficiency: bool = True,
    incomplete: bool = False,
    device: str = "auto",
    precision: Precision = "fp32",
    batch_size: int = 64,
    workers: int | None = None,
    force: bool = False,
    **options: str,
) -> None:
    """Find clips by their captions and captions by their clips, on whole clips of the test part.

    Prints R@1, R@5, R@10, mAP@10, median and mean rank in both directions and leaves one JSON per run in results/runs.

    Args:
        model: model names, comma-separated, or path/to/file.py:ClassName (python -m evar.models lists them)
        task: clotho, audiocaps, or csv:PATH (columns file and caption, or caption_1, caption_2 …), comma-separated
        weights: checkpoint file, hub id where the model knows hubs, or random (an untrained network)
        root: folder with one folder per task, in the data sets' own layouts (default $EVAR_DATA, else the cache)
        data: folder of this one task, instead of ROOT/TASK
        results: folder for the result files (default results/runs)
        draws: draws of the bootstrap over clips
        efficiency: measure parameters, FLOPs, speed and memory beside the score
        incomplete: go on with an incomplete copy of a data set; every result then says so
        device: auto, cpu, cuda or cuda:N
        precision: fp32, or bf16 (autocast)
        batch_size: captions per forward pass; changes speed only
        workers: decoding threads (default one per core, at most 8)
        force: run again what is already there
    """
    at_least_one(draws=draws, batch_size=batch_size)
    asked = request(model, task, weights=weights, root=root, data=data, incomplete=incomplete, options=options)
    for one in asked.tasks:
        _refuse_classes(one)
    settings = Settings(draws, pick_device(device), precision, batch_size, workers, efficiency)
    folder = runs_dir(results)
    found = run_cells(
        asked, lambda one, clips: evaluate_retrieval(one, clips, settings, folder, force=force), test_only=True
    )
    print(render(table_of(found), "text"))


@dataclass(frozen=True)
class Settings:
    """What was asked for, beside model and task."""

    draws: int = 10000
    device: str = "cpu"
    precision: Precision = "fp32"
    batch_size: int = 64
    workers: int | None = None
    efficiency: bool = False
    """Whether the model's cost is measured as well (:mod:`evar.efficiency`)."""


@dataclass(frozen=True)
class Queries:
    """The test clips and their captions, clips by name."""

    rows: NDArray[np.int64]
    """Numbers of the clips in the task's table."""
    names: list[str]
    captions: list[str]
    """Of all clips, one clip's after the other's."""
    clip: NDArray[np.int64]
    """Each caption's clip, as a place in ``rows``."""

    def pairs(self) -> Pairs:
        """Return (clip, caption) of all captions."""
        return Pairs(self.clip, np.arange(len(self.clip)))


def _refuse_classes(task: Task) -> None:
    if task.kind != "retrieval":
        raise UserError(
            f"{task.name} has classes and no captions: evaluate on it with python -m evar.zeroshot or evar.lineareval"
        )


def queries_of(clips: Clips) -> Queries:
    """Return the test clips with their captions; :class:`UserError` if a clip has none or there are fewer than two."""
    names = clips.names
    rows = np.array(sorted(np.flatnonzero(clips.table["split"] == "test"), key=lambda n: names[n]), dtype=np.int64)
    lists: list[list[str]] = clips.table["captions"].tolist()
    captions = [list(lists[row]) for row in rows]
    for row, texts in zip(rows, captions, strict=True):
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise UserError(f"{clips.task.name}: the clip {names[row]} has no caption, or an empty one")
    if len(rows) < 2:
        raise UserError(f"{clips.task.name}: retrieval needs at least two test clips, there are {len(rows)}")
    clip = np.repeat(np.arange(len(rows)), [len(texts) for texts in captions])
    return Queries(rows, [names[row] for row in rows], list(chain.from_iterable(captions)), clip)


def unit_vectors(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Return the rows of ``[N, J]`` with length 1 (a row of zeros stays one)."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


def text_vectors(model: Model, captions: list[str], batch_size: int) -> NDArray[np.float32]:
    """Return one unit vector per caption ``[M, J]``; equal captions are encoded once and have the same vector."""
    adapter = model.adapter
    assert isinstance(adapter, AudioLanguage)
    texts = sorted(set(captions), key=lambda text: (len(text), text))  # sentences of a batch are about equally long
    with torch.inference_mode():
        found = [
            adapter.embed_text(texts[n : n + batch_size]).float().cpu().numpy()
            for n in range(0, len(texts), batch_size)
        ]
    vectors = unit_vectors(np.concatenate(found))
    if not np.isfinite(vectors).all():
        raise UserError(f"{model.name}: the text encoder gives NaN or infinite vectors")
    if len(texts) > 1 and (vectors == vectors[0]).all():
        raise UserError(f"{model.name}: all captions have the same text vector; its text encoder does not read them")
    place = {text: n for n, text in enumerate(texts)}
    return vectors[[place[text] for text in captions]]


def evaluate_retrieval(
    model: Model, clips: Clips, settings: Settings, folder: Path, *, force: bool = False
) -> tuple[Result, bool]:
    """Return ``(result of one model on one task, whether it was there already)``; writes the result file."""
    _refuse_classes(clips.task)
    if not isinstance(model.adapter, AudioLanguage):
        raise UserError(f"{model.name} has no text side, so it cannot retrieve; see python -m evar.models")
    if model.adapter.prepares_for("joint") and not (clips.table["split"] == "train").any():
        raise UserError(f"{model.name} is prepared on training clips, and {clips.task.name} has none here")
    queries = queries_of(clips)
    subject = run_id(subject_facts(model, clips, settings.precision, "joint", whole=True))
    texts = hashlib.blake2b("\n".join(queries.captions).encode(), digest_size=8).hexdigest()
    used: dict[str, Any] = {"captions": texts, "audio": "whole clips", "draws": settings.draws}
    if text := model.adapter.text_facts():  # what is not part of the checkpoint decides the score too
        used["text_encoder"] = text
    used |= {"precision": settings.precision, "model_options": dict(model.options)}
    run = run_id({"protocol": "retrieval", "subject": subject, "settings": used})
    path = result_path(folder, model.name, clips.task.name, "retrieval", run)

    def compute() -> Result:
        return _compute(model, clips, settings, queries, path) | {"run_id": run, "subject": subject, "settings": used}

    return run_once(path, compute, force=force)


def _compute(model: Model, clips: Clips, settings: Settings, queries: Queries, path: Path) -> Result:
    begin = time.perf_counter()
    embeddings = embed_clips(
        model,
        clips,
        front=queries.rows,
        training=np.empty(0, dtype=np.int64),
        space="joint",
        device=settings.device,
        precision=settings.precision,
        workers=settings.workers,
        whole=True,
    )
    audio = unit_vectors(embeddings.vectors.take(embeddings.front[queries.rows]))
    model.adapter.to(settings.device)
    text = text_vectors(model, queries.captions, settings.batch_size)
    pairs = queries.pairs()
    rankings = {"a2t": rank_items(audio, text, pairs), "t2a": rank_items(text, audio, pairs.turned())}
    result = _result(model, clips, settings, queries, rankings) | {"model_state": embeddings.state}
    result["files"] = {"ranks": write_ranks(path, queries, rankings)}
    result["timings"] = {
        "total": round(time.perf_counter() - begin, 3),
        "embedded_windows": float(embeddings.computed),
    }
    if settings.efficiency:
        seconds = float(np.mean([clips.identities[n].seconds for n in queries.rows]))
        result["efficiency"] = measured_efficiency(
            model,
            round(seconds, 1) or 0.1,
            batch_size=1,
            space="joint",
            device=settings.device,
            precision=settings.precision,
            prepared=embeddings.computed > 0,
        )
    return result


def units_of(clips: Clips, queries: Queries) -> tuple[NDArray[np.int64], str]:
    """Return ``(what each clip is drawn with in the bootstrap, as numbers; in words)``: itself, or its group."""
    groups = clips.groups
    names = [str(n) if groups is None else groups[n] for n in queries.rows]
    number = {name: n for n, name in enumerate(dict.fromkeys(names))}
    what = "clips" if len(number) == len(names) else f"groups of {len(names)} clips"
    return np.array([number[name] for name in names], dtype=np.int64), f"bootstrap over {len(number)} {what}"


def _result(
    model: Model, clips: Clips, settings: Settings, queries: Queries, rankings: dict[str, Ranking]
) -> dict[str, Any]:
    units, method = units_of(clips, queries)
    drawn = {"a2t": units, "t2a": units[queries.clip]}
    intervals = bootstrap({way: (r, drawn[way]) for way, r in rankings.items()}, draws=settings.draws)
    found = {way: figures(ranking) for way, ranking in rankings.items()}
    also = {f"{way}_{name}": found[way][name] for way in DIRECTIONS for name in FIGURES}
    low, high, half = bounded(Interval(also[MAIN_FIGURE], *intervals[MAIN_FIGURE], method))
    flags, notes = flags_of(model, clips, zero_shot=True)
    for way, words in DIRECTIONS.items():
        ties = int(rankings[way].tied.sum())
        also[f"{way}_tied"] = float(ties)
        if ties:
            notes[f"{way}_tied"] = (
                f"{words}: the rank of {ties} of {len(rankings[way].rank)} queries depends on equal similarities, of "
                "which the item that comes later stands first"
            )
    return {
        "schema": 1,
        "model": model.name,
        "task": clips.task.name,
        "protocol": "retrieval",
        "metric": clips.task.metric,
        "mean": also[MAIN_FIGURE],
        "ci95": half,
        "ci_low": low,
        "ci_high": high,
        "ci_method": method,
        "scores": [also[MAIN_FIGURE]],
        "fold_scores": [[also[MAIN_FIGURE]]],
        "seeds": [],
        "flags": flags,
        "notes": notes,
        "per_class": {},
        "also": also,
        "intervals": {name: list(ends) for name, ends in intervals.items()},
        "weights": weights_facts(model),
        "input": input_facts(model, clips, whole=True),
        "data": data_facts(clips) | {"captions": len(queries.captions)},
        "versions": versions() | {"device": settings.device},
        "created": now(),
    }


def write_ranks(path: Path, queries: Queries, rankings: dict[str, Ranking]) -> str:
    """Write ``….ranks.csv`` beside the result and return its name: a row per caption, ranks from 1.

    ``clip_rank``: where the caption finds its clip; ``first_clip``: what it finds first. ``caption_rank``: where the
    clip finds this caption; ``first_caption``: what the clip finds first.
    """
    there, back = rankings["t2a"], rankings["a2t"]
    rows = (
        [
            queries.names[clip],
            caption,
            int(there.rank[n]) + 1,
            queries.names[there.first[n]],
            int(back.pair_rank[n]) + 1,
            queries.captions[back.first[clip]],
        ]
        for n, (caption, clip) in enumerate(zip(queries.captions, queries.clip, strict=True))
    )
    header = ["file", "caption", "clip_rank", "first_clip", "caption_rank", "first_caption"]
    return write_table(path.with_suffix(".ranks.csv"), header, rows)


def table_of(results: list[Result]) -> Table:
    """Return the table that ends the command: a row per result and direction."""
    rows = []
    for result in results:
        row = row_of(result)
        for way, words in DIRECTIONS.items():
            cells: list[Cell | None] = []
            for name in FIGURES:
                scale = 1 if name in ("medR", "meanR") else 100
                low, high = result["intervals"][f"{way}_{name}"]
                cells.append(Cell(scale * result["also"][f"{way}_{name}"], scale * (high - low) / 2))
            tied = result["also"][f"{way}_tied"]
            notes = [*row.notes, *([f"{tied:.0f} ranks decided by ties"] if tied else [])]
            rows.append((f"{row.name} · {result['task']} · {words}", cells, "; ".join(notes)))
    methods = sorted({result["ci_method"] for result in results})
    note = f"percent, ranks from 1; ± half-width of the 95 % interval: {'; '.join(methods)}"
    return Table("Audio-text retrieval", ("model", *FIGURES, "notes"), rows, note)


if __name__ == "__main__":
    main(retrieval, extra=options_of_models)
