"""What is to be run: cells, the batches that share embeddings, and the cells that cannot be, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from evar.errors import UserError, did_you_mean
from evar.grid.facts import NOT_FOR_CELLS, ModelFacts, model_facts, protocol_options
from evar.store import fingerprint_of
from tasks.base import Task

PROTOCOLS = ("lineareval", "zeroshot", "retrieval", "finetune")
"""In the order in which a batch runs them: what takes longest comes last."""
Options = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Cell:
    """One (model, weights, task, protocol, options): one result file, one call of the protocol's command."""

    model: str
    weights: str | None
    task: str
    protocol: str
    options: Options = ()
    """Names and texts of the command's and the model's options, sorted by name."""

    @cached_property
    def key(self) -> str:
        """A short checksum: the cell's name in the journal."""
        facts = {"model": self.model, "weights": self.weights, "task": self.task, "protocol": self.protocol}
        return fingerprint_of(facts | {"options": sorted(self.options)})[:16]

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the command line, without ``python -m``: ``("evar.lineareval", "m2d", "esc50", …)``."""
        weights = () if self.weights is None else (f"--weights={self.weights}",)
        options = (f"--{name}={text}" for name, text in self.options)
        return (f"evar.{self.protocol}", self.model, self.task, *weights, *options)

    @property
    def name(self) -> str:
        """The cell in words, for people; what is said of the protocol follows after a comma."""
        weights = "" if self.weights is None else f" [{Path(self.weights).name}]"
        probe = dict(self.options).get("probe", "")
        return f"{self.model}{weights} · {self.task} · {self.protocol}{f' ({probe})' if probe else ''}"


Batch = tuple[Cell, ...]
"""Cells that share embeddings (one model and weights on one task): they run one after the other in one place."""


@dataclass(frozen=True)
class Entry:
    """A model as it takes part: its name, its weights, its own options as text."""

    model: str
    weights: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LeftOut:
    """A combination that cannot be run, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """All cells in the order in which they are to be run, and what is left out."""

    cells: tuple[Cell, ...]
    left_out: tuple[LeftOut, ...] = ()


def make_plan(
    entries: Sequence[Entry],
    pairs: Sequence[tuple[str, str]],
    tasks: Mapping[str, Task],
    options: Mapping[str, Mapping[str, str]],
) -> Plan:
    """Return every model's cells.

    Args:
        entries: the models.
        pairs: ``(protocol, task)``, in any order.
        tasks: the tasks by name.
        options: options as text, by protocol; ``""`` holds those for every cell whose protocol or model knows them.

    Raises :class:`UserError` for an option that neither the protocols nor the models know.
    """
    facts = {entry.model: model_facts(entry.model) for entry in entries}
    _check_options(facts, {protocol for protocol, _ in pairs}, options, entries)
    ordered = sorted(dict.fromkeys(pairs), key=lambda pair: PROTOCOLS.index(pair[0]))
    names = list(dict.fromkeys(task for _, task in pairs))
    cells: dict[Cell, None] = {}
    left_out = []
    for entry in entries:
        for name in names:
            for protocol in (p for p, task in ordered if task == name):
                reason = why_not(facts[entry.model], tasks[name], protocol)
                if reason:
                    left_out.append(LeftOut(Cell(entry.model, entry.weights, name, protocol).name, reason))
                else:
                    cells |= dict.fromkeys(_cells(entry, name, protocol, facts[entry.model], options))
    return Plan(tuple(cells), tuple(left_out))


def _cells(
    entry: Entry, task: str, protocol: str, facts: ModelFacts, options: Mapping[str, Mapping[str, str]]
) -> Iterable[Cell]:
    known = {*protocol_options(protocol), *facts.options}
    given = {**options.get("", {}), **options.get(protocol, {}), **entry.options}
    given = {name: text for name, text in given.items() if name in known}
    # Both probes are two results, hence two cells: they may fail, and be repeated, one by one.
    probes = ("adam", "logistic") if given.get("probe") == "both" else (given.get("probe"),)
    for probe in probes:
        full = given if probe is None else given | {"probe": probe}
        yield Cell(entry.model, entry.weights, task, protocol, tuple(sorted(full.items())))


def _check_options(
    facts: Mapping[str, ModelFacts],
    protocols: set[str],
    options: Mapping[str, Mapping[str, str]],
    entries: Sequence[Entry],
) -> None:
    of_models = {option for one in facts.values() for option in one.options}
    everywhere = {name for protocol in protocols for name in protocol_options(protocol)}
    for protocol, given in options.items():
        known = of_models | (everywhere if protocol == "" else set(protocol_options(protocol)))
        for name in given:
            if name not in known:
                where = f" of {protocol}" if protocol else ""
                raise UserError(f"there is no option --{name}{where}.{did_you_mean(name, known)}")
    for entry in entries:
        known = {*facts[entry.model].options, *everywhere} - NOT_FOR_CELLS
        for name in entry.options:
            if name not in known:
                raise UserError(f"{entry.model} has no option '{name}'.{did_you_mean(name, known)}")


def why_not(model: ModelFacts, task: Task, protocol: str) -> str:
    """Return why a protocol cannot be run with this model on this task; empty if it can, as far as one can tell."""
    if (task.kind == "retrieval") != (protocol == "retrieval"):
        return "the task has captions and no classes" if task.kind == "retrieval" else "the task has no captions"
    if protocol in ("zeroshot", "retrieval") and not model.text:
        return "the model has no text side"
    if protocol == "zeroshot" and model.fitted_on_task and task.has_folds:
        return "the model learns from the task's training captions, and with folds every clip is a test clip"
    if protocol == "finetune" and model.kind == "baseline":
        return "the model has nothing to train"
    return ""


def batches_of(cells: Iterable[Cell]) -> list[Batch]:
    """Return the cells as batches of one (model, weights, task), in the order of their first cells.

    Fine-tuning shares no embeddings: each of its cells is a batch of its own, after all others, which take minutes.
    """
    found: dict[tuple[str, ...], list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.protocol == "finetune"):
        alone = (cell.key,) if cell.protocol == "finetune" else ()
        found.setdefault((cell.model, cell.weights or "", cell.task, *alone), []).append(cell)
    return [tuple(batch) for batch in found.values()]
