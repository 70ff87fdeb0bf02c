"""Which results are compared with which, and what is found: scores, difference, interval, p values, verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from evar.errors import UserError, did_you_mean
from evar.paired import Difference, clustered_mcnemar, holm, mcnemar, paired_bootstrap, paired_map
from evar.pairing import Found, Outcomes, check_map, known_of, opened_other_parts, paired, weights_of
from evar.report import row_of
from evar.results import read_result, read_results
from tasks.base import get_task

Units = Literal["groups", "clips"]
Cell = tuple[str, str]
"""Protocol and task."""
PAIRED_METRICS = ("accuracy", "mAP", "R@1")
LEVEL = 0.05


@dataclass(frozen=True)
class Line:
    """A task's comparison; scores are fractions."""

    protocol: str
    task: str
    metric: str
    clips: int
    score_a: float
    score_b: float
    difference: Difference
    mcnemar: float | None
    mcnemar_method: str
    note: str = ""
    holm: float | None = None
    """p after Holm's correction over the lines of a protocol."""

    @property
    def verdict(self) -> str:
        """Which is better, as far as it is shown at 5 % after the correction."""
        if self.holm is None:
            return "no test"
        if self.holm >= LEVEL:
            return "no difference shown"
        return "A is better" if self.difference.interval.point > 0 else "B is better"


def select(text: str, folder: Path, weights: str | None, option: str) -> dict[Cell, Found]:
    """Return the results that ``text`` means, by protocol and task.

    ``text``: a result file, run ids separated by commas, a row's name as the report prints it, or a model's name.
    ``weights``: the end of the weights' path or the start of their checksum. Of several results of one row on one task
    the latest stands, as in the report; :class:`UserError` where ``text`` means several rows.
    """
    if text.endswith(".json") or Path(text).is_file():
        path = Path(text).expanduser()
        return _by_cell([Found(read_result(path), path.parent)])
    results, _ = read_results(folder)
    ids = [word.strip() for word in text.split(",")]
    found = [r for r in results if r["run_id"] in ids]
    if found and len({r["run_id"] for r in found}) < len(set(ids)):
        raise UserError(f"'{text}': no result in {folder} has the id {(set(ids) - {r['run_id'] for r in found}).pop()}")
    found = found or [r for r in results if row_of(r).name == text] or [r for r in results if r["model"] == text]
    if not found:
        names = {name for r in results for name in (row_of(r).name, r["model"])}
        raise UserError(f"no result of '{text}' in {folder}.{did_you_mean(text, names)}")
    if weights is not None:
        given = sorted({str(r["weights"]["given"]) for r in found})
        found = [
            r
            for r in found
            if str(r["weights"]["given"]).endswith(weights) or r["weights"]["sha256"].startswith(weights)
        ]
        if not found:
            raise UserError(f"{option}={weights}: '{text}' ran with {', '.join(given)}")
    files = {r["weights"]["sha256"]: f"{r['weights']['given']} ({r['weights']['sha256'][:8]})" for r in found}
    if len(files) > 1:
        raise UserError(f"'{text}' ran with several weights: {', '.join(files.values())}; choose with {option}=")
    rows = sorted({row_of(r).name for r in found})
    if len(rows) > 1 and not set(ids) & {r["run_id"] for r in found}:
        raise UserError(f"'{text}' is several rows: {'; '.join(rows)}; name one of them, or a run's id")
    return _by_cell([Found(r, folder) for r in sorted(found, key=lambda r: r["created"])])


def _by_cell(found: Sequence[Found]) -> dict[Cell, Found]:
    return {(f.result["protocol"], f.result["task"]): f for f in found}


def common(
    a: dict[Cell, Found], b: dict[Cell, Found], tasks: Sequence[str], protocol: str | None
) -> list[tuple[Found, Found]]:
    """Return the pairs of results of one protocol on one task; :class:`UserError` if there is none.

    Two single results of one model on one task are a pair whatever their protocols: does fine-tuning help it?
    """

    def wanted(cells: dict[Cell, Found]) -> list[Cell]:
        return [c for c in cells if (not tasks or c[1] in tasks) and (protocol is None or c[0] == protocol)]

    def said(cells: dict[Cell, Found]) -> str:
        return ", ".join(f"{task} ({name})" for name, task in sorted(cells)) or "nothing"

    cells = [cell for cell in wanted(a) if cell in set(wanted(b))]
    if not cells:
        ours, theirs = [a[cell] for cell in wanted(a)], [b[cell] for cell in wanted(b)]
        if len(ours) == len(theirs) == 1 and ours[0].of == theirs[0].of:
            return [(ours[0], theirs[0])]
        raise UserError(
            f"only results of one protocol on one task can be paired, and there is none of both: A has {said(a)}, "
            f"B has {said(b)}"
        )
    missing = [task for task in tasks if all(cell[1] != task for cell in cells)]
    if missing:
        raise UserError(f"--tasks: there is no pair of results of {', '.join(missing)}; A has {said(a)}, B {said(b)}")
    pairs = [(a[cell], b[cell]) for cell in sorted(cells)]
    if all(one.result["run_id"] == other.result["run_id"] for one, other in pairs):
        raise UserError("A and B are the same results; name two rows")
    return pairs


