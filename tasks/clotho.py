"""Clotho v2.1: Freesound recordings of 15 to 30 seconds, each described in five sentences. Retrieval on ``evaluation``.

Four file names stand in two parts, so that a name says nothing without its folder. Where the metadata tables lie there
too (``clotho_metadata_*.csv``), the recording's Freesound id is the group.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd

from evar.errors import UserError
from tasks._index import read_table
from tasks.base import Archive, Index, Task

PARTS = {"development": "train", "validation": "valid", "evaluation": "test"}
CAPTIONS = [f"caption_{n}" for n in range(1, 6)]
UNKNOWN_SOUND = "Not found"  # what the metadata tables say of the 19 recordings that Freesound no longer has


def index(data: Path) -> Index:
    """Return one row per clip of the caption tables, with its five captions to the character.

    The tables of ``development`` and ``validation`` may be missing: retrieval needs ``evaluation`` alone.
    """
    rows = []
    for name, split in PARTS.items():
        path = data / f"clotho_captions_{name}.csv"
        if not path.exists() and split != "test":
            continue
        table = read_table(path, ["file_name", *CAPTIONS])
        _refuse_twice(table, path)
        folder = audio_folder(data, name)
        sounds = sound_ids(data / f"clotho_metadata_{name}.csv")
        for file, *captions in table.itertuples(index=False):
            place = f"{folder}/{file}"
            rows.append((place, captions, split, sounds.get(file, f"{name}/{file}")))
    return pd.DataFrame(rows, columns=["file", "captions", "split", "group"])


def audio_folder(data: Path, name: str) -> str:
    """Return the folder of a part's audio below ``data``: as the archive unpacks, or one of the usual places."""
    archive = f"clotho_audio_{name}"
    places = (name, f"{archive}/{name}", archive, f"clotho_audio_files/{name}")
    return next((place for place in places if (data / place).is_dir()), name)


def _refuse_twice(table: pd.DataFrame, path: Path) -> None:
    twice = table["file_name"].duplicated()
    if twice.any():
        row = int(twice.to_numpy().argmax())
        raise UserError(f"{path}, row {row + 2}: the file '{table['file_name'][row]}' stands there a second time")


def sound_ids(path: Path) -> dict[str, str]:
    """Return the Freesound id of each file in a metadata table; nothing where the table or the id is missing.

    These tables, unlike those of the captions, are ISO 8859-1 (every byte is a character, so none is refused).
    """
    if not path.is_file():
        return {}
    header, *rows = list(csv.reader(io.StringIO(path.read_bytes().decode("iso-8859-1"), newline=""))) or [[]]
    for column in ("file_name", "sound_id"):
        if column not in header:
            raise UserError(f"{path} has no column '{column}' (row 1 must name it): fetch it again")
    file, sound = header.index("file_name"), header.index("sound_id")
    known = [row for row in rows if len(row) == len(header) and row[sound].strip() not in ("", UNKNOWN_SOUND)]
    return {row[file]: row[sound].strip() for row in known}


def _archive(name: str, md5: str, megabytes: float, *, unpack: bool = False) -> Archive:
    url = f"https://zenodo.org/records/4783391/files/{name}"
    return Archive(url=url, name=name, checksum=f"md5:{md5}", megabytes=megabytes, unpack=unpack)


TASKS = (
    Task(
        name="clotho",
        title="Clotho v2.1",
        domain="environment",
        metric="R@1",
        kind="retrieval",
        paper_name="Clotho",
        unit_seconds=30.0,  # the longest clip; retrieval hears whole clips
        labels=(),
        counts={"train": 3839, "valid": 1045, "test": 1045},
        index=index,
        licence="captions: licence of Tampere University (non-commercial, attribution); audio: Creative Commons, each "
        "file its own (Freesound)",
        citation='K. Drossos, S. Lipping, T. Virtanen, "Clotho: an Audio Captioning Dataset", ICASSP 2020, '
        "doi:10.1109/ICASSP40776.2020.9052990",
        homepage="https://zenodo.org/records/4783391",
        archives=(
            _archive("clotho_audio_development.7z", "c8b05bc7acdb13895bb3c6a29608667e", 4542, unpack=True),
            _archive("clotho_audio_evaluation.7z", "4569624ccadf96223f19cb59fe4f849f", 1200, unpack=True),
            _archive("clotho_audio_validation.7z", "7dba730be08bada48bd15dc4e668df59", 1261, unpack=True),
            _archive("clotho_captions_development.csv", "d4090b39ce9f2491908eebf4d5b09bae", 1.3),
            _archive("clotho_captions_evaluation.csv", "1b16b9e57cf7bdb7f13a13802aeb57e2", 0.4),
            _archive("clotho_captions_validation.csv", "5879e023032b22a2c930aaa0528bead4", 0.4),
            _archive("clotho_metadata_development.csv", "170d20935ecfdf161ce1bb154118cda5", 0.8),
            _archive("clotho_metadata_evaluation.csv", "13946f054d4e1bf48079813aac61bf77", 0.2),
            _archive("clotho_metadata_validation.csv", "2e010427c56b1ce6008b0f03f41048ce", 0.2),
        ),
        marker="clotho_captions_evaluation.csv",
        group_is="Freesound recording",
        # Five recordings (66304, 86161, 86163, 130603, 137692) stand in two parts each.
        groups_cross=True,
    ),
)
