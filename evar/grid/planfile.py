"""A study's plan as a TOML or YAML file, for what a command line is too short for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evar.errors import UserError, did_you_mean
from evar.grid.plan import PROTOCOLS, Entry
from evar.grid.study import Wanted

KEYS = ("models", "tables", "tasks", "protocols", "seeds", "options", *PROTOCOLS)
SUFFIXES = (".toml", ".yaml", ".yml")


def read_plan(path: Path) -> Wanted:
    """Return what a plan file asks for; :class:`UserError`, one line, for a file that says something else."""
    found = _load(path)
    if not isinstance(found, Mapping):
        raise UserError(f"{path}: it must hold names and values at the top ({', '.join(KEYS)})")
    for key in found:
        if key not in KEYS:
            raise UserError(f"{path}: there is no key '{key}'.{did_you_mean(str(key), KEYS)}")
    options = {"": _options(path, "options", found.get("options", {}))}
    options |= {name: _options(path, name, found[name]) for name in PROTOCOLS if name in found}
    if "seeds" in found:
        options[""]["seeds"] = _text(path, "seeds", found["seeds"])
    tables = _list(path, "tables", found.get("tables", []), int)
    return Wanted(
        tuple(entry for one in _models(path, found.get("models", [])) for entry in _entries(path, one)),
        tuple(tables),
        tuple(_list(path, "tasks", found.get("tasks", []), str)),
        tuple(_list(path, "protocols", found.get("protocols", []), str)),
        options,
    )


def _load(path: Path) -> Any:
    if path.suffix not in SUFFIXES:
        raise UserError(f"--plan={path}: write a file that ends in {', '.join(SUFFIXES)}")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--plan={path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"--plan={path} is not a text file in UTF-8") from None
    return _toml(path, text) if path.suffix == ".toml" else _yaml(path, text)


def _toml(path: Path, text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ModuleNotFoundError:
            raise UserError("TOML needs Python 3.11 or `pip install tomli`; a plan may be YAML too") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {error}") from None


def _yaml(path: Path, text: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise UserError("a YAML plan needs `pip install pyyaml`; a plan may be TOML too") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where is not None else ""
        raise UserError(f"{path} is not YAML{line}: {getattr(error, 'problem', None) or error}") from None


def _list(path: Path, key: str, value: Any, kind: type) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    for one in values:
        if not isinstance(one, kind) or isinstance(one, bool):
            what = "whole numbers" if kind is int else "names"
            raise UserError(f"{path}: {key} must be a list of {what}, not {one!r}")
    return values


def _models(path: Path, value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    for one in values:
        if not isinstance(one, (str, Mapping)):
            raise UserError(f"{path}: models must be a list of names, or of tables with a name, not {one!r}")
    return values


def _entries(path: Path, one: str | Mapping[str, Any]) -> list[Entry]:
    """Return a model's entries: several weights are several."""
    if isinstance(one, str):
        return [Entry(one)]
    given = dict(one)
    name = given.pop("name", None)
    if not isinstance(name, str):
        raise UserError(f'{path}: a model needs a name: {{name = "m2d", weights = "random"}}')
    weights = given.pop("weights", None)
    several = weights if isinstance(weights, list) else [weights]
    if not all(w is None or isinstance(w, str) for w in several):
        raise UserError(f"{path}: the weights of {name} must be a text or a list of texts, not {weights!r}")
    options = _options(path, name, given)
    return [Entry(name, w, options) for w in several]


def _options(path: Path, key: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise UserError(f"{path}: {key} must hold names and values, not {value!r}")
    return {str(name): _text(path, f"{key}.{name}", one) for name, one in value.items()}


def _text(path: Path, key: str, value: Any) -> str:
    """Return a value as a command line would have it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    if isinstance(value, list) and all(isinstance(one, (str, int, float)) for one in value):
        return ",".join(map(str, value))
    raise UserError(f"{path}: {key} must be a text, a number or true or false, not {value!r}")
