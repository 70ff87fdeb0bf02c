"""Two results clip by clip: the files beside them read, checked against the results, and put in one order."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evar.clips import Clips
from evar.errors import UserError
from evar.index import locate, read_index
from evar.metrics import mean_average_precision
from evar.results import Result
from tasks.base import get_task

_SAME = 1e-6
"""How far a score may lie from the one its files give: rounding alone."""


class Found(NamedTuple):
    """A result, and the folder that it and its files lie in."""

    result: Result
    folder: Path

    @property
    def of(self) -> tuple[str, str]:
        """Model and task."""
        return self.result["model"], self.result["task"]

    @property
    def said(self) -> str:
        """The result in a word."""
        return f"{self.result['model']} · {self.result['task']} · {self.result['run_id']}"


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What the files beside a result say of each test clip (retrieval: of each caption), in the files' order."""

    names: list[str]
    labels: list[str]
    """True labels; of retrieval the captions; empty for multi-label tasks."""
    parts: list[str]
    hits: NDArray[np.float64] | None
    """``[seeds, n]`` 1 where right; None for multi-label tasks."""
    scores: NDArray[np.float32] | None = None
    """``[seeds, n, C]`` of multi-label tasks."""
    classes: tuple[str, ...] = ()
    targets: NDArray[Any] | None = None
    groups: list[str] | None = None

    def taken(self, order: NDArray[np.int64]) -> Outcomes:
        """Return the same with the clips in another order."""
        return Outcomes(
            [self.names[n] for n in order],
            [self.labels[n] for n in order] if self.labels else [],
            [self.parts[n] for n in order],
            None if self.hits is None else self.hits[:, order],
            None if self.scores is None else self.scores[:, order],
            self.classes,
            None if self.targets is None else self.targets[order],
            None if self.groups is None else [self.groups[n] for n in order],
        )


def outcomes_of(found: Found) -> Outcomes:
    """Return what the files beside a result say; :class:`UserError` if they are missing or of another run."""
    result = found.result
    if result["metric"] == "R@1":
        out = _read_ranks(_file(found, "ranks"))
    elif result["metric"] == "mAP":
        out = _read_scores(_file(found, "scores"))
    else:
        out = _read_predictions(_file(found, "predictions"))
    if out.hits is not None:
        score = float((out.hits * weights_of(out.parts)).mean(axis=1).mean())
        if abs(score - result["mean"]) > _SAME:
            raise UserError(
                f"the files beside {found.said} are of another run: they give {100 * score:.2f} %, the result says "
                f"{100 * result['mean']:.2f} %; run it again (--force)"
            )
    return out


def weights_of(parts: Sequence[str]) -> NDArray[np.float64]:
    """Return each clip's weight in a score that is the plain mean over parts (folds), 1 on average."""
    _, number, sizes = np.unique(np.array(parts), return_inverse=True, return_counts=True)
    return (len(parts) / (len(sizes) * sizes))[number]


def paired(a: Found, b: Found) -> tuple[Outcomes, Outcomes]:
    """Return both results' outcomes in one order; :class:`UserError` unless they are of the same clips."""
    _need_same_data(a, b)
    first, second = outcomes_of(a), outcomes_of(b)
    keys, place = _keys(first), {key: n for n, key in enumerate(_keys(second))}
    lacking = [key for key in keys if key not in place]
    if lacking or len(keys) != len(place):
        what = f"{lacking[0][0]} is in one only" if lacking else f"{len(keys)} clips and {len(place)}"
        raise UserError(f"{a.said} and {b.said} were not tested on the same clips ({what}); run one of them again")
    second = second.taken(np.array([place[key] for key in keys], dtype=np.int64))
    if first.classes != second.classes:
        raise UserError(f"{a.said} and {b.said} have other classes; run one of them again")
    return first, second


def opened_other_parts(a: Found, b: Found) -> bool:
    """Return whether one of two untrained evaluations opened more parts of the data than the other.

    Zero-shot and retrieval open the test part alone, but for a model that looks at the training clips first. Their
    checksums then differ for the same test clips; names and labels are compared in any case.
    """
    one, other = a.result["data"], b.result["data"]
    return a.result["protocol"] in ("zeroshot", "retrieval") and one["clips"] != other["clips"]


def _need_same_data(a: Found, b: Found) -> None:
    one, other = a.result["data"], b.result["data"]
    if one["fingerprint"] == other["fingerprint"] or opened_other_parts(a, b):
        return
    counts = f"{one['clips']} and {other['clips']} clips"
    said = [f"{f.result['model']}'s: {text}" for f in (a, b) if (text := f.result["data"]["incomplete"])]
    raise UserError(
        f"{a.said} and {b.said} ran on different data ({counts}, checksums {one['fingerprint'][:8]} and "
        f"{other['fingerprint'][:8]}{'; ' + '; '.join(said) if said else ''}), so they cannot be paired: run one of "
        "them again, or leave the task out with --tasks"
    )


