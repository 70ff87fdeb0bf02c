"""Where the golden vectors and real audio lie on a developer's machine; nothing of them is in the repository."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


def shared() -> Path | None:
    """Return the folder with ``golden`` and ``data``: $EVAR_SHARED, else ``shared`` beside the repository."""
    given = os.environ.get("EVAR_SHARED")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared"
    return folder if (folder / "golden").is_dir() else None


needs_shared = pytest.mark.skipif(shared() is None, reason="no golden vectors: set EVAR_SHARED to their folder")


def golden(*parts: str) -> Path:
    """Return a path below the folder of golden vectors; skip the test when there is none."""
    folder = shared()
    if folder is None:
        pytest.skip("no golden vectors: set EVAR_SHARED to their folder")
    return folder.joinpath("golden", *parts)


@cache
def arrays(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of one ``.npz`` file of golden vectors by name."""
    with np.load(golden(name)) as stored:
        return dict(stored)


@cache
def recipe() -> ModuleType:
    """Return the module that makes the golden waveforms and weights."""
    spec = importlib.util.spec_from_file_location("golden_recipe", golden("recipe.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
