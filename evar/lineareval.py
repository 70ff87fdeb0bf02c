"""Linear evaluation: a linear classifier on frozen embeddings (EVAR's protocol; RUNNERS 1 of the specification).

    python -m evar.lineareval MODEL[,MODEL] TASK[,TASK] [--weights=PATH] [--seeds=3] [--probe=adam|logistic|both]

1. Every (clip, window) is embedded once: the front window for test clips, for training and validation clips the whole
   clip or, if it is longer than the task's unit, one random window that folds and seeds share.
2. Per fold and seed a linear layer is trained on standardised embeddings and the best-validation weights are tested.
3. A seed's score is the plain mean over folds; the result is the mean over seeds ± the 95 % Student interval.
4. With --corrupt the same probes also score the test clips under each corruption (docs/robustness.md).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evar import statistics
from evar.cli import main
from evar.clips import Clips, Part, groups_of, task_interval
from evar.command import at_least_one, options_of_models, pick_device, request, run_cells
from evar.corrupt import corruption_names, embed_corrupted, print_robustness, robustness, scores_under, with_corrupted
from evar.efficiency import efficiency as measured_efficiency
from evar.errors import UserError
from evar.extract import Embeddings, Precision, Stored, TrainWindow, embed_clips
from evar.outputs import per_class, write_predictions
from evar.paths import runs_dir
from evar.probe_rows import Rows, rows_of
from evar.probes import Fit, adam_probe, logistic_probe
from evar.progress import bar
from evar.report import print_results
from evar.results import Result, now, read_result, read_results, result_path, run_id, run_once, versions, write_result
from evar.subject import data_facts, flags_of, input_facts, subject_facts, weights_facts
from model_adapters.registry import Model

FIRST_SEED = 42
Probe = Literal["adam", "logistic"]


CHOICES = ("ties", "train_window", "stored", "corrupt")
"""Settings that a result names only where they are not the default."""


@dataclass(frozen=True)
class ProbeSettings:
    """The probe's settings; the defaults are those of the published runs (general-learning's TorchMLPClassifier2)."""

    probe: Probe = "adam"
    seeds: int = 3
    lr: float = 3e-4
    max_epochs: int = 200
    patience: int = 20
    valid_rule: Literal["random", "grouped"] = "random"
    ties: Literal["latest", "first"] = "latest"
    """Which of several epochs with the best validation score is kept."""
    train_window: TrainWindow = "random"
    stored: Stored = "float"
    corrupt: tuple[str, ...] = ()
    """Full names of the corruptions under which the test clips are scored as well (:mod:`evar.corrupt`)."""


def lineareval(
    model: tuple[str, ...],
    task: tuple[str, ...],
    *,
    weights: str | None = None,
    root: Path | None = None,
    data: Path | None = None,
    results: Path | None = None,
    seeds: int = 3,
    probe: Literal["adam", "logistic", "both"] = "adam",
    lr: float | None = None,
    max_epochs: int = 200,
    patience: int = 20,
    valid_rule: Literal["random", "grouped"] = "random",
    ties: Literal["latest", "first"] = "latest",
    train_window: TrainWindow = "random",
    stored: Stored = "float",
    corrupt: tuple[str, ...] = (),
    efficiency: bool = True,
    incomplete: bool = False,
    device: str = "auto",
    precision: Precision = "fp32",
    batch_size: int = 64,
    workers: int | None = None,
    force: bool = False,
    **options: str,
) -> None:
    """Linear evaluation of frozen embeddings, as in the M2D, BYOL-A and M2D-CLAP papers: a table, and a JSON per run.

    Args:
        model: model names, comma-separated, or path/to/file.py:ClassName (python -m evar.models lists them)
        task: task names, comma-separated (python -m evar.tasks lists them)
        weights: checkpoint file, hub id where the model knows hubs, or random (an untrained network)
        root: folder with one folder per task, in the data sets' own layouts (default $EVAR_DATA, else the cache)
        data: folder of this one task, instead of ROOT/TASK
        results: folder for the result files (default results/runs)
        seeds: number of classifier seeds: 42, 43, ...
        probe: adam, the published probe; logistic, solved to a tolerance without learning rate or seed; or both
        lr: learning rate of the adam probe (default: the published one of the model, for a few models by task)
        max_epochs: upper bound of the adam probe's epochs
        patience: epochs without a new best validation score before the adam probe stops
        valid_rule: how a task without validation part gets one: random (published) or grouped by recording
        ties: of epochs with equal validation score the latest is kept (published), or the first
        train_window: of a training clip longer than the task's unit, a random place (published) or the front
        stored: float, or int16: audio rounded to 16 bits, as the platform's resampled copies are
        corrupt: also score the test clips under noise:10dB, pink, reverb, clip, mp3:32k, lowpass:4k, gain, resample,
            telephone (comma-separated; the severity may be left out)
        efficiency: measure parameters, FLOPs, speed and memory beside the score
        incomplete: go on with an incomplete copy of a data set; every result then says so
        device: auto, cpu, cuda or cuda:N
        precision: fp32, or bf16 (autocast: faster, embeddings change a little)
        batch_size: clips per forward pass; changes speed only
        workers: decoding threads (default one per core, at most 8)
        force: run again what is already there
    """
    at_least_one(seeds=seeds, max_epochs=max_epochs, patience=patience, batch_size=batch_size)
    _positive(lr)
    asked = request(model, task, weights=weights, root=root, data=data, incomplete=incomplete, options=options)
    names = corruption_names(corrupt)
    if names and stored != "float":
        raise UserError("--stored=int16 and --corrupt do not go together: run them one after the other")
    machine = Machine(pick_device(device), precision, batch_size, workers, efficiency)
    folder = runs_dir(results)
    found: list[Result] = []
    for kind in ("adam", "logistic") if probe == "both" else (probe,):

        def evaluate(one: Model, clips: Clips, kind: Any = kind) -> tuple[Result, bool]:
            rate = lr if lr is not None else one.probe_lr(clips.task.name)
            settings = ProbeSettings(
                kind, seeds, rate, max_epochs, patience, valid_rule, ties, train_window, stored, names
            )
            return evaluate_linear(one, clips, settings, machine, folder, force=force)

        found += run_cells(asked, evaluate)
    # Read again: a later probe may have flagged an earlier one's result.
    print_results([read_result(result_path(folder, r["model"], r["task"], "lineareval", r["run_id"])) for r in found])
    print_robustness(found)


def _positive(lr: float | None) -> None:
    if lr is not None and lr <= 0:
        raise UserError(f"--lr={lr}: must be above 0")


@dataclass(frozen=True)
class Machine:
    """What changes speed only."""

    device: str = "cpu"
    precision: Precision = "fp32"
    batch_size: int = 64
    workers: int | None = None
    efficiency: bool = False
    """Whether the model's cost is measured as well (:mod:`evar.efficiency`)."""


