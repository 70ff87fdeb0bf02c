"""Where batches run: in processes of this machine, on a Ray cluster, or as jobs of Slurm. The plan is the same.

A launcher is a function: batches and settings in, outcomes out as they come. It is imported only when it is asked for,
and its package with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from evar.errors import UserError, did_you_mean
from evar.grid.cell import Outcome, RunSettings
from evar.grid.plan import Batch

Launcher = Callable[[Sequence[Batch], RunSettings], Iterator[Outcome]]


@dataclass(frozen=True)
class _Home:
    """Where a launcher lies, and the package that it needs."""

    module: str
    function: str
    package: str | None = None


_HOMES = {
    "local": _Home("evar.grid.local", "local"),
    "ray": _Home("evar.grid.launch_ray", "run_on_ray", "ray"),
    "slurm": _Home("evar.grid.launch_slurm", "run_on_slurm", "submitit"),
}
LAUNCHERS = tuple(_HOMES)


def launcher_of(name: str) -> Launcher:
    """Return the launcher called ``name``; :class:`UserError` if there is none, or if its package is missing."""
    if name not in _HOMES:
        raise UserError(f"there is no launcher '{name}'.{did_you_mean(name, _HOMES)}")
    home = _HOMES[name]
    if home.package is not None and find_spec(home.package) is None:
        raise UserError(f"--launcher={name} needs {home.package}: pip install 'evar-harness[grid]'")
    return cast(Launcher, getattr(import_module(home.module), home.function))


def launcher_extra(name: str, *, ray_address: str | None = None, slurm: str | None = None) -> dict[str, str]:
    """Return ``RunSettings.extra`` of the command line's ``--ray_address`` and ``--slurm=name=value,…``.

    An option for another launcher than the chosen one is a mistake (:class:`UserError`).
    """
    if ray_address is not None and name != "ray":
        raise UserError(f"--ray_address belongs to --launcher=ray, not to --launcher={name}")
    if slurm is not None and name != "slurm":
        raise UserError(f"--slurm belongs to --launcher=slurm, not to --launcher={name}")
    if ray_address is not None:
        return {"address": ray_address}
    return {} if slurm is None else _pairs(slurm)


def _pairs(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = word.partition("=")
        if not equals or not value.strip():
            raise UserError(f"--slurm={text}: '{word}' is not name=value (as in --slurm=partition=gpu,time=120)")
        if name.strip() in found:
            raise UserError(f"--slurm={text}: {name.strip()} is given twice")
        found[name.strip()] = value.strip()
    return found
