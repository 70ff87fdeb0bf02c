"""What every protocol command shares: from the command line's names to models and clips, and each cell run."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import torch

from evar.clips import Clips, open_task
from evar.errors import UserError
from evar.numerics import full_float32
from evar.progress import say
from evar.results import Result
from model_adapters.registry import Model, adapter_class, load_model, model_options, option_texts
from tasks.base import Task, get_task


@dataclass(frozen=True)
class Request:
    """What was asked for, checked: names resolved, options handed to the models that know them."""

    models: tuple[str, ...]
    tasks: tuple[Task, ...]
    weights: str | None
    options: Mapping[str, str]
    root: Path | None
    data: Path | None
    incomplete: bool

    def options_for(self, model: str) -> dict[str, str]:
        """Return the given options that this model knows."""
        known = model_options(model)
        return {name: text for name, text in self.options.items() if name in known}

    def opened(self, task: Task) -> Clips:
        """Return the clips of one of the tasks."""
        return open_task(task, self.root, self.data, incomplete=self.incomplete)

    def cells(self, *, test_only: bool = False) -> Iterator[tuple[Model, Clips]]:
        """Yield every (model, task); all tasks are opened before the first one is run.

        ``test_only``: a protocol that does not train opens the test part alone (AudioSet's training clips are two
        million files), unless the model takes something from the training part for the joint space, its subject.
        """
        names = {task.name: task for task in self.tasks}

        @cache
        def opened(task: str, test_only: bool) -> Clips:
            parts = ("test",) if test_only else None
            return open_task(names[task], self.root, self.data, incomplete=self.incomplete, parts=parts)

        for task in names:
            opened(task, test_only)
        for name in self.models:
            for task in names:
                # Built anew for each task: an adapter that looked at one task's statistics may not carry them on.
                model = load_model(name, self.weights, self.options_for(name))
                yield model, opened(task, test_only and not model.adapter.prepares_for("joint"))


def request(
    models: tuple[str, ...],
    tasks: tuple[str, ...],
    *,
    weights: str | None,
    root: Path | None,
    data: Path | None,
    incomplete: bool,
    options: Mapping[str, str],
) -> Request:
    """Check the names and what they are combined with; raise :class:`UserError` before anything is read."""
    if not models or not tasks:
        raise UserError("give at least one model and one task: MODEL[,MODEL] TASK[,TASK]")
    for name in models:
        adapter_class(name)
    found = tuple(get_task(name) for name in tasks)
    if weights is not None and len(models) > 1:
        raise UserError("--weights belongs to one model; with several models, run the command once for each")
    if data is not None and len(tasks) > 1:
        raise UserError("--data names one task's folder; with several tasks use --root (DIR/<task>/ for each)")
    return Request(models, found, weights, dict(options), root, data, incomplete)


def options_of_models(positional: Mapping[str, str]) -> dict[str, inspect.Parameter]:
    """Return the options of all models named in the MODEL argument (for :func:`evar.cli.main`), each with its text."""
    found: dict[str, inspect.Parameter] = {}
    for name in (name.strip() for name in positional["model"].split(",") if name.strip()):
        texts = option_texts(name)
        for option, parameter in model_options(name).items():
            hint = Annotated[parameter.annotation, texts.get(option, "")]  # type: ignore[name-defined]
            found[option] = parameter.replace(annotation=hint)
    return found


def pick_device(device: str) -> str:
    """Return ``device``; ``auto`` is the first GPU if there is one, else the CPU. Float32 is whole from now on."""
    full_float32()
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device)
    except RuntimeError:
        raise UserError(f"--device={device}: write auto, cpu, cuda or cuda:N") from None
    if kind.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device={device}: PyTorch sees no GPU here; leave the option out or write --device=cpu")
    return device


def at_least_one(**numbers: float) -> None:
    """Raise :class:`UserError` for the first number that is below 1."""
    for name, value in numbers.items():
        if value < 1:
            raise UserError(f"--{name}={value}: must be at least 1")


def run_cells(
    asked: Request, evaluate: Callable[[Model, Clips], tuple[Result, bool]], *, test_only: bool = False
) -> list[Result]:
    """Run every (model, task), say what was found or done, and return the results."""
    results = []
    for model, clips in asked.cells(test_only=test_only):
        begin = time.perf_counter()
        result, there = evaluate(model, clips)
        done = "already there" if there else f"{time.perf_counter() - begin:.1f} s"
        say(f"{result['model']} · {result['task']} · {result['protocol']}: {100 * result['mean']:.2f} % ({done})")
        for note in (result["notes"].get("not_comparable"), result["data"].get("coverage")):
            if note:
                say(f"  {note}")
        results.append(result)
    return results
