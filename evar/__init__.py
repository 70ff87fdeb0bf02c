"""The harness: protocols, and the machinery that they share. See docs/architecture.md for the map."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path

__version__ = "0.1.0"


def _shadowed() -> str:
    """Return a sentence if Python would find somebody else's ``tasks`` or ``model_adapters`` before ours, else ""."""
    home = Path(__file__).resolve().parent.parent
    for name in ("tasks", "model_adapters"):
        module = sys.modules.get(name)
        spec = module.__spec__ if module is not None else PathFinder.find_spec(name)
        origin = spec.origin if spec is not None else None
        if origin is None or Path(origin).resolve().parent.parent != home:
            found = origin or "nothing"
            if Path(found).parent.resolve() == home and module is None:
                continue
            return (
                f"Python finds {found} under the name '{name}', which hides the harness's own package: "
                "rename that file or run from another folder"
            )
    return ""


_problem = _shadowed()
if _problem:
    if sys.argv[:1] == ["-m"]:  # `python -m evar.…`: a user at a shell, who wants one line and no traceback
        sys.stderr.write(f"evar: error: {_problem}\n")
        raise SystemExit(2)
    raise ImportError(_problem)
