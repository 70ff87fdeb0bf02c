"""List models: ``python -m evar.models [PATTERN[,PATTERN]] [--format=table|markdown|csv]``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from evar.cli import main
from evar.convert import keyword_parameters
from evar.errors import UserError
from evar.model_list import Format, chosen_models, formatted
from evar.paths import cache_dir
from evar.store import write_atomically
from evar.weights import hub_state, state_in_words
from model_adapters.base import RANDOM, Adapter, AudioLanguage, EmbedsFrames
from model_adapters.registry import adapter_class, model_info, model_options

HEADS = ("model", "kind", "dims", "Hz", "licence of the weights", "trained on", "weights", "title")
_OF_BASE = "its base's"


class Shape(NamedTuple):
    """What goes in and what comes out; 0 and "" where it is decided by the weights or by another model."""

    sample_rate: int = 0
    dims: int = 0
    joint_dims: int = 0
    long_audio: str = ""


def models(patterns: tuple[str, ...] = (), *, format: Format = "table") -> None:
    """List all models, those whose names fit a pattern such as '*clap*', or describe the one that is named.

    Args:
        patterns: model names, comma-separated, with wildcards; all if left out
        format: table, markdown or csv
    """
    names = chosen_models(patterns)
    if patterns and names == list(patterns) and format == "table":
        print("\n\n".join(describe(name) for name in names))
        return
    rows = [row_of(name) for name in names]
    print(formatted(HEADS, rows, format, clip={4: 28, 5: 24, 7: 60}))


def row_of(name: str) -> tuple[str, ...]:
    """Return a model's facts as texts, in the order of ``HEADS``."""
    info, (rate, dims, joint, _) = model_info(name), shape_of(name)
    return (
        name,
        info.kind,
        _dims(dims, joint),
        str(rate) if rate else _OF_BASE,
        info.weights.licence if info.weights else "-",
        ", ".join(info.trained_on) or "-",
        state_in_words(name),
        info.title,
    )


def _dims(dims: int, joint: int) -> str:
    return (f"{dims}, joint {joint}" if joint else str(dims)) if dims else _OF_BASE


def describe(name: str) -> str:
    """Return a model's facts and options, one per line."""
    info, (cls, _, _), shape = model_info(name), adapter_class(name), shape_of(name)
    can = ["linear evaluation"] + [
        text
        for proto, text in ((AudioLanguage, "zero-shot"), (EmbedsFrames, "frames"))
        if all(hasattr(cls, method) for method in _methods(proto))
    ]
    can += ["fine-tuning"] if hasattr(cls, "encode") else []
    can += ["tags"] if hasattr(cls, "tag_probabilities") else []
    weights = info.weights
    facts = {
        "title": info.title,
        "kind": info.kind,
        "can": ", ".join(can),
        "paper": info.paper,
        "code": info.code_licence,
        "weights": f"{weights.source} ({weights.licence})" if weights else "none",
        "state": state_in_words(name),
        "trained on": ", ".join(info.trained_on),
        "dims": _dims(shape.dims, shape.joint_dims),
        "input": f"{shape.sample_rate} Hz" if shape.sample_rate else _OF_BASE,
        "long clips": shape.long_audio,
        "probe lr": f"{info.probe_lr:g}",
        "options": ", ".join(f"--{option}" for option in model_options(name)),
        "knows": _known_names(cls),
    }
    return "\n".join([name, *(f"  {key:<10} {text}" for key, text in facts.items() if text)])


def _known_names(cls: type[Adapter]) -> str:
    """Return the models that ``NAME:MODEL`` can be, of an adapter that has a list of them (``known_names``)."""
    try:
        return ", ".join(cls.known_names()) if hasattr(cls, "known_names") else ""
    except UserError as error:  # the package that lists them is not here
        return str(error)


def shape_of(name: str) -> Shape:
    """Return a model's rate and dimensions: from its class, else from an untrained network, built once and remembered.

    A model that needs another one, or weights, to know them gives zeros.
    """
    cls, argument, own_source = adapter_class(name)
    if "base" in keyword_parameters(cls):
        return _shape_with(cls, argument) if argument is not None else Shape()
    own = {fact for parent in cls.__mro__[: cls.__mro__.index(Adapter)] for fact in vars(parent)}
    if {"sample_rate", "embedding_dim", "long_audio"} <= own and not isinstance(cls.embedding_dim, property):
        return _taken(cls)
    memory = cache_dir() / "models.json"
    sources = own_source or _sources()
    known = _read(memory)
    if (found := known.get(f"{name} {sources}")) is None:
        found = list(_built(cls))
        current = {key: value for key, value in known.items() if key.endswith(sources)}
        write_atomically(memory, json.dumps(current | {f"{name} {sources}": found}))
    return Shape(*found)


def _shape_with(cls: type[Adapter], base: str) -> Shape:
    """Return the shape of ``NAME:BASE``: the base's, else an untrained one's, if its files are here.

    How wide the joint space is, the text side decides.
    """
    given = cls.weights_of(base)
    if isinstance(given, str):
        return shape_of(given)._replace(joint_dims=0)
    if given is None or hub_state(given) != "there":
        return Shape()
    try:
        return _taken(cls(base=base, weights=RANDOM))  # type: ignore[call-arg]
    except (UserError, TypeError):
        return Shape()


def _built(cls: type[Adapter]) -> Shape:
    given = {"weights": RANDOM} if "weights" in keyword_parameters(cls) else {}
    try:
        return _taken(cls(**given))
    except (UserError, TypeError):
        return Shape()


def _taken(model: type[Adapter] | Adapter) -> Shape:
    return Shape(int(model.sample_rate), int(model.embedding_dim), int(model.joint_dim), model.long_audio)


def _sources() -> str:
    """Return a checksum of all adapters' source files: an edited one may have other dimensions."""
    import model_adapters

    digest = hashlib.sha256()
    for path in sorted(Path(next(iter(model_adapters.__path__))).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _read(memory: Path) -> dict[str, list[Any]]:
    try:
        found = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _methods(protocol: type) -> list[str]:
    return [name for name in vars(protocol) if name.startswith("embed")]


if __name__ == "__main__":
    main(models)
