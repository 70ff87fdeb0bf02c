"""What this harness and MTEB (the package mteb, Muennighoff et al., 2023) call the same: tasks, and a model's facts.

A task has MTEB's name only where data set, classes and question are the same. What is left out, though the name is
near: NSynth (MTEB asks for the source, acoustic or synthetic, not the instrument family), SpeechCommands (36 classes of
a sample), VoxCelebSA (sentiment, not the speaker), FSD50K and AudioSetMini (samples, and another metric).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from evar.errors import UserError

ORGANISATION = "evar-harness"
"""MTEB's names have an owner before the slash; this one keeps our figures apart from a model's own entry."""
OWN_PREFIX = "EVAR_"
CLASSIFICATION = {
    "cremad": "CREMA_D",
    "esc50": "ESC50",
    "fsdd": "FSDD",
    "gtzan": "GTZANGenre",
    "us8k": "UrbanSound8k",
    "vocalsound": "VocalSound",
}
ZERO_SHOT = {"esc50": "ESC50_Zeroshot", "us8k": "UrbanSound8kZeroshot"}
RETRIEVAL = {
    "audiocaps": {"t2a": "AudioCapsT2ARetrieval", "a2t": "AudioCapsA2TRetrieval"},
    "clotho": {"t2a": "ClothoT2ARetrieval.v2", "a2t": "ClothoA2TRetrieval.v2"},
}


def require_mteb() -> ModuleType:
    """Return the package mteb; raise :class:`UserError` with one line where it is not installed."""
    try:
        import mteb
    except ImportError:
        raise UserError("this needs mteb (Python 3.11 or later): pip install 'evar-harness[mteb]'") from None
    return mteb


def task_name(task: str, protocol: str, direction: str = "") -> str:
    """Return MTEB's name of a task under a protocol, or a name of our own where MTEB has not the same (``EVAR_…``).

    direction: ``t2a`` or ``a2t`` for retrieval, which MTEB counts as two tasks.
    """
    if protocol == "retrieval":
        return RETRIEVAL.get(task, {}).get(direction, f"{OWN_PREFIX}{task}_{direction.upper()}Retrieval")
    if protocol == "zeroshot":
        return ZERO_SHOT.get(task, f"{OWN_PREFIX}{task}_Zeroshot")
    return CLASSIFICATION.get(task, f"{OWN_PREFIX}{task}")


def own_tasks(names: Any) -> tuple[str, ...]:
    """Return our names of the data sets that MTEB's task ``names`` stand on (a model's ``training_datasets``)."""
    given = set(names or ())
    found = {ours for table in (CLASSIFICATION, ZERO_SHOT) for ours, theirs in table.items() if theirs in given}
    found |= {ours for ours, both in RETRIEVAL.items() if given & set(both.values())}
    return tuple(sorted(found))


def model_meta(name: str, weights: str, **facts: Any) -> Any:
    """Return mteb's record of a model of ours (``ModelMeta``); ``facts`` are further fields of it.

    name: as on the command line; characters that no folder can have become dashes.
    weights: checksum of the weights, of which the revision is made; may be empty.
    """
    require_mteb()
    from mteb.models import ModelMeta

    known = {
        "name": f"{ORGANISATION}/{plain(name)}",
        "revision": plain(weights)[:12] or "no_weights",
        "framework": ["PyTorch"],
        "modalities": ["audio"],
        "similarity_fn_name": "cosine",
        "use_instructions": False,
    }
    unknown = dict.fromkeys(name for name, field in ModelMeta.model_fields.items() if field.is_required())
    return ModelMeta(**{**unknown, **known, **facts})


def plain(text: str) -> str:
    """Return a text as part of a folder's name: all but letters, digits and ``._-`` becomes a dash."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)
