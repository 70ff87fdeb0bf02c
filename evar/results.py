"""The result of a run: one small JSON file, written atomically, its schema documented in ``result_schema.json``."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jsonschema
import jsonschema.validators
from filelock import FileLock, Timeout

import evar
from evar.errors import UserError
from evar.progress import say
from evar.store import fingerprint_of, look_again, write_atomically

Result = dict[str, Any]
PACKAGES = ("torch", "numpy", "scikit-learn", "scipy", "soundfile", "soxr", "transformers")


@lru_cache(maxsize=1)
def schema() -> dict[str, Any]:
    """Return the JSON schema of a result file."""
    return json.loads(resources.files("evar").joinpath("result_schema.json").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _validator() -> Any:
    """Return the schema's validator; checking the schema itself anew for every file would take most of the time."""
    kind = jsonschema.validators.validator_for(schema())
    kind.check_schema(schema())
    return kind(schema())


def _validate(result: Result) -> None:
    error = jsonschema.exceptions.best_match(_validator().iter_errors(result))
    if error is not None:
        raise error


def run_id(facts: Mapping[str, Any]) -> str:
    """Return a run's id: ten hex digits from everything that its scores depend on."""
    return fingerprint_of(facts)[:10]


def result_path(folder: Path, model: str, task: str, protocol: str, run: str) -> Path:
    """Return where a run's result lies: ``<model>__<task>__<protocol>__<id>.json``."""
    safe = re.sub(r"[^\w.+-]+", "-", model)
    return folder / f"{safe}__{task}__{protocol}__{run}.json"


def run_once(path: Path, compute: Callable[[], Result], *, force: bool = False) -> tuple[Result, bool]:
    """Return ``(result, whether it was there already)``; compute and write it only if it is not there.

    Two processes with the same run do not fight: the second waits and then finds the first one's result.
    """
    locks = path.parent / ".locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"results cannot be written to {path.parent}: {error.strerror}; choose another --results"
        ) from None
    lock = FileLock(locks / f"{path.stem}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process is at the same run ({path.stem}); waiting for its result")
        lock.acquire()
        look_again(path.parent)
        force = False
    try:
        if path.exists() and not force:
            return read_result(path), True
        result = compute()
        write_result(path, result)
        return result, False
    finally:
        lock.release()


def write_result(path: Path, result: Result) -> None:
    """Validate and write a result file, atomically."""
    _validate(result)
    write_atomically(path, json.dumps(result, indent=1, allow_nan=False) + "\n")


def read_result(path: Path) -> Result:
    """Return a result; raise :class:`UserError` with one line if the file is not a result."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        _validate(result)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON (line {error.lineno}: {error.msg})") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # bytes that are no UTF-8, NaN
        raise UserError(f"{path} is not JSON ({error})") from None
    except jsonschema.ValidationError as error:
        where = "/".join(map(str, error.absolute_path)) or "the top level"
        raise UserError(f"{path} is not a result file: at {where}, {error.message.splitlines()[0][:200]}") from None
    return result


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is not a number of JSON")


def read_results(folder: Path) -> tuple[list[Result], list[str]]:
    """Return ``(all results of a folder, sorted by file name; a line for each file that is not one)``.

    Maps of embeddings (``….map.json``), which lie beside the results, are neither.
    """
    results, problems = [], []
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith(".map.json"):
            continue
        try:
            results.append(read_result(path))
        except UserError as error:
            problems.append(str(error))
    return results, problems


def versions() -> dict[str, Any]:
    """Return what ran: the harness with its commit, Python, the machine's kind, the packages that matter."""
    found: dict[str, Any] = {
        "evar": evar.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found | _revision()


def _revision() -> dict[str, Any]:
    """Return the checkout's commit and whether files differ from it; nothing for an installed package."""
    home = Path(evar.__file__).resolve().parent.parent
    if not (home / ".git").exists():
        return {}

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(home), *words], capture_output=True, text=True, check=False, timeout=10)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "--short=12", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def now() -> str:
    """Return the time in ISO 8601, UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def write_table(path: Path, header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """Write a small CSV atomically and return its name (for the result's ``files``)."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(list(header))
    writer.writerows(list(row) for row in rows)
    write_atomically(path, text.getvalue())
    return os.path.basename(path)
