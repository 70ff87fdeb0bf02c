"""Zero-shot classification from captions (RUNNERS 3 of the specification; M2D-CLAP paper, Tables 2 and 5).

    python -m evar.zeroshot MODEL[,MODEL] TASK[,TASK] [--weights=PATH] [--template="This is a sound of {label}"]

1. Each label becomes a caption by the task's rule (or by --template; several make an ensemble, the mean of their
   normalised text vectors).
2. The test clips (of a task with folds: all clips) are embedded as their front window.
3. A clip's score for a class is the cosine of the two vectors; accuracy or mAP over all test clips pooled, with a
   bootstrap 95 % interval over clips.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from evar import metrics, statistics
from evar.cli import main
from evar.clips import Clips, Part, groups_of, task_interval
from evar.command import at_least_one, options_of_models, pick_device, request, run_cells
from evar.corrupt import corruption_names, embed_corrupted, print_robustness, robustness, task_score
from evar.efficiency import efficiency as measured_efficiency
from evar.errors import UserError
from evar.extract import Embeddings, Precision, embed_clips
from evar.outputs import write_predictions
from evar.paths import runs_dir
from evar.report import print_results
from evar.results import Result, now, result_path, run_id, run_once, versions
from evar.subject import data_facts, flags_of, input_facts, subject_facts, weights_facts
from model_adapters.base import AudioLanguage
from model_adapters.registry import Model
from tasks.base import Task


def zeroshot(
    model: tuple[str, ...],
    task: tuple[str, ...],
    *,
    weights: str | None = None,
    root: Path | None = None,
    data: Path | None = None,
    results: Path | None = None,
    template: str | None = None,
    draws: int = 10000,
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
    """Zero-shot classification from captions, as in Table 5 of the M2D-CLAP paper.

    Prints a table with the papers' numbers beside the new ones and leaves one JSON per run in results/runs.

    Args:
        model: model names, comma-separated, or path/to/file.py:ClassName (python -m evar.models lists them)
        task: task names, comma-separated (python -m evar.tasks lists them)
        weights: checkpoint file, hub id where the model knows hubs, or random (an untrained network)
        root: folder with one folder per task, in the data sets' own layouts (default $EVAR_DATA, else the cache)
        data: folder of this one task, instead of ROOT/TASK
        results: folder for the result files (default results/runs)
        template: caption with {label}, instead of the task's rule; several, separated by |, are averaged
        draws: draws of the bootstrap over clips
        corrupt: also score the test clips under noise:10dB, pink, reverb, clip, mp3:32k, lowpass:4k, gain, resample,
            telephone (comma-separated; the severity may be left out)
        efficiency: measure parameters, FLOPs, speed and memory beside the score
        incomplete: go on with an incomplete copy of a data set; every result then says so
        device: auto, cpu, cuda or cuda:N
        precision: fp32, or bf16 (autocast)
        batch_size: clips per forward pass; changes speed only
        workers: decoding threads (default one per core, at most 8)
        force: run again what is already there
    """
    at_least_one(draws=draws, batch_size=batch_size)
    templates = parse_templates(template)
    asked = request(model, task, weights=weights, root=root, data=data, incomplete=incomplete, options=options)
    names = corruption_names(corrupt)
    settings = Settings(templates, draws, pick_device(device), precision, batch_size, workers, names, efficiency)
    folder = runs_dir(results)

    def evaluate(one: Model, clips: Clips) -> tuple[Result, bool]:
        return evaluate_zeroshot(one, clips, settings, folder, force=force)

    found = run_cells(asked, evaluate, test_only=True)
    print_results(found)
    print_robustness(found)


@dataclass(frozen=True)
class Settings:
    """What was asked for, beside model and task."""

    templates: tuple[str, ...] = ()
    draws: int = 10000
    device: str = "cpu"
    precision: Precision = "fp32"
    batch_size: int = 64
    workers: int | None = None
    corrupt: tuple[str, ...] = ()
    """Full names of the corruptions under which the test clips are scored as well (:mod:`evar.corrupt`)."""
    efficiency: bool = False
    """Whether the model's cost is measured as well (:mod:`evar.efficiency`)."""


