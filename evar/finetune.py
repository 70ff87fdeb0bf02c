"""Fine-tuning: an encoder and a linear head trained together (M2D-CLAP paper, Table 4; RUNNERS 2 of the specification).

    python -m evar.finetune MODEL[,MODEL] TASK[,TASK] [--weights=PATH] [--preset=paper|default]
    torchrun --nproc_per_node=8 -m evar.finetune MODEL TASK ...   # eight GPUs; more machines as torchrun does

1. A fresh encoder for every seed and fold; its mean embedding, batch norm without scale and shift, one linear layer.
2. Per step: Mixup, log-mel, SpecAugment, Random Resize Crop, structured patchout, the loss divided by the number of
   classes, cosine schedule with warm-up.
3. After every epoch: evaluation on the validation part, or on the test part where there is none; strictly better is
   kept. The score is the test score of the best epoch's weights, or without validation part that best score itself.
4. A seed's score is the plain mean over folds; the result is the mean over seeds 43, 44, 45 ± the 95 % interval.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch

from evar import ranks, statistics
from evar.cli import main
from evar.clips import Clips
from evar.command import Request, at_least_one, options_of_models, pick_device, request
from evar.efficiency import efficiency as measured_efficiency
from evar.errors import UserError
from evar.extract import Precision
from evar.finetune_fit import FoldFit, Job, fit_fold, tested_again
from evar.finetune_model import patch_embeddings, suited
from evar.finetune_settings import (
    FinetuneSettings,
    OptimiserName,
    PatchoutMode,
    Preset,
    Sampler,
    Schedule,
    Selection,
    ShortClips,
    check_clips,
    settings_for,
    usual_settings,
)
from evar.outputs import per_class, write_predictions
from evar.paths import runs_dir
from evar.plots import plot_curves
from evar.progress import say
from evar.report import print_results
from evar.results import Result, now, read_result, result_path, run_id, run_once, versions, write_result
from evar.subject import data_facts, flags_of, input_facts, subject_facts, weights_facts
from evar.training import Machine, set_recompute
from model_adapters.registry import Model, load_model, own_options

FIRST_SEED = 43
"""The published runs count up from 42 before each run (RUNNERS 2.7)."""


def finetune(
    model: tuple[str, ...],
    task: tuple[str, ...],
    *,
    weights: str | None = None,
    root: Path | None = None,
    data: Path | None = None,
    results: Path | None = None,
    preset: Preset | None = None,
    seeds: int = 3,
    lr: float | None = None,
    batch_size: int | None = None,
    optimizer: OptimiserName | None = None,
    weight_decay: float | None = None,
    layer_decay: float | None = None,
    mixup: float | None = None,
    rrc: bool | None = None,
    freq_mask: int | None = None,
    time_mask: int | None = None,
    epochs: int | None = None,
    warmup_epochs: int | None = None,
    patchout: float | None = None,
    patchout_mode: PatchoutMode | None = None,
    dur_frames: int | None = None,
    freeze_patch_embed: bool | None = None,
    freeze_encoder: bool | None = None,
    sampler: Sampler | None = None,
    draws: int | None = None,
    short_clips: ShortClips | None = None,
    schedule: Schedule | None = None,
    select: Selection | None = None,
    eval_only: bool = False,
    accumulate: int = 1,
    checkpoint_every: int = 0,
    recompute: bool = False,
    compile: bool = False,
    efficiency: bool = True,
    incomplete: bool = False,
    device: str = "auto",
    precision: Precision = "fp32",
    workers: int | None = None,
    force: bool = False,
    **options: str,
) -> None:
    """Fine-tune an encoder on a task, as in Table 4 of the M2D-CLAP paper; a table, and a JSON per run.

    An interrupted run goes on from its last checkpoint. The fine-tuned models are kept beside the results, and
    python -m evar.tag names what they hear in your files. Under torchrun all processes share the batch.

    Args:
        model: model names, comma-separated, or path/to/file.py:ClassName (python -m evar.models lists them)
        task: task names, comma-separated (python -m evar.tasks lists them)
        weights: checkpoint file, hub id where the model knows hubs, or random (an untrained network)
        root: folder with one folder per task, in the data sets' own layouts (default $EVAR_DATA, else the cache)
        data: folder of this one task, instead of ROOT/TASK
        results: folder for the result files (default results/runs)
        preset: paper, Table 1 (as2m, as20k, esc50, spcv2, vc1; their default), or default (any task)
        seeds: number of runs, with seeds 43, 44, ...
        lr: peak learning rate
        batch_size: clips per optimiser step, over all processes
        optimizer: sgd, lars, adamw or lamb
        weight_decay: of the optimiser
        layer_decay: factor on the learning rate from each block to the one below it
        mixup: alpha of Mixup; 0 for none
        rrc: Random Resize Crop, true or false
        freq_mask: SpecAugment: mel bands that the mask is narrower than
        time_mask: SpecAugment: frames that the mask is narrower than
        epochs: number of epochs
        warmup_epochs: epochs of linear warm-up
        patchout: share of patches that structured patchout takes away in training
        patchout_mode: intended, or reference: as the published code behaves (the default of --preset=paper)
        dur_frames: frames of the one pass that the encoder makes (M2D family); 0 for chunks of its own length
        freeze_patch_embed: do not train the patch embedding, true or false
        freeze_encoder: train the head alone, true or false
        sampler: shuffle; weighted by the task's weights (AS2M); balanced over classes
        draws: clips per epoch of the weighted or balanced sampler; 0 for as many as there are
        short_clips: what follows a short clip: silence, or reference: zeros in the raw log-mel (published, AS2M)
        schedule: the learning rate as the published code sets it (reference), or textbook: no step at 0, no drop
        select: best epoch (published), or last
        eval_only: test the kept models of this run again, without training
        accumulate: parts of a batch that pass one after the other, to save memory; batch norms see each by itself
        checkpoint_every: optimiser steps between checkpoints; 0: after every epoch only
        recompute: keep no activations inside the encoder's blocks but compute them again, to save memory
        compile: compile the network (GPU)
        efficiency: measure parameters, FLOPs, speed and memory of the encoder beside the score
        incomplete: go on with an incomplete copy of a data set; every result then says so
        device: auto, cpu, cuda or cuda:N
        precision: fp32, or bf16 (autocast)
        workers: reading threads (default one per core, at most 8)
        force: run again what is already there, from the beginning
    """
    given = {name: value for name, value in locals().items() if name in FinetuneSettings.__dataclass_fields__}
    at_least_one(seeds=seeds, accumulate=accumulate)
    if checkpoint_every < 0:
        raise UserError(f"--checkpoint_every={checkpoint_every}: must be 0 (after every epoch only) or more")
    asked = request(model, task, weights=weights, root=root, data=data, incomplete=incomplete, options=options)
    where = ranks.start(pick_device(device))
    machine = Machine(where, precision, workers, accumulate, checkpoint_every, compile, recompute)
    runs = plan(asked, preset, given, recompute=recompute)
    opened = {one.name: asked.opened(one) for one in asked.tasks}
    for run in runs:
        check_clips(opened[run.task], run.settings)
    jobs = [run.job(asked.weights, opened[run.task], machine, runs_dir(results)) for run in runs]
    found = [evaluate_finetune(job, seeds, eval_only=eval_only, force=force, cost=efficiency)[0] for job in jobs]
    if ranks.is_main():
        print_results(found)
    ranks.stop()


class Run(NamedTuple):
    """A model on a task, checked as far as can be without the data."""

    model: str
    task: str
    options: dict[str, str]
    settings: FinetuneSettings
    preset: Preset

    def job(self, weights: str | None, clips: Clips, machine: Machine, folder: Path) -> Job:
        """Return what is to be done with the task's clips."""
        return Job(self.model, weights, self.options, clips, self.settings, self.preset, machine, folder)


