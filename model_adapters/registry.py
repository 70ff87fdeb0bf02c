"""From a name on the command line to an adapter: ``m2d``, ``tag_text:gpvad``, ``path/to/mine.py:Mine``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from evar.convert import convert, hints_of, keyword_parameters
from evar.errors import UserError, did_you_mean
from evar.fetch.published import find, find_named, obtain
from model_adapters.base import Adapter, ModelInfo, parse_random

_NOT_MODELS = {"base", "registry", "networks"}
_NOT_OPTIONS = ("weights", "base", "base_options")
"""Parameters of an adapter's constructor that the command line gives in another way."""


@dataclass(frozen=True)
class Model:
    """An adapter that stands ready, and how it was asked for."""

    name: str
    adapter: Adapter
    info: ModelInfo
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    """``--weights`` as given."""
    weights_sha256: str = ""
    source_sha256: str = ""
    """Checksum of a user's own adapter file: an edited file is another model."""

    def probe_lr(self, task: str) -> float:
        """Return the learning rate of the reference probe for this model on a task."""
        return self.adapter.probe_lrs.get(task, self.info.probe_lr)


def model_names() -> list[str]:
    """Return the names of all models: the files of this package, then entry points of the group ``evar.models``."""
    import model_adapters

    own = [m.name for m in pkgutil.iter_modules(model_adapters.__path__) if m.name not in _NOT_MODELS]
    installed = [e.name for e in metadata.entry_points(group="evar.models")]
    return sorted({*own, *installed})


def adapter_class(spec: str) -> tuple[type[Adapter], str | None, str]:
    """Return ``(class, argument after the colon or None, checksum of a user's own file or "")`` for a model's name.

    Raises :class:`UserError` for a name that is not known, a file that is not there or does not hold the class.
    """
    if ".py:" in spec or spec.endswith(".py"):
        cls, sha = _class_from_file(spec)
        return cls, None, sha
    name, colon, argument = spec.partition(":")
    for entry in metadata.entry_points(group="evar.models"):
        if entry.name == name:
            return entry.load(), argument or None, ""
    if name not in model_names():
        raise UserError(
            f"no model is called '{name}'.{did_you_mean(name, model_names())} (your own: path/to/file.py:ClassName)"
        )
    cls = importlib.import_module(f"model_adapters.{name}").ADAPTER
    if colon and "base" not in keyword_parameters(cls):
        raise UserError(f"'{spec}': {name} takes nothing after a colon; write {name}")
    return cls, argument or None, ""


