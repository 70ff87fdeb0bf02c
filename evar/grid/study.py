"""From what was asked for (command line, plan file) to models, pairs of protocol and task, and options."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd

from evar.errors import UserError, did_you_mean
from evar.grid.facts import model_facts, model_names
from evar.grid.plan import PROTOCOLS, Entry, LeftOut, Plan, make_plan
from evar.paths import paper_dir
from tasks.base import Task, all_tasks, get_task

PAPER = "m2d_clap_2024"
"""The file of ``results/paper`` whose tables ``--tables`` names."""
USUAL = ("lineareval", "zeroshot", "retrieval")
"""Where tasks are named but neither tables nor protocols: what is quick beside fine-tuning."""
AVERAGE = "Avg"


@dataclass(frozen=True)
class Wanted:
    """What was asked for; empty where nothing was said. Models and tasks may be patterns (``*clap*``)."""

    models: tuple[Entry, ...] = ()
    tables: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Options as text by protocol; ``""``: those of all."""


def plan_of(wanted: Wanted) -> tuple[Plan, dict[str, Task]]:
    """Return the plan and the tasks in it by name; :class:`UserError` for a name that is not known."""
    entries, without_base = _entries(wanted.models)
    for protocol in wanted.protocols:
        _check_protocol(protocol)
    pairs, absent = _pairs(wanted)
    if not pairs:
        raise UserError("these tables, tasks and protocols have nothing in common; --dry_run shows a plan")
    known = all_tasks()
    tasks = {name: known[name] if name in known else get_task(name) for _, name in pairs}
    plan = make_plan(entries, pairs, tasks, wanted.options)
    return Plan(plan.cells, (*without_base, *absent, *plan.left_out)), tasks


def _check_protocol(name: str) -> None:
    if name not in PROTOCOLS:
        raise UserError(f"there is no protocol '{name}'.{did_you_mean(name, PROTOCOLS)}")


def _entries(models: Sequence[Entry]) -> tuple[list[Entry], list[LeftOut]]:
    """Return the models with patterns resolved; one that a pattern finds and that needs another's name is left out."""
    if not models:
        raise UserError("give at least one model: MODEL[,MODEL], --models=PATTERN or a plan file's models")
    found: dict[tuple[str, str | None, tuple[tuple[str, str], ...]], Entry] = {}
    left_out: dict[str, LeftOut] = {}
    for entry in models:
        for name in matching(entry.model, model_names(), "model") if _is_pattern(entry.model) else (entry.model,):
            if name != entry.model and model_facts(name).needs_base:
                left_out[name] = LeftOut(name, f"it needs a name after a colon: {name}:…")
                continue
            one = Entry(name, entry.weights, entry.options)
            found.setdefault((name, entry.weights, tuple(sorted(entry.options.items()))), one)
    return list(found.values()), list(left_out.values())


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[") and ".py" not in text


def matching(pattern: str, names: Iterable[str], what: str) -> list[str]:
    """Return the names that fit a pattern (or are it); :class:`UserError` if none does."""
    choices = list(names)
    found = [name for name in choices if fnmatchcase(name, pattern)]
    if not found:
        raise UserError(f"no {what} fits '{pattern}'.{did_you_mean(pattern, choices)}")
    return found


def _pairs(wanted: Wanted) -> tuple[list[tuple[str, str]], list[LeftOut]]:
    """Return ``(protocol, task)`` of all that is wanted, and what the papers' tables have and this harness has not."""
    if not wanted.tables and wanted.tasks:
        names = [name for pattern in wanted.tasks for name in _tasks(pattern)]
        # Whichever of the usual ones fits: a task with captions is for retrieval, one with classes for the others.
        kinds = {name: get_task(name).kind for name in dict.fromkeys(names)}
        chosen = wanted.protocols or USUAL
        return [
            (protocol, name)
            for name, kind in kinds.items()
            for protocol in chosen
            if wanted.protocols or (kind == "retrieval") == (protocol == "retrieval")
        ], []
    pairs, absent = table_pairs(wanted.tables)
    if wanted.tasks:
        chosen_tasks = {name for pattern in wanted.tasks for name in _tasks(pattern)}
        pairs = [pair for pair in pairs if pair[1] in chosen_tasks]
    return [pair for pair in pairs if not wanted.protocols or pair[0] in wanted.protocols], absent


def _tasks(pattern: str) -> list[str]:
    if pattern.startswith(("folder:", "csv:")):
        return [pattern]
    if _is_pattern(pattern):
        return matching(pattern, all_tasks(), "task")
    return [get_task(pattern).name]


def paper_tables() -> dict[int, tuple[str, tuple[str, ...]]]:
    """Return the paper's tables by number: the protocol, and the tasks in the paper's names and order."""
    table = pd.read_csv(paper_dir() / f"{PAPER}.csv", usecols=["protocol", "task", "source"])
    found: dict[int, tuple[str, tuple[str, ...]]] = {}
    for (source, protocol), rows in table.groupby(["source", "protocol"], sort=False):
        number = re.search(r"Table (\d+)$", str(source))
        if number:
            found[int(number[1])] = (str(protocol), tuple(t for t in rows["task"].unique() if t != AVERAGE))
    return found


def table_pairs(numbers: Sequence[int]) -> tuple[list[tuple[str, str]], list[LeftOut]]:
    """Return ``(protocol, task)`` of these tables of the paper (all if none is named), and columns without a task."""
    tables = paper_tables()
    unknown = [n for n in numbers if n not in tables]
    if unknown:
        raise UserError(f"--tables={unknown[0]}: the paper's tables are {', '.join(map(str, sorted(tables)))}")
    ours = {name: task.name for task in all_tasks().values() for name in task.paper_name.split("|") if name}
    pairs, absent = [], []
    for number in numbers or sorted(tables):
        protocol, columns = tables[number]
        for column in columns:
            if column in ours:
                pairs.append((protocol, ours[column]))
            else:
                absent.append(LeftOut(f"Table {number}, {column}", "no task here has this name in the papers"))
    return pairs, absent


def names_tasks(text: str) -> bool:
    """Say whether a second argument is tasks and not weights: ``eval_all.sh MODEL TASK[,TASK]``, the older form."""
    known, words = all_tasks(), [word.strip() for word in text.split(",") if word.strip()]
    return (
        bool(words) and not Path(text).exists() and all(w in known or w.startswith(("csv:", "folder:")) for w in words)
    )


def merged(file: Wanted, line: Wanted) -> Wanted:
    """Return a plan file's wishes with those of the command line, which go first; its models choose among the file's.

    Raises :class:`UserError` for a model of the command line that the file does not have.
    """
    models = file.models or line.models
    if file.models and line.models:
        names = [entry.model for entry in file.models]
        chosen = {name for entry in line.models for name in matching(entry.model, names, "model of the plan file")}
        given = [entry.weights for entry in line.models if entry.weights is not None]
        if given:
            raise UserError("--weights: the plan file says which weights each model has; change it there")
        models = tuple(entry for entry in file.models if entry.model in chosen)
    options = {
        key: {**file.options.get(key, {}), **line.options.get(key, {})} for key in {*file.options, *line.options}
    }
    return Wanted(
        models, line.tables or file.tables, line.tasks or file.tasks, line.protocols or file.protocols, options
    )
