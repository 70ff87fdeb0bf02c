"""From a task and a folder to clips: files found, counts checked, labels numbered, parts and folds made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evar.audio.files import find_audio
from evar.audio.identity import Identity, identify
from evar.audio.loading import ClipItem, broken_files, load_batches
from evar.audio.windows import random_position, unit_samples
from evar.errors import UserError
from evar.paths import data_root
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
    """``[N]`` class numbers, or ``[N, C]`` zeros and ones for a multi-label task."""
    incomplete: str = ""
    """What is missing, in a sentence; empty for a complete copy."""
    fingerprint: str = field(default="")

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.table)

    @property
    def groups(self) -> list[str] | None:
        """A group's name per clip, or None if the task knows no groups."""
        return [str(g) for g in self.table["group"]] if "group" in self.table else None

    def parts(self) -> list[Part]:
        """Return the evaluation's parts: one for a task with a split, one per fold for a task with folds."""
        if not self.task.has_folds:
            split = self.table["split"].to_numpy()
            train, valid, test = (np.flatnonzero(split == name) for name in SPLITS)
            return [Part("split", train, valid if len(valid) else None, test)]
        fold = self.table["fold"].to_numpy()
        held_out = sorted(set(fold.tolist()))
        return [Part(f"fold {k}", np.flatnonzero(fold != k), None, np.flatnonzero(fold == k)) for k in held_out]


def open_task(task: Task, root: Path | None = None, data: Path | None = None, *, incomplete: bool = False) -> Clips:
    """Return the clips of ``task`` below ``root/<task>`` (or in ``data``), checked.

    Raises :class:`UserError` if the data set is not there, a file stands in two parts, a label is unknown, a file is
    broken, or the counts differ from the declared ones, unless ``incomplete`` says to go on with what is there.
    """
    folder = locate(task, root, data)
    table = _checked_index(task, folder)
    found = [find_audio(folder, file) for file in table["file"]]
    lacking = [str(file) for file, path in zip(table["file"], found, strict=True) if path is None]
    table = table[[path is not None for path in found]].reset_index(drop=True)
    paths = [path for path in found if path is not None]
    identities, broken = identify(paths)
    if broken and not incomplete:
        raise broken_files(broken, len(paths))
    keep = [i is not None for i in identities]
    table = table[keep].reset_index(drop=True)
    paths = [p for p, k in zip(paths, keep, strict=True) if k]
    shortfall = _shortfall(task, table, lacking, broken)
    if shortfall and not incomplete:
        raise UserError(
            f"{task.name} at {folder} is not the complete data set: {shortfall}. "
            f"Fetch what is missing (python -m evar.prepare {task.name}), or go on with what is there: --incomplete"
        )
    good = [i for i in identities if i is not None]
    _check_parts(task, table)
    return Clips(task, folder, table, paths, good, _targets(task, table), shortfall, _fingerprint(task, table, good))


def locate(task: Task, root: Path | None = None, data: Path | None = None) -> Path:
    """Return the task's folder, generating made data on first use; :class:`UserError` if it is not there."""
    folder = data if data is not None else data_root(root) / task.name
    if task.generate is not None and not (folder / task.marker).exists():
        task.generate(folder)
    if task.top_folder and (folder / task.top_folder).is_dir():
        folder = folder / task.top_folder
    if not folder.is_dir():
        raise UserError(
            f"{task.name} is not at {folder}; fetch it with `python -m evar.prepare {task.name}`, or say where it "
            f"lies: --root=DIR (the data set in DIR/{task.name}/) or --data=DIR"
        )
    if task.marker and not (folder / task.marker).exists():
        raise UserError(f"{folder} does not look like {task.title}: there is no {task.marker} in it")
    return folder


def _checked_index(task: Task, folder: Path) -> pd.DataFrame:
    table = task.index(folder).reset_index(drop=True)
    part = "fold" if task.has_folds else "split"
    table = table[table[part].notna()].reset_index(drop=True)
    twice = table[table["file"].duplicated(keep=False)]
    for file, rows in twice.groupby("file", sort=True):
        parts = sorted(set(map(str, rows[part])))
        where = f"in two parts ({part} {' and '.join(parts)})" if len(parts) > 1 else f"twice in {part} {parts[0]}"
        raise UserError(f"{task.name}: the file {file} stands {where} of the index; evaluation on it would be wrong")
    if table.empty:
        raise UserError(f"{task.name}: the index of {folder} lists no clips")
    return table


def _shortfall(task: Task, table: pd.DataFrame, lacking: Sequence[str], broken: dict[Path, str]) -> str:
    part = "fold" if task.has_folds else "split"
    counted = table[part].value_counts().to_dict()
    wrong = [
        f"{part} {key} has {counted.get(key, 0)} of {expected} clips"
        for key, expected in task.counts.items()
        if counted.get(key, 0) != expected
    ]
    wrong += [f"there is an unknown {part} {key}" for key in counted if key not in task.counts]
    notes = []
    if lacking:
        notes.append(f"{len(lacking)} listed files are missing, the first: {', '.join(lacking[:3])}")
    if broken:
        notes.append(f"{len(broken)} files are broken, the first: {', '.join(p.name for p in sorted(broken)[:3])}")
    return "; ".join([", ".join(wrong), *notes]) if wrong else ""


def _check_parts(task: Task, table: pd.DataFrame) -> None:
    present = set(table["fold" if task.has_folds else "split"])
    if task.has_folds and len(present) < 2:
        raise UserError(f"{task.name}: at least two folds are needed, there is only {sorted(present)}")
    if not task.has_folds and not {"train", "test"} <= present:
        raise UserError(f"{task.name}: both a training and a test part are needed, there is only {sorted(present)}")


def _targets(task: Task, table: pd.DataFrame) -> NDArray:
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
    part = "fold" if task.has_folds else "split"
    for file, label, where, identity in zip(table["file"], table["label"], table[part], identities, strict=True):
        digest.update(f"\n{Path(file).with_suffix('')} {label} {where} ".encode() + identity.digest)
    return digest.hexdigest()


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
        return "caption" in self.clips.table

    @property
    def fingerprint(self) -> str:
        """A checksum of what ``prepare`` can see, from which its outcome follows."""
        digest = hashlib.blake2b(f"{self.clips.task.unit_seconds} {self.batch_size}".encode(), digest_size=16)
        captions = self.clips.table["caption"] if self.has_captions else None
        for row in self.rows:
            caption = b"" if captions is None else str(captions[row]).encode()
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
            [ClipItem(self.clips.paths[r], random_position(identities[r].digest, WINDOW_SEED)) for r in group]
            for group in groups
        ]
        unit = unit_samples(sample_rate, self.clips.task.unit_seconds)
        for group, loaded in zip(groups, load_batches(items, sample_rate, unit), strict=True):
            if loaded.broken:
                raise broken_files(loaded.broken, len(self))
            captions = tuple(str(self.clips.table["caption"][r]) for r in group) if self.has_captions else ()
            yield loaded.clips._replace(captions=captions)


def training_clips(clips: Clips) -> TaskTrainingClips:
    """Return the training part; for a task with folds that of fold 1, as in the reference (ODDITIES 40)."""
    return TaskTrainingClips(clips, clips.parts()[0].train, clips.task.batch_size)