@dataclass(frozen=True)
class Run:
    """One model on one task with one probe: what goes into its result."""

    model: Model
    clips: Clips
    settings: ProbeSettings
    machine: Machine
    subject: str

    @property
    def settings_used(self) -> dict[str, Any]:
        """The settings that the scores depend on (the logistic probe has no learning rate, no seed and no epochs)."""
        used = asdict(self.settings) if self.settings.probe == "adam" else {"probe": "logistic"}
        for name in CHOICES:
            used.pop(name, None)
        # Only where they differ from the published way, so that the ids of published runs stay what they are.
        default = ProbeSettings()
        chosen = {name: getattr(self.settings, name) for name in CHOICES}
        used |= {n: list(v) if isinstance(v, tuple) else v for n, v in chosen.items() if v != getattr(default, n)}
        if self.settings.probe == "logistic":
            used.pop("ties", None)
        used |= {"batch_size": self.machine.batch_size} if self.model.adapter.batch_matters else {}
        return used | {"precision": self.machine.precision}

    @property
    def id(self) -> str:
        """Checksum of subject and settings."""
        return run_id({"protocol": "lineareval", "subject": self.subject, "settings": self.settings_used})


def evaluate_linear(
    model: Model, clips: Clips, settings: ProbeSettings, machine: Machine, folder: Path, *, force: bool = False
) -> tuple[Result, bool]:
    """Return ``(result of one model on one task, whether it was there already)``; writes the result file."""
    if clips.task.kind == "retrieval":
        raise UserError(f"{clips.task.name} has captions and no classes: python -m evar.retrieval evaluates on it")
    run = Run(model, clips, settings, machine, run_id(subject_facts(model, clips, machine.precision, "clip")))
    path = result_path(folder, model.name, clips.task.name, "lineareval", run.id)
    result, there = run_once(path, lambda: _compute(run, path), force=force)
    return mark_probe_limited(result, folder), there


