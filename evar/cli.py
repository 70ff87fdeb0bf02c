"""The front door of every command: arguments are checked before any work, a mistake is one line, ``--help`` helps.

``fire`` maps the command line to the function, but on its own it calls the function before it refuses an unknown flag,
guesses types and prints what comes back. So everything is checked against the signature first; fire then gets only
arguments that fit, all of them text, and each is converted by its type hint.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import fire
from fire import decorators

from evar.convert import convert, hints_of
from evar.errors import UserError, did_you_mean

Parameters = Mapping[str, inspect.Parameter]
ExtraOptions = Callable[[Mapping[str, str]], dict[str, inspect.Parameter]]


def main(
    command: Callable[..., Any],
    *,
    extra: ExtraOptions | None = None,
    extra_help: Mapping[str, str] | None = None,
    argv: Sequence[str] | None = None,
) -> None:
    """Run ``command`` with the arguments of the command line and leave the process with its exit code.

    Args:
        command: a function whose positional parameters are the command's arguments and whose keyword-only parameters
            are its options; a ``**options`` parameter takes the options that ``extra`` allows.
        extra: given the positional arguments, returns further options (those of the chosen model).
        extra_help: a line on each of them.
        argv: arguments; default those of the process.

    Exit codes: 0 done, 2 the user's mistake (one line on stderr), 130 interrupted (the same command resumes).
    """
    sys.exit(run(command, list(sys.argv[1:] if argv is None else argv), extra, extra_help))


def run(
    command: Callable[..., Any],
    argv: list[str],
    extra: ExtraOptions | None = None,
    extra_help: Mapping[str, str] | None = None,
) -> int:
    """Do what :func:`main` says and return the exit code."""
    name = "evar." + command.__module__.rpartition(".")[2] if command.__module__ != "__main__" else _main_name()
    try:
        if any(token in ("--help", "-h") for token in argv):
            print(help_text(command, name, argv, extra, extra_help))
        else:
            positional, options = check(command, argv, extra)
            _fire(command, name, positional, options)
        sys.stdout.flush()
        return 0
    except UserError as error:
        sys.stderr.write(f"{name}: error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{name}: interrupted; what is done is kept, the same command goes on from here\n")
        return 130
    except BrokenPipeError:  # `… | head`: nobody reads on, and the flush at exit may not complain about it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _main_name() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec is not None else os.path.basename(sys.argv[0]) or "evar"


def check(
    command: Callable[..., Any], argv: Sequence[str], extra: ExtraOptions | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Split ``argv`` into positional arguments and options, and refuse whatever does not fit the signature."""
    required, own, open_ended = _shape(command)
    hints = hints_of(command)
    switches = {name for name in own if hints.get(name) is bool}
    words, flags = _split(argv, switches)
    positional = _positional(required, words, flags)
    flags = {name: value for name, value in flags.items() if name not in required}
    allowed = dict(own)
    if open_ended and extra is not None and any(name not in own for name in flags):
        _need(required, positional)
        allowed |= extra(positional)
    for name, value in flags.items():
        if name not in allowed:
            raise UserError(f"there is no option --{name}.{did_you_mean(name, allowed)}")
        if value is None:
            raise UserError(f"--{name} needs a value: --{name}=...")
    _need(required, positional)
    for name, parameter in own.items():
        if parameter.default is inspect.Parameter.empty and name not in flags:
            raise UserError(f"--{name}=... is needed; --help shows what is expected")
    options = {name: str(value) for name, value in flags.items()}
    for name, text in {**positional, **options}.items():
        if name in hints:
            convert(text, hints[name], name)
    return positional, options


def _positional(required: Parameters, words: Sequence[str], flags: Mapping[str, str | None]) -> dict[str, str]:
    """Return the arguments by name, in the signature's order; each may also be written as ``--name=value``."""
    named = {name: text for name, text in flags.items() if name in required}
    for name, text in named.items():
        if text is None:
            raise UserError(f"--{name} needs a value: --{name}=...")
    unnamed = [name for name in required if name not in named]
    if len(words) > len(unnamed):
        expected = " ".join(required).upper() or "no arguments"
        besides = f", given by name: {', '.join(named)}" if named else ""
        raise UserError(f"one argument too many: '{words[len(unnamed)]}' (expected {expected}{besides})")
    given = {**named, **dict(zip(unnamed, words, strict=False))}
    return {name: str(given[name]) for name in required if name in given}


def _need(required: Parameters, positional: Mapping[str, str]) -> None:
    for name, parameter in required.items():
        if name not in positional and parameter.default is inspect.Parameter.empty:
            raise UserError(f"{name.upper()} is missing; --help shows what is expected")


def _shape(command: Callable[..., Any]) -> tuple[Parameters, dict[str, inspect.Parameter], bool]:
    parameters = inspect.signature(command).parameters
    kinds = inspect.Parameter
    positional = {n: p for n, p in parameters.items() if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)}
    keyword = {n: p for n, p in parameters.items() if p.kind is kinds.KEYWORD_ONLY}
    return positional, keyword, any(p.kind is kinds.VAR_KEYWORD for p in parameters.values())


