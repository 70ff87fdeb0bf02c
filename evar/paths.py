"""Where things lie: the cache, the data root, the results, the papers' tables."""

from __future__ import annotations

import os
from pathlib import Path

import evar
from evar.errors import UserError


def cache_dir() -> Path:
    """Return the cache folder: ``$EVAR_CACHE``, else ``~/.cache/evar`` (or below ``$XDG_CACHE_HOME``)."""
    if given := os.environ.get("EVAR_CACHE"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "evar"


def data_root(root: str | Path | None = None) -> Path:
    """Return the folder that holds one folder per task: ``root``, else ``$EVAR_DATA``, else ``<cache>/data``."""
    if root is not None:
        return Path(root).expanduser()
    if given := os.environ.get("EVAR_DATA"):
        return Path(given).expanduser()
    return cache_dir() / "data"


def runs_dir(results: str | Path | None = None) -> Path:
    """Return the folder of result files: ``results`` if given, else ``results/runs`` below the current folder."""
    return Path(results).expanduser() if results is not None else Path("results") / "runs"


def paper_dir() -> Path:
    """Return the folder of the published tables: ``results/paper`` of a checkout, package data once installed."""
    package = Path(evar.__file__).resolve().parent
    for candidate in (package.parent / "results" / "paper", package / "paper_tables"):
        if candidate.is_dir():
            return candidate
    raise UserError("the papers' tables are missing from this installation; install evar-harness again")
