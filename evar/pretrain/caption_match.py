"""Which captions belong to each clip of a corpus, by the clips' names (MODELS 9 and 12.15 of the specification)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evar.pretrain.caption_keys import Video, file_key, tails, video_of
from evar.pretrain.caption_readers import Ids
from evar.pretrain.caption_tables import CaptionTable

LABELS = "labels"
"""The source of captions made of the corpus's own labels."""
Found = list[tuple[int, str]]
"""Captions of a clip: number of the table, text."""


@dataclass(frozen=True)
class Matched:
    """The captions of a corpus's clips, clips in the corpus's order: L captions in all."""

    clips: NDArray[np.int64]
    """``[L]``: each caption's clip, ascending."""
    captions: list[str]
    """``[L]``."""
    sources: list[str]
    """``[L]``: name of the table, or :data:`LABELS`."""
    without: NDArray[np.int64]
    """Clips that have no caption."""
    by_id_alone: int
    """Clips that tell their start, with captions found by the id only because no table tells where its clip starts."""
    ambiguous: tuple[str, ...]
    """Names in the tables that could be several clips, and are therefore nobody's."""


def match(
    names: Sequence[str],
    tables: Sequence[CaptionTable],
    labels: Sequence[Sequence[str]] | None = None,
    *,
    rule: Callable[[Sequence[str]], str] | None = None,
    ids: Ids = "exact",
) -> Matched:
    """Return the captions of the clips ``names`` (paths within the corpus).

    ``exact``: a clip has the captions of its file and of its YouTube id, of all tables; where table and clip tell the
    start, the second must agree. ``reference``: those of the first 11 characters of its name, whatever the start (so
    that a clip of VGGSound gets what is said of another moment of the same video), and only if there are none those
    of its file. Where nothing is found, tables of label captions serve (``fills``), then ``rule`` on its ``labels``.
    """
    starts = audioset_starts(tables)
    told = _Index([(n, table) for n, table in enumerate(tables) if not table.fills], ids, starts)
    filling = _Index([(n, table) for n, table in enumerate(tables) if table.fills], ids, starts)
    keys = [file_key(name) for name in names]
    of_file = told.files_of(keys)
    fills_of_file = filling.files_of(keys)
    clips: list[int] = []
    captions: list[str] = []
    sources: list[str] = []
    without: list[int] = []
    for clip, key in enumerate(keys):
        found = told.of_clip(key, of_file.get(clip, [])) or filling.of_clip(key, fills_of_file.get(clip, []))
        if not found and rule is not None and labels is not None and labels[clip]:
            found = [(-1, rule(labels[clip]))]
        for table, caption in found:
            clips.append(clip)
            captions.append(caption)
            sources.append(tables[table].source if table >= 0 else LABELS)
        if not found:
            without.append(clip)
    ambiguous = tuple(sorted(told.ambiguous | filling.ambiguous))
    loose = told.by_id_alone + filling.by_id_alone
    return Matched(_numbers(clips), captions, sources, _numbers(without), loose, ambiguous)


def audioset_starts(tables: Iterable[CaptionTable]) -> dict[str, int]:
    """Return the second at which AudioSet's clip of a video starts, by the tables that say it.

    AudioSet has one clip per video, and tables that name a clip by its id alone (Auto-ACD's ``Y<id>``, ACalt4) mean it.
    """
    starts: dict[str, int] = {}
    for table in tables:
        if table.of_audioset:
            for youtube_id, rows in table.videos.items():
                starts.update((youtube_id, start) for start, _ in rows[:1] if start is not None)
    return starts


def _numbers(values: Iterable[int]) -> NDArray[np.int64]:
    return np.array(list(values), dtype=np.int64)


class _Index:
    """Tables ready for looking up: videos by id, files by name and by the ends of their names."""

    def __init__(self, tables: list[tuple[int, CaptionTable]], ids: Ids, starts: Mapping[str, int]) -> None:
        self.tables, self.ids, self.starts = tables, ids, starts
        self.by_id_alone = 0
        self.ambiguous: set[str] = set()

    def of_clip(self, key: str, of_file: Found) -> Found:
        """Return a clip's captions, each once."""
        if self.ids == "reference":
            video: Video | None = Video(key.rpartition("/")[2][:11], None)
        else:
            video = video_of(key)
        rows = self._rows(video.id) if video is not None else []
        if self.ids == "reference":
            found = [(table, caption) for table, _, caption in rows] or of_file
        else:
            found = of_file + (self._agreeing(rows, video) if video is not None else [])
        first: dict[str, tuple[int, str]] = {}
        for table, caption in found:
            first.setdefault(caption, (table, caption))
        return list(first.values())

    def _rows(self, youtube_id: str) -> list[tuple[int, int | None, str]]:
        return [(n, start, text) for n, table in self.tables for start, text in table.videos.get(youtube_id, ())]

    def _agreeing(self, rows: list[tuple[int, int | None, str]], video: Video) -> Found:
        """Return the captions of the rows that mean this clip.

        A row without start means AudioSet's clip of the video, and so does a clip without. Where even that is not
        known, rows without start count, unless there are rows whose start agrees.
        """
        here = self.starts.get(video.id)
        start = video.start if video.start is not None else here
        timed = [(here if second is None else second, n, text) for n, second, text in rows]
        found = [(n, text) for second, n, text in timed if second is not None and second == start]
        if found:
            return found
        loose = [(n, text) for second, n, text in timed if second is None]
        if not loose and start is None and len({second for second, _, _ in timed}) == 1:
            loose = [(n, text) for _, n, text in timed]
        self.by_id_alone += bool(loose and video.start is not None)
        return loose

    def files_of(self, keys: Sequence[str]) -> dict[int, Found]:
        """Return the captions that the tables give for each clip's file, by the clip's number.

        Table and corpus may know differently many of a file's folders; they agree if the shorter name is the end of
        the longer one, and if there is only one such clip.
        """
        files: dict[str, Found] = {}
        ends: dict[str, str] = {}  # of names with folders; "" where two names end alike
        for n, table in self.tables:
            for name, captions in table.files.items():
                if name not in files:
                    for end in tails(name)[1:]:
                        ends[end] = name if ends.get(end, name) == name else ""
                files.setdefault(name, []).extend((n, caption) for caption in captions)
        clips_of: dict[str, list[int]] = {}
        if files:
            for clip, key in enumerate(keys):
                named = next((end for end in tails(key) if end in files), ends.get(key))
                if named:
                    clips_of.setdefault(named, []).append(clip)
                elif named == "":
                    self.ambiguous.add(key)
        found: dict[int, Found] = {}
        for name, clips in clips_of.items():
            meant = clips if len(clips) == 1 else [clip for clip in clips if keys[clip] == name]
            found |= dict.fromkeys(meant, files[name])
            if not meant:
                self.ambiguous.add(name)
        return found