def _split(argv: Sequence[str], switches: set[str]) -> tuple[list[str], dict[str, str | None]]:
    """Tell words from flags. A switch (bool) takes no following word; another flag without ``=`` takes the next one."""
    words: list[str] = []
    flags: dict[str, str | None] = {}
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        if not token.startswith("-"):
            words.append(token)
            continue
        if not token.startswith("--"):
            raise UserError(f"there is no option {token}; options are written --name=value")
        name, equals, text = token[2:].partition("=")
        name, value = name.replace("-", "_"), text if equals else None
        if value is None and name in switches:
            value = "true"
        elif value is None and name.removeprefix("no").lstrip("_") in switches:
            name, value = name.removeprefix("no").lstrip("_"), "false"
        elif value is None and tokens and not tokens[0].startswith("--"):
            value = tokens.pop(0)
        if name in flags:
            raise UserError(f"--{name} is given twice")
        flags[name] = value
    return words, flags


def _fire(command: Callable[..., Any], name: str, positional: Mapping[str, str], options: Mapping[str, str]) -> None:
    required, hints = _shape(command)[0], hints_of(command)

    @functools.wraps(command)
    def typed(*args: str, **kwargs: str) -> None:
        given = dict(zip(required, args, strict=False))  # fire adds the defaults of what was not given
        values = [convert(text, hints.get(n, str), n) if n in positional else text for n, text in given.items()]
        command(*values, **{n: convert(text, hints[n], n) if n in hints else text for n, text in kwargs.items()})

    tokens = [f"--{n}={text}" for n, text in {**positional, **options}.items()]
    fire.Fire(decorators.SetParseFn(str)(typed), command=tokens, name=name, serialize=lambda _: None)


def help_text(
    command: Callable[..., Any],
    name: str,
    argv: Sequence[str],
    extra: ExtraOptions | None = None,
    extra_help: Mapping[str, str] | None = None,
) -> str:
    """Return the help page: usage, what the command does, every argument and option with its type and default."""
    required, own, open_ended = _shape(command)
    hints, documented = hints_of(command), _documented(command)
    usage = " ".join(n.upper() if p.default is p.empty else f"[{n.upper()}]" for n, p in required.items())
    summary = inspect.cleandoc(command.__doc__ or "").split("\nArgs:")[0].strip()
    way = "" if name.endswith(".py") else "-m "  # a script with the Python API, or a module
    lines = [f"usage: python {way}{name} {usage} [--option=value ...]", "", summary, ""]
    for title, group in (("arguments (in this order, or as --name=value)", required), ("options", own)):
        if group:
            lines.append(f"{title}:")
            lines += [
                _help_line(n, p, hints.get(n, str), documented.get(n, ""), n in required) for n, p in group.items()
            ]
            lines.append("")
    if open_ended and extra is not None and not required:
        lines += _extra_lines("settings", extra({}), extra_help or {})
    elif open_ended and extra is not None:
        lines += _extra_help(extra, required, [t for t in argv if t not in ("--help", "-h")], own, hints)
    return "\n".join(lines).rstrip()


def _extra_help(
    extra: ExtraOptions, required: Parameters, argv: Sequence[str], own: Parameters, hints: Mapping[str, Any]
) -> list[str]:
    """Return the help lines on options beside the ``own``; arguments that do not fit must not keep the help away."""
    switches = {name for name in own if hints.get(name) is bool}
    try:
        words, flags = _split(argv, switches)
        words = words[: len(required)]
        positional = _positional(required, words, flags)
        options = extra(positional) if positional else None
    except (UserError, KeyError):
        options = None
    if options is None:
        return ["further options belong to the model: add its name before --help to see them"]
    options = {name: p for name, p in options.items() if name not in own}
    if not options:
        return []
    return _extra_lines(f"options of {next(iter(positional.values()))}", options, {})


def _extra_lines(title: str, options: Parameters, texts: Mapping[str, str]) -> list[str]:
    lines = []
    for name, parameter in options.items():
        hint, text = parameter.annotation, texts.get(name, "")
        if get_origin(hint) is Annotated:
            hint, text = get_args(hint)
        lines += _wrapped(_help_line(name, parameter, hint, text, False))
    return [f"{title}:", *lines]


def _wrapped(line: str) -> list[str]:
    """Return a help line on several, the text under the text."""
    return textwrap.wrap(line, 120, subsequent_indent=" " * 31, break_long_words=False, break_on_hyphens=False)


def _help_line(name: str, parameter: inspect.Parameter, hint: Any, text: str, positional: bool) -> str:
    default = (
        "" if parameter.default in (inspect.Parameter.empty, None, "", ()) else f" (default {_show(parameter.default)})"
    )
    left = name.upper() if positional else f"--{name}={_type_name(hint)}"
    if hint is bool:
        left = f"--{name}"
        default = "" if not parameter.default else " (default on; --no" + name + ")"
    if hint is bool and parameter.default is None:
        left, default = f"--{name}=true|false", ""
    return f"  {left:<28} {text}{default}"


def _show(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _type_name(hint: Any) -> str:
    if isinstance(hint, str):
        return hint.replace("'", "").split(" | ")[0].upper()
    if get_origin(hint) is Literal:
        return "|".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        return "A,B,..."
    inner = [a for a in get_args(hint) if a is not type(None)]
    names = {int: "N", float: "X", str: "TEXT", bool: "true|false"}
    return _type_name(inner[0]) if inner else names.get(hint, "PATH")


def _documented(command: Callable[..., Any]) -> dict[str, str]:
    """Return the lines of the docstring's ``Args:`` section by parameter."""
    section = inspect.cleandoc(command.__doc__ or "").partition("\nArgs:\n")[2].split("\n\n")[0]
    found: dict[str, str] = {}
    current = ""
    for line in section.splitlines():
        match = re.match(r"^    (\w+): (.*)$", line)
        if match:
            current = match[1]
            found[current] = match[2]
        elif current and line.strip():
            found[current] += " " + line.strip()
    return found
