"""A finished corpus on disk: the packed clips, the table beside them, and how it is opened.

A corpus is a folder: ``pack/`` (the store), ``clips.csv`` (a line per clip), ``corpus.json`` (facts; written last, so
that it is there only when all is), and ``norm_stats-*.json`` (:mod:`evar.pretrain.stats`).
"""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evar.audio.pack import open_pack
from evar.errors import UserError, did_you_mean
from evar.feed import Source
from evar.store import fingerprint_of, write_atomically

CLIPS, CORPUS, PACK = "clips.csv", "corpus.json", "pack"
FORMAT = 1
COLUMNS = ("name", "key", "seconds", "label", "weight")
SEPARATOR = ";"
"""Between the labels of a clip."""


class LabelSets:
    """The labels of N clips, kept as lists (a matrix of AudioSet would take gigabytes), given as multi-hot rows.

    Args:
        lists: of each clip's class numbers.
        classes: C, how many classes there are.
    """

    def __init__(self, lists: Sequence[Sequence[int]], classes: int) -> None:
        self._starts = np.cumsum([0, *map(len, lists)], dtype=np.int64)
        self._numbers = np.array([number for one in lists for number in one], dtype=np.int32)
        self.shape = len(lists), classes

    def __len__(self) -> int:
        """Return the number of clips."""
        return self.shape[0]

    def __getitem__(self, clips: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return multi-hot rows ``[B, C]`` of the clips ``[B]``."""
        first, counts = self._starts[clips], self._starts[clips + 1] - self._starts[clips]
        rows = np.repeat(np.arange(len(clips)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        hot = np.zeros((len(clips), self.shape[1]), np.float32)
        hot[rows, self._numbers[np.repeat(first, counts) + within]] = 1.0
        return hot

    def of(self, clips: NDArray[np.int64]) -> LabelSets:
        """Return the labels of some clips, which are numbered anew."""
        bounds = zip(self._starts[clips].tolist(), self._starts[clips + 1].tolist(), strict=True)
        return LabelSets([self._numbers[i:j].tolist() for i, j in bounds], self.shape[1])

    @property
    def unlabelled(self) -> NDArray[np.int64]:
        """The clips that have no label."""
        return np.flatnonzero(np.diff(self._starts) == 0)


@dataclass(frozen=True)
class Corpus:
    """Clips to pre-train on; a clip's number is its place in ``names``."""

    folder: Path
    names: tuple[str, ...]
    """``[N]``: the relative path, its source's name in front."""
    rows: NDArray[np.int64]
    """``[N]``: each clip's row in ``source``; two clips of one content share it."""
    digests: list[bytes]
    """``[N]``: what a clip is, from which its crops are drawn."""
    seconds: NDArray[np.float64]
    """``[N]``: of the clip as stored; NaN where only the file itself tells."""
    labels: LabelSets | None
    """``labels[numbers]`` is multi-hot ``[B, C]``; None: no clip has any."""
    classes: tuple[str, ...]
    """``[C]``, sorted; empty without labels."""
    weights: NDArray[np.float64] | None
    """``[N]``: how often a clip should be drawn, where the sources say so."""
    source: Source
    fingerprint: str
    """Of clips, labels and what is stored."""

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.names)

    def only(self, clips: NDArray[np.int64]) -> Corpus:
        """Return the corpus of the clips ``[n]`` alone; it has a fingerprint, and so statistics, of its own."""
        chosen = [(self.names[n], self.digests[n]) for n in clips.tolist()]
        return replace(
            self,
            names=tuple(name for name, _ in chosen),
            digests=[digest for _, digest in chosen],
            rows=self.rows[clips],
            seconds=self.seconds[clips],
            labels=None if self.labels is None else self.labels.of(clips),
            weights=None if self.weights is None else self.weights[clips],
            fingerprint=fingerprint_of({"of": self.fingerprint, "clips": [name for name, _ in chosen]}),
        )

    def need_labels(self) -> LabelSets:
        """Return the labels; raise :class:`UserError` if there are none, or if clips lack them."""
        if self.labels is None:
            raise UserError(
                f"the corpus at {self.folder} has no labels, which this objective learns from: make it from a table "
                "with a column label, from AudioSet's segment tables, or from a task"
            )
        lacking = self.labels.unlabelled
        if len(lacking):
            raise UserError(
                f"{len(lacking)} of {len(self)} clips of the corpus at {self.folder} have no label, the first: "
                f"{self.names[lacking[0]]}; this objective needs one for every clip"
            )
        return self.labels