def _keys(outcomes: Outcomes) -> list[tuple[str, ...]]:
    """Return what tells a row: part, clip and label (caption), with a count where one stands twice."""
    labels = outcomes.labels or [""] * len(outcomes.names)
    seen: dict[tuple[str, ...], int] = {}
    out: list[tuple[str, ...]] = []
    for row in zip(outcomes.names, outcomes.parts, labels, strict=True):
        seen[row] = seen.get(row, 0) + 1
        out.append((*row, str(seen[row])))
    return out


def _file(found: Found, kind: str) -> Path:
    name = found.result.get("files", {}).get(kind, "")
    path = found.folder / Path(name).name
    if not name or not path.is_file():
        raise UserError(
            f"the {kind} of {found.said} are not in {found.folder}: they are needed clip by clip; copy "
            f"{name or 'them'} there, or run it again (--force)"
        )
    return path


def _table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not rows or any(row.get(column) is None for row in rows for column in columns):
        raise UserError(f"{path} is cut off or not what it should be (columns {', '.join(columns)}); run it again")
    return rows


def _read_predictions(path: Path) -> Outcomes:
    rows = _table(path, ("file", "part", "label"))
    seeds = [name for name in rows[0] if str(name).startswith("seed ") or name == "predicted"]
    if not seeds or any(row[seed] is None for row in rows for seed in seeds):
        raise UserError(f"{path} is cut off or has no predictions; run it again")
    hits = np.array([[row[seed] == row["label"] for row in rows] for seed in seeds], dtype=np.float64)
    groups = [row["group"] for row in rows] if "group" in rows[0] else None
    names, labels, parts = ([row[key] for row in rows] for key in ("file", "label", "part"))
    return Outcomes(names, labels, parts, hits, groups=groups)


def _read_ranks(path: Path) -> Outcomes:
    """Read a retrieval's ranks: a caption is a hit where its clip is the first it finds; a clip's captions go along."""
    rows = _table(path, ("file", "caption", "clip_rank"))
    hits = np.array([[row["clip_rank"] == "1" for row in rows]], dtype=np.float64)
    names = [row["file"] for row in rows]
    return Outcomes(names, [row["caption"] for row in rows], ["test"] * len(rows), hits, groups=names)


def _read_scores(path: Path) -> Outcomes:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        names, classes, scores = arrays["files"].tolist(), arrays["labels"].tolist(), arrays["scores"]
        if scores.ndim != 3 or scores.shape[1:] != (len(names), len(classes)):
            raise ValueError("files, labels and scores do not fit")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is cut off or not what it should be ({error}); run it again") from None
    groups = arrays["groups"].tolist() if "groups" in arrays else None
    parts = ["test"] * len(names)
    return Outcomes(names, [], parts, None, scores, tuple(classes), arrays.get("targets"), groups)


@dataclass(frozen=True, eq=False)
class Known:
    """What the data set on this machine says of test clips beyond the files of a result."""

    groups: list[str] | None
    """A group's name per clip; None where the task has no groups."""
    targets: NDArray[np.float32] | None
    """``[n, C]`` of multi-label tasks."""


def known_of(task: str, outcomes: Outcomes, root: Path | None) -> Known:
    """Return groups and targets of the clips from the task's own index; :class:`UserError` if it is not here."""
    found = get_task(task)
    folder = locate(found, root)
    clips = Clips(found, folder, read_index(found, folder), [], [], np.empty(0))
    row_of = {name: n for n, name in enumerate(clips.names)}
    lacking = [name for name in outcomes.names if name not in row_of]
    if lacking:
        raise UserError(
            f"{folder} is not the data of this result: {lacking[0]} is not in its index; name it with --root"
        )
    rows = [row_of[name] for name in outcomes.names]
    groups = clips.groups
    targets = None
    if found.multi_label:
        number = {label: n for n, label in enumerate(outcomes.classes)}
        targets = np.zeros((len(rows), len(number)), dtype=np.float32)
        labels = clips.table["label"].tolist()
        for n, row in enumerate(rows):
            targets[n, [number[label] for label in labels[row] if label in number]] = 1
    return Known(None if groups is None else [groups[row] for row in rows], targets)


def check_map(found: Found, outcomes: Outcomes, targets: NDArray[Any]) -> None:
    """Raise :class:`UserError` unless the scores beside a result give its mAP."""
    assert outcomes.scores is not None
    score = float(np.mean([mean_average_precision(of_seed, targets) for of_seed in outcomes.scores]))
    if abs(score - found.result["mean"]) > 1e-4:  # the file holds float32, which may make ties
        raise UserError(
            f"the scores beside {found.said} give a mAP of {100 * score:.2f} %, the result says "
            f"{100 * found.result['mean']:.2f} %: files or data of another run; run it again (--force)"
        )
