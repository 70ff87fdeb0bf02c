"""Robustness: the test clips corrupted, embedded under keys of their own, and scored by what was made for clean ones.

``--corrupt=noise:10dB,reverb,clip,mp3:32k,lowpass:4k`` of evar.lineareval and evar.zeroshot; docs/robustness.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evar.audio.corruptions import parse_corruptions
from evar.clips import Clips, Part
from evar.extract import Embeddings, Precision, Space, embed_clips
from evar.probe_data import score_of
from evar.probe_rows import Rows
from evar.probes import Fit, Fold
from evar.progress import say
from evar.report import row_of
from evar.results import Result
from evar.tables import Cell, Table, render
from model_adapters.registry import Model

ROBUSTNESS = "robustness"


def corruption_names(words: Sequence[str]) -> tuple[str, ...]:
    """Return the full names of ``--corrupt``'s corruptions (``noise`` is ``noise:10dB``), each once."""
    return tuple(corruption.name for corruption in parse_corruptions(words))


@dataclass(frozen=True)
class Corrupted:
    """Embeddings of some clips under one corruption."""

    name: str
    vectors: NDArray[np.float32]
    """``[len(rows), D]``, in the order of the rows that were asked for."""


def embed_corrupted(
    model: Model,
    clips: Clips,
    rows: NDArray[np.int64],
    names: Sequence[str],
    clean: Embeddings,
    *,
    space: Space = "clip",
    device: str,
    precision: Precision,
    batch_size: int,
    workers: int | None,
) -> list[Corrupted]:
    """Return the embeddings of the clips ``rows`` (their front windows) under each of the corruptions ``names``.

    ``clean``: those without corruption, which were asked for first; what they needed is not prepared again.
    """
    found, prepared = [], clean.computed > 0
    for corruption in parse_corruptions(names):
        say(f"{model.name} · {clips.task.name}: test clips under {corruption.name}")
        embeddings = embed_clips(
            model,
            clips,
            front=rows,
            training=np.empty(0, dtype=np.int64),
            space=space,
            device=device,
            precision=precision,
            batch_size=batch_size,
            workers=workers,
            corruption=corruption,
            prepared=prepared,
        )
        prepared = prepared or embeddings.computed > 0
        found.append(Corrupted(corruption.name, embeddings.vectors.take(embeddings.front[rows])))
    return found


def with_corrupted(
    clean: Rows, clips: Clips, parts: Sequence[Part], tested: NDArray[np.int64], corrupted: Sequence[Corrupted]
) -> Rows:
    """Return ``clean`` with the embeddings of the corrupted clips ``tested`` behind it and as what is tested.

    A fold's test rows are those of its clips under the first corruption, then under the next one, and so on.
    """
    names, groups = clips.names, clips.groups
    place = np.full(len(clips), -1, dtype=np.int64)
    place[tested] = np.arange(len(tested))
    first = [len(clean.features) + n * len(tested) for n in range(len(corrupted))]
    folds = [
        Fold(fold.name, fold.train, fold.valid, np.concatenate([start + place[part.test] for start in first]))
        for fold, part in zip(clean.folds, parts, strict=True)
    ]
    return Rows(
        np.concatenate([clean.features, *(one.vectors for one in corrupted)]),
        np.concatenate([clean.labels, *[clips.targets[tested]] * len(corrupted)]),
        None if groups is None else (clean.groups or []) + [groups[n] for n in tested] * len(corrupted),
        clean.keys + [f"{names[n]} {one.name}" for one in corrupted for n in tested],
        folds,
    )


def scores_under(
    clips: Clips, parts: Sequence[Part], names: Sequence[str], clean: list[list[Fit]], again: list[list[Fit]]
) -> dict[str, float]:
    """Return the score under each corruption, averaged over folds and seeds as the clean one is.

    ``clean`` are the fits ``[seed][fold]`` that were tested on clean clips; ``again`` are the same fits, tested on what
    :func:`with_corrupted` gives. That they are the same is checked: nothing in training is left to chance.
    """
    every: dict[str, list[float]] = {name: [] for name in names}
    for of_seed, once_more in zip(clean, again, strict=True):
        for part, fit, same in zip(parts, of_seed, once_more, strict=True):
            if (fit.epochs, fit.best_epoch, fit.best_valid) != (same.epochs, same.best_epoch, same.best_valid):
                raise RuntimeError(f"{part.name}: the probe trained on the same embeddings came out differently")
            for name, outputs in zip(names, np.split(same.scores, len(names)), strict=True):
                every[name].append(task_score(clips, outputs, part.test))
    return {name: float(np.mean(found)) for name, found in every.items()}


def task_score(clips: Clips, outputs: NDArray[Any], rows: NDArray[np.int64]) -> float:
    """Return the task's metric of ``outputs [n, C]`` for the clips ``rows [n]``."""
    task = clips.task
    if task.score is not None:
        return float(task.score(clips.table.iloc[rows], outputs)[task.metric])
    return score_of(outputs, clips.targets[rows], multi_label=task.multi_label)


def robustness(clean: float, scores: Mapping[str, float]) -> dict[str, Any]:
    """Return the result's ``robustness``: the clean score, each corruption's with its drop, the mean drop."""
    found = {name: {"score": score, "drop": clean - score} for name, score in scores.items()}
    return {"clean": clean, "corruptions": found, "mean_drop": float(np.mean([one["drop"] for one in found.values()]))}


def robustness_table(results: Sequence[Result]) -> Table | None:
    """Return the table of scores under corruption, a row per result; None if no result has any."""
    with_block = [result for result in results if ROBUSTNESS in result]
    if not with_block:
        return None
    names = list(dict.fromkeys(name for result in with_block for name in result[ROBUSTNESS]["corruptions"]))
    rows = []
    for result in with_block:
        block = result[ROBUSTNESS]
        found = [block["corruptions"].get(name) for name in names]
        scores = [None if one is None else Cell(100 * one["score"]) for one in found]
        row = f"{row_of(result).name} · {result['task']}"
        rows.append((row, [Cell(100 * block["clean"]), *scores, Cell(100 * block["mean_drop"])], ""))
    note = "percent, of test clips under each corruption; mean drop in points: the clean score less their mean"
    return Table("Robustness", ("model", "clean", *names, "mean drop", "notes"), rows, note)


def print_robustness(results: Sequence[Result]) -> None:
    """Print :func:`robustness_table` below the table that ends a command, if there is one."""
    table = robustness_table(results)
    if table is not None:
        print("\n" + render(table, "text"))
