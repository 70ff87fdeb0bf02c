"""CPU seconds, wall seconds and peak memory of a piece of work or of a whole command, children included."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Cost:
    """Seconds of processor and wall clock, and the peak resident memory of the largest process (MiB)."""

    cpu: float = 0.0
    wall: float = 0.0
    peak_mib: float = 0.0


def cpu_seconds() -> float:
    """Return user and system seconds of this process and of the children it has waited for."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in usages)


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure the body of a ``with`` block in this process."""
    cost = Cost()
    cpu, wall = cpu_seconds(), time.perf_counter()
    yield cost
    cost.cpu, cost.wall = cpu_seconds() - cpu, time.perf_counter() - wall
    cost.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[str, Cost]:
    """Run a command and return ``(what it printed on stdout, its cost)``; raises if it fails."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **(environment or {})}
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    cost = Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - begin, usage.ru_maxrss / 1024)
    return output, cost


def python(*words: str) -> list[str]:
    """Return a command that runs Python with these arguments."""
    return [sys.executable, *words]


def table(rows: Sequence[Sequence[object]], heads: Sequence[str]) -> str:
    """Return a small Markdown table."""
    lines = [
        heads,
        ["---"] * len(heads),
        *[[f"{x:.2f}" if isinstance(x, float) else str(x) for x in row] for row in rows],
    ]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
