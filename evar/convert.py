"""From a command line's text to the type of a parameter's hint. No guessing: ``1e5`` stays text for ``str``."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from evar.errors import UserError, did_you_mean

_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}


def convert(text: str, hint: Any, name: str) -> Any:
    """Return ``text`` as a value of type ``hint``; raise :class:`UserError` that names the parameter ``name``.

    Known hints: str, int, float, bool, Path, ``tuple[str, ...]`` (comma-separated), Literal, and ``… | None``.
    """
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        choices = [a for a in get_args(hint) if a is not type(None)]
        if len(choices) < len(get_args(hint)) and text.lower() in ("none", ""):
            return None
        return convert(text, choices[0], name)
    if origin is Literal:
        for value in get_args(hint):
            if text == str(value):
                return value
        raise UserError(f"--{name}={text} is not one of its values.{did_you_mean(text, map(str, get_args(hint)))}")
    if origin is tuple:
        return tuple(convert(part.strip(), get_args(hint)[0], name) for part in text.split(",") if part.strip())
    if hint is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise UserError(f"--{name}={text}: expected true or false")
    if hint is int or hint is float:
        try:
            value = hint(text)
            if math.isfinite(value):
                return value
            raise ValueError
        except ValueError:
            kind = "a whole number" if hint is int else "a number"
            raise UserError(f"--{name}={text}: expected {kind}") from None
    if hint is Path:
        return Path(text).expanduser()
    return text


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the type hints of a function's or a class's parameters."""
    return get_type_hints(function.__init__ if inspect.isclass(function) else function)


def keyword_parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function (or of a class's constructor) that can be given by name."""
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {n: p for n, p in inspect.signature(function).parameters.items() if p.kind in by_name}
