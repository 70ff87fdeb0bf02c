"""Where the files of an audio model in transformers' layout lie: a local folder, the weights folder, or the hub."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from torch import Tensor

from evar.errors import UserError
from evar.fetch.hub import from_hub, is_complete, weights_in
from evar.fetch.published import find_named
from model_adapters.networks.checkpoints import read_checkpoint, sha256_of_all

_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_NOT_THE_MODEL = ("*/*", "flax_model*", "tf_model*")
_INSTEAD = "give a folder with --weights=PATH, or --weights=random for an untrained network"


def locate(spec: str, *, weights: bool = True) -> Path:
    """Return the folder of a model's files (config.json, and weights unless ``weights`` is false).

    Parameters
    ----------
    spec: a local folder, a file in it, a name in the weights folder, or ``ORG/NAME`` on the Hugging Face hub. What the
        hub's cache has in full is used without asking the hub.

    Raises :class:`UserError`, one line, if they cannot be had; without a network after seconds at most.
    """
    here = Path(find_named(spec)).expanduser()
    if here.is_file():
        here = here.parent
    if here.is_dir():
        if not is_complete(here, weights=weights):
            what = "config.json and model.safetensors" if weights else "config.json"
            raise UserError(f"the folder '{here}' holds no model in transformers' layout ({what} are wanted)")
        return here
    if not _REPOSITORY.fullmatch(spec):
        raise UserError(f"'{spec}' is neither a folder nor a model on the Hugging Face hub (ORG/NAME)")
    complete = partial(is_complete, weights=weights)
    return from_hub(spec, complete, instead=_INSTEAD, weights=weights, settings=("*.json",), ignored=_NOT_THE_MODEL)


def sha256_of_weights(folder: Path) -> str:
    """Return the checksum of a folder's weights file; of several, the checksum of their checksums."""
    return sha256_of_all(weights_in(folder))


def sha256_of_settings(folder: Path) -> str:
    """Return the checksum of the files that say how a folder's weights are computed with; not those of tokenizers."""
    named = ("config.json", "preprocessor_config.json", "processor_config.json")
    return sha256_of_all([folder / name for name in named if (folder / name).is_file()])


def read_file_or_hub(weights: str) -> tuple[dict[str, Tensor], str]:
    """Return the tensors and the SHA-256 of a file, a folder with one weights file, or a hub repository ``ORG/NAME``.

    A repository that the hub's cache holds is read from there, without the network.
    """
    here = Path(weights).expanduser()
    if not _REPOSITORY.fullmatch(weights) or here.exists() or here.parent.is_dir():
        return read_checkpoint(weights)
    folder = locate(weights)
    state: dict[str, Tensor] = {}
    for file in weights_in(folder):
        state.update(read_checkpoint(file)[0])
    return state, sha256_of_weights(folder)
