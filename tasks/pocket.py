"""The pocket suite: three small tasks that the harness makes itself, for a first run without any download.

Each is hard enough to rank models, its groups (instrument, place, voice) are disjoint between the parts, and every
clip has a caption. The sounds are made in ``tasks/_pocket``; what is written are ordinary WAV files (16-bit, 16 kHz)
and a table, read back as any data set is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tasks._index import one_of, read_table
from tasks._pocket import events, notes, words
from tasks._pocket.event_sounds import SOUNDS
from tasks._pocket.writing import COLUMNS, METADATA, Clip, write
from tasks.base import SPLITS, Index, Task

CHECKSUMS = {
    "pocket_events": "469898bd329dd6e201480f563a0bf9cbb47d465f8fbfb077f0e082cde66486ca",
    "pocket_pitch": "b4bf6981b13fe1fea3eb1388a62d9c6b9936fb9bfad5df1dce02a2979a2e88e6",
    "pocket_speech": "2919ee235053dfaad1975aae086768803890860623e9f1a92b17e125416f3702",
}
"""sha256 of each task's metadata table, as recorded with numpy 2.4."""


def index(data: Path) -> Index:
    """Return the table that :func:`generate` wrote."""
    path = data / METADATA
    table = read_table(path, COLUMNS)
    one_of(table, "split", SPLITS, path)
    return table


def generate(folder: Path, *, name: str, clips: Callable[[], list[Clip]]) -> None:
    """Make the task ``name`` in ``folder``, all or nothing (a few seconds); do nothing where it lies already."""
    write(folder, clips, CHECKSUMS[name])


def counts(clips: int, groups: dict[str, int]) -> dict[str | int, int]:
    """Return clips per part, with ``clips`` in each of a part's ``groups``."""
    return {split: clips * number for split, number in groups.items()}


def _task(name: str, clips: Callable[[], list[Clip]], **facts: Any) -> Task:
    return Task(
        name=name,
        metric="accuracy",
        index=index,
        licence="MIT",
        citation="made by this harness (tasks/pocket.py, synthesis version 1)",
        homepage="tasks/pocket.py",
        marker=METADATA,
        generate=partial(generate, name=name, clips=clips),
        tags=("pocket",),
        **facts,
    )


TASKS = (
    _task(
        "pocket_events",
        events.clips,
        title="Pocket: environmental-like sounds",
        domain="environment",
        unit_seconds=events.SECONDS,
        labels=tuple(sorted(SOUNDS)),
        counts=counts(len(SOUNDS) * events.CLIPS_PER_SOUND, events.PLACES),
        group_is="place",
    ),
    _task(
        "pocket_pitch",
        notes.clips,
        title="Pocket: notes of synthetic instruments",
        domain="music",
        unit_seconds=notes.SECONDS,
        labels=tuple(sorted(notes.NOTES)),
        counts=counts(len(notes.NOTES) * notes.CLIPS_PER_NOTE, notes.INSTRUMENTS),
        caption=notes.caption,
        group_is="instrument",
    ),
    _task(
        "pocket_speech",
        words.clips,
        title="Pocket: words of synthetic voices",
        domain="speech",
        unit_seconds=words.SECONDS,
        labels=tuple(sorted(words.PHONES)),
        counts=counts(len(words.PHONES) * words.CLIPS_PER_WORD, words.VOICES),
        caption=words.caption,
        group_is="voice",
    ),
)
