"""Planning time of the grid: models × tasks × protocols, with a journal and results of all cells there or not.

python benchmarks/grid_plan.py [--models=20] [--tasks=12] [--repeats=3]

Three figures, each the least of the repeats, in processes of their own: the command ``--dry_run`` from the start of
Python on, in processor seconds (other work on the machine disturbs them little) and in seconds of the clock; and the
plan alone, without the start of Python and the imports. First with nothing run, then with every cell done.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import ROOT

PROTOCOLS = ("lineareval", "zeroshot", "finetune")


def wanted(models: int, tasks: int):
    """Return what is asked for."""
    from evar.grid.facts import model_names
    from evar.grid.plan import Entry
    from evar.grid.study import Wanted
    from tasks.base import all_tasks

    names = tuple(name for name, task in all_tasks().items() if task.kind == "classification")[:tasks]
    return Wanted(tuple(Entry(name, "random") for name in model_names()[:models]), tasks=names, protocols=PROTOCOLS)


def alone(models: int, tasks: int, results: Path) -> None:
    """Print the seconds of the plan alone, how many cells it has, and whether torch was loaded."""
    from evar.grid.cell import RunSettings
    from evar.grid.run import lines_of
    from evar.grid.study import plan_of

    asked = wanted(models, tasks)
    begin = time.perf_counter()
    plan, known = plan_of(asked)
    lines = lines_of(plan.cells, RunSettings(results), known)
    states = sorted({line.state for line in lines})
    found = [time.perf_counter() - begin, len(plan.cells), len(plan.left_out), "torch" in sys.modules, states]
    print(json.dumps(found))


def fill(models: int, tasks: int, results: Path) -> None:
    """Write a journal and results in which every cell is done."""
    from evar.grid import journal
    from evar.grid.study import plan_of

    plan, _ = plan_of(wanted(models, tasks))
    results.mkdir(parents=True)
    folds = [[0.5] * 10] * 3
    for cell in plan.cells:
        name = f"{cell.model}__{cell.task}__{cell.protocol}__{cell.key[:10]}.json"
        result = {"model": cell.model, "task": cell.task, "protocol": cell.protocol, "fold_scores": folds}
        (results / name).write_text(json.dumps(result | {"timings": {"total": 10.0}, "details": folds * 20}))
        entry = journal.Entry("done", cell.words, cell.model, cell.weights, cell.task, cell.protocol, cell.options)
        facts = {"seconds": 14.0, "work": 10.0, "result": name, "stamp": journal.stamp_of(cell, None)}
        journal.write_entry(results, cell, type(entry)(**{**vars(entry), **facts}))


def command(models: int, tasks: int, results: Path) -> tuple[float, float]:
    """Return processor and clock seconds of ``python -m evar.grid … --dry_run``."""
    asked = wanted(models, tasks)
    words = [",".join(entry.model for entry in asked.models), f"--tasks={','.join(asked.tasks)}"]
    words += [f"--protocols={','.join(PROTOCOLS)}", f"--results={results}", "--dry_run"]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "evar.grid", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", type=Path)
    asked = parser.parse_args()
    if asked.alone is not None:
        alone(asked.models, asked.tasks, asked.alone)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EVAR_DATA"] = str(Path(folder) / "data")
        for title, results in (("nothing run", Path(folder) / "none"), ("all done", Path(folder) / "full")):
            if title == "all done":
                fill(asked.models, asked.tasks, results)
            line = [
                sys.executable,
                __file__,
                f"--models={asked.models}",
                f"--tasks={asked.tasks}",
                f"--alone={results}",
            ]
            plans = [json.loads(subprocess.check_output(line, text=True)) for _ in range(asked.repeats)]
            whole = [command(asked.models, asked.tasks, results) for _ in range(asked.repeats)]
            _, cells, left_out, torch, states = plans[0]
            print(
                f"{title} ({', '.join(states)}): {cells} cells, {left_out} left out, torch loaded: {torch}; "
                f"plan alone {min(plan[0] for plan in plans):.2f} s; command {min(w[0] for w in whole):.2f} s of "
                f"processor, {min(w[1] for w in whole):.2f} s of clock"
            )


if __name__ == "__main__":
    main()
