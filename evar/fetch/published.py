"""Published weights on this machine: one folder for all of them, what lies in it, and how the rest gets there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from evar.errors import UserError
from evar.fetch.download import BrokenOff, fetch, matches
from evar.fetch.first_bytes import not_the_file
from evar.fetch.hub import is_offline
from evar.paths import cache_dir
from model_adapters.base import Weights, WeightsFile

RETRIES = 3
_HUB_HOST = "huggingface.co"


def weights_dir() -> Path:
    """Return the folder of weights files: ``$EVAR_WEIGHTS``, else ``<cache>/weights``."""
    given = os.environ.get("EVAR_WEIGHTS")
    return Path(given).expanduser() if given else cache_dir() / "weights"


def lies_at(file: WeightsFile) -> Path | None:
    """Return where a published file (or its folder, if that is all that is named) lies, None if it does not."""
    path = weights_dir() / file.name
    return path if path.is_file() or (path.is_dir() and any(path.iterdir())) else None


def find(weights: Weights | None) -> Path | None:
    """Return the file (or the hub repository's folder) in the weights folder that ``--weights`` left out stands for.

    A file that has not the published checksum is not taken: None if it can be downloaded anew, else a
    :class:`UserError`.
    """
    if weights is None:
        return None
    own = weights.own_file()
    path = lies_at(own) if own is not None else None
    if path is not None and own is not None and own.checksum and not matches(path, own.checksum):
        if own.url:
            return None
        raise UserError(f"{path} is not the published file ({own.checksum}); to use it nonetheless: --weights")
    if path is None and weights.hub:
        folder = weights_dir() / weights.hub
        path = folder if (folder / "config.json").is_file() else None
    return path


def find_named(name: str) -> str:
    """Return ``name``, or where it lies in the weights folder if it is the name of something only there."""
    inside = weights_dir() / Path(name)
    return str(inside) if not Path(name).expanduser().exists() and inside.exists() else name


def obtain(spec: str, weights: Weights | None) -> Path:
    """Return the file that ``--weights`` left out stands for, downloaded on first use where anybody may.

    Raises :class:`UserError`, one line with where to get it, where that is not so.
    """
    if (there := find(weights)) is not None:
        return there
    own = weights.own_file() if weights is not None else None
    if own is not None and own.url:
        try:
            return download(own)
        except BrokenOff as error:
            otherwise = "or give --weights=PATH, or --weights=random for an untrained network"
            raise UserError(f"{error}; {otherwise}") from None
    if weights is None:  # whether such a model can be built untrained, nobody has said
        raise UserError(f"{spec} needs --weights=PATH: your own file or folder, for none is published")
    where = f" (published at {weights.source}; {weights.licence})"
    place = f", put {own.name} into {weights_dir()}" if own is not None else ""
    raise UserError(f"{spec} needs --weights=PATH{where}{place}, or --weights=random for an untrained network")


def download(file: WeightsFile) -> Path:
    """Bring a file into the weights folder and return its path; what has come is kept, and a later call goes on."""
    target = weights_dir() / file.name
    if target.is_file() and not_the_file(target):
        target.unlink()  # a web page that was taken for the file
    if not target.is_file() and is_offline() and str(urlsplit(file.url).hostname).endswith(_HUB_HOST):
        raise UserError(f"{file.url} is not fetched: HF_HUB_OFFLINE is set")
    if not file.checksum and target.is_file() and file.size and target.stat().st_size != file.size:
        target.unlink()  # a file of another length under this name would be taken for the right one
    path = fetch(file.url, target, checksum=file.checksum or None, retries=RETRIES, get=_get, refuse=not_the_file)
    if file.size and path.stat().st_size != file.size:
        have = path.stat().st_size
        path.unlink()
        raise UserError(f"{file.url} gave {have:,} bytes and not the {file.size:,} that were published; deleted it")
    return path


def _get(url: str, **options: Any) -> requests.Response:
    """Ask a server; raise :class:`UserError` if it answers with a web page (to log in, to confirm, to say no)."""
    response = requests.get(url, **options)
    if response.ok and response.headers.get("Content-Type", "").startswith("text/html"):
        response.close()
        raise UserError(f"{url} answers with a web page and not with the file: download it in a browser")
    return response


def state_of(file: WeightsFile) -> str:
    """Return ``there``, ``wrong size (n of m bytes)``, ``unfinished (n MB)`` or ``not there``; nothing is read."""
    path = lies_at(file)
    if path is not None:
        have = path.stat().st_size
        return "there" if file.size in (0, have) else f"wrong size ({have:,} of {file.size:,} bytes)"
    part = weights_dir() / f"{file.name}.part"
    return f"unfinished ({part.stat().st_size / 1e6:.1f} MB)" if part.is_file() else "not there"
