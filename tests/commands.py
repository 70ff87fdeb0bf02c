"""Running the real commands as a user does, each in its own cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def environment(cache: Path, data: Path | None = None) -> dict[str, str]:
    """Return the environment of a command with its own cache; tests share generated data through ``data``."""
    found = {**os.environ, "EVAR_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    found["EVAR_DATA"] = str(data if data is not None else cache / "data")
    found.setdefault("OMP_NUM_THREADS", "1")
    return found


def evar(command: str, *words: str, cache: Path, data: Path | None = None, cwd: Path | None = None):
    """Run ``python -m evar.<command> words`` to its end and return the finished process."""
    return subprocess.run(
        [sys.executable, "-m", f"evar.{command}", *map(str, words)],
        env=environment(cache, data),
        cwd=cwd or cache,
        capture_output=True,
        text=True,
        timeout=900,  # against a hang only: a laptop with other work on it is slow
        check=False,
    )


def start(command: str, *words: str, cache: Path, data: Path | None = None) -> subprocess.Popen[str]:
    """Start a command and return at once."""
    return subprocess.Popen(
        [sys.executable, "-m", f"evar.{command}", *map(str, words)],
        env=environment(cache, data),
        cwd=cache,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results_in(folder: Path) -> list[dict[str, Any]]:
    """Return the result files of a folder."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
