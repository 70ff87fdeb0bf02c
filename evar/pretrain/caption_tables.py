"""Tables of captions in one form: what each data set wrote of which clip (MODELS 9 of the specification).

A clip is named by a YouTube id (with the second at which it starts, where the table knows it) or by a file. Which clips
of a corpus are meant is for :mod:`evar.pretrain.caption_match` to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from evar.errors import UserError, did_you_mean
from evar.pretrain.caption_keys import Row, Video
from evar.pretrain.caption_labels import audioset_rows
from evar.pretrain.caption_readers import (
    FILE_COLUMNS,
    ID_COLUMNS,
    Ids,
    auto_acd_rows,
    csv_rows,
    task_rows,
    vggsound_rows,
    wavcaps_rows,
)

_SPACE = re.compile(r"[\r\n\t]+")


@dataclass(frozen=True)
class CaptionTable:
    """The captions of one table."""

    source: str
    """The table's name in records: ``auto_acd``, ``clotho``, the file's own for a user's."""
    videos: Mapping[str, tuple[tuple[int | None, str], ...]] = field(default_factory=dict)
    """By YouTube id (11 characters): pairs of the second at which the clip starts (None: not said) and a caption."""
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By :func:`~evar.pretrain.caption_keys.file_key`: path without suffix, with as many folders as the table says."""
    fills: bool = False
    """Label captions: they serve only where no other table has any."""
    of_audioset: bool = False
    """Its clips are AudioSet's, of which there is one per video, so that its starts hold for other tables, too."""
    skipped: int = 0
    """Rows without a caption or without a name."""
    licence: str = ""

    def __len__(self) -> int:
        """Return the number of captions."""
        return sum(map(len, self.videos.values())) + sum(map(len, self.files.values()))


class Kind(NamedTuple):
    """How one kind of table is read: from its path to rows. ``about`` is for the help and the records."""

    read: Callable[[Path, Ids], Iterable[Row]]
    about: str
    licence: str
    fills: bool = False
    of_audioset: bool = False


def read_tables(places: Iterable[str], ids: Ids = "exact") -> list[CaptionTable]:
    """Return the tables that ``kind:path`` name, in that order; :data:`KINDS`, or a task's name and its data's folder.

    ``ids``: how Auto-ACD's ids are cut (:func:`evar.pretrain.caption_readers.auto_acd_video`). Raises
    :class:`UserError` for a kind that is not known, a file that is missing or not a table of that kind, and a table
    without any caption.
    """
    return [_read(place, ids) for place in places]


def _read(place: str, ids: Ids) -> CaptionTable:
    name, colon, where = place.partition(":")
    path = Path(where).expanduser()
    if not colon or not where:
        raise UserError(f"--tables={place}: write KIND:PATH, KIND being one of {', '.join(KINDS)} or a task's name")
    if path.is_dir() and name != "wavcaps":
        kind = Kind(lambda folder, _: task_rows(name, folder), "a task's own captions", "")
    elif name in KINDS:
        kind = KINDS[name]
    else:
        raise UserError(f"--tables={place}: there is no kind of table '{name}'.{did_you_mean(name, KINDS)}")
    if not path.exists():
        raise UserError(f"there is no caption table {path}")
    source = path.stem if name == "csv" else name
    table = replace(
        table_of(source, kind.read(path, ids)), fills=kind.fills, of_audioset=kind.of_audioset, licence=kind.licence
    )
    if not len(table):
        raise UserError(f"{path}: no caption in it")
    return table


def table_of(source: str, rows: Iterable[Row]) -> CaptionTable:
    """Return the table of ``rows``: captions of one clip together, in their order, each once, at the ends stripped."""
    videos: dict[str, list[tuple[int | None, str]]] = {}
    files: dict[str, list[str]] = {}
    skipped = 0
    for key, text in rows:
        caption = _SPACE.sub(" ", text.strip())
        if not key or not caption:
            skipped += 1
        elif isinstance(key, Video):
            timed = videos.setdefault(key.id, [])
            if (key.start, caption) not in timed:
                timed.append((key.start, caption))
        elif caption not in (of_file := files.setdefault(key, [])):
            of_file.append(caption)
    return CaptionTable(
        source,
        {key: tuple(found) for key, found in videos.items()},
        {key: tuple(found) for key, found in files.items()},
        skipped=skipped,
    )


KINDS = {
    "auto_acd": Kind(auto_acd_rows, "Auto-ACD's csv", "see huggingface.co/datasets/Loie/Auto-ACD"),
    "acalt4": Kind(lambda path, _: csv_rows(path, ID_COLUMNS), "AudioCaps Alternative 4", "see the repository ACalt4"),
    "audiocaps": Kind(
        lambda path, _: csv_rows(path, ID_COLUMNS),
        "AudioCaps' train.csv",
        "MIT (its README: for academic purposes)",
        of_audioset=True,
    ),
    "clotho": Kind(
        lambda path, _: csv_rows(path, FILE_COLUMNS),
        "Clotho's captions csv",
        "licence of Tampere University (non-commercial, attribution)",
    ),
    "wavcaps": Kind(lambda path, _: wavcaps_rows(path), "a WavCaps json or the folder of all", "academic use only"),
    "csv": Kind(
        lambda path, _: csv_rows(path), "columns file (or youtube_id) and caption, or caption_1, caption_2 …", ""
    ),
    "audioset": Kind(
        lambda path, _: audioset_rows(path),
        "AudioSet's segments csv, as label captions",
        "CC BY 4.0",
        fills=True,
        of_audioset=True,
    ),
    "vggsound": Kind(lambda path, _: vggsound_rows(path), "VGGSound's csv, as label captions", "CC BY 4.0", fills=True),
}
"""By the name that stands before the colon in ``--tables``."""