def mark_probe_limited(result: Result, folder: Path) -> Result:
    """Flag a result, and its counterpart, where the two probes disagree beyond their intervals; return the result.

    The published probe stops after a fixed number of small steps and may be far from what the embedding allows; the
    solved one is not. Disjoint intervals say that the score measures the probe and not the embedding.
    """
    for other in read_results(folder)[0] if folder.is_dir() else []:
        pair = {r["settings"]["probe"]: r for r in (result, other) if r["protocol"] == "lineareval"}
        if other.get("subject") != result["subject"] or len(pair) < 2 or any(r["ci95"] is None for r in pair.values()):
            continue
        adam, logistic = (_as_interval(pair[name]) for name in ("adam", "logistic"))
        if not statistics.probe_limited(adam, logistic):
            continue
        note = f"adam {100 * adam.point:.1f} %, logistic {100 * logistic.point:.1f} %: beyond their intervals"
        for one in (result, other):
            if "probe_limited" not in one["flags"]:
                one["flags"] = sorted([*one["flags"], "probe_limited"])
                one["notes"]["probe_limited"] = note
                write_result(result_path(folder, one["model"], one["task"], "lineareval", one["run_id"]), one)
    return result


def _as_interval(result: Result) -> statistics.Interval:
    return statistics.Interval(result["mean"], result["ci_low"], result["ci_high"], result["ci_method"])


def _compute(run: Run, path: Path) -> Result:
    begin, begin_cpu = time.perf_counter(), time.process_time()
    clips, machine, parts = run.clips, run.machine, run.clips.parts()
    fitting = np.unique(np.concatenate([p.train for p in parts] + [p.valid for p in parts if p.valid is not None]))
    testing = np.unique(np.concatenate([p.test for p in parts]))
    embeddings = embed_clips(
        run.model,
        clips,
        front=testing,
        training=fitting,
        device=machine.device,
        precision=machine.precision,
        batch_size=machine.batch_size,
        workers=machine.workers,
        train_window=run.settings.train_window,
        stored=run.settings.stored,
    )
    embedded, embedded_cpu = time.perf_counter(), time.process_time()
    rows = rows_of(clips, embeddings, parts)
    fits = _fit(run, rows)
    result = _result(run, fits, parts, embeddings.state)
    result["files"] = write_predictions(path, clips, parts, result["seeds"], fits)
    fitted, fitted_cpu = time.perf_counter(), time.process_time()
    result["timings"] = {
        "embedding": round(embedded - begin, 3),
        "probe": round(fitted - embedded, 3),
        "prepare_cpu": round(embeddings.prepare_cpu, 3),
        "embedding_cpu": round(embedded_cpu - begin_cpu - embeddings.prepare_cpu, 3),
        "probe_cpu": round(fitted_cpu - embedded_cpu, 3),
        "embedded_windows": float(embeddings.computed),
    }
    if run.settings.corrupt:
        result["robustness"] = _robustness(run, rows, parts, testing, embeddings, fits, result["mean"])
        result["timings"]["corrupted"] = round(time.perf_counter() - fitted, 3)
    if machine.efficiency:
        result["efficiency"] = measured_efficiency(
            run.model,
            clips.task.unit_seconds,
            batch_size=machine.batch_size,
            device=machine.device,
            precision=machine.precision,
            prepared=embeddings.computed > 0,
        )
    return result


def _robustness(
    run: Run,
    rows: Rows,
    parts: Sequence[Part],
    tested: NDArray[np.int64],
    embeddings: Embeddings,
    fits: list[list[Fit]],
    clean: float,
) -> dict[str, Any]:
    """Return what the probes of ``fits``, ``clean`` their score, score on the test clips under each corruption."""
    names, machine = run.settings.corrupt, run.machine
    corrupted = embed_corrupted(
        run.model,
        run.clips,
        tested,
        names,
        embeddings,
        device=machine.device,
        precision=machine.precision,
        batch_size=machine.batch_size,
        workers=machine.workers,
    )
    # The probes are trained once more, on the same rows to the same weights, and not tested on clean and corrupted
    # clips at once: a score's last bits may depend on how many rows stand in one product, and clean ones may not move.
    again = _fit(run, with_corrupted(rows, run.clips, parts, tested, corrupted))
    return robustness(clean, scores_under(run.clips, parts, names, fits, again))


