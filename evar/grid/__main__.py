"""The papers' tables in one command: models × tasks × protocols planned, run, resumed, tabulated.

python -m evar.grid MODEL[,MODEL] [WEIGHTS] [--tables=3,4,5] [--tasks=A,B*] [--protocols=P,Q] [--dry_run]
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from evar.cli import main
from evar.errors import UserError
from evar.grid.cell import RunSettings
from evar.grid.facts import model_facts, model_names, protocol_options
from evar.grid.launchers import launcher_extra, launcher_of
from evar.grid.local import with_workers
from evar.grid.plan import PROTOCOLS, Entry
from evar.grid.planfile import read_plan
from evar.grid.run import lines_of, run, tell
from evar.grid.show import left_out_lines, plan_text, summary
from evar.grid.study import Wanted, merged, names_tasks, plan_of
from evar.paths import runs_dir
from evar.progress import say


def grid(
    model: tuple[str, ...] = (),
    weights_or_tasks: str | None = None,
    *,
    weights: str | None = None,
    tables: tuple[int, ...] = (),
    tasks: tuple[str, ...] = (),
    models: tuple[str, ...] = (),
    protocols: tuple[str, ...] = (),
    seeds: int | None = None,
    plan: Path | None = None,
    dry_run: bool = False,
    retry: bool = True,
    force: bool = False,
    launcher: Literal["local", "ray", "slurm"] = "local",
    jobs: int | None = None,
    cpus: int | None = None,
    gpus: float | None = None,
    ray_address: str | None = None,
    slurm: str | None = None,
    root: Path | None = None,
    results: Path | None = None,
    device: str = "auto",
    **options: str,
) -> None:
    """Run models on tasks under protocols: by default Tables 3, 4 and 5 of the M2D-CLAP paper (2024).

    What is finished is not run again, a failure is noted and the rest goes on, a killed run goes on where it was.
    Further options go to the protocols and models that know them. Exit code 1 if a cell failed.

    Args:
        model: model names, comma-separated, or patterns such as '*clap*'
        weights_or_tasks: one model's weights; or task names, comma-separated, as --tasks
        weights: checkpoint file, hub id where the model knows hubs, or random; for one model
        tables: tables of the paper: 3 linear evaluation, 4 fine-tuning, 5 zero-shot
        tasks: only these tasks or patterns; without --tables any task, under every protocol but fine-tuning
        models: further models or patterns
        protocols: only these: lineareval, zeroshot, retrieval, finetune
        seeds: number of seeds of linear evaluation and fine-tuning (default 3)
        plan: TOML or YAML file that says all this (docs/grid.md); the command line goes first
        dry_run: print the plan, what is done and how long the rest is expected to take, and stop
        retry: run again what failed before (--noretry leaves it)
        force: run again what is there
        launcher: local, ray or slurm
        jobs: cells at once (default one per GPU, or per four cores)
        cpus: cores for each cell (default: all, shared evenly)
        gpus: GPUs for each cell, for ray and slurm
        ray_address: of a running Ray cluster (default: one on this machine is started)
        slurm: what Slurm is asked for: partition=gpu,time=120 (docs/clusters.md)
        root: folder with one folder per task, in the data sets' own layouts (default $EVAR_DATA, else the cache)
        results: folder for the result files and the journal (default results/runs)
        device: auto, cpu, cuda or cuda:N
    """
    if weights_or_tasks is not None and weights is None and (tasks or not names_tasks(weights_or_tasks)):
        weights = weights_or_tasks
    elif weights_or_tasks is not None:
        tasks = (*tasks, *(name.strip() for name in weights_or_tasks.split(",")))
    wanted = _wanted(model, weights, models, tables, tasks, protocols, seeds, options)
    wanted = merged(read_plan(plan), wanted) if plan is not None else wanted
    extra = launcher_extra(launcher, ray_address=ray_address, slurm=slurm)
    settings = _settings(results, root, device, jobs, cpus, gpus, extra, force)
    planned, known = plan_of(wanted)
    lines = lines_of(planned.cells, settings, known)
    if dry_run:
        print(plan_text(lines, planned.left_out, settings.workers))
        return
    if not planned.cells:
        raise UserError("no cell of this plan can be run; --dry_run says why")
    for text in left_out_lines(planned.left_out):
        say(f"left out:{text[1:]}")
    say(summary(lines, settings.workers))
    outcomes = run(lines, settings, launcher_of(launcher), retry=retry)
    if tell(lines, outcomes, settings.results):
        raise SystemExit(1)


def _wanted(
    model: Sequence[str],
    weights: str | None,
    models: Sequence[str],
    tables: tuple[int, ...],
    tasks: tuple[str, ...],
    protocols: tuple[str, ...],
    seeds: int | None,
    options: Mapping[str, str],
) -> Wanted:
    names = (*model, *models)
    if weights is not None and len(names) != 1:
        raise UserError("--weights belongs to one model; a plan file gives each model its own")
    if seeds is not None and seeds < 1:
        raise UserError(f"--seeds={seeds}: must be at least 1")
    given = dict(options) | ({"seeds": str(seeds)} if seeds is not None else {})
    return Wanted(tuple(Entry(name, weights) for name in names), tables, tasks, protocols, {"": given} if given else {})


def _settings(
    results: Path | None,
    root: Path | None,
    device: str,
    jobs: int | None,
    cpus: int | None,
    gpus: float | None,
    extra: Mapping[str, str],
    force: bool,
) -> RunSettings:
    for name, value in (("jobs", jobs), ("cpus", cpus)):
        if value is not None and value < 1:
            raise UserError(f"--{name}={value}: must be at least 1")
    if gpus is not None and gpus < 0:
        raise UserError(f"--gpus={gpus}: must not be below 0")
    settings = RunSettings(
        runs_dir(results).absolute(),
        None if root is None else root.absolute(),
        device,
        gpus_per_cell=gpus or 0.0,
        extra=extra,
        force=force,
    )
    settings = with_workers(settings, jobs)
    return replace(settings, cpus_per_cell=cpus) if cpus is not None else settings


def further_options(positional: Mapping[str, str]) -> dict[str, inspect.Parameter]:
    """Return the options of the protocols, and of the models named in the MODEL argument (of all, where none is)."""
    given = [name.strip() for name in positional.get("model", "").split(",") if name.strip()]
    plain = [name for name in given if not any(sign in name for sign in "*?[")]
    names = plain if plain and len(plain) == len(given) else model_names()
    options = {option for protocol in PROTOCOLS for option in protocol_options(protocol)}
    options |= {option for name in names for option in model_facts(name).options}
    keyword = inspect.Parameter.KEYWORD_ONLY
    return {name: inspect.Parameter(name, keyword, default=None, annotation=str) for name in sorted(options)}


if __name__ == "__main__":
    main(grid, extra=further_options)