def plan(asked: Request, preset: Preset | None, given: Mapping[str, Any], *, recompute: bool = False) -> list[Run]:
    """Return every model on every task with its settings; says what a model cannot do, once.

    Raises :class:`UserError` for settings that cannot be and models that cannot be built, before any data is read.
    """
    chosen = {one.name: settings_for(one, preset, given) for one in asked.tasks}
    runs = []
    for name in asked.models:
        said: dict[str, None] = {}
        for task, (settings, used) in chosen.items():
            options = with_model_options(name, settings, asked.options_for(name))
            adapter = load_model(name, asked.weights, options).adapter
            if given.get("freeze_patch_embed") and not patch_embeddings(adapter):
                raise UserError(f"--freeze_patch_embed: {name} has no patch embedding")
            if recompute and not set_recompute(adapter, True):
                raise UserError(f"--recompute: {name} cannot compute its activations again")
            own, left_out = suited(settings, adapter, own_options(name))
            said |= dict.fromkeys(left_out)
            runs.append(Run(name, task, options, own, used))
        if said and ranks.is_main():
            say(f"{name}: {'; '.join(said)}")
    return runs


def with_model_options(model: str, settings: FinetuneSettings, options: dict[str, str]) -> dict[str, str]:
    """Return the model's options with those that the settings ask for, where the model knows them.

    Patchout leaves no whole time steps, so the embedding is then the mean of patches (``features=flat``).
    """
    if "patchout_keeps" in options:
        raise UserError(
            "--patchout_keeps: in fine-tuning it is --patchout_mode=reference (marked) or intended (unmarked)"
        )
    known = own_options(model)  # what is handed on to a model within cannot be: patchout does not reach that one
    if settings.patchout and "features" in known and options.get("features") == "stacked":
        raise UserError("--features=stacked: patchout leaves no whole time steps to stack; write --patchout=0 as well")
    asked = {"dur_frames": str(settings.dur_frames)} if settings.dur_frames else {}
    if settings.patchout and "features" in known and "flat" in get_args(known["features"].annotation):
        asked["features"] = "flat"
    return {name: text for name, text in asked.items() if name in known} | options


