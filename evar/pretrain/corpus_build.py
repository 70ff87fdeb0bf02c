"""Making a corpus: sources to clips, clips to the packed store, and the table beside it. What is there is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from evar.audio.identity import Identity, identify
from evar.audio.loading import broken_files
from evar.audio.pack import Pack, PackSpec, pack_clips
from evar.audio.pack_format import DESCRIPTION
from evar.audio.pack_read import read_description
from evar.errors import UserError
from evar.pretrain.corpus_files import PACK, SEPARATOR, Corpus, open_corpus, write_corpus
from evar.pretrain.corpus_sources import Entry, Found, Places, find_source, is_excluded, read_exclusions
from evar.progress import say
from evar.store import fingerprint_of

_REMEDY = "replace them, or leave them out with --skip_broken"
Known = tuple[Entry, Identity]


@dataclass(frozen=True)
class Recipe:
    """What a corpus is made of."""

    audio: tuple[str, ...]
    spec: PackSpec
    places: Places = field(default_factory=Places)
    exclude: tuple[Path, ...] = ()
    skip_broken: bool = False
    licence: str = ""
    workers: int | None = None


def build_corpus(folder: Path, recipe: Recipe) -> Corpus:
    """Make a corpus, or what is missing of it, and return it.

    Clips that an earlier or interrupted call has packed with the same settings are not decoded again, also where
    sources were added since.

    Raises:
        UserError: a source is not right or has no clips, files are broken, the disk is full, or the folder holds a
            corpus of other settings. Nothing is decoded before the sources are known to be right.
    """
    excluded = read_exclusions(recipe.exclude)
    found = _named_apart([find_source(place, recipe.places) for place in recipe.audio])
    kept = {source.name: [e for e in source.entries if not is_excluded(e, excluded)] for source in found}
    entries = [entry for source in found for entry in kept[source.name]]
    if not entries:
        raise UserError("no clip is left: all stand on the list of --exclude")
    _check_names(entries)
    _check_labels(entries)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name a folder for the corpus")
    with _Alone(folder):
        known, broken = _identified(entries, skip_broken=recipe.skip_broken)
        _check_room(known, recipe.spec, folder)
        pack = _packed(known, folder / PACK, recipe)
        gone = {bytes.fromhex(key) for key in pack.left_out}
        kept_clips = [(entry, identity) for entry, identity in known if identity.digest not in gone]
        broken += [entry.name for entry, identity in known if identity.digest in gone]
        _write(folder, found, kept_clips, broken, recipe)
    return open_corpus(folder)


def _named_apart(found: Sequence[Found]) -> list[Found]:
    twice = next((one.name for n, one in enumerate(found) if one.name in {x.name for x in found[:n]}), None)
    if twice is not None:
        raise UserError(f"two sources are called '{twice}', which names their clips: rename a folder or table")
    return list(found)


def _check_names(entries: Sequence[Entry]) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            raise UserError(f"the clip {entry.name} stands in its source twice: remove one of the two")
        seen.add(entry.name)


def _check_labels(entries: Sequence[Entry]) -> None:
    for labels in {entry.labels for entry in entries}:
        wrong = next((x for x in labels if SEPARATOR in x or "\n" in x), None)
        if wrong is not None:
            raise UserError(f"the label {wrong!r} contains '{SEPARATOR}' or a line break, which part the labels")


class _Alone:
    """Hold a corpus's folder; another process that makes it is an error, not waited for: it may take hours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make {folder}: {error.strerror}") from None
        self.lock = FileLock(folder / ".lock")

    def __enter__(self) -> None:
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"another process is making the corpus at {self.folder}") from None

    def __exit__(self, *error: object) -> None:
        self.lock.release()


def _identified(entries: Sequence[Entry], *, skip_broken: bool) -> tuple[list[Known], list[str]]:
    """Return ``(clips with their content's checksum, names of those whose file is broken)``."""
    unknown = [n for n, entry in enumerate(entries) if entry.identity is None]
    identities, broken = identify([entries[n].item.path for n in unknown])
    if broken and (not skip_broken or len(broken) == len(entries)):
        raise broken_files(broken, len(entries), _REMEDY)
    looked = dict(zip(unknown, identities, strict=True))
    found = [(entry, looked.get(n, entry.identity)) for n, entry in enumerate(entries)]
    if broken:
        say(f"{len(broken)} broken files are left out, the first: {min(broken)}: {broken[min(broken)]}")
    return [(e, i) for e, i in found if i is not None], [e.name for e, i in found if i is None]


