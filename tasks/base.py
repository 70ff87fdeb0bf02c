"""The task contract: facts in a frozen record, and one function that reads the data set's own layout.

A task file defines one or more :class:`Task` records in a tuple named ``TASKS``; ``tasks/esc50.py`` is the example to
copy. Nothing here knows of torch.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

import pandas as pd

from evar.errors import UserError, did_you_mean

Index = pd.DataFrame
SPLITS = ("train", "valid", "test")
DOMAINS = ("environment", "speech", "music", "mixed")
METRICS = ("accuracy", "mAP")
CHECKSUM = r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}"


def default_caption(label: str) -> str:
    """Return the paper's caption of a label: underscores become spaces, " can be heard" follows (M2D-CLAP, Table 2)."""
    return f"{label.replace('_', ' ')} can be heard"


@dataclass(frozen=True)
class Archive:
    """One file to download: where it lies and what its checksum is (``md5:…`` or ``sha256:…``; None if unknown)."""

    url: str
    name: str
    checksum: str | None = None
    megabytes: float | None = None


@dataclass(frozen=True)
class Task:
    """What there is to know about a task. ``index`` is the only behaviour.

    ``index(data)`` reads the data set below the folder ``data`` and returns one row per clip with the columns

    * ``file``: path below ``data``, with the suffix that the data set's own metadata uses;
    * ``label``: a string, or a list of strings for a multi-label task;
    * ``split`` (train, valid, test) or ``fold`` (1, 2, …);
    * ``group`` (optional): speaker, song, source recording: clips of one group are not independent;
    * ``caption`` (optional): a sentence that describes this very clip.
    """

    name: str
    title: str
    domain: Literal["environment", "speech", "music", "mixed"]
    metric: Literal["accuracy", "mAP"]
    unit_seconds: float
    labels: tuple[str, ...]
    counts: Mapping[str | int, int]
    """Clips per split name, or per fold number."""
    index: Callable[[Path], Index]
    licence: str
    citation: str
    homepage: str
    archives: tuple[Archive, ...] = ()
    manual: str = ""
    """What the user does where the data set must be fetched by hand."""
    top_folder: str = ""
    """Name of the archive's own top folder, which may be there or not."""
    marker: str = ""
    """A file or folder below ``data`` whose presence says that the data set lies there."""
    caption: Callable[[str], str] = default_caption
    group_is: str = ""
    """What a group is ("source recording", "speaker", …)."""
    groups_cross: bool = False
    """True where the official split has groups in several parts: a declared property, reported and not refused."""
    batch_size: int = 64
    """Extraction batch of the paper's runs (only matters for statistics that are taken over batches)."""
    generate: Callable[[Path], None] | None = None
    """Writes the data set as ordinary audio files, for tasks that are made and not downloaded."""
    paper_name: str = ""
    """The task's name in the papers' tables."""
    tags: tuple[str, ...] = field(default=())

    @property
    def multi_label(self) -> bool:
        """Whether a clip may carry several labels."""
        return self.metric == "mAP"

    @property
    def has_folds(self) -> bool:
        """Whether the task is evaluated by leaving one fold out at a time."""
        return bool(self.counts) and all(isinstance(key, int) for key in self.counts)

    def captions(self) -> list[str]:
        """Return one caption per label, in the order of ``labels``."""
        return [self.caption(label) for label in self.labels]


def _modules() -> list[str]:
    import tasks

    return [m.name for m in pkgutil.iter_modules(tasks.__path__) if m.name != "base" and not m.name.startswith("_")]


def _installed(entry: metadata.EntryPoint) -> Task:
    try:
        task = entry.load()
    except Exception as error:  # whatever another package's import raises
        raise UserError(f"the installed task '{entry.name}' ({entry.value}) cannot be loaded: {error}") from error
    if not isinstance(task, Task):
        raise UserError(f"the installed task '{entry.name}' ({entry.value}) is not a tasks.base.Task")
    return task


def all_tasks() -> dict[str, Task]:
    """Return every registered task by name: those of this package, then those of installed packages.

    An installed package adds tasks through the entry point group ``evar.tasks``, each naming a :class:`Task`.
    """
    found: dict[str, Task] = {}
    for module in _modules():
        for task in importlib.import_module(f"tasks.{module}").TASKS:
            if task.name in found:
                raise UserError(f"two tasks are called '{task.name}' (the second in tasks/{module}.py)")
            found[task.name] = task
    for entry in metadata.entry_points(group="evar.tasks"):
        task = _installed(entry)
        if task.name in found:
            raise UserError(f"two tasks are called '{task.name}' (the second in the installed package's {entry.value})")
        found[task.name] = task
    return found


def get_task(name: str) -> Task:
    """Return the task called ``name``; raise :class:`UserError` with the nearest right name."""
    known = all_tasks()
    if name not in known:
        raise UserError(f"no task is called '{name}'.{did_you_mean(name, known)}")
    return known[name]


def validate(task: Task) -> list[str]:
    """Return what is wrong with a task's facts, one sentence each; empty when all is well."""
    wrong = []
    if not task.name.isidentifier() or task.name != task.name.lower():
        wrong.append(f"name '{task.name}' must be lower-case letters, digits and underscores")
    for fact, choices in (("domain", DOMAINS), ("metric", METRICS)):
        if getattr(task, fact) not in choices:
            wrong.append(f"{fact} is '{getattr(task, fact)}', must be one of {', '.join(choices)}")
    if task.unit_seconds <= 0:
        wrong.append(f"unit_seconds is {task.unit_seconds}, must be above 0")
    if task.batch_size < 1:
        wrong.append(f"batch_size is {task.batch_size}, must be at least 1")
    if not (task.archives or task.manual or task.generate):
        wrong.append("archives, manual steps or a generator: one must say where the data come from")
    for archive in task.archives:
        if archive.checksum is not None and not re.fullmatch(CHECKSUM, archive.checksum):
            wrong.append(f"the checksum of {archive.name} must be md5:… (32 hex digits) or sha256:… (64)")
    for fact in ("title", "licence", "citation", "homepage"):
        if not getattr(task, fact):
            wrong.append(f"{fact} is missing")
    if task.groups_cross and not task.group_is:
        wrong.append("groups_cross is set but group_is does not say what a group is")
    return wrong + _wrong_counts(task) + _wrong_labels(task)


def _wrong_counts(task: Task) -> list[str]:
    wrong = []
    keys = set(task.counts)
    if not task.has_folds and not ({"train", "test"} <= keys <= set(SPLITS)):
        wrong.append(
            f"counts must name train, test and perhaps valid, or fold numbers; they name {sorted(map(str, keys))}"
        )
    if task.has_folds and (len(keys) < 2 or sorted(map(int, keys)) != list(range(1, len(keys) + 1))):
        wrong.append("fold numbers must run from 1 without gaps, to 2 at least")
    if any(count <= 0 for count in task.counts.values()):
        wrong.append("every count must be above 0")
    return wrong


def _wrong_labels(task: Task) -> list[str]:
    if not all(isinstance(label, str) and label for label in task.labels):
        return ["every label must be a text that is not empty"]
    wrong = []
    if len(set(task.labels)) != len(task.labels) or list(task.labels) != sorted(task.labels):
        wrong.append("labels must be sorted and without repeats (the class order of the published protocol)")
    if len(task.labels) < 2:
        wrong.append("at least two labels are needed")
    captions = task.captions()
    if len(set(captions)) < len(set(task.labels)):
        wrong.append("two labels have the same caption")
    return wrong