def _class_from_file(spec: str) -> tuple[type[Adapter], str]:
    file_name, _, class_name = spec.rpartition(":")
    path = Path(file_name or spec)
    if not file_name or not class_name:
        raise UserError(f"'{spec}': write path/to/file.py:ClassName")
    if not path.is_file():
        raise UserError(f"'{spec}': there is no file {path}")
    source = path.read_bytes()
    sha = hashlib.sha256(source).hexdigest()
    module_name = f"evar_user_{path.stem}_{sha[:8]}"
    module = sys.modules.get(module_name)
    if module is None:
        module_spec = importlib.util.spec_from_file_location(module_name, path)
        assert module_spec is not None and module_spec.loader is not None
        module = importlib.util.module_from_spec(module_spec)
        sys.modules[module_name] = module
        try:
            module_spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            line = next((f":{t.tb_lineno}" for t in _frames(error) if t.tb_frame.f_code.co_filename == str(path)), "")
            raise UserError(f"{path}{line} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, class_name, None)
    if not (inspect.isclass(found) and issubclass(found, Adapter)):
        classes = {n: v for n, v in vars(module).items() if inspect.isclass(v) and v is not Adapter}
        names = [n for n, v in classes.items() if issubclass(v, Adapter)]
        raise UserError(f"{path} has no adapter class '{class_name}'.{did_you_mean(class_name, names)}")
    return found, sha


def _frames(error: BaseException) -> list[Any]:
    frames, trace = [], error.__traceback__
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    return frames[::-1]


def model_info(spec: str) -> ModelInfo:
    """Return the facts beside the adapter that ``spec`` names."""
    cls, _, _ = adapter_class(spec)
    info = getattr(cls, "info", None)
    if info is None:
        return ModelInfo(title=spec, kind="audio", paper="", code_licence="your own", needs_weights=False)
    return info


def own_options(spec: str) -> dict[str, inspect.Parameter]:
    """Return the options that the model's own class takes, beside ``--weights``; annotations are types."""
    cls, _, _ = adapter_class(spec)
    hints = hints_of(cls)
    return {
        name: parameter.replace(annotation=hints.get(name, str))
        for name, parameter in keyword_parameters(cls).items()
        if name not in _NOT_OPTIONS
    }


def model_options(spec: str) -> dict[str, inspect.Parameter]:
    """Return the options that the model takes on the command line: its own, and those it hands on to its base."""
    base = _base_of(spec)
    return (model_options(base) if base is not None else {}) | own_options(spec)


def _base_of(spec: str) -> str | None:
    """Return the model that ``spec`` hands options on to (``tag_text:ast``: ast); None for one that does not."""
    cls, argument, _ = adapter_class(spec)
    parameters = keyword_parameters(cls)
    if "base_options" not in parameters:
        return None
    default = parameters["base"].default
    return argument or (default if isinstance(default, str) else None)


def option_texts(spec: str) -> dict[str, str]:
    """Return what the docstrings of the model's class and of those it is made of say about its options.

    Read are the "Parameters" sections: ``name: text`` or ``name, other: text``, a further line deeper in. Options that
    are handed on have the text of the model that takes them.
    """
    cls, _, _ = adapter_class(spec)
    base = _base_of(spec)
    texts = option_texts(base) if base is not None else {}
    for one in reversed(cls.__mro__):
        section = inspect.cleandoc(one.__doc__ or "").partition("\nParameters\n----------\n")[2].split("\n\n")[0]
        for entry in re.split(r"\n(?!\s)", section):
            names, colon, text = entry.partition(": ")
            if colon:
                plain = " ".join(text.split()).replace("``", "").removesuffix(".")
                texts |= dict.fromkeys((name.strip() for name in names.split(",")), plain)
    return texts


def load_model(spec: str, weights: str | None = None, options: Mapping[str, str] | None = None) -> Model:
    """Build the adapter that ``spec`` names, in eval mode.

    Args:
        spec: name of a model, ``name:argument`` or ``path/to/file.py:ClassName``.
        weights: path of a checkpoint, name of a file in the weights folder, ``random``, a hub id where the model knows
            hubs, or None: the published file from the weights folder, or downloaded where anybody may.
        options: the model's own options and those it hands on to its base, as text.
    """
    cls, argument, source_sha = adapter_class(spec)
    parameters = keyword_parameters(cls)
    given = dict(options or {})
    converted = _converted(spec, given)
    arguments: dict[str, Any] = {name: value for name, value in converted.items() if name in parameters}
    if handed_on := {name: text for name, text in given.items() if name not in parameters}:
        arguments["base_options"] = handed_on
    if argument is not None:
        arguments["base"] = argument
    info = model_info(spec)
    chosen = _weights_for(spec, weights, parameters, info)
    if chosen is not None:
        arguments["weights"] = chosen
    if parse_random(str(arguments.get("weights", ""))) is None:
        _refuse(spec, [option for option in converted if option in cls.for_untrained])
    adapter = cls(**arguments).eval()
    sha = adapter.weights_sha256 or _checksum(chosen)
    return Model(_short_name(spec), adapter, info, converted, weights, sha, source_sha)


def _refuse(spec: str, options: Sequence[str]) -> None:
    """Raise :class:`UserError` if there are options of an untrained network for one whose weights are read."""
    if options:
        names = " and ".join(f"--{option}" for option in options)
        verb = "is" if len(options) == 1 else "are"
        raise UserError(f"{spec}: {names} {verb} for --weights=random; published weights have their own")


def _converted(spec: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Return the options by the types of what takes them; :class:`UserError` for one that nothing takes."""
    known = model_options(spec)
    for name in given:
        if name not in known:
            raise UserError(f"{spec} has no option --{name}.{did_you_mean(name, known)}")
    return {name: convert(text, known[name].annotation, name) for name, text in given.items()}


def _weights_for(
    spec: str, weights: str | None, parameters: Mapping[str, inspect.Parameter], info: ModelInfo
) -> str | None:
    """Return what the adapter gets as ``weights``; None leaves the choice to it.

    Given: that, or the file of this name in the weights folder. Left out: the published file if the weights folder has
    it, else a download where the licence lets anybody do that and the adapter has no way of its own.
    """
    if weights is not None:
        if "weights" not in parameters:
            raise UserError(f"{spec} has no weights; leave out --weights")
        return weights if parse_random(weights) is not None else find_named(weights)
    if "weights" not in parameters:
        return None
    if info.needs_weights and _demands(parameters["weights"]):
        return str(obtain(spec, info.weights))
    there = find(info.weights)
    return None if there is None else str(there)


def _demands(parameter: inspect.Parameter) -> bool:
    return parameter.default in (None, "", inspect.Parameter.empty)


def build_adapter(spec: str, weights: str | None = None, options: Mapping[str, str] | None = None) -> Adapter:
    """Return just the adapter of :func:`load_model`."""
    return load_model(spec, weights, options).adapter


def _short_name(spec: str) -> str:
    file_name, _, class_name = spec.rpartition(":")
    return f"{Path(file_name).stem}:{class_name}" if file_name.endswith(".py") else spec


def _checksum(weights: str | None) -> str:
    if weights is None or parse_random(weights) is not None or not Path(weights).is_file():
        return weights or ""
    digest = hashlib.sha256()
    with open(weights, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
