"""From a task and a folder to clips: files found, counts checked, labels numbered, parts and folds made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evar.audio.identity import Identity, identify
from evar.audio.loading import ClipItem, broken_files, load_batches
from evar.audio.windows import random_position, unit_samples
from evar.errors import UserError
from evar.index import FOUND, locate, part_column, read_index
from evar.statistics import Interval, bootstrap_score
from model_adapters.base import ClipBatch
from tasks.base import SPLITS, Task

WINDOW_SEED = 42
"""The paper's three runs share one extraction, made with seed 42 (EVAR's two-pass wrapper)."""


class Part(NamedTuple):
    """One way to divide the clips: numbers of the training, validation (None: none given) and test clips."""

    name: str
    train: NDArray[np.int64]
    valid: NDArray[np.int64] | None
    test: NDArray[np.int64]


@dataclass(frozen=True)
class Clips:
    """The clips of a task as they lie on this machine."""

    task: Task
    folder: Path
    table: pd.DataFrame
    """One row per clip, as :class:`tasks.base.Task` describes, in the index's order."""
    paths: list[Path]
    identities: list[Identity]
    targets: NDArray
    """``[N]`` class numbers, ``[N, C]`` zeros and ones for a multi-label task, ``[N]`` zeros for retrieval."""
    incomplete: str = ""
    """What is missing, in a sentence; empty for a complete copy."""
    fingerprint: str = field(default="")
    coverage: str = ""
    """What is missing of a set of which no copy has everything; empty for the whole set."""
    comparable_note: str = ""
    """Why scores cannot be compared with published ones, in a sentence; empty where they can."""

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.table)

    @property
    def groups(self) -> list[str] | None:
        """A group's name per clip, or None if the task knows no groups."""
        return [str(g) for g in self.table["group"]] if "group" in self.table else None

    @property
    def names(self) -> list[str]:
        """A name per clip: its file, with its seconds where it is a piece of one (``a.wav@2.5-7.5``)."""
        files = self.table["file"].tolist()
        if "start" not in self.table:
            return files
        spans = zip(self.table["start"], self.table["end"], strict=True)
        return [f"{file}@{start:g}-{end:g}" for file, (start, end) in zip(files, spans, strict=True)]

    def item(self, number: int, position: float = 0.0) -> ClipItem:
        """Return how to read a clip, its window at ``position`` (0: the front) if it is longer than the unit."""
        if "start" not in self.table:
            return ClipItem(self.paths[number], position)
        start, end = self.table[["start", "end"]].to_numpy()[number].tolist()
        return ClipItem(self.paths[number], position, start, end)

    def parts(self) -> list[Part]:
        """Return the evaluation's parts: one for a task with a split, one per fold for a task with folds."""
        if not self.task.has_folds:
            split = self.table["split"].to_numpy()
            train, valid, test = (np.flatnonzero(split == name) for name in SPLITS)
            return [Part("split", train, valid if len(valid) else None, test)]
        fold = self.table["fold"].to_numpy()
        held_out = sorted(set(fold.tolist()))
        return [Part(f"fold {k}", np.flatnonzero(fold != k), None, np.flatnonzero(fold == k)) for k in held_out]