def evaluate_finetune(
    job: Job, seeds: int, *, eval_only: bool = False, force: bool = False, cost: bool = False
) -> tuple[Result, bool]:
    """Return ``(result of one model on one task, whether it was there already)``; writes the result file on rank 0.

    ``cost``: measure what the encoder costs as well.
    """
    model = load_model(job.model, job.weights, job.options)
    own, _ = suited(job.settings, model.adapter, own_options(job.model))
    usual, _ = suited(usual_settings(job.clips.task.name), model.adapter, own_options(job.model))
    job = replace(job, settings=own, sample_rate=model.adapter.sample_rate)
    check_clips(job.clips, job.settings)
    subject = run_id(subject_facts(model, job.clips, job.machine.precision, "clip"))
    how = {"preset": job.preset, "precision": job.machine.precision, "accumulate": job.machine.accumulate}
    settings = asdict(job.settings) | how | {"seeds": seeds}
    if settings["schedule"] == "reference":
        settings.pop("schedule")  # named only where it differs: ids of earlier runs stay what they are
    run = run_id({"protocol": "finetune", "subject": subject, "settings": settings})
    path = result_path(job.folder, model.name, job.clips.task.name, "finetune", run)
    numbers = [FIRST_SEED + n for n in range(seeds)]

    def compute() -> Result:
        if force and not eval_only:
            _forget(work_folder(path))
        fit = tested_again if eval_only else fit_fold
        fits = [[fit(job, seed, part, work_folder(path)) for part in job.clips.parts()] for seed in numbers]
        facts = {"run_id": run, "subject": subject, "seeds": numbers, "weights": weights_facts(model)}
        changed = {name: value for name, value in asdict(own).items() if value != getattr(usual, name)}
        result = _result(job, model, fits, path, settings | {"changed": changed}) | facts
        if cost and ranks.is_main():
            result["efficiency"] = _cost(job, model)
        return result

    once = run_once if ranks.world() == 1 else _together
    result, there = once(path, compute, force=force or eval_only)
    if ranks.is_main():
        done = "already there" if there else f"{result['timings']['total']:.1f} s"
        say(f"{result['model']} · {result['task']} · finetune: {100 * result['mean']:.2f} % ({done})")
        for note in (result["notes"].get("not_comparable"), result["data"].get("coverage")):
            if note:
                say(f"  {note}")
    return result, there


