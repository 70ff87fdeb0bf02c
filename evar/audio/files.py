"""Finding audio files. A WAV that a data set's metadata names may lie there as FLAC or OGG: the stem decides."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".WAV", ".FLAC", ".OGG")


def find_audio(folder: Path, file: str) -> Path | None:
    """Return the file ``folder/file``, or the one of the same stem with another audio suffix; None if there is none."""
    path = folder / file
    if path.is_file():
        return path
    base = path.with_suffix("") if path.suffix in AUDIO_SUFFIXES else path
    for suffix in AUDIO_SUFFIXES:
        candidate = base.parent / (base.name + suffix)
        if candidate.is_file():
            return candidate
    return None


def list_audio(places: Iterable[str | Path]) -> list[Path]:
    """Return the audio files named by ``places``: files as they are, folders searched to any depth, sorted."""
    found: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            found += sorted(p for p in place.rglob("*") if p.suffix in AUDIO_SUFFIXES and p.is_file())
        else:
            found.append(place)
    return found
