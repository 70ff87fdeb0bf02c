"""Where a corpus's clips come from: a folder, a table of files, AudioSet's segment tables, a task's training part."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evar.audio.files import AUDIO_SUFFIXES, find_audio, list_audio
from evar.audio.identity import Identity
from evar.audio.loading import ClipItem
from evar.clips import Clips, open_task
from evar.errors import UserError
from evar.pretrain.corpus_files import SEPARATOR, read_table
from tasks._audioset import EVALUATION, LABELS
from tasks._audioset_tables import read_segments
from tasks.base import get_task

_CLIP_OF = re.compile(r"^(Y?)([\w-]{11})(?:_\d+(?:\.\d+)?)?$")
_SEGMENTS = re.compile(rb"^(\xef\xbb\xbf)?(#|ytid\b)", re.IGNORECASE)


class Entry(NamedTuple):
    """A clip that is to enter a corpus."""

    name: str
    """Relative path, with its source's name in front."""
    item: ClipItem
    labels: tuple[str, ...] = ()
    weight: float | None = None
    identity: Identity | None = None
    """None: the file's own, not looked at yet."""


@dataclass(frozen=True)
class Found:
    """What one source holds."""

    name: str
    place: str
    """As the user wrote it."""
    entries: list[Entry]
    classes: tuple[str, ...] = ()
    """Those that it declares, with or without clips."""
    missing: int = 0
    """Listed clips whose audio is not there (AudioSet's vanish)."""
    note: str = ""


@dataclass(frozen=True)
class Places:
    """Where to look."""

    root: Path | None = None
    """Folder that a table's files are relative to; None: the table's own."""
    tasks: Path | None = None
    """Folder with one folder per task; None: the usual one."""
    incomplete: bool = False
    """Accept an incomplete copy of a task."""


def find_source(place: str, places: Places) -> Found:
    """Return the clips of one source: a folder, a ``.csv`` or ``task:NAME`` (``task:NAME@FOLD`` without that fold).

    Raises :class:`UserError` if it is not there, is malformed or has no clips. No audio is read.
    """
    if place.startswith("task:"):
        return _from_task(place, places)
    path = Path(place).expanduser()
    if path.is_dir():
        return _from_folder(place, path)
    if path.suffix.lower() != ".csv":
        raise UserError(f"--audio={place}: neither a folder, nor a .csv, nor task:NAME")
    if not path.is_file():
        raise UserError(f"there is no table {path}")
    with path.open("rb") as handle:
        is_segments = _SEGMENTS.match(handle.readline()) is not None
    return _from_segments(place, path, places) if is_segments else _from_table(place, path, places)


def _from_folder(place: str, folder: Path) -> Found:
    paths = list_audio([folder])
    if not paths:
        raise UserError(f"--audio={place}: no audio in this folder (looked for {', '.join(AUDIO_SUFFIXES[:3])})")
    name = folder.resolve().name
    return Found(name, place, [Entry(f"{name}/{p.relative_to(folder).as_posix()}", ClipItem(p)) for p in paths])


def _from_table(place: str, path: Path, places: Places) -> Found:
    table = read_table(path, "file", ("label", "weight", "split"))
    folder = places.root if places.root is not None else path.parent
    labels = table.get("label", [""] * len(table["file"]))
    weights = table.get("weight")
    split = table.get("split")
    entries, absent, left_out = [], [], 0
    for n, file in enumerate(table["file"]):
        if split is not None and split[n].lower() not in ("train", "training"):
            left_out += 1
            continue
        found = find_audio(folder, file)
        if found is None:
            absent.append(file)
            continue
        name = "/".join([path.stem, *(part for part in Path(file).parts if part not in ("..", Path(file).anchor))])
        weight = None if weights is None else _weight(weights[n], path, n + 2)
        entries.append(Entry(name, ClipItem(found), tuple(x for x in labels[n].split(SEPARATOR) if x), weight))
    if absent:
        raise UserError(
            f"{len(absent)} of {len(table['file'])} files of {path} are not in {folder}, the first: {absent[0]}; "
            "--root=DIR names the folder that they are relative to"
        )
    if not entries:
        raise UserError(f"{path}: no row has the split 'train'")
    note = f"{left_out} rows of other splits than 'train' left out" if left_out else ""
    return Found(path.stem, place, entries, note=note)


def _weight(text: str, path: Path, row: int) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise UserError(f"{path}, row {row}: the weight '{text}' is not a number from 0 up")
    return weight


