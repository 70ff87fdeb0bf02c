"""Readers of caption tables, each from a file as its authors publish it to rows of (clip, caption) (MODELS 9)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from evar.errors import UserError
from evar.pretrain.caption_keys import Row, Video, file_key, video_of
from evar.pretrain.caption_labels import label_caption

Ids = Literal["exact", "reference"]
FILE_COLUMNS = ("file", "file_name", "filename", "path")
ID_COLUMNS = ("youtube_id", "ytid")
START_COLUMNS = ("start_time", "start_seconds", "start")
WAVCAPS = {
    "as_final": "AudioSet_SL",
    "bbc_final": "BBC_Sound_Effects",
    "fsd_final": "FreeSound",
    "sb_final": "SoundBible",
}
"""WavCaps' files and the folders of audio that they describe."""
_CAPTION = re.compile(r"captions?|caption_?[0-9]+")
_QUOTED = re.compile(r'be: "([^"]*)"?')


def auto_acd_video(text: str, ids: Ids = "exact") -> Video | None:
    """Return the clip of an id of Auto-ACD: ``<id>_<start:06d>`` (VGGSound) or ``Y<id>`` (AudioSet).

    ``reference`` cuts as the reference does: characters 1 to 11 after a leading Y, else the first 11, and no start. It
    cuts the ids that really begin with a Y and have none before it (one in 64) at the wrong place; ``exact`` tells
    them by their length.
    """
    if ids == "reference":
        short = text[1:12] if text.startswith("Y") else text[:11]
        return Video(short, None) if len(short) == 11 else None
    return video_of(text)


def cleaned(caption: str) -> str:
    """Return an Auto-ACD caption: of ``… be: "text"``, a language model's preamble, the text between the quotes."""
    found = _QUOTED.search(caption)
    return found[1] if found else caption


def auto_acd_rows(path: Path, ids: Ids = "exact") -> Iterator[Row]:
    """Yield the captions of Auto-ACD's table (columns youtube_id, caption), cleaned."""
    table, key, captions = _caption_csv(path, ID_COLUMNS)
    for text, caption in zip(table[key], table[captions[0]], strict=True):
        yield Row(auto_acd_video(text, ids) or "", cleaned(caption))


def csv_rows(path: Path, keys: tuple[str, ...] = (*FILE_COLUMNS, *ID_COLUMNS)) -> Iterator[Row]:
    """Yield a row per caption of a CSV file: all captions of a row of the table, one after the other.

    ``keys``: the columns that may name the clips; the first that is there does.
    """
    table, key, captions = _caption_csv(path, keys)
    start = next((name for name in START_COLUMNS if name in table.columns), None)
    starts = table[start].tolist() if start is not None else [""] * len(table)
    by_id = key in ID_COLUMNS
    texts = zip(*(table[name].tolist() for name in captions), strict=True)
    for number, (text, second, row) in enumerate(zip(table[key].tolist(), starts, texts, strict=True), start=2):
        name: str | Video = id_key(text, second, f"{path}, row {number}") if by_id else file_key(text)
        # The other columns of a row may be empty: not every clip has all five captions.
        filled = [caption for caption in row if caption.strip()]
        yield from (Row(name, caption) for caption in filled or [""])


def id_key(text: str, second: str, where: str) -> str | Video:
    """Return the clip of an id: a video, or the file ``<folder><stem>`` of the reference's joined WavCaps keys."""
    video = video_of(text)
    if video is None:
        folder = next((folder for folder in WAVCAPS.values() if text.startswith(folder)), "")
        return file_key(f"{folder}/{text.removeprefix(folder)}" if folder else text)
    if not second.strip():
        return video
    try:
        return Video(video.id, int(float(second)))
    except ValueError:
        raise UserError(f"{where}: '{second}' is not the second at which a clip starts") from None


def _caption_csv(path: Path, keys: tuple[str, ...]) -> tuple[pd.DataFrame, str, list[str]]:
    """Return (table of text, column of the clips' names, columns of captions)."""
    wanted = {*keys, *START_COLUMNS}
    table = read_csv(path, lambda name: name in wanted or _CAPTION.fullmatch(name) is not None)
    key = next((name for name in keys if name in table.columns), None)
    if key is None:
        raise UserError(f"{path} has no column {' or '.join(keys)} (row 1 must name it)")
    captions = [name for name in table.columns if _CAPTION.fullmatch(name)]
    if not captions:
        raise UserError(f"{path} has no column 'caption', nor caption_1, caption_2 … (row 1 must name them)")
    return table, key, captions


def read_csv(path: Path, wanted: Callable[[str], bool] | None = None, names: list[str] | None = None) -> pd.DataFrame:
    """Return a CSV file as text, columns in lower case; ``names`` are those of a file without a header."""
    usecols = None if wanted is None else lambda name: wanted(str(name).strip().lower())
    try:
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig", usecols=usecols, names=names,
            header=0 if names is None else None,
        )  # fmt: skip
    except (OSError, ValueError) as error:  # pandas' parser errors and wrong encodings are ValueErrors
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{path} cannot be read as a comma-separated UTF-8 table: {reason}") from None
    return table.rename(columns=lambda name: str(name).strip().lower()).astype(object).fillna("")


def wavcaps_rows(path: Path) -> Iterator[Row]:
    """Yield the captions of a WavCaps json, or of all in a folder; the key is the folder of audio and the id's stem."""
    paths = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    for one in paths:
        folder = WAVCAPS.get(one.stem) or next((f for f in WAVCAPS.values() if f in (one.stem, one.parent.name)), None)
        if folder is None:
            if path.is_dir():  # WavCaps has black lists beside its captions
                continue
            raise UserError(
                f"{one}: which part of WavCaps is it? Name it {', '.join(f'{name}.json' for name in WAVCAPS)}, or put "
                f"it into a folder {', '.join(WAVCAPS.values())}"
            )
        for number, entry in enumerate(_data_of(one)):
            if not isinstance(entry, dict) or not {"id", "caption"} <= set(entry):
                raise UserError(f"{one}: entry {number} of 'data' has no id or no caption")
            yield Row(file_key(f"{folder}/{entry['id']}"), str(entry["caption"] or ""))


def _data_of(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not JSON ({error})") from None
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, list):
        raise UserError(f"{path} is no table of WavCaps: it has no list 'data'")
    return data


def task_rows(name: str, folder: Path) -> list[Row]:
    """Return the captions of a task's training clips (of a task with folds: of all)."""
    from tasks.base import get_task

    table = get_task(name).index(folder)
    column = next((c for c in ("captions", "caption") if c in table), None)
    if column is None:
        raise UserError(f"the task {name} has no captions, only labels: its clips get label captions without a table")
    if "split" in table:
        table = table[table["split"] == "train"]
    several = ((file, [c] if isinstance(c, str) else c) for file, c in zip(table["file"], table[column], strict=True))
    return [Row(file_key(file), text) for file, texts in several for text in texts]


def vggsound_rows(path: Path) -> Iterator[Row]:
    """Yield VGGSound's label captions; its table has no header: id, start, label, split."""
    table = read_csv(path, names=["id", "start", "label", "split"])
    for number, (text, start, label) in enumerate(zip(table["id"], table["start"], table["label"], strict=True), 1):
        yield Row(id_key(text, start, f"{path}, row {number}"), label_caption([label]) if label.strip() else "")
