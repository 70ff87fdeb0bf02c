"""The process of one cell: ``python -m evar.grid.child RECORD COMMAND words…``; not for hand use.

It is the protocol's command itself, run as ``python -m COMMAND words…`` would, with two things added: the file RECORD
says afterwards which result file was this run's (a result that is there already leaves no other trace), and the process
ends when the one that started it is gone, so that a killed grid leaves nobody behind who works on.
"""

from __future__ import annotations

import functools
import json
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evar import results
from evar.store import write_atomically

SECONDS_BETWEEN_LOOKS = 1.0
Found = tuple[results.Result, bool]


def main() -> None:
    """Run the command in this process."""
    record, command, *words = sys.argv[1:]
    threading.Thread(target=_leave_with_parent, args=(os.getppid(),), daemon=True).start()
    results.run_once = recorded(results.run_once, Path(record))  # before the command's module takes it from there
    sys.argv = [command, *words]
    runpy.run_module(command, run_name="__main__", alter_sys=True)


def recorded(run_once: Callable[..., Found], record: Path) -> Callable[..., Found]:
    """Return ``run_once`` that also writes down the result file, its score and whether it was there."""

    @functools.wraps(run_once)
    def run(path: Path, *args: Any, **options: Any) -> Found:
        result, there = run_once(path, *args, **options)
        write_atomically(record, json.dumps({"path": str(path), "mean": result["mean"], "there": there}))
        return result, there

    return run


def _leave_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
