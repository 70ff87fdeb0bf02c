"""What a plan must know of models and protocols, read from their sources: importing them would load torch.

A class's facts come from the syntax tree of its file and of the files of its bases, as far as they belong to this
package. Where that does not tell (a base or a record from elsewhere, a model of an installed package), the class is
imported after all. Nothing is run or guessed: the tests compare every model with its imported class.
"""

from __future__ import annotations

import ast
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path

import evar
import model_adapters
from evar.errors import UserError, did_you_mean

NOT_FOR_CELLS = frozenset({"model", "task", "weights", "root", "data", "results", "device", "workers", "force"})
"""Parameters of the protocols' commands that are not settings of a cell: the grid gives them itself."""
_TEXT_SIDE = {"embed_audio", "embed_text"}


@dataclass(frozen=True)
class ModelFacts:
    """What matters for a plan."""

    kind: str
    text: bool
    """Whether it has a joint space with text: zero-shot and retrieval."""
    fitted_on_task: bool
    options: tuple[str, ...]
    """Its options, beside ``--weights``: its own, and those that it hands on to its base."""
    takes_base: bool
    """Whether something may follow a colon (``tag_text:gpvad``)."""
    needs_base: bool
    """Whether something must."""
    hands_on_to: str = ""
    """What it hands options on to where nothing is named after the colon; empty for a model that hands none on."""


@cache
def model_names() -> list[str]:
    """Return the names of all models, as :func:`model_adapters.registry.model_names` does, without importing them."""
    folder = Path(next(iter(model_adapters.__path__)))
    own = [m.name for m in pkgutil.iter_modules([str(folder)]) if (folder / f"{m.name}.py").is_file()]
    return sorted({name for name in own if "ADAPTER" in _module(f"model_adapters.{name}").values} | _installed())


@cache
def model_facts(spec: str) -> ModelFacts:
    """Return the facts of the model that ``spec`` names; :class:`UserError` for one that is not there."""
    file_name, _, class_name = spec.rpartition(":")
    if file_name.endswith(".py"):
        found = _read_own_file(Path(file_name), class_name)
        return found if found is not None else _imported(spec)
    name, colon, base = spec.partition(":")
    if name in _installed():
        return _imported(spec)
    if name not in model_names():
        raise UserError(
            f"no model is called '{name}'.{did_you_mean(name, model_names())} (your own: path/to/file.py:ClassName)"
        )
    adapter = _module(f"model_adapters.{name}").values["ADAPTER"]
    chain = _chain(f"model_adapters.{name}", adapter.id) if isinstance(adapter, ast.Name) else None
    facts = _facts(chain) if chain is not None else None
    facts = facts if facts is not None else _imported(name)
    if colon and not facts.takes_base:
        raise UserError(f"'{spec}': {name} takes nothing after a colon; write {name}")
    if facts.hands_on_to:
        handed_on = model_facts(base or facts.hands_on_to).options
        facts = replace(facts, options=tuple(sorted({*facts.options, *handed_on})))
    return facts


@cache
def protocol_options(protocol: str) -> dict[str, str]:
    """Return the settings of a protocol's command and their defaults as they stand in its source."""
    tree = ast.parse((Path(evar.__file__).parent / f"{protocol}.py").read_text(encoding="utf-8"))
    command = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == protocol)
    pairs = zip(command.args.kwonlyargs, command.args.kw_defaults, strict=True)
    return {a.arg: ast.unparse(d) if d is not None else "" for a, d in pairs if a.arg not in NOT_FOR_CELLS}


@cache
def _installed() -> frozenset[str]:
    return frozenset(entry.name for entry in metadata.entry_points(group="evar.models"))


def _imported(spec: str) -> ModelFacts:
    """Return the facts of the class itself."""
    from model_adapters.registry import adapter_class, keyword_parameters, model_info, model_options

    cls = adapter_class(spec)[0]
    parameters = keyword_parameters(cls)
    return ModelFacts(
        kind=model_info(spec).kind,
        text=all(hasattr(cls, name) for name in _TEXT_SIDE),
        fitted_on_task=bool(getattr(cls, "fitted_on_task", False)),
        options=tuple(sorted(model_options(spec))),
        takes_base="base" in parameters,
        needs_base="base" in parameters and parameters["base"].default in (None, "", parameters["base"].empty),
        hands_on_to=str(parameters["base"].default) if "base_options" in parameters else "",
    )


