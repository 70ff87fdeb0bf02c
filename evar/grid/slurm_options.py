"""The options of ``--slurm=partition=gpu,time=120,…``, checked, and as submitit's parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from evar.errors import UserError, did_you_mean
from evar.grid.cell import RunSettings

PLAIN = (
    "partition",
    "account",
    "qos",
    "constraint",
    "exclude",
    "nodelist",
    "gres",
    "comment",
    "mail_type",
    "mail_user",
)
"""Handed to sbatch as they are."""
OWN = ("time", "cpus", "gpus", "memory", "parallel", "signal", "requeues", "poll", "cluster")
MINUTES = 240
"""Time limit of a job; a batch that needs longer is queued again and goes on."""


@dataclass(frozen=True)
class SlurmOptions:
    """How jobs are asked for."""

    plain: Mapping[str, str] = field(default_factory=dict)
    minutes: int = MINUTES
    """Time limit."""
    cpus: int = 1
    gpus: int = 0
    memory: str | None = None
    """As Slurm writes it: 16G, 4000M; None leaves it to the cluster."""
    parallel: int = 256
    """Jobs of the array that may run at once."""
    signal: int = 90
    """Seconds before the time limit at which a job is told to put itself into the queue again."""
    requeues: int = 10
    """How often it may do so."""
    poll: float = 10.0
    """Seconds between two looks at the queue and the journal."""
    cluster: Literal["slurm", "local"] = "slurm"
    """``local``: the same way without Slurm, all jobs at once on this machine (for trying)."""

    def parameters(self) -> dict[str, Any]:
        """Return submitit's parameters."""
        return {
            "name": "evar",
            "timeout_min": self.minutes,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus or None,
            "nodes": 1,
            "tasks_per_node": 1,
            **{f"slurm_{name}": text for name, text in self.plain.items()},
            "slurm_mem": self.memory,
            "slurm_array_parallelism": self.parallel,
            "slurm_signal_delay_s": self.signal,
            # Since Slurm 22.05 a step no longer takes the number of cores from its job.
            "slurm_srun_args": [f"--cpus-per-task={self.cpus}"],
            "slurm_additional_parameters": {"requeue": True},
        }


def read_options(given: Mapping[str, str], settings: RunSettings) -> SlurmOptions:
    """Return the options of ``--slurm``; :class:`UserError` for one that is unknown or not as it must be."""
    known = (*OWN, *PLAIN)
    for name in given:
        if name not in known:
            raise UserError(f"--slurm: there is no option '{name}'.{did_you_mean(name, known)}")
    if settings.gpus_per_cell % 1:
        raise UserError(f"Slurm gives whole GPUs to a job, not {settings.gpus_per_cell:g}; see --slurm=gpus=N and gres")
    cluster = given.get("cluster", "slurm")
    if cluster not in ("slurm", "local"):
        raise UserError(f"--slurm: cluster={cluster}: must be slurm or local")
    usual = SlurmOptions(cpus=settings.cpus_per_cell, gpus=int(settings.gpus_per_cell))
    return SlurmOptions(
        {name: text for name, text in given.items() if name in PLAIN},
        minutes_of(given["time"]) if "time" in given else usual.minutes,
        _number(given, "cpus", usual.cpus, 1),
        _number(given, "gpus", usual.gpus, 0),
        _memory(given.get("memory")),
        _number(given, "parallel", usual.parallel, 1),
        _number(given, "signal", usual.signal, 1),
        _number(given, "requeues", usual.requeues, 0),
        float(_number(given, "poll", int(usual.poll), 1)),
        "local" if cluster == "local" else "slurm",
    )


def _number(given: Mapping[str, str], name: str, usual: int, least: int) -> int:
    text = given.get(name)
    if text is None:
        return usual
    if not re.fullmatch(r"\d{1,9}", text) or int(text) < least:
        raise UserError(f"--slurm: {name}={text}: must be a whole number, at least {least}")
    return int(text)


def _memory(text: str | None) -> str | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if not found or int(found[1]) == 0:
        raise UserError(f"--slurm: memory={text}: write 16G or 4000M")
    return f"{found[1]}{found[2].upper() or 'M'}"


def minutes_of(text: str) -> int:
    """Return the minutes of a time limit in Slurm's forms: ``120``, ``2:00:00``, ``1-12``; rounded up."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if not found:
        raise UserError(
            f"--slurm: time={text}: write minutes (120), hours:minutes:seconds (2:00:00) or days-hours (1-12)"
        )
    days, first, second, third = (None if part is None else int(part) for part in found.groups())
    if days is not None:  # D-HH[:MM[:SS]]
        seconds = ((days * 24 + (first or 0)) * 60 + (second or 0)) * 60 + (third or 0)
    elif third is not None:  # HH:MM:SS
        seconds = ((first or 0) * 60 + (second or 0)) * 60 + third
    else:  # MM[:SS]
        seconds = (first or 0) * 60 + (second or 0)
    if seconds == 0:
        raise UserError(f"--slurm: time={text}: must be above 0")
    return -(-seconds // 60)
