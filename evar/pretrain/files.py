"""Checkpoints in published form, and what a run began with.

``<name>/checkpoint-<epoch>.pth`` holds ``{"model": tensors, "epoch": n}`` under the published names, so that the
adapters of this harness (and others') load it; the folder's name says the geometry (MODELS 7.3). ``evar.json`` beside
it says how it was made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from evar.errors import UserError
from evar.progress import say
from evar.store import write_atomically
from model_adapters.networks.checkpoints import read_checkpoint
from model_adapters.networks.m2d import resize_positions
from model_adapters.networks.m2d_files import FACTS

Form = Literal["full", "encoder", "safetensors"]
_SHOWN = 4
_NOT_INFERENCE = ("decoder_", "target_", "mask_token", "offline_predictor.", "logit_scale", "sup_head.", "distil_head")


def published_state(objective: nn.Module) -> dict[str, Tensor]:
    """Return an objective's tensors on the CPU under the published names."""
    rename: Any = getattr(objective, "export_names", None)
    state: Mapping[str, Tensor] = rename() if rename is not None else objective.state_dict()
    return {name: tensor.detach().cpu() for name, tensor in state.items()}


def write_checkpoint(
    folder: Path, state: Mapping[str, Tensor], epoch: int, facts: Mapping[str, Any], form: Form
) -> Path:
    """Write tensors atomically and return the file.

    form: ``full``, everything; ``encoder``, what inference needs, flat; ``safetensors``, the same in that format.
    Raises :class:`UserError` if it cannot be written; an earlier file of that name is then still whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = dict(state) if form == "full" else {n: t for n, t in state.items() if not _spare(n)}
    suffix = ".safetensors" if form == "safetensors" else ".pth"
    path = folder / f"{'checkpoint' if form == 'full' else 'encoder'}-{epoch}{suffix}"
    part = folder / f".{path.name}.{os.getpid()}.part"
    try:
        if form == "safetensors":
            save_file({name: tensor.contiguous() for name, tensor in kept.items()}, part)
        else:
            content: Any = {"model": kept, "epoch": epoch} if form == "full" else kept
            torch.save(content, part)
        write_atomically(folder / FACTS, json.dumps(dict(facts), indent=1) + "\n")
        part.chmod((folder / FACTS).stat().st_mode)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"cannot write {path}: {first}") from None
    finally:
        part.unlink(missing_ok=True)
    return path


def _spare(name: str) -> bool:
    return any(part.startswith(_NOT_INFERENCE) for part in (name, name.removeprefix("backbone.")))


def begin_with(objective: nn.Module, path: str, *, quiet: bool = False) -> str:
    """Fill an objective with what a checkpoint has of it, say what stays as it was, and return the file's SHA-256.

    Tables of positions of another length are cut or stretched. Raises :class:`UserError` if nothing fits, or a tensor
    has another shape.
    """
    found, sha256 = read_checkpoint(path, keep_module=True)
    translate: Any = getattr(objective, "import_names", None)
    own = objective.state_dict()
    state = translate(found) if translate is not None else {n.removeprefix("backbone."): t for n, t in found.items()}
    # The batches are standardised with this run's statistics, whatever the checkpoint's were.
    state = {name: tensor for name, tensor in state.items() if name in own and name != "norm_stats"}
    if not any(name.endswith("patch_embed.proj.weight") for name in state):
        raise UserError(
            f"--init={path}: no weights of an M2D or MSM-MAE encoder in it ({', '.join(list(found)[:3])}, …)"
        )
    for name, tensor in state.items():
        wanted = own[name].shape
        if tensor.shape != wanted and name.endswith("pos_embed") and tensor.shape[2:] == wanted[2:]:
            state[name] = _fitted(objective, tensor, wanted)
        elif tensor.shape != wanted:
            raise UserError(f"--init={path}: {name} is {list(tensor.shape)} there and {list(wanted)} here")
    objective.load_state_dict(state, strict=False)
    fresh = [name for name in own if name not in state and name != "norm_stats"]
    if fresh and not quiet:
        say(f"--init: {len(state)} tensors taken; {len(fresh)} stay as they were: {_some(fresh)}")
    return sha256


def _fitted(objective: nn.Module, table: Tensor, wanted: torch.Size) -> Tensor:
    rows = int(getattr(objective, "grid", (0, 0))[0])
    return resize_positions(table, rows, (wanted[1] - 1) // rows)


def _some(names: list[str]) -> str:
    groups = list(dict.fromkeys(name.split(".")[0] for name in names))
    return ", ".join(groups[:_SHOWN]) + (", …" if len(groups) > _SHOWN else "")
