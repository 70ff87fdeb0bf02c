"""Which rows of the papers' tables are a model's own; found without importing the model, which takes seconds."""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

import model_adapters
from evar.errors import UserError


@lru_cache(maxsize=256)
def paper_rows_of(model: str) -> tuple[str, ...]:
    """Return the papers' rows of a model as results name it (what follows a colon is its option).

    Of our own adapters the declaration in the file is read; an installed package's is imported. A model that is not
    known (any more) has none.
    """
    name = model.partition(":")[0]
    if name.isidentifier():
        for folder in model_adapters.__path__:
            path = Path(folder) / f"{name}.py"
            if path.is_file():
                return _declared(ast.parse(path.read_text(encoding="utf-8")))
    from model_adapters.registry import model_info

    try:
        return model_info(name).paper_rows
    except UserError:
        return ()


def _declared(tree: ast.Module) -> tuple[str, ...]:
    """Return the value of ``paper_rows=(...)`` in the file, which is written out there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "paper_rows":
            return tuple(str(row) for row in ast.literal_eval(node.value))
    return ()