def open_task(
    task: Task,
    root: Path | None = None,
    data: Path | None = None,
    *,
    incomplete: bool = False,
    parts: Sequence[str] | None = None,
) -> Clips:
    """Return the clips of ``task`` below ``root/<task>`` (or in ``data``), checked.

    ``parts`` opens only these parts of a task with a split, so that the others need be neither there nor read.

    Raises :class:`UserError` if the data set is not there, a clip stands in two parts, a label is unknown, a file is
    broken, or the counts differ from the declared ones, unless ``incomplete`` says to go on with what is there.
    """
    folder = locate(task, root, data)
    table = read_index(task, folder)
    task = _with_labels(task, table)
    if parts is not None and not task.has_folds:
        table = table[table["split"].isin(parts)].reset_index(drop=True)
    there = (table[FOUND] != "").to_numpy()
    lacking = table["file"][~there].tolist()
    table = table[there].reset_index(drop=True)
    paths = [folder / found for found in table.pop(FOUND)]
    identities, broken = _identify(table, paths)
    if broken and not incomplete:
        raise broken_files(broken, len(paths))
    keep = np.array([i is not None for i in identities], dtype=bool)
    table = table[keep].reset_index(drop=True)
    paths = [p for p, k in zip(paths, keep, strict=True) if k]
    own = own_split_note(task, folder)
    shortfall, serious = _shortfall(task, table, lacking, broken, parts, own_split=bool(own))
    if serious and not incomplete:
        raise UserError(
            f"{task.name} at {folder} is not the complete data set: {shortfall}. "
            f"Fetch what is missing (python -m evar.prepare {task.name}), or go on with what is there: --incomplete"
        )
    if serious and parts is None:
        untrained = _untrained(task, table)
        if untrained.any():
            names = ", ".join(sorted(set(table["label"][untrained]))[:5])
            shortfall += f"; {int(untrained.sum())} clips of classes without training clips are left out: {names}"
            table, paths = table[~untrained].reset_index(drop=True), _without(paths, untrained)
            identities = _without([i for i in identities if i is not None], untrained)
    good = [i for i in identities if i is not None]
    _check_parts(task, table, parts)
    return Clips(
        task,
        folder,
        table,
        paths,
        good,
        _targets(task, table),
        shortfall if serious else "",
        _fingerprint(task, table, good),
        "" if serious else shortfall,
        own,
    )


