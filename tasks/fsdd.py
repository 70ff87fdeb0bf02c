"""Free Spoken Digit Dataset: ten English digits by six speakers, split by the recording's number in its file name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from evar.errors import UserError
from tasks._index import audio_stems
from tasks.base import Archive, Index, Task

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NAME = re.compile(r"(?P<digit>[0-9])_(?P<speaker>[A-Za-z][A-Za-z0-9-]*)_(?P<number>0|[1-9][0-9]?)")
RECORDINGS = 50
"""Recordings of each digit by each speaker, numbered from 0."""


class Recording(NamedTuple):
    """What a file name says."""

    digit: str
    speaker: str
    number: int

    @property
    def split(self) -> str:
        """The part: recordings 0-4 test (the data set's own rule), 5-9 valid, 10-49 train."""
        return "test" if self.number < 5 else "valid" if self.number < 10 else "train"


def parse(stem: str) -> Recording:
    """Return what the file name ``<digit>_<speaker>_<number>`` says; :class:`UserError` for any other name."""
    match = NAME.fullmatch(stem)
    if match is None or int(match["number"]) >= RECORDINGS:
        raise UserError(
            f"fsdd: '{stem}' is not named <digit>_<speaker>_<number>, number 0 to {RECORDINGS - 1} (like 7_theo_32): "
            "remove or rename it"
        )
    return Recording(match["digit"], match["speaker"], int(match["number"]))


def index(data: Path) -> Index:
    """Return one row per recording found in ``recordings``; WAV, FLAC and OGG copies of one stem are one recording."""
    rows = []
    for stem in audio_stems(data / "recordings"):
        found = parse(stem)
        rows.append((f"recordings/{stem}.wav", found.digit, found.split, found.speaker))
    return pd.DataFrame(rows, columns=["file", "label", "split", "group"])


def caption(label: str) -> str:
    """Return the caption of a digit, for instance "the spoken digit seven can be heard"."""
    return f"the spoken digit {WORDS[int(label)]} can be heard"


TASKS = (
    Task(
        name="fsdd",
        title="Free Spoken Digit Dataset",
        domain="speech",
        metric="accuracy",
        unit_seconds=1.0,
        labels=tuple("0123456789"),
        counts={"train": 2400, "valid": 300, "test": 300},
        index=index,
        licence="CC BY-SA 4.0",
        citation="Z. Jackson, C. Souza, J. Flaks, Y. Pan, H. Nicolas, A. Thite, "
        '"Jakobovski/free-spoken-digit-dataset", Zenodo 2018, doi:10.5281/zenodo.1342401',
        homepage="https://github.com/Jakobovski/free-spoken-digit-dataset",
        archives=(
            # Made by GitHub on demand: its bytes change with the branch, so no checksum; the counts are verified.
            Archive(
                url="https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.zip",
                name="free-spoken-digit-dataset-master.zip",
                megabytes=16,
            ),
        ),
        top_folder="free-spoken-digit-dataset-master",
        marker="recordings",
        caption=caption,
        group_is="speaker",
        groups_cross=True,
    ),
)
