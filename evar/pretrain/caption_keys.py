"""How captions and clips are called: by a YouTube id, or by a file with as many of its folders as are known."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

_SUFFIX = re.compile(r"\.(wav|flac|ogg|opus|mp3|m4a|aac|aiff?|webm|mp4|npy)$", re.IGNORECASE)
_ID = r"[A-Za-z0-9_-]{11}"
_TIME = r"(?:_(\d+(?:\.\d+)?)(?:_(\d+(?:\.\d+)?))?)?"
_VIDEO = re.compile(f"({_ID}){_TIME}", re.ASCII)
_WITH_Y = re.compile(f"Y({_ID}){_TIME}", re.ASCII)
_UNSAFE = str.maketrans({":": "_", "?": "_"})


class Video(NamedTuple):
    """A piece of a YouTube video."""

    id: str
    """11 characters."""
    start: int | None
    """The second at which it starts, rounded down; None where nobody says."""


class Row(NamedTuple):
    """A caption and what it belongs to: a video, a file (:func:`file_key`), or "" where the table does not say."""

    key: str | Video
    caption: str


def file_key(name: str) -> str:
    """Return a file's name as captions are looked up: ``/`` between folders, no audio suffix, composed letters.

    ``:`` and ``?``, which not every file system allows, become ``_`` (as the reference does for Clotho, MODELS 9).
    """
    text = _SUFFIX.sub("", name.strip().replace("\\", "/")).translate(_UNSAFE)
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def video_of(name: str) -> Video | None:
    """Return the video that a file name, its folders and suffix left out, or an id of a table tells of; else None.

    Understood are ``<id>``, ``<id>_<start>``, ``<id>_<start>_<end>`` (seconds, or milliseconds where the two are 1000
    or more apart) and the same after a ``Y``. The length tells whether a leading Y is part of the id.
    """
    stem = _SUFFIX.sub("", name.rpartition("/")[2])
    found = _VIDEO.fullmatch(stem) or _WITH_Y.fullmatch(stem)
    if found is None:
        return None
    if found[2] is None:
        return Video(found[1], None)
    start, end = float(found[2]), float(found[3] or 0)
    return Video(found[1], int(start / 1000 if end - start >= 1000 else start))


def tails(key: str) -> list[str]:
    """Return a key with ever fewer of its folders: ``a/b/c``, ``b/c``, ``c``."""
    parts = key.split("/")
    return ["/".join(parts[n:]) for n in range(len(parts))]