class Outputs(NamedTuple):
    """Cosine similarities ``[N, C]`` of the test clips and the classes."""

    scores: NDArray[np.float32]


def parse_templates(template: str | None) -> tuple[str, ...]:
    """Return the templates of ``--template``; each must have ``{label}`` in it."""
    found = tuple(t.strip() for t in template.split("|")) if template is not None else ()
    for text in found:
        if "{label}" not in text or "{" in text.replace("{label}", ""):
            raise UserError(f"--template='{text}': it needs {{label}} where the class name goes, and no other braces")
    return found


def captions_of(task: Task, templates: tuple[str, ...]) -> list[list[str]]:
    """Return the captions ``[prompt][class]``: the task's own rule, or each template filled with the class names."""
    if not templates:
        return [task.captions()]
    names = [label.replace("_", " ") for label in task.labels]
    return [[template.replace("{label}", name) for name in names] for template in templates]


def text_vectors(model: Model, captions: list[list[str]]) -> NDArray[np.float32]:
    """Return one unit vector per class ``[C, J]``: the mean over prompts of the normalised text embeddings."""
    adapter = model.adapter
    assert isinstance(adapter, AudioLanguage)
    with torch.inference_mode():
        prompts = [torch.nn.functional.normalize(adapter.embed_text(texts).float(), dim=-1) for texts in captions]
        mean = torch.nn.functional.normalize(torch.stack(prompts).mean(0), dim=-1).cpu()
    if len(torch.unique(mean, dim=0)) < len(mean):
        raise UserError(
            f"{model.name}: two classes have the same text vector; its text encoder does not read the captions"
        )
    return mean.numpy()


def evaluate_zeroshot(
    model: Model, clips: Clips, settings: Settings, folder: Path, *, force: bool = False
) -> tuple[Result, bool]:
    """Return ``(result of one model on one task, whether it was there already)``; writes the result file."""
    _refuse_retrieval(clips.task)
    if not isinstance(model.adapter, AudioLanguage):
        raise UserError(f"{model.name} has no text side, so it cannot classify zero-shot; see python -m evar.models")
    if getattr(model.adapter, "fitted_on_task", False) and clips.task.has_folds:
        raise UserError(
            f"{model.name} is fitted on the task's training captions, and every clip of {clips.task.name} is a test "
            "clip: it has folds. Choose a task with a training part"
        )
    captions = captions_of(clips.task, settings.templates)
    subject = run_id(subject_facts(model, clips, settings.precision, "joint"))
    used = {"captions": captions, "templates": list(settings.templates), "draws": settings.draws}
    if text := model.adapter.text_facts():  # what is not part of the checkpoint decides the score too
        used["text_encoder"] = text
    used |= {"precision": settings.precision, "model_options": dict(model.options)}
    used |= {"corrupt": list(settings.corrupt)} if settings.corrupt else {}
    used |= {"batch_size": settings.batch_size} if model.adapter.batch_matters else {}
    run = run_id({"protocol": "zeroshot", "subject": subject, "settings": used})
    path = result_path(folder, model.name, clips.task.name, "zeroshot", run)

    def compute() -> Result:
        return _compute(model, clips, settings, captions, path) | {"run_id": run, "subject": subject, "settings": used}

    return run_once(path, compute, force=force)


def _refuse_retrieval(task: Task) -> None:
    if task.kind == "retrieval":
        raise UserError(f"{task.name} has captions and no classes: python -m evar.retrieval evaluates on it")


