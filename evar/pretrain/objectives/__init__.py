"""What is learnt: one objective a file, found by the file's name."""

from __future__ import annotations

import importlib
import pkgutil

from evar.errors import UserError, did_you_mean
from evar.pretrain.base import DataFacts, Objective
from evar.pretrain.settings import PretrainSettings


def names() -> list[str]:
    """Return the names of all objectives."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def objective_class(name: str) -> type[Objective]:
    """Return the class of an objective; raise :class:`UserError` for a name that is not known."""
    if name not in names():
        raise UserError(f"no objective is called '{name}'.{did_you_mean(name, names())}")
    found: type[Objective] = importlib.import_module(f"{__name__}.{name}").OBJECTIVE
    return found


def build(settings: PretrainSettings, facts: DataFacts) -> Objective:
    """Return the untrained network of ``settings.objective`` with its loss, initialised from torch's global generator.

    Raises:
        UserError: no such objective, or the corpus has not what it needs (labels, captions, features).
    """
    return objective_class(settings.objective)(settings, facts)  # type: ignore[call-arg]
