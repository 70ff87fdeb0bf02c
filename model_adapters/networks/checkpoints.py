"""Reading weights files without running what is in them, and loading them without leaving anything out in silence."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from evar.errors import UserError, did_you_mean
from evar.fetch.first_bytes import not_weights
from evar.progress import say
from model_adapters.networks.inert import Inert, read_weights_only
from model_adapters.networks.misfits import DATA_PARALLEL, cause_of_another, likely_cause, of_another_model

SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
_WRAPPERS = ("model", "state_dict", "model_state_dict")
_NAMES_SHOWN = 4
_REFUSED = re.compile(r"WeightsUnpickler error: ([^\n]*?)(?: was not an allowed|$)", re.M)
"""Where torch's text names what it did not build."""

Module = TypeVar("Module", bound=nn.Module)


def find_checkpoint(path: str) -> Path:
    """Return the weights file ``path`` names: a file, or a folder that holds exactly one; raise :class:`UserError`."""
    given = Path(path).expanduser()
    if given.is_dir():
        inside = sorted(f for f in given.iterdir() if f.suffix in SUFFIXES)
        if len(inside) != 1:
            names = ", ".join(f.name for f in inside) or "none"
            raise UserError(f"the folder '{given}' must hold one weights file; it holds {names}. Name the file itself.")
        return inside[0]
    if not given.is_file():
        near = did_you_mean(given.name, [f.name for f in given.parent.glob("*")]) if given.parent.is_dir() else ""
        raise UserError(f"there is no weights file '{given}'.{near if 'Did you' in near else ''}")
    return given


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def sha256_of_all(paths: Sequence[Path]) -> str:
    """Return the SHA-256 of a file; of several, the checksum of their checksums."""
    sums = [sha256_of(path) for path in paths]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def read_checkpoint(
    path: str | Path, *, wrappers: tuple[str, ...] = _WRAPPERS, keep_module: bool = False
) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a ``.pth``, ``.pt`` or ``.safetensors`` file by name, and the file's SHA-256.

    Training checkpoints ({'model' or 'state_dict': tensors, 'optimizer': …, 'args': Namespace}) give their model part.
    Pickles are read with ``weights_only``; objects of other classes beside the weights (Lightning's settings) are left
    out without being built, and nothing that they name is run. Raises :class:`UserError` for a file that is missing,
    unreadable, or without tensors.

    wrappers: entries whose dictionary is taken instead of the whole: the first that is there, and again inside it.
    keep_module: keep the ``module.`` that torch.nn.DataParallel writes before every name: M2D's fine-tuned files have
        one of their own.
    """
    file = find_checkpoint(str(path))
    content = read_content(file)
    while name := next(
        (w for w in wrappers if isinstance(content, Mapping) and isinstance(content.get(w), Mapping)), ""
    ):
        content = content[name]
    if isinstance(content, Inert):
        raise UserError(
            f"'{file}' holds a pickled object ({content.stands_for}), not a dictionary of weights, and objects are not "
            "built: save its state_dict()"
        )
    if not isinstance(content, Mapping):
        raise UserError(f"'{file}' holds a {type(content).__name__}, not a dictionary of weights")
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise UserError(f"'{file}' holds no weights (its entries: {_some(map(str, content))})")
    return state if keep_module else dict(without_data_parallel(state, ())), sha256_of(file)


def read_content(file: Path) -> Any:
    """Return all that a weights file holds, as :func:`read_checkpoint` reads it."""
    return _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(file))
    except SafetensorError as error:
        if what := not_weights(file):
            raise UserError(f"'{file}' is {what}") from None
        raise UserError(f"'{file}' is not a whole safetensors file ({_first_line(error)})") from None


def _read_pickle(file: Path) -> Any:
    # Files of torch >= 1.6 are zip archives and can be mapped: the optimizer's two thirds are then never read.
    mapped = zipfile.is_zipfile(file)
    refused: Exception
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle's protocol and of TorchScript: told better below
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        with contextlib.suppress(pickle.UnpicklingError):
            return read_weights_only(file)
        refused = error
    except Exception as error:  # what is no pickle, or a damaged one, ends in errors of any kind
        refused = error
    if what := not_weights(file):
        raise UserError(f"'{file}' is {what}")
    if isinstance(refused, OSError | EOFError) or "unexpected EOF" in str(refused):
        raise UserError(f"'{file}' is no whole torch file ({_first_line(refused)}); was the download cut?")
    named = f" ({said})" if (said := refusal(refused)) else ""
    raise UserError(
        f"'{file}' is not read, because it is no weights file or holds more than weights{named}; "
        "save its state_dict with torch.save or as safetensors"
    )


def refusal(error: BaseException) -> str:
    """Return what torch refused to build, of its error on reading weights only; empty if that is not said.

    The rest of its text, how to switch the check off, is nothing to tell a user.
    """
    found = _REFUSED.search(str(error))
    return found[1].strip(" .")[:120] if found else ""


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0][:160]


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - _NAMES_SHOWN} more" if len(listed) > _NAMES_SHOWN else ""
    return ", ".join(listed[:_NAMES_SHOWN]) + more if listed else "none"


def unfilled(build: Callable[[], Module]) -> Module:
    """Return ``build()`` with memory for its tensors but no values: they are to be loaded or filled at once.

    Spends neither time nor numbers of the global generator on an initialisation nobody sees.
    """
    with torch.device("meta"):
        module = build()
    return module.to_empty(device="cpu")


def require(
    state: Mapping[str, Tensor],
    needed: Iterable[str],
    model: str,
    what: str = "",
    whole: Mapping[str, Tensor] | None = None,
) -> None:
    """Raise :class:`UserError` unless ``state`` has the tensors without which it is none of ``model``.

    Parameters
    ----------
    model: its family, by the name that :mod:`model_adapters.networks.misfits` has for it.
    what: the file, for the message. whole: all the file's tensors, where ``state`` are those below a prefix.
    """
    if absent := [name for name in needed if name not in state]:
        shapes = {key: tuple(value.shape) for key, value in (state if whole is None else whole).items()}
        raise UserError(of_another_model(model, absent, shapes, what))


def refuse_others(
    state: Mapping[str, Tensor], known: tuple[str, ...], model: str, what: str = "", *, foreign: tuple[str, ...] = ()
) -> None:
    """Say it where a file has more than the model's ``known`` parts: nothing is left out in silence.

    Raises :class:`UserError` for a tensor inside a module of the model (``audio_encoder.extra``, where parts of
    ``audio_encoder`` are known), or with one of the ``foreign`` beginnings, which show another model. Other parts are
    named on stderr: a file may have them of its training.
    """
    others = [key for key in state if not key.startswith(known)]
    modules = {name.split(".")[0] for name in known}
    if wrong := [key for key in others if key.split(".")[0] in modules or (foreign and key.startswith(foreign))]:
        shapes = {key: tuple(value.shape) for key, value in state.items()}
        raise UserError(
            f"the weights {what or 'given'} are not those of {model}: unexpected: {_some(wrong)}. "
            f"{cause_of_another(model, shapes)}"
        )
    if others:
        say(f"the weights {what or 'given'} have {len(others)} tensors that {model} does not use: {_some(others)}")


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], *, ignore: Iterable[str] = (), what: str = "") -> None:
    """Copy ``state`` into ``module``, every parameter and persistent buffer of which must be there in its shape.

    Parameters
    ----------
    ignore: prefixes of names in ``state`` that are known not to belong to ``module``.
    what: the file or model, for the message.

    Raises :class:`UserError` with one line that lists what is missing, unexpected or misshapen, and the likely cause.
    """
    prefixes = tuple(ignore)
    wanted = module.state_dict()
    state = without_data_parallel(state, wanted)
    given = {key: value for key, value in state.items() if not (prefixes and key.startswith(prefixes))}
    missing = wanted.keys() - given.keys()
    unexpected = given.keys() - wanted.keys()
    misshapen = [
        f"{key} is {list(given[key].shape)} and should be {list(wanted[key].shape)}"
        for key in wanted.keys() & given.keys()
        if given[key].shape != wanted[key].shape
    ]
    if missing or unexpected or misshapen:
        kinds = (("missing", missing), ("unexpected", unexpected), ("wrong shape", misshapen))
        found = [f"{kind}: {_some(names)}" for kind, names in kinds if names]
        shapes = ({key: tuple(value.shape) for key, value in tensors.items()} for tensors in (wanted, given))
        raise UserError(
            f"the weights {what or 'given'} do not fit {type(module).__name__}: {'; '.join(found)}. "
            f"{likely_cause(*shapes)}"
        )
    module.load_state_dict(given, strict=True)


def without_data_parallel(state: Mapping[str, Tensor], wanted: Collection[str]) -> Mapping[str, Tensor]:
    """Return ``state`` without the ``module.`` that torch.nn.DataParallel writes before every name, if it is that."""
    if not state or any(key.startswith(DATA_PARALLEL) for key in wanted):
        return state
    if not all(key.startswith(DATA_PARALLEL) for key in state):
        return state
    return {key.removeprefix(DATA_PARALLEL): value for key, value in state.items()}