@dataclass(frozen=True)
class _Module:
    """A file's classes, the names it imports with where they come from, and its assignments."""

    classes: dict[str, ast.ClassDef]
    imported: dict[str, tuple[str, str]]
    values: dict[str, ast.expr]


@cache
def _module(name: str) -> _Module:
    home = Path(next(iter(model_adapters.__path__))).parent
    place = home.joinpath(*name.split("."))
    return _parsed(place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py")


def _parsed(path: Path) -> _Module:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    imports = [node for node in body if isinstance(node, ast.ImportFrom) and node.module]
    return _Module(
        {node.name: node for node in body if isinstance(node, ast.ClassDef)},
        {a.asname or a.name: (str(node.module), a.name) for node in imports for a in node.names},
        dict(_assignments(body)),
    )


def _assignments(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for node in body:
        if isinstance(node, ast.Assign):
            yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value


def _chain(module_name: str, class_name: str, module: _Module | None = None) -> list[ast.ClassDef] | None:
    """Return the class and its bases up to Adapter, the nearest first; None where one is not found in this package."""
    module = module if module is not None else _module(module_name)
    if class_name not in module.classes:
        origin, name = module.imported.get(class_name, ("", ""))
        return _chain(origin, name) if origin.startswith("model_adapters.") else None
    if (module_name, class_name) == ("model_adapters.base", "Adapter"):
        return []
    own = module.classes[class_name]
    if len(own.bases) != 1 or not isinstance(own.bases[0], ast.Name):
        return None
    above = _chain(module_name, own.bases[0].id, module)
    return None if above is None else [own, *above]


def _facts(chain: list[ast.ClassDef]) -> ModelFacts | None:
    methods = {node.name: node for cls in reversed(chain) for node in cls.body if isinstance(node, ast.FunctionDef)}
    values = {name: value for cls in reversed(chain) for name, value in _assignments(cls.body)}
    kind = _kind(values.get("info"))
    if kind is None or "__init__" not in methods:
        return None
    given = methods["__init__"].args
    positional = given.args[1:]
    defaults = [None] * (len(positional) - len(given.defaults)) + list(given.defaults[-len(positional) or None :])
    parameters = dict(zip([a.arg for a in positional], defaults, strict=True))
    parameters |= dict(zip([a.arg for a in given.kwonlyargs], given.kw_defaults, strict=True))
    base = parameters.get("base")
    fitted = values.get("fitted_on_task")
    return ModelFacts(
        kind=kind,
        text=set(methods) >= _TEXT_SIDE,
        fitted_on_task=isinstance(fitted, ast.Constant) and bool(fitted.value),
        options=tuple(sorted(set(parameters) - {"weights", "base", "base_options"})),
        takes_base="base" in parameters,
        needs_base="base" in parameters and (base is None or (isinstance(base, ast.Constant) and not base.value)),
        hands_on_to=str(base.value) if "base_options" in parameters and isinstance(base, ast.Constant) else "",
    )


def _kind(info: ast.expr | None) -> str | None:
    """Return the kind that ``info = ModelInfo(…, kind="audio", …)`` names; None where it is written otherwise."""
    if isinstance(info, ast.Call) and isinstance(info.func, ast.Name) and info.func.id == "ModelInfo":
        for keyword in info.keywords:
            if keyword.arg == "kind" and isinstance(keyword.value, ast.Constant):
                return str(keyword.value.value)
    return None


def _read_own_file(path: Path, class_name: str) -> ModelFacts | None:
    """Return the facts of a user's class; None where the source alone does not tell them."""
    if not path.is_file():
        raise UserError(f"'{path}:{class_name}': there is no file {path}")
    try:
        chain = _chain("", class_name, _parsed(path))
    except SyntaxError as error:
        raise UserError(f"{path}:{error.lineno} cannot be read: {error.msg}") from None
    return _facts(chain) if chain else None