def pairable(pairs: Sequence[tuple[Found, Found]]) -> tuple[list[tuple[Found, Found]], list[str]]:
    """Return ``(the pairs that can be compared clip by clip, a line for each of the others)``; there must be one."""
    reasons = {f"left out: {_task(a)}: {why}": None for a, _ in pairs if (why := _unpaired_reason(a))}
    rest = [pair for pair in pairs if not _unpaired_reason(pair[0])]
    if not rest:
        raise UserError(f"nothing can be paired clip by clip: {'; '.join(reasons)}")
    return rest, list(reasons)


def _unpaired_reason(a: Found) -> str:
    metric, folds = a.result["metric"], len(a.result["fold_scores"][0]) if a.result["fold_scores"] else 1
    if metric not in PAIRED_METRICS:
        return f"its {metric} is scored by patient and not from the label of each clip"
    return "its mAP is a mean over folds" if metric == "mAP" and folds > 1 else ""


def compare_pair(a: Found, b: Found, *, root: Path | None, units: Units, draws: int) -> Line:
    """Return the comparison of two results on one task (Holm's correction is left to :func:`corrected`)."""
    first, second = paired(a, b)
    groups, note = None, ""
    if units == "groups":
        groups, note = _groups(a.result["task"], first, root)
    scores = float(a.result["mean"]), float(b.result["mean"])
    protocol = "/".join(dict.fromkeys((a.result["protocol"], b.result["protocol"])))
    facts = (protocol, a.result["task"], a.result["metric"], len(first.names), *scores)
    if first.scores is not None and second.scores is not None:
        targets = first.targets if first.targets is not None else known_of(a.result["task"], first, root).targets
        assert targets is not None
        for found, outcomes in ((a, first), (b, second)):
            check_map(found, outcomes, targets)
        return Line(*facts, paired_map(first.scores, second.scores, targets, groups=groups), None, "", note)
    assert first.hits is not None and second.hits is not None
    hits_a, hits_b = first.hits.mean(axis=0), second.hits.mean(axis=0)
    shown = paired_bootstrap(hits_a, hits_b, groups=groups, weights=weights_of(first.parts), draws=draws)
    if groups is None and len(first.hits) == len(second.hits) == 1:
        p = mcnemar(int((hits_a > hits_b).sum()), int((hits_b > hits_a).sum()))
        return Line(*facts, shown, p, "McNemar, mid-p", note)
    return Line(*facts, shown, clustered_mcnemar(hits_a, hits_b, groups), "McNemar, clustered", note)


def _groups(task: str, outcomes: Outcomes, root: Path | None) -> tuple[list[str] | None, str]:
    """Return ``(groups of the clips or None, what must be said of them)``: from the files, else from the data here."""
    try:
        kind = get_task(task).group_is
    except UserError:  # a task file of the user that is not named now
        kind = ""
    groups = outcomes.groups
    if groups is None and kind:
        try:
            groups = known_of(task, outcomes, root).groups
        except UserError:
            return None, f"clips taken as independent: the data, which know each clip's {kind}, are not here (--root)"
    if groups is None or len(set(groups)) == len(groups):
        return None, ""
    return groups, f"a group is a {kind}" if kind and outcomes.hits is not None and groups != outcomes.names else ""


def corrected(lines: Sequence[Line]) -> list[Line]:
    """Return the lines with Holm's correction over those of each protocol."""
    out: list[Line] = []
    for protocol in dict.fromkeys(line.protocol for line in lines):
        mine = [line for line in lines if line.protocol == protocol]
        adjusted = holm([line.difference.p for line in mine])
        out += [replace(line, holm=p) for line, p in zip(mine, adjusted, strict=True)]
    return out


def name_of(text: str, weights: str | None, cells: dict[Cell, Found]) -> str:
    """Return how a table names a side: as it was asked for, with what makes it plain."""
    rows = {row_of(found.result).name for found in cells.values()}
    named = text if rows <= {text} else f"{'; '.join(sorted(rows))} ({text})"
    return named if weights is None else f"{named} [{weights}]"


def setting_notes(pairs: Sequence[tuple[Found, Found]]) -> list[str]:
    """Return what differs between A and B beside the model: settings that both have, and flags; with the tasks."""
    said: dict[str, list[str]] = {}
    for a, b in pairs:
        one, other = a.result["settings"], b.result["settings"]
        for key in sorted((one.keys() & other.keys()) - {"model_options", "seeds"}):
            if one[key] != other[key]:
                said.setdefault(f"{key}: A {_short(one[key])}, B {_short(other[key])}", []).append(_task(a))
        seeds = [len(found.result["scores"]) for found in (a, b)]
        if seeds[0] != seeds[1]:
            said.setdefault(f"runs: A {seeds[0]}, B {seeds[1]}", []).append(_task(a))
        if opened_other_parts(a, b):
            more = "A" if a.result["data"]["clips"] > b.result["data"]["clips"] else "B"
            text = f"{more} looked at other parts of the data too, so that checksums do not compare: paired by name"
            said.setdefault(text, []).append(_task(a))
        for side, found in (("A", a), ("B", b)):
            for flag in found.result["flags"]:
                said.setdefault(f"{side} is flagged {flag.replace('_', ' ')}", []).append(_task(a))
    return [f"{text} ({', '.join(dict.fromkeys(where))})" for text, where in said.items()]


def _task(found: Found) -> str:
    return str(found.result["task"])


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def seeds_of(pairs: Sequence[tuple[Found, Found]]) -> int:
    """Return the largest number of seeds of any result."""
    return int(np.max([len(f.result["scores"]) for pair in pairs for f in pair]))
