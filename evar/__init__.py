"""The harness: protocols, and the machinery that they share. See docs/architecture.md for the map."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

__version__ = "0.1.0"


def _shadowed() -> str:
    """Return a sentence if Python would find somebody else's ``tasks`` or ``model_adapters`` before ours, else ""."""
    home = Path(__file__).resolve().parent.parent
    for name in ("tasks", "model_adapters"):
        spec = importlib.util.find_spec(name)
        found = spec.origin if spec is not None else None
        if found is None or Path(found).resolve().parent.parent != home:
            return (
                f"Python finds {found or 'nothing'} under the name '{name}', which hides the harness's own package: "
                "rename that file or run from another folder"
            )
    return ""


_problem = _shadowed()
if _problem:
    if sys.argv[:1] == ["-m"]:  # `python -m evar.…`: a user at a shell, who wants one line and no traceback
        sys.stderr.write(f"evar: error: {_problem}\n")
        raise SystemExit(2)
    raise ImportError(_problem)
