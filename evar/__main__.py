"""``python -m evar`` lists the commands."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

COMMANDS = (
    "prepare",
    "lineareval",
    "finetune",
    "zeroshot",
    "retrieval",
    "tag",
    "report",
    "compare",
    "grid",
    "embed",
    "embedding_map",
    "pocket",
    "tasks",
    "models",
    "weights",
    "new_task",
    "mteb_export",
    "pretrain.corpus",
    "pretrain.captions",
    "pretrain.features",
    "pretrain",
    "pretrain.export",
)


def commands() -> str:
    """Return the list of commands, a line each."""
    lines = ["usage: python -m evar.COMMAND ...   (--help after any of them)", ""]
    for name in COMMANDS:
        source = _file(name).read_text(encoding="utf-8")  # not imported: that takes seconds
        summary = (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]
        lines.append(f"  evar.{name:<18} {summary}")
    return "\n".join(lines)


def _file(name: str) -> Path:
    place = Path(__file__).parent.joinpath(*name.split("."))
    return place / "__main__.py" if place.is_dir() else place.with_suffix(".py")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] not in ("--help", "-h"):
        near = sys.argv[1] if sys.argv[1] in COMMANDS else "COMMAND"
        sys.stderr.write(f"evar: error: write python -m evar.{near} ...; python -m evar lists the commands\n")
        sys.exit(2)
    print(commands())
