"""Cells that take a moment and no torch: for tests of launchers, whose workers are processes of their own.

``sitecustomize`` is imported by every Python that starts with this folder on ``PYTHONPATH``; it takes the place of a
cell's command: notes that it ran, sleeps for ``--lr`` seconds, writes a result file and the record; with ``--patience``
only when it runs for the first time. ``--probe=fails`` ends it with an error.
"""

import json
import os
from pathlib import Path

from evar.grid.plan import Cell

STAND_IN = """
import json, os, sys, time
words = sys.orig_argv
if "evar.grid.child" in words:
    record, command, model, task, *options = words[words.index("evar.grid.child") + 1 :]
    options = dict(word[2:].split("=", 1) for word in options if "=" in word)
    results = options["results"]
    name = f"{model} {task} {options.get('seeds', '')} "
    with open(os.path.join(results, "runs.txt"), "a+") as log:
        log.seek(0)
        again = any(line.startswith(name) for line in log)
        log.write(f"{name}{options['workers']} {os.getpid()}\\n")
    time.sleep(0 if again and options.get("patience") else float(options.get("lr", 0)))
    if options.get("probe") == "fails":
        sys.stderr.write("evar.lineareval: error: it was told to fail\\n")
        os._exit(2)
    path = os.path.join(results, f"{model}__{task}__{options.get('seeds', '')}.json")
    for name, facts in ((path, {"mean": 0.5}), (record, {"path": path, "mean": 0.5, "there": False})):
        with open(name + ".part", "w") as handle:
            json.dump(facts, handle)
        os.replace(name + ".part", name)
    with open(os.path.join(results, "ended.txt"), "a") as log:
        log.write(f"{model} {task} {options.get('seeds', '')}\\n")
    os._exit(0)
"""


def quick(tmp_path: Path, monkeypatch) -> Path:
    """Make every cell quick for this test and its workers; return an empty results folder."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(STAND_IN)
    home = Path(__file__).resolve().parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(home), str(home / "tests")]))
    results = tmp_path / "results"
    results.mkdir()
    return results


def cell(task: str, number: int = 1, seconds: float = 0.0, *, fails: bool = False, once: bool = False) -> Cell:
    """Return a quick cell; ``once``: it takes its seconds the first time only."""
    options = {"seeds": str(number), "lr": str(seconds)} | ({"probe": "fails"} if fails else {})
    options |= {"patience": "1"} if once else {}
    return Cell("m2d", None, task, "lineareval", tuple(sorted(options.items())))


def runs(results: Path, name: str = "runs.txt") -> list[str]:
    """Return which cells began (or ``ended.txt``: ended), in order, as ``task number``."""
    path = results / name
    return [" ".join(line.split()[1:3]) for line in path.read_text().splitlines()] if path.exists() else []


def states(results: Path) -> list[str]:
    """Return the states in the journal, sorted."""
    return sorted(json.loads(path.read_text())["state"] for path in (results / ".grid").glob("*.json"))
