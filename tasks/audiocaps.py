"""AudioCaps: ten-second clips of AudioSet, described in one sentence (train) or five (val, test). Retrieval on test.

The audio are YouTube videos that vanish one by one, so no two copies are quite alike; the published numbers come from
one that has 957 of the 975 test clips. Every clip of the tables is listed, and those without a file are left out later.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from evar.audio.files import AUDIO_SUFFIXES
from evar.errors import UserError
from tasks._index import read_table
from tasks.base import Index, Task

PARTS = {"train": "train", "val": "valid", "test": "test"}
TABLE_FOLDERS = ("", "dataset", "en", "ML-AudioCaps/en")
"""Where the tables may lie: beside the audio, or as the repositories cdjkim/audiocaps and ML-AudioCaps have them."""
AUDIO_FOLDERS = ("", "waveforms", "audio")
"""Where the folders ``train``, ``val`` and ``test`` with the audio may lie."""
YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")


def index(data: Path) -> Index:
    """Return one row per clip, with all its captions in the order of the table; train and val may be missing."""
    tables = table_folder(data)
    rows, seen = [], dict[str, Path]()
    for name, split in PARTS.items():
        path = tables / f"{name}.csv"
        if not path.exists() and split != "test":
            continue
        captions = captions_by_id(path)
        for youtube_id in captions:
            if youtube_id in seen:
                raise UserError(f"the clip {youtube_id} stands in {seen[youtube_id]} and in {path}: fetch both again")
            seen[youtube_id] = path
        files = audio_files(data, name, list(captions))
        rows += [(file, texts, split) for file, texts in zip(files, captions.values(), strict=True)]
    return pd.DataFrame(rows, columns=["file", "captions", "split"])


def table_folder(data: Path) -> Path:
    """Return the folder with the tables; :class:`UserError` if there is none."""
    for place in TABLE_FOLDERS:
        if (data / place / "test.csv").is_file():
            return data / place
    raise UserError(f"there is no test.csv in {data}, nor in its folders {', '.join(TABLE_FOLDERS[1:])}: put it there")


def captions_by_id(path: Path) -> dict[str, list[str]]:
    """Return the captions of each clip in the table ``path``, one caption a row, clips as they first appear."""
    found: dict[str, list[str]] = {}
    table = read_table(path, ["youtube_id", "caption"])
    for row, (youtube_id, caption) in enumerate(table.itertuples(index=False), start=2):
        if not YOUTUBE_ID.fullmatch(youtube_id):
            raise UserError(f"{path}, row {row}: '{youtube_id}' is no YouTube id (11 letters, digits, - or _)")
        found.setdefault(youtube_id, []).append(caption)
    return found


def audio_files(data: Path, part: str, youtube_ids: list[str]) -> list[str]:
    """Return the file of each clip of a part, ``Y<id>.wav`` or ``<id>.wav``, wherever it lies; else the former."""
    stems = {place: _stems(data / place / part) for place in AUDIO_FOLDERS}
    usual = next((place for place in AUDIO_FOLDERS if stems[place]), "")

    def file(youtube_id: str) -> str:
        names = ((place, stem) for place in AUDIO_FOLDERS for stem in (f"Y{youtube_id}", youtube_id))
        place, stem = next((found for found in names if found[1] in stems[found[0]]), (usual, f"Y{youtube_id}"))
        return "/".join(filter(None, (place, part, f"{stem}.wav")))

    return [file(youtube_id) for youtube_id in youtube_ids]


def _stems(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir() if path.suffix in AUDIO_SUFFIXES} if folder.is_dir() else set()


TASKS = (
    Task(
        name="audiocaps",
        title="AudioCaps",
        domain="environment",
        metric="R@1",
        kind="retrieval",
        paper_name="AudioCaps",
        unit_seconds=10.0,  # of the clips of AudioSet; retrieval hears whole clips
        labels=(),
        # Clips with audio in the copy of the published runs; the tables list 49,838, 495 and 975.
        counts={"train": 49274, "valid": 494, "test": 957},
        index=index,
        licence="captions MIT (its README: for academic purposes); audio: YouTube videos under their own terms",
        citation='C. D. Kim, B. Kim, H. Lee, G. Kim, "AudioCaps: Generating Captions for Audios in The Wild", '
        "NAACL-HLT 2019, doi:10.18653/v1/N19-1011",
        homepage="https://audiocaps.github.io",
        manual="Take train.csv, val.csv and test.csv from https://github.com/cdjkim/audiocaps (folder dataset; not "
        "dataset2.0) and the audio from the link that https://github.com/XinhaoMei/ACT gives (or the form of the "
        "first), as train/Y<YouTube id>.wav, val/… and test/… beside the tables.",
        complete_share=0.9,
    ),
)