def _check_room(known: Sequence[Known], spec: PackSpec, folder: Path) -> None:
    seconds = {i.digest: i.seconds if spec.seconds is None else min(i.seconds, spec.seconds) for _, i in known}
    there = sum(path.stat().st_size for path in (folder / PACK).glob("shard-*.bin"))
    needed = int(sum(seconds.values()) * spec.per_second * spec.row_bytes) - there
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the corpus needs {needed / 1e9:.1f} GB more, and {folder} has {free / 1e9:.1f} GB left: make room, or "
            "store less (--max_seconds, --sample_rate)"
        )


def _packed(known: Sequence[Known], folder: Path, recipe: Recipe) -> Pack:
    keys = [identity.digest for _, identity in known]
    about = read_description(folder)
    if about is not None and about["fingerprint"] != recipe.spec.fingerprint(keys):
        if about["facts"] != _as_json(recipe.spec.facts()):
            raise UserError(
                f"{folder.parent} holds a corpus of other settings ({_settings(about['facts'])}): choose another "
                "folder, or delete it"
            )
        # Other clips with the same settings: without its description the pack counts as unfinished, and its writer
        # keeps every clip whose samples are there.
        (folder / DESCRIPTION).unlink()
    items = [entry.item for entry, _ in known]
    return pack_clips(
        items, keys, folder, recipe.spec, workers=recipe.workers, skip_broken=recipe.skip_broken, remedy=_REMEDY
    )


def _as_json(facts: dict[str, Any]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(json.dumps(facts))
    return loaded


def _settings(facts: Mapping[str, Any]) -> str:
    length = f"up to {facts['seconds']:g} s" if facts["seconds"] else "whole clips"
    return f"{facts['kind']}, {facts['dtype']}, {facts['sample_rate']} Hz, {length}"


def _write(folder: Path, found: Sequence[Found], clips: Sequence[Known], broken: list[str], recipe: Recipe) -> None:
    classes = sorted({x for source in found for x in source.classes} | {x for e, _ in clips for x in e.labels})
    limit = recipe.spec.seconds
    lines = []
    for entry, identity in clips:
        seconds = identity.seconds if limit is None else min(identity.seconds, limit)
        weight = "" if entry.weight is None else repr(entry.weight)
        lines.append((entry.name, identity.digest.hex(), f"{seconds:.3f}", SEPARATOR.join(entry.labels), weight))
    write_corpus(folder, lines, _about(found, lines, classes, broken, recipe))


def _about(
    found: Sequence[Found], lines: Sequence[tuple[str, ...]], classes: list[str], broken: list[str], recipe: Recipe
) -> dict[str, Any]:
    """Return the facts of ``corpus.json``."""
    content = [(name, key, label, weight) for name, key, _, label, weight in lines]
    counts = dict.fromkeys((source.name for source in found), 0)
    hours = dict.fromkeys(counts, 0.0)
    for name, _, seconds, _, _ in lines:
        source = name.partition("/")[0]
        counts[source] += 1
        hours[source] += float(seconds) / 3600
    return {
        "fingerprint": fingerprint_of({"spec": recipe.spec.facts(), "classes": classes, "clips": content}),
        "clips": len(lines),
        "hours": round(sum(hours.values()), 3),
        "stored": recipe.spec.facts(),
        "classes": classes,
        "sources": [
            {"name": s.name, "place": s.place, "clips": counts[s.name], "hours": round(hours[s.name], 3),
             "missing": s.missing, "note": s.note}
            for s in found
        ],
        "excluded": sum(len(s.entries) for s in found) - len(lines) - len(broken),
        "exclusion_lists": [path.name for path in recipe.exclude],
        "broken": broken,
        "licence": recipe.licence,
    }  # fmt: skip