def _untrained(task: Task, table: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which clips of an incomplete copy can be neither trained nor tested: their class has no training clip."""
    if task.has_folds or task.multi_label or task.kind == "retrieval":
        return np.zeros(len(table), dtype=bool)
    trained = table["label"].isin(table["label"][table["split"] == "train"]).to_numpy()
    some_test = (trained & (table["split"] == "test").to_numpy()).any()
    return ~trained if some_test else np.zeros(len(table), dtype=bool)  # else whoever trains says what is lacking


def _without(items: list[Any], left_out: NDArray[np.bool_]) -> list[Any]:
    return [item for item, out in zip(items, left_out, strict=True) if not out]


def own_split_note(task: Task, folder: Path) -> str:
    """Return the sentence that says that a published split is not there and another is used; "" where it is."""
    table = task.split_table
    if table is None or (folder / table.name).is_file():
        return ""
    return (
        f"not the published split but one of this harness ({table.own}); with {table.origin}: "
        f"python -m evar.prepare {task.name} --splits=PATH"
    )


def _with_labels(task: Task, table: pd.DataFrame) -> Task:
    """Return the task with its classes: where it declares none, those of the training part."""
    if task.labels or task.kind == "retrieval":
        return task
    rows = table if task.has_folds else table[table["split"] == "train"]
    found = {x for labels in rows["label"] for x in (labels if isinstance(labels, list) else [labels])}
    numbers = all(str(label).isdigit() for label in found)
    return replace(task, labels=tuple(sorted(found, key=(lambda x: (int(x), x)) if numbers else None)))


def _identify(table: pd.DataFrame, paths: list[Path]) -> tuple[list[Identity | None], dict[Path, str]]:
    """Return each clip's identity: its file's, or for a piece of a file that of the piece."""
    identities, broken = identify(paths)
    if "start" not in table:
        return identities, broken
    pieces: list[Identity | None] = []
    for path, whole, start, end in zip(paths, identities, table["start"], table["end"], strict=True):
        if whole is None:
            pieces.append(None)
            continue
        first, last = round(start * whole.sample_rate), min(round(end * whole.sample_rate), whole.frames)
        if not 0 <= first < last:
            broken[path] = f"has no piece from {start:g} s to {end:g} s: its end is at {whole.seconds:.3f} s"
            pieces.append(None)
            continue
        digest = hashlib.blake2b(whole.digest + f"{start!r} {end!r}".encode(), digest_size=16).digest()
        pieces.append(Identity(digest, last - first, whole.sample_rate))
    return pieces, broken


def _shortfall(
    task: Task,
    table: pd.DataFrame,
    lacking: Sequence[str],
    broken: dict[Path, str],
    parts: Sequence[str] | None,
    *,
    own_split: bool,
) -> tuple[str, bool]:
    """Return ``(what is missing in a sentence, whether that is more than the set's copies usually lack)``."""
    part = part_column(task)
    expected = {key: n for key, n in task.counts.items() if parts is None or task.has_folds or key in parts}
    counted = count_clips(task, table)
    if own_split:  # its parts have sizes of their own: only their sum is known
        expected, counted = {"any": sum(expected.values())}, {"any": sum(counted.values())}
        expected = expected if parts is None else counted
    wrong = {key: (counted.get(key, 0), n) for key, n in expected.items() if counted.get(key, 0) != n}
    enough = task.complete_share < 1 and all(there >= task.complete_share * n for there, n in wrong.values())
    unknown = [f"there is an unknown {part} {key}" for key in counted if key not in expected]
    said = [f"{part} {key} has {there} of {n} {_counted(task)}" for key, (there, n) in wrong.items()] + unknown
    notes = []
    if lacking:
        notes.append(f"{len(lacking)} listed files are missing, the first: {', '.join(lacking[:3])}")
    if broken:
        notes.append(f"{len(broken)} files are broken, the first: {', '.join(p.name for p in sorted(broken)[:3])}")
    return ("; ".join([", ".join(said), *notes]), bool(unknown) or not enough) if said else ("", False)


def _counted(task: Task) -> str:
    return f"{task.count_by}s" if task.count_by else "clips"


def count_clips(task: Task, table: pd.DataFrame) -> dict[Any, int]:
    """Return the clips per split or fold (or the recordings, patients … that the task counts by)."""
    part = part_column(task)
    if task.count_by:
        table = table.drop_duplicates([part, task.count_by])
    return table[part].value_counts().to_dict()


def _check_parts(task: Task, table: pd.DataFrame, parts: Sequence[str] | None) -> None:
    present = set(table[part_column(task)])
    needed = {"test"} if task.kind == "retrieval" else {"train", "test"}
    needed &= set(parts) if parts is not None else needed
    if task.has_folds and len(present) < 2:
        raise UserError(f"{task.name}: at least two folds are needed, there is only {sorted(present)}")
    if not task.has_folds and not needed <= present:
        if len(needed) == 2:
            raise UserError(f"{task.name}: both a training and a test part are needed, there is only {sorted(present)}")
        raise UserError(f"{task.name}: there are no clips of its {' and '.join(sorted(needed))} part")


def _targets(task: Task, table: pd.DataFrame) -> NDArray:
    if task.kind == "retrieval":
        return np.zeros(len(table), dtype=np.int64)
    number = {label: n for n, label in enumerate(task.labels)}
    if not task.multi_label:
        unknown = sorted({str(x) for x in table["label"]} - set(number))
        if unknown:
            raise UserError(f"{task.name}: the index has labels the task does not know: {', '.join(unknown[:5])}")
        return np.array([number[str(label)] for label in table["label"]], dtype=np.int64)
    targets = np.zeros((len(table), len(number)), dtype=np.float32)
    for row, labels in enumerate(table["label"]):
        for label in labels:
            if label not in number:
                raise UserError(f"{task.name}: the index has a label the task does not know: {label}")
            targets[row, number[label]] = 1.0
    return targets


def _fingerprint(task: Task, table: pd.DataFrame, identities: Sequence[Identity]) -> str:
    digest = hashlib.blake2b(f"{task.name} {task.unit_seconds} {task.labels}".encode(), digest_size=16)
    labels = table["captions" if task.kind == "retrieval" else "label"]
    for file, label, where, identity in zip(table["file"], labels, table[part_column(task)], identities, strict=True):
        digest.update(f"\n{Path(file).with_suffix('')} {label} {where} ".encode() + identity.digest)
    return digest.hexdigest()


def groups_of(clips: Clips, rows: NDArray[np.int64]) -> list[str] | None:
    """Return the group (speaker, recording) of each of ``rows``; None where no two of them share one."""
    groups = clips.groups
    of_rows = None if groups is None else [groups[n] for n in rows]
    return None if of_rows is None or len(set(of_rows)) == len(of_rows) else of_rows


def task_interval(clips: Clips, outputs: NDArray[Any], rows: NDArray[np.int64]) -> Interval:
    """Return the bootstrap interval of a score that the task defines, over its groups (patients).

    ``outputs [n, C]`` belong to the clips ``rows [n]``.
    """
    score, metric = clips.task.score, clips.task.metric
    assert score is not None
    table = clips.table.iloc[rows].reset_index(drop=True)
    groups = table["group" if "group" in table else "file"].tolist()
    return bootstrap_score(lambda drawn: score(_renamed(table, drawn), outputs[drawn])[metric], groups)


def _renamed(table: pd.DataFrame, drawn: NDArray[np.int64]) -> pd.DataFrame:
    """Return the drawn rows, further draws of a row told apart, so that each draw is a patient of its own."""
    found = table.iloc[drawn].reset_index(drop=True)
    times = pd.Series(drawn).groupby(drawn).cumcount().to_numpy()
    for column in ("group", "recording", "file"):
        if column in found:
            found[column] = [f"{name} #{n}" if n else name for name, n in zip(found[column], times, strict=True)]
    return found


@dataclass(frozen=True)
class TaskTrainingClips:
    """The training part of a task, as an adapter's ``prepare`` sees it (:class:`model_adapters.base.TrainingClips`)."""

    clips: Clips
    rows: NDArray[np.int64]
    batch_size: int

    def __len__(self) -> int:
        """Return the number of training clips."""
        return len(self.rows)

    @property
    def has_captions(self) -> bool:
        """Whether the task has a caption for each clip."""
        return "caption" in self.clips.table or "captions" in self.clips.table

    def _caption(self, row: int) -> str:
        """Return a clip's caption; of several the first."""
        table = self.clips.table
        return str(table["caption"].tolist()[row] if "caption" in table else table["captions"].tolist()[row][0])

    @property
    def fingerprint(self) -> str:
        """A checksum of what ``prepare`` can see, from which its outcome follows."""
        digest = hashlib.blake2b(f"{self.clips.task.unit_seconds} {self.batch_size}".encode(), digest_size=16)
        for row in self.rows:
            caption = self._caption(row).encode() if self.has_captions else b""
            digest.update(self.clips.identities[row].digest + caption)
        return digest.hexdigest()

    def batches(
        self, sample_rate: int, batch_size: int, *, shuffle_seed: int | None = None, limit: int | None = None
    ) -> Iterator[ClipBatch]:
        """Yield the clips' training windows; see :class:`model_adapters.base.TrainingClips`."""
        rows = self.rows
        if shuffle_seed is not None:
            rows = np.random.RandomState(shuffle_seed).permutation(rows)
        groups = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        if limit is not None:
            groups = groups[: -(-limit // batch_size)]
        identities = self.clips.identities
        items = [
            [self.clips.item(r, random_position(identities[r].digest, WINDOW_SEED)) for r in group] for group in groups
        ]
        unit, padding = unit_samples(sample_rate, self.clips.task.unit_seconds), self.clips.task.padding
        for group, loaded in zip(groups, load_batches(items, sample_rate, unit, padding=padding), strict=True):
            if loaded.broken:
                raise broken_files(loaded.broken, len(self))
            captions = tuple(self._caption(r) for r in group) if self.has_captions else ()
            yield loaded.clips._replace(captions=captions)


def training_clips(clips: Clips) -> TaskTrainingClips:
    """Return the training part; for a task with folds that of fold 1, as in the reference (ODDITIES 40)."""
    return TaskTrainingClips(clips, clips.parts()[0].train, clips.task.batch_size)
