"""A command as a process: started, watched, ended when it must be, and why it failed in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

GRACE = 10.0
"""Seconds that an interrupted command has to end by itself."""
BETWEEN_LOOKS = 0.2
LONGEST_REASON = 500


def command_line(record: Path, words: Sequence[str]) -> list[str]:
    """Return the command that runs ``words`` and writes ``record``."""
    return [sys.executable, "-m", "evar.grid.child", str(record), *words]


def run_command(
    command: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str], stop: threading.Event
) -> int | None:
    """Run a command in ``folder``, its stderr in ``log``, and return its exit code; None if it was stopped."""
    with open(log, "wb") as errors:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, **environment},
            cwd=folder,
        )
        try:
            while not stop.is_set():
                with suppress(subprocess.TimeoutExpired):
                    return child.wait(timeout=BETWEEN_LOOKS)
            return None
        finally:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a command that is still running: first asked to, then made to."""
    for ask, grace in ((_interrupt, GRACE), (subprocess.Popen.terminate, GRACE / 2), (subprocess.Popen.kill, None)):
        if child.poll() is not None:
            return
        ask(child)
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=grace)


def _interrupt(child: subprocess.Popen[bytes]) -> None:
    child.terminate() if sys.platform == "win32" else child.send_signal(signal.SIGINT)


def reason_of(code: int, log: Path) -> str:
    """Return why a command failed, in a line: what it said last, its exception, or the signal that ended it."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"ended by {name}" + (" (too little memory?)" if name == "SIGKILL" else "")
    lines = [line.rstrip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = lines[-1].strip() if lines else ""
    begin = max((n for n, line in enumerate(lines) if line.startswith("Traceback (")), default=None)
    if begin is not None:  # an exception's message may go on for many lines; the first one names it
        said = next((line for line in lines[begin + 1 :] if not line[0].isspace()), said)
    _, marker, message = said.partition(": error: ")
    return (message if marker and said.startswith("evar.") else said)[:LONGEST_REASON] or f"exit code {code}"