def _fit(run: Run, rows: Rows) -> list[list[Fit]]:
    """Return the fits ``[seed][fold]``; the logistic probe needs no seed and has one row."""
    task, settings = run.clips.task, run.settings
    features, labels, folds = rows.features, rows.labels, rows.folds
    shape: dict[str, Any] = {
        "n_classes": len(task.labels),
        "multi_label": task.multi_label,
        "device": run.machine.device,
        "groups": rows.groups,
        "class_names": task.labels,
    }
    count = len(folds) * (settings.seeds if settings.probe == "adam" else 1)
    with bar(f"{settings.probe} probe", count, unit="fit") as progress:
        if settings.probe == "logistic":
            return [logistic_probe(features, labels, folds, keys=rows.keys, progress=progress.update, **shape)]
        return adam_probe(
            features,
            labels,
            folds,
            _seeds(settings),
            lr=settings.lr,
            max_epochs=settings.max_epochs,
            patience=settings.patience,
            valid_rule=settings.valid_rule,
            ties=settings.ties,
            progress=progress.update,
            **shape,
        )


def _seeds(settings: ProbeSettings) -> list[int]:
    return [FIRST_SEED + n for n in range(settings.seeds)] if settings.probe == "adam" else []


def _result(run: Run, fits: list[list[Fit]], parts: Sequence[Part], state: dict[str, Any]) -> Result:
    task = run.clips.task
    tested = [part.test for part in parts]
    every = [
        [_test_scores(run.clips, fit, rows) for fit, rows in zip(of_seed, tested, strict=True)] for of_seed in fits
    ]
    fold_scores = [[found[task.metric] for found in of_seed] for of_seed in every]
    scores = [float(np.mean(row)) for row in fold_scores]
    (low, high, half), method = _interval(run, scores, fits, tested)
    flags, notes = flags_of(run.model, run.clips)
    return {
        "schema": 1,
        "run_id": run.id,
        "subject": run.subject,
        "model": run.model.name,
        "task": task.name,
        "protocol": "lineareval",
        "metric": task.metric,
        "mean": float(np.mean(scores)),
        "ci95": half,
        "ci_low": low,
        "ci_high": high,
        "ci_method": method,
        "scores": scores,
        "fold_scores": fold_scores,
        "seeds": _seeds(run.settings),
        "flags": flags,
        "notes": notes,
        **per_class(run.clips, fits, tested, every),
        "settings": run.settings_used | {"unit_seconds": task.unit_seconds, "model_options": dict(run.model.options)},
        "weights": weights_facts(run.model),
        "input": input_facts(run.model, run.clips),
        "model_state": state,
        "data": data_facts(run.clips),
        "details": [
            [{"epochs": f.epochs, "best_epoch": f.best_epoch, "best_valid": f.best_valid, **f.info} for f in row]
            for row in fits
        ],
        "versions": versions() | {"device": run.machine.device},
        "created": now(),
    }


def _interval(
    run: Run, scores: list[float], fits: list[list[Fit]], tested: list[NDArray[np.int64]]
) -> tuple[tuple[float | None, float | None, float | None], str | None]:
    if run.settings.probe == "adam":
        if len(scores) < 2:
            return (None, None, None), None
        interval = statistics.student_t(scores)
        return statistics.bounded(interval), f"Student t over {len(scores)} seeds"
    outputs = np.concatenate([fit.scores for fit in fits[0]])
    rows = np.concatenate(tested)
    targets = run.clips.targets[rows]
    if run.clips.task.score is not None:
        interval = task_interval(run.clips, outputs, rows)
    elif run.clips.task.multi_label:
        interval = statistics.map_interval(outputs, targets, groups=groups_of(run.clips, rows))
    else:
        interval = statistics.bootstrap_accuracy(outputs.argmax(axis=1) == targets, groups=groups_of(run.clips, rows))
    return statistics.bounded(interval), interval.method


def _test_scores(clips: Clips, fit: Fit, rows: NDArray[np.int64]) -> dict[str, float]:
    """Return every score of a fold's test part by name: the probe's own, or those the task defines."""
    if clips.task.score is None:
        return {clips.task.metric: fit.score}
    return clips.task.score(clips.table.iloc[rows], fit.scores)


if __name__ == "__main__":
    main(lineareval, extra=options_of_models)