def _cost(job: Job, model: Model) -> dict[str, Any]:
    """Return the cost of embedding with the encoder as it was before fine-tuning, which changes weights alone."""
    return measured_efficiency(
        model,
        job.clips.task.unit_seconds,
        batch_size=max(1, job.settings.batch_size // ranks.world()),
        device=str(job.machine.device),
        precision=job.machine.precision,
        prepared=False,
    )


def _forget(work: Path) -> None:
    """Remove what a run has left so far, so that it begins anew."""
    if ranks.is_main():
        shutil.rmtree(work, ignore_errors=True)
    ranks.barrier()


def work_folder(path: Path) -> Path:
    """Return where a run's checkpoints, logs and models lie: beside its result, under the same name."""
    return path.parent / "finetuned" / path.stem


def _together(path: Path, compute: Callable[[], Result], *, force: bool = False) -> tuple[Result, bool]:
    """Do what :func:`evar.results.run_once` does, on all ranks: rank 0 says what is there, and writes."""
    there = bool(ranks.sum_over_ranks(torch.tensor(float(ranks.is_main() and path.is_file() and not force))))
    if there:
        return read_result(path), True
    result = compute()
    if ranks.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_result(path, result)
    ranks.barrier()
    return result, False


def _result(job: Job, model: Model, fits: list[list[FoldFit]], path: Path, settings: dict[str, Any]) -> Result:
    clips, task, parts = job.clips, job.clips.task, job.clips.parts()
    fold_scores = [[fit.score for fit in of_seed] for of_seed in fits]
    scores = [float(np.mean(row)) for row in fold_scores]
    low, high, half = statistics.bounded(statistics.student_t(scores))
    flags, notes = flags_of(model, clips)
    if "untrained" in notes:  # it was, to begin with
        notes["from_random"] = f"trained on this task alone, from random weights ({notes.pop('untrained')})"
        flags = sorted({*flags, "from_random"} - {"untrained"})
    if any(part.valid is None for part in parts) and job.settings.select == "best":
        flags = sorted([*flags, "best_test_epoch"])
        notes["best_test_epoch"] = "no validation part: the best epoch was chosen on the test part, as published"
    files: dict[str, str] = {}
    if ranks.is_main():
        files = write_predictions(path, clips, parts, [FIRST_SEED + n for n in range(len(fits))], fits)
        files |= plot_curves([fit.log for of_seed in fits for fit in of_seed], path.with_suffix(".curves.png"))
    return {
        "schema": 1,
        "model": model.name,
        "task": task.name,
        "protocol": "finetune",
        "metric": task.metric,
        "mean": float(np.mean(scores)),
        "ci95": half,
        "ci_low": low,
        "ci_high": high,
        "ci_method": None if half is None else f"Student t over {len(scores)} seeds",
        "scores": scores,
        "fold_scores": fold_scores,
        "flags": flags,
        "notes": notes,
        **per_class(clips, fits, [part.test for part in parts], [[fit.every for fit in of_seed] for of_seed in fits]),
        "settings": settings | {"unit_seconds": task.unit_seconds, "model_options": dict(job.options)},
        "model_state": model.adapter.state() if not model.adapter.needs_prepare else {},
        "input": input_facts(model, clips),
        "data": data_facts(clips),
        "details": [[fit.details for fit in of_seed] for of_seed in fits],
        "files": files,
        "timings": {"total": round(sum(fit.seconds for of_seed in fits for fit in of_seed), 3)},
        "versions": versions() | {"device": str(job.machine.device), "processes": ranks.world()},
        "created": now(),
    }


if __name__ == "__main__":
    main(finetune, extra=options_of_models)