def open_corpus(path: Path, lms: Path | None = None, sample_rate: int = 16000) -> Corpus:
    """Return the corpus in the folder ``path``, or the one of a table ``files_*.csv`` in the reference's own layout.

    Args:
        path: folder made by ``python -m evar.pretrain.corpus``, or a CSV with a column file_name.
        lms: folder of the log-mel files that such a CSV names; None: the CSV's own.
        sample_rate: of those log-mels (Hz), which the files do not tell.

    Raises:
        UserError: it is not there, not finished, damaged or from another version.
    """
    if path.suffix == ".csv":
        from evar.pretrain.npy_source import open_npy_corpus  # it builds on this module

        return open_npy_corpus(path, lms, sample_rate)
    if lms is not None:
        raise UserError(f"--lms belongs to a table of log-mel files (files_*.csv), and {path} is none")
    about = read_about(path)
    table = _clips_table(path, about)
    pack = open_pack(path / PACK)
    digests = [bytes.fromhex(key) for key in table["key"]]
    weights = None
    if (table["weight"] != "").all():
        weights = table["weight"].to_numpy(dtype=np.float64)
    classes = tuple(about["classes"])
    return Corpus(
        path, tuple(table["name"].tolist()), pack.rows(digests), digests, table["seconds"].to_numpy(dtype=np.float64),
        label_sets(table["label"].tolist(), classes, path / CLIPS), classes, weights, pack, about["fingerprint"],
    )  # fmt: skip


def label_sets(texts: Sequence[str], classes: Sequence[str], path: Path) -> LabelSets | None:
    """Return the labels that ``texts`` name, joined by ``;``; None without classes."""
    if not classes:
        return None
    number = {name: n for n, name in enumerate(classes)}
    try:
        known = {text: [number[x] for x in text.split(SEPARATOR) if x] for text in set(texts)}
    except KeyError as error:
        raise UserError(f"{path} names a class that the corpus does not have: {error.args[0]}") from None
    return LabelSets([known[text] for text in texts], len(classes))


def read_about(folder: Path) -> dict[str, Any]:
    """Return what ``corpus.json`` says; raise :class:`UserError` if there is no finished corpus of this version."""
    path = folder / CORPUS
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = about["format"]
    except (FileNotFoundError, NotADirectoryError):
        state = "the corpus is not finished: run the same command again" if (folder / PACK).is_dir() else "no corpus"
        raise UserError(f"{folder}: {state} (python -m evar.pretrain.corpus {folder} --audio=...)") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} cannot be read: make the corpus again, what is packed is kept") from None
    if version != FORMAT:
        raise UserError(f"{folder} has a corpus of format {version}, this program reads {FORMAT}: make it again")
    return about


def _clips_table(folder: Path, about: dict[str, Any]) -> pd.DataFrame:
    path = folder / CLIPS
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raw = b""
    if zlib.crc32(raw) != about["clips_crc32"]:
        raise UserError(f"{path} is missing or was changed: make the corpus again, what is packed is kept")
    return pd.read_csv(io.BytesIO(raw), dtype=str, keep_default_na=False, na_filter=False)


def write_corpus(folder: Path, lines: Sequence[Sequence[str]], about: dict[str, Any]) -> None:
    """Write the table (``lines`` of :data:`COLUMNS`) and then, as the last thing, ``corpus.json``.

    Nothing is touched where both are there already: a run may be reading them.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *lines])
    table = text.getvalue()
    described = json.dumps({"format": FORMAT, **about, "clips_crc32": zlib.crc32(table.encode())}, indent=1) + "\n"
    if _is(folder / CORPUS, described) and _is(folder / CLIPS, table):
        return
    (folder / CORPUS).unlink(missing_ok=True)  # it may not stand beside a table that it does not describe
    write_atomically(folder / CLIPS, table)
    write_atomically(folder / CORPUS, described)


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def read_table(path: Path, needed: str, wanted: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the column ``needed`` of a CSV, and those of ``wanted`` that it has, as text (millions of rows: seconds).

    Raises :class:`UserError` if the table cannot be read, lacks the column, or a row has no value in it.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no table {path}") from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path} cannot be read as a comma-separated table: {str(error).splitlines()[0]}") from None
    columns = {str(name).strip().lower(): name for name in table.columns}
    if needed not in columns:
        raise UserError(f"{path} has no column '{needed}' (row 1 must name it).{did_you_mean(needed, columns)}")
    found = {name: [str(x).strip() for x in table[columns[name]]] for name in (needed, *wanted) if name in columns}
    if not found[needed]:
        raise UserError(f"{path} has no rows below its header")
    if "" in found[needed]:
        raise UserError(f"{path}, row {found[needed].index('') + 2}: no value in column '{needed}'")
    return found
