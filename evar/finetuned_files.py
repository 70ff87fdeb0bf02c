"""A fine-tuned model on disk: ``model.safetensors`` with all weights, ``model.json`` with how to build the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from evar.errors import UserError
from evar.store import write_atomically

WEIGHTS, FACTS = "model.safetensors", "model.json"


class Trained(Protocol):
    """What a fine-tuning job tells of its model."""

    model: str
    weights: str | None
    options: Any
    clips: Any


def save_model(folder: Path, network: Any, job: Trained) -> None:
    """Write the network (adapter and head) and what rebuilds it: model, options, classes, seconds per clip."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    part = folder / f".{WEIGHTS}.{os.getpid()}.part"
    save_file(state, part)
    os.replace(part, folder / WEIGHTS)
    task, skeleton = job.clips.task, network.adapter.skeleton()
    facts = {
        "format": 1,
        "model": job.model,
        # Without a skeleton the adapter is built from the weights it began with, which must still be there.
        "weights": "random" if skeleton is not None else job.weights,
        "options": skeleton if skeleton is not None else dict(job.options),
        "task": task.name,
        "title": task.title,
        "labels": list(task.labels),
        "captions": [task.caption(label) for label in task.labels],
        "multi_label": task.multi_label,
        "unit_seconds": task.unit_seconds,
    }
    write_atomically(folder / FACTS, json.dumps(facts, indent=1) + "\n")


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
        raise UserError(f"{path} cannot be read: {error}") from None


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what rebuilds the network; :class:`UserError` if the folder has it not."""
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a fine-tuned model: {FACTS} cannot be read ({error})") from None
    if not isinstance(facts, dict) or facts.get("format") != 1:
        raise UserError(f"{path} is not of a format that this version knows")
    return facts


def load_into(network: nn.Module, folder: Path) -> None:
    """Fill a network with the weights of a folder; :class:`UserError` names the first tensor that does not fit."""
    try:
        network.load_state_dict(read_model(folder))
    except RuntimeError as error:
        first = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
        raise UserError(f"the weights in {folder} do not fit the model that {FACTS} describes: {first}") from None
