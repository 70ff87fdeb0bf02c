"""Prepare a data set: download what may be downloaded, unpack, count, check the parts; say what to do by hand.

python -m evar.prepare TASK[,TASK] [--root=DIR] [--data=DIR]
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from evar.archives import unpack
from evar.cli import main
from evar.clips import Clips, locate, open_task
from evar.download import fetch
from evar.errors import UserError
from evar.paths import data_root
from evar.progress import say
from tasks.base import Task, get_task


def prepare(
    task: tuple[str, ...], *, root: Path | None = None, data: Path | None = None, incomplete: bool = False
) -> None:
    """Download, unpack and verify data sets; a copy that is already there is only verified.

    Verified are the number of clips per split or fold, that every file is readable, that no file stands in two parts,
    and which groups (speakers, recordings) and which identical files cross parts. Downloads resume.

    Args:
        task: task names, comma-separated (python -m evar.tasks lists them)
        root: folder with one folder per task (default $EVAR_DATA, else the cache)
        data: folder of this one task, instead of ROOT/TASK
        incomplete: accept an incomplete copy and report it
    """
    tasks = [get_task(name) for name in task]
    if not tasks:
        raise UserError("give at least one task; python -m evar.tasks lists them")
    if data is not None and len(tasks) > 1:
        raise UserError("--data names one task's folder; with several tasks use --root (DIR/<task>/ for each)")
    for one in tasks:
        if not _is_there(one, root, data):
            obtain(one, data if data is not None else data_root(root) / one.name)
        print("\n".join(describe(open_task(one, root, data, incomplete=incomplete))))


def _is_there(task: Task, root: Path | None, data: Path | None) -> bool:
    if task.generate is not None:
        return True  # made on first use by locate()
    try:
        locate(task, root, data)
    except UserError:
        return False
    return True


def obtain(task: Task, folder: Path) -> None:
    """Download and unpack a data set into ``folder``; :class:`UserError` says what to do where that may not be done."""
    if not task.archives:
        raise UserError(f"{task.title} must be fetched by hand: {task.manual} Put it into {folder}")
    downloads = folder.with_name(f".{folder.name}-downloads")
    for archive in task.archives:
        size = f", {archive.megabytes:.0f} MB" if archive.megabytes else ""
        say(f"{task.name}: {archive.url} ({task.licence}{size})")
        try:
            fetch(archive.url, downloads / archive.name, checksum=archive.checksum)
        except UserError as error:
            hint = f" {task.manual} Its place is {folder}." if task.manual else ""
            raise UserError(f"{error}.{hint}".replace("..", ".")) from None
    for archive in task.archives:
        unpack(downloads / archive.name, folder)
    for archive in task.archives:
        (downloads / archive.name).unlink(missing_ok=True)


def describe(clips: Clips) -> list[str]:
    """Return what was verified, a line each: counts, classes, groups and identical files that cross parts."""
    task, table = clips.task, clips.table
    part = "fold" if task.has_folds else "split"
    counted = table[part].value_counts().to_dict()
    counts = ", ".join(f"{part} {key} {counted.get(key, 0)}/{declared}" for key, declared in task.counts.items())
    labels = len(set(table["label"])) if not task.multi_label else len({x for row in table["label"] for x in row})
    lines = [
        f"{task.name}: {task.title} at {clips.folder}",
        f"  clips: {counts} (found/declared){'; INCOMPLETE' if clips.incomplete else ''}",
        f"  classes: {labels} of {len(task.labels)}; metric {task.metric}; {task.unit_seconds} s per clip",
        f"  licence: {task.licence}",
        f"  groups: {_groups(clips, part)}",
    ]
    twins = identical_across_parts(clips)
    if twins:
        example = " = ".join(twins[0])
        lines.append(f"  identical files in different parts: {len(twins)}, for example {example}")
    else:
        lines.append("  identical files in different parts: none")
    return lines


def _groups(clips: Clips, part: str) -> str:
    task = clips.task
    if "group" not in clips.table:
        return "not known for this data set"
    crossing = crossing_groups(clips)
    total = clips.table["group"].nunique()
    what = task.group_is or "group"
    if not crossing:
        return f"{total} ({what}); none crosses a {part}"
    verdict = "as declared by the official split" if task.groups_cross else "NOT declared: scores may be too high"
    return f"{len(crossing)} of {total} ({what}) stand in more than one {part}, {verdict}"


def crossing_groups(clips: Clips) -> list[str]:
    """Return the groups (speaker, source recording, …) that have clips in more than one part."""
    part = "fold" if clips.task.has_folds else "split"
    spread = clips.table.groupby("group")[part].nunique()
    return [str(name) for name in spread[spread > 1].index]


def identical_across_parts(clips: Clips) -> list[tuple[str, ...]]:
    """Return the sets of files that are the same byte for byte and stand in different parts."""
    part = clips.table["fold" if clips.task.has_folds else "split"].tolist()
    same: dict[bytes, list[int]] = defaultdict(list)
    for number, identity in enumerate(clips.identities):
        same[identity.digest].append(number)
    files = clips.table["file"].tolist()
    return [tuple(str(files[n]) for n in rows) for rows in same.values() if len({part[n] for n in rows}) > 1]


if __name__ == "__main__":
    main(prepare)