def _compute(model: Model, clips: Clips, settings: Settings, captions: list[list[str]], path: Path) -> Result:
    begin = time.perf_counter()
    parts = clips.parts()
    # All folds' test parts pooled: with folds that is every clip once.
    test = Part("test", np.empty(0, dtype=np.int64), None, np.concatenate([part.test for part in parts]))
    embeddings = embed_clips(
        model,
        clips,
        front=test.test,
        training=np.empty(0, dtype=np.int64),
        space="joint",
        device=settings.device,
        precision=settings.precision,
        batch_size=settings.batch_size,
        workers=settings.workers,
    )
    model.adapter.to(settings.device)
    text = text_vectors(model, captions)
    outputs = Outputs(similarities(embeddings.vectors.take(embeddings.front[test.test]), text))
    result = _result(model, clips, settings, outputs, test.test) | {"model_state": embeddings.state}
    result["files"] = write_predictions(path, clips, [test], [], [[outputs]])
    result["timings"] = {
        "total": round(time.perf_counter() - begin, 3),
        "embedded_windows": float(embeddings.computed),
    }
    if settings.corrupt:
        result["robustness"] = _robustness(model, clips, settings, test.test, embeddings, text, result["mean"])
    if settings.efficiency:
        result["efficiency"] = measured_efficiency(
            model,
            clips.task.unit_seconds,
            batch_size=settings.batch_size,
            space="joint",
            device=settings.device,
            precision=settings.precision,
            prepared=embeddings.computed > 0,
        )
    return result


def similarities(audio: NDArray[np.float32], text: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosines ``[N, C]`` of clips ``[N, J]`` (scaled to length 1 in place) and unit vectors ``[C, J]``."""
    audio /= np.maximum(np.linalg.norm(audio, axis=1, keepdims=True), 1e-12)
    return audio @ text.T


def _robustness(
    model: Model,
    clips: Clips,
    settings: Settings,
    rows: NDArray[np.int64],
    embeddings: Embeddings,
    text: NDArray[np.float32],
    clean: float,
) -> dict[str, Any]:
    """Return the scores of the clips ``rows`` under each corruption, with the same captions."""
    corrupted = embed_corrupted(
        model,
        clips,
        rows,
        settings.corrupt,
        embeddings,
        space="joint",
        device=settings.device,
        precision=settings.precision,
        batch_size=settings.batch_size,
        workers=settings.workers,
    )
    scores = {one.name: task_score(clips, similarities(one.vectors, text), rows) for one in corrupted}
    return robustness(clean, scores)


def _result(
    model: Model, clips: Clips, settings: Settings, outputs: Outputs, rows: NDArray[np.int64]
) -> dict[str, Any]:
    task, targets = clips.task, clips.targets[rows]
    also: dict[str, float | None] = {}
    if task.score is not None:
        found = task.score(clips.table.iloc[rows], outputs.scores)
        score, interval = found.pop(task.metric), task_interval(clips, outputs.scores, rows)
        also |= found
    elif task.multi_label:
        score = metrics.mean_average_precision(outputs.scores, targets)
        interval = statistics.map_interval(outputs.scores, targets, groups=groups_of(clips, rows))
        also["auc"] = metrics.roc_auc(outputs.scores, targets)
    else:
        score = metrics.accuracy(outputs.scores, targets)
        hits, groups = outputs.scores.argmax(axis=1) == targets, groups_of(clips, rows)
        interval = statistics.bootstrap_accuracy(hits, groups=groups, draws=settings.draws)
    flags, notes = flags_of(model, clips, zero_shot=True)
    low, high, half = statistics.bounded(interval)
    per_class = metrics.per_class(outputs.scores, targets, task.labels)
    return {
        "schema": 1,
        "model": model.name,
        "task": task.name,
        "protocol": "zeroshot",
        "metric": task.metric,
        "mean": float(score),
        "ci95": half,
        "ci_low": low,
        "ci_high": high,
        "ci_method": interval.method,
        "scores": [float(score)],
        "fold_scores": [[float(score)]],
        "seeds": [],
        "flags": flags,
        "notes": notes,
        "per_class": per_class,
        "also": also,
        "weights": weights_facts(model),
        "input": input_facts(model, clips),
        "data": data_facts(clips),
        "versions": versions() | {"device": settings.device},
        "created": now(),
    }


if __name__ == "__main__":
    main(zeroshot, extra=options_of_models)
