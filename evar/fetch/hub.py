"""Models in transformers' layout on the Hugging Face hub: what lies in its cache here, and how the rest gets there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from evar.errors import UserError

SECONDS = 10.0
"""How long the hub may take to answer before it counts as out of reach."""
SETTINGS = ("*.json", "*.txt", "*.model")
"""What a model needs beside its weights: configuration and tokenizer."""
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")
"""Files one of which every tokenizer has."""
OTHER_RUNTIMES = ("onnx/*", "openvino/*", "coreml/*", "*/*.safetensors", "flax_model*", "tf_model*")
"""What a repository may hold beside a model: exports in sub-folders, weights for other frameworks."""


def is_offline() -> bool:
    """Say whether the hub is not to be asked (``HF_HUB_OFFLINE``)."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def weights_in(folder: Path) -> list[Path]:
    """Return a model folder's weights files: safetensors, else torch's."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def is_complete(folder: Path, *, weights: bool = True) -> bool:
    """Say whether a folder has a model's configuration and, if wanted, all of its weights.

    Raises :class:`UserError` for a damaged list of the weights' parts.
    """
    if not (folder / "config.json").is_file():
        return False
    return not weights or (all((folder / name).is_file() for name in _parts(folder)) and bool(weights_in(folder)))


def _parts(folder: Path) -> set[str]:
    """Return the names of the files over which a large model's weights are spread; empty for a model in one."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return set()
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return {str(name) for name in found}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index} is damaged: it does not say which files hold the weights; fetch it again") from None


def in_hub_cache(repository: str) -> bool:
    """Say whether the Hugging Face cache of this machine holds a repository's configuration and weights."""
    there = _cached(repository, "config.json", "model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")
    return "config.json" in there and len(there) > 1


def tokenizer_in_hub_cache(repository: str) -> bool:
    """Say whether the Hugging Face cache of this machine holds a repository's tokenizer."""
    return bool(_cached(repository, *TOKENIZERS))


def _cached(repository: str, *names: str) -> set[str]:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return set()
    try:
        return {name for name in names if isinstance(try_to_load_from_cache(repository, name), str)}
    except ValueError:  # not ORG/NAME
        return set()


def from_hub(
    repository: str,
    complete: Callable[[Path], bool] = is_complete,
    *,
    what: str = "",
    instead: str = "",
    weights: bool = True,
    settings: Sequence[str] = SETTINGS,
    ignored: Sequence[str] = OTHER_RUNTIMES,
) -> Path:
    """Return the folder of a hub repository: the copy in the cache if it is whole, else downloaded.

    The cache comes first: otherwise every start would ask the hub, and wait for it where there is no network. Pickled
    weights are fetched only where there are no others.

    Parameters
    ----------
    complete: whether a folder has all that is needed.
    what, instead: for messages: "the weights 'org/name' are", and what else can be done.
    weights: whether weights are wanted at all. settings, ignored: patterns of the files beside them.

    Raises :class:`UserError`, one line, if it cannot be had; without a network after seconds at most.
    """

    def refused(why: str) -> UserError:
        more = f"; {instead}" if instead else ""
        subject = what or f"the weights '{repository}' are"
        return UserError(f"{subject} not in the local cache and cannot be had from the Hugging Face hub ({why}){more}")

    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise refused("its client is missing: install evar-harness[hub]") from None

    def snapshot(*further: str, local: bool) -> Path:
        folder = snapshot_download(
            repository,
            allow_patterns=[*settings, *further],
            ignore_patterns=list(ignored),
            local_files_only=local,
            etag_timeout=SECONDS,
        )
        return Path(folder)

    try:
        if complete(cached := snapshot(local=True)):
            return cached
    except (OSError, ValueError, UserError):  # not (wholly) in the cache, or no possible id: the next attempt says
        pass
    if is_offline():
        raise refused("HF_HUB_OFFLINE is set")
    if silent := _silence():
        raise refused(silent)
    try:
        folder = snapshot(*(["*.safetensors"] if weights else []), local=False)
        if weights and not complete(folder):
            folder = snapshot("pytorch_model*", local=False)
    except Exception as error:  # the hub's client raises its own kinds, those of its HTTP library, and OSError
        raise refused(f"no network, no such model or no access: {type(error).__name__}") from None
    if not complete(folder):
        raise refused("the repository has no such files")
    return folder


def _silence() -> str:
    """Ask the hub once, for its client tries a silent one again and again, for minutes; return why it is silent."""
    import requests
    from huggingface_hub.constants import ENDPOINT

    try:
        requests.head(ENDPOINT, timeout=SECONDS)
    except requests.RequestException as error:
        return f"no network: {type(error).__name__} at {ENDPOINT}"
    return ""