def _from_segments(place: str, path: Path, places: Places) -> Found:
    """Return the clips of an AudioSet segment table whose audio is there; videos vanish, so that others are missing."""
    if path.stem == EVALUATION:
        raise UserError(f"--audio={place}: AudioSet's evaluation part tests models, they may not be trained on it")
    base = places.root if places.root is not None else path.parent
    folder = base / path.stem if (base / path.stem).is_dir() else base
    written: dict[bytes, int] = {}
    segments = read_segments(path, written)
    known = set(LABELS)
    sets = [tuple(field.decode().strip('"').split(",")) for field in written]
    unknown = next((x for names in sets for x in names if x not in known), None)
    if unknown is not None:
        raise UserError(f"{path}: '{unknown}' is no class of AudioSet (a machine id like /m/09x0r)")
    row_of = {name.decode(): row for row, name in enumerate(segments.ids.tolist())}
    files: dict[int, str] = {}
    for file in _audio_below(folder):
        row = next((row_of[x] for x in youtube_ids(_stem(file)) if x in row_of), None)
        if row is not None:
            files[row] = min(file, files.get(row, file))
    if not files:
        raise UserError(
            f"none of the clips of {path} is in {folder}; they are called ID.wav, YID.wav or ID_START.wav, and "
            "--root=DIR names their folder"
        )
    entries = [
        Entry(f"{path.stem}/{files[row]}", ClipItem(folder / files[row]), sets[segments.sets[row]])
        for row in sorted(files)
    ]
    return Found(path.stem, place, entries, LABELS, missing=len(row_of) - len(files))


def _audio_below(folder: Path) -> Iterator[str]:
    """Yield the audio files of a folder and its subfolders, relative to it, each folder listed once."""
    for below, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = Path(below).relative_to(folder).as_posix()
        for name in names:
            if name.endswith(AUDIO_SUFFIXES) and not name.startswith("."):
                yield name if prefix == "." else f"{prefix}/{name}"


def _stem(file: str) -> str:
    return file.rpartition("/")[2].rpartition(".")[0]


def youtube_ids(stem: str) -> list[str]:
    """Return the YouTube ids that a file's stem may mean, the likelier one first; none for another kind of name.

    ``Y<id>``, ``<id>_<start>``, ``Y<id>_<start>`` and ``<id>`` are in use, and an id may itself begin with Y.
    """
    match = _CLIP_OF.match(stem)
    if match is None:
        return []
    without_y = [match[2]]
    return [*without_y, stem[:11]] if match[1] else without_y


def _from_task(place: str, places: Places) -> Found:
    """Return the training part of a task; of a task with folds all clips but those of the folds after ``@``."""
    name, _, held_out = place.removeprefix("task:").partition("@")
    task = get_task(name)
    clips = open_task(
        task, places.tasks, incomplete=places.incomplete, parts=None if task.has_folds else ("train",)
    )  # fmt: skip
    numbers = _training(clips, place, held_out)
    table = clips.table
    labels = table["label"].tolist() if task.kind != "retrieval" else [()] * len(clips)
    weights = table["weight"].tolist() if "weight" in table else None
    names = clips.names
    entries = []
    for n in numbers:
        own = labels[n] if isinstance(labels[n], list | tuple) else [str(labels[n])]
        weight = None if weights is None else float(weights[n])
        entries.append(Entry(f"{task.name}/{names[n]}", clips.item(n), tuple(own), weight, clips.identities[n]))
    note = f"without fold {held_out}" if held_out else "training part"
    classes = clips.task.labels if task.kind != "retrieval" else ()
    return Found(task.name, place, entries, tuple(classes), note=note)


def _training(clips: Clips, place: str, held_out: str) -> list[int]:
    task = clips.task
    if not task.has_folds:
        if held_out:
            raise UserError(f"--audio={place}: {task.name} has a split and no folds; write task:{task.name}")
        return np.flatnonzero((clips.table["split"] == "train").to_numpy()).tolist()
    folds = clips.table["fold"].astype(str).to_numpy()
    there = sorted(set(folds.tolist()))
    wanted = held_out.split("+") if held_out else []
    if not wanted or not set(wanted) <= set(there) or set(wanted) == set(there):
        raise UserError(
            f"--audio={place}: {task.name} has the folds {', '.join(there)}; say which is held out for the test, "
            f"for instance task:{task.name}@{there[-1]} (several: @{'+'.join(there[-2:])})"
        )
    return np.flatnonzero(~np.isin(folds, wanted)).tolist()


def read_exclusions(paths: Sequence[Path]) -> set[str]:
    """Return the file stems and ids that lists name, one per line; an audio suffix and ``#`` lines are left out."""
    found: set[str] = set()
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--exclude={path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        for line in map(str.strip, lines):
            if line and not line.startswith("#"):
                found.add(next((line.removesuffix(s) for s in AUDIO_SUFFIXES if line.endswith(s)), line))
    return found


def is_excluded(entry: Entry, excluded: set[str]) -> bool:
    """Return whether a clip's stem, or a YouTube id that it may mean, is on the list."""
    stem = entry.item.path.stem
    return stem in excluded or any(name in excluded or f"Y{name}" in excluded for name in youtube_ids(stem))
