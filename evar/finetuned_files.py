"""A fine-tuned model on disk: ``model.safetensors`` with all weights, ``model.json`` with how to build the rest."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from evar.convert import keyword_parameters
from evar.errors import UserError
from evar.store import write_atomically
from model_adapters.base import RANDOM, Adapter, Skeleton, parse_random
from tasks.base import Task

WEIGHTS, FACTS = "model.safetensors", "model.json"
NEEDED = ("model", "weights", "options", "task", "labels", "multi_label", "unit_seconds")


def save_model(
    folder: Path, network: Any, task: Task, model: str, weights: str | None, options: Mapping[str, str]
) -> None:
    """Write a network (adapter and head) that began as ``model`` with these weights and options, and its task's facts.

    What :meth:`model_adapters.base.Adapter.skeleton` can rebuild needs nothing else to be loaded again; any other
    model needs the weights it began with, in their place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    skeleton = _skeleton(network.adapter)
    spare = _spare(network.adapter)
    kept = {name: tensor for name, tensor in network.state_dict().items() if not (spare and name.startswith(spare))}
    facts = {
        "format": 1,
        "model": skeleton.model if skeleton is not None else _own_file(model),
        "weights": RANDOM if skeleton is not None else weights and _absolute(weights),
        "options": skeleton.options if skeleton is not None else _with_statistics(network.adapter, options),
        "began_as": {"model": model, "weights": weights, "options": dict(options)},
        "task": task.name,
        "title": task.title,
        "labels": list(task.labels),
        "multi_label": task.multi_label,
        "unit_seconds": task.unit_seconds,
    }
    write_atomically(folder / FACTS, json.dumps(facts, indent=1) + "\n")
    part = folder / f".{WEIGHTS}.{os.getpid()}.part"
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in kept.items()}, part)
    part.chmod((folder / FACTS).stat().st_mode)  # safetensors writes files that only their owner may read
    os.replace(part, folder / WEIGHTS)


def _skeleton(adapter: Adapter) -> Skeleton | None:
    """Return the adapter's own; a user's class that inherits one may differ from what it rebuilds."""
    kind = type(adapter)
    ours = kind.__module__.startswith("model_adapters.")
    return adapter.skeleton() if ours or "skeleton" in vars(kind) else None


def _spare(adapter: Adapter) -> tuple[str, ...]:
    """Return how the names of tensors begin that are not kept."""
    skeleton = _skeleton(adapter)
    return tuple(f"adapter.{start}" for start in skeleton.spare) if skeleton is not None else ()


def _absolute(place: str) -> str:
    """Return a path as it is reached from any folder; a text that names no file (a hub id, random) as it is."""
    path = Path(place).expanduser()
    return str(path.resolve()) if parse_random(place) is None and path.exists() else place


def _own_file(model: str) -> str:
    """Return a model's name; ``mine.py:Mine`` as it is reached from any folder."""
    file, colon, name = model.rpartition(":")
    return f"{_absolute(file)}:{name}" if colon and file.endswith(".py") else model


def _with_statistics(adapter: Adapter, options: Mapping[str, str]) -> dict[str, str]:
    """Return the options, with the statistics that the model took from its task where it has an option for them."""
    found = adapter.state().get("norm_stats")
    if "norm_stats" in options or not found or "norm_stats" not in keyword_parameters(type(adapter)):
        return dict(options)
    return {**options, "norm_stats": ",".join(repr(float(x)) for x in found)}


def read_model(folder: Path) -> dict[str, Tensor]:
    """Return the weights in a folder; :class:`UserError` if it is not one of a fine-tuned model."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(
            f"{folder} is not a fine-tuned model: there is no {WEIGHTS} in it (see python -m evar.finetune)"
        )
    try:
        return load_file(path)
    except Exception as error:  # safetensors has an exception type of its own per release
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0] if str(error) else error!r}") from None


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what rebuilds the network; :class:`UserError` if the folder has it not."""
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a fine-tuned model: {FACTS} cannot be read ({error})") from None
    if not isinstance(facts, dict) or facts.get("format") != 1:
        raise UserError(f"{path} is not of a format that this version knows")
    if lacking := [name for name in NEEDED if name not in facts]:
        raise UserError(f"{path} does not say {', '.join(lacking)}")
    return facts


def load_into(network: Any, folder: Path) -> None:
    """Fill a network with the weights of a folder; :class:`UserError` names the first tensor that does not fit."""
    found = read_model(folder)
    try:
        network.load_state_dict(found | _not_kept(network))
    except RuntimeError as error:
        first = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
        raise UserError(f"the weights in {folder} do not fit the model that {FACTS} describes: {first}") from None


def _not_kept(network: Any) -> dict[str, Tensor]:
    spare = _spare(network.adapter)
    return {name: tensor for name, tensor in network.state_dict().items() if spare and name.startswith(spare)}
