"""Results that no run made: valid by the schema, with the files that lie beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evar.results import write_result, write_table

CLASSES = ("cat", "dog", "rain")


def made_up(model: str, task: str, mean: float = 0.5, *, protocol: str = "lineareval", **others: Any) -> dict[str, Any]:
    """Return a result of three seeds; ``others`` replace or add keys."""
    scores = [mean - 0.02, mean, mean + 0.02]
    result = {
        "schema": 1,
        "run_id": f"{abs(hash((model, task, protocol))) % 16**10:010x}",
        "model": model,
        "task": task,
        "protocol": protocol,
        "metric": "accuracy",
        "mean": mean,
        "ci95": 0.0497,
        "ci_low": mean - 0.0497,
        "ci_high": mean + 0.0497,
        "ci_method": "Student t over 3 seeds",
        "scores": scores,
        "fold_scores": [[score] for score in scores],
        "seeds": [42, 43, 44],
        "flags": [],
        "notes": {},
        "per_class": dict.fromkeys(CLASSES, mean),
        "also": {"recall_macro": mean},
        "settings": {"probe": "adam", "seeds": 3, "lr": 0.0003, "max_epochs": 200, "model_options": {}},
        "weights": {"given": None, "sha256": "", "licence": ""},
        "data": {"clips": 120, "fingerprint": "f" * 32, "incomplete": ""},
        "details": [[{"epochs": 150 + seed, "best_epoch": 130 + seed, "seed": seed}] for seed in range(3)],
        "files": {},
        "timings": {"total": 1.5},
        "versions": {"evar": "0.1.0", "python": "3.11", "torch": "2.5"},
        "created": "2026-01-02T03:04:05+00:00",
    }
    return result | others


def put(folder: Path, result: dict[str, Any], confusion: tuple[tuple[int, ...], ...] | None = None) -> dict[str, Any]:
    """Write a result, with a confusion matrix of its classes if one is given; return it as written."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{len(list(folder.glob('*.json'))):03d}"
    if confusion:
        names = list(result["per_class"])
        rows = ([name, *counts] for name, counts in zip(names, confusion, strict=True))
        result = result | {
            "files": {"confusion": write_table(folder / f"{stem}.confusion.csv", ["true \\ predicted", *names], rows)}
        }
    write_result(folder / f"{stem}.json", result)
    return result


def put_map(folder: Path, labels: tuple[str, ...] = CLASSES, task: str = "esc50", files: str = "clip {}.wav") -> Path:
    """Write a map of two clips per label."""
    points = [[float(n), float(n % 3)] for n in range(2 * len(labels))]
    names = [label for label in labels for _ in range(2)]
    found = {"method": "tsne", "model": "m", "task": task, "points": points, "labels": names}
    path = folder / f"{task}.map.json"
    path.write_text(json.dumps(found | {"files": [files.format(n) for n in range(len(points))]}))
    return path


EFFICIENCY = {
    "parameters": 1_600_000,
    "gflops_per_second": 0.3,
    "real_time_factor": 0.001,
    "audio_seconds_per_second": 950.0,
    "peak_memory_mib": 310.0,
    "device": "cpu",
    "batch_size": 64,
    "clip_seconds": 5.0,
}
ROBUSTNESS = {
    "clean": 0.8,
    "corruptions": {"noise:10dB": {"score": 0.6, "drop": 0.2}, "reverb": {"score": 0.7, "drop": 0.1}},
    "mean_drop": 0.15,
}
"""By the contract of result files."""
CONFUSION = ((30, 8, 2), (1, 39, 0), (0, 0, 40))


def folder_of_everything(folder: Path) -> None:
    """Write results with every kind of block: two models, three protocols, costs, corruptions, curves, a map."""
    for model, shift in (("alpha", 0.1), ("beta", 0.0)):
        cost = EFFICIENCY | {"parameters": 10**6 if model == "alpha" else 10**8}
        put(folder, made_up(model, "esc50", 0.7 + shift, efficiency=cost, robustness=ROBUSTNESS), CONFUSION)
        put(folder, made_up(model, "us8k", 0.6 - shift, efficiency=cost), CONFUSION)
    put(folder, made_up("alpha", "esc50", 0.4, protocol="zeroshot", flags=["not_zero_shot"], details=[]))
    curve = [[{"epochs": 4, "best_epoch": 2, "epoch_scores": [0.1, 0.3, 0.5, 0.4]}] for _ in range(2)]
    tuned = put(folder, made_up("beta", "esc50", 0.9, protocol="finetune", details=curve, settings={"lr": 0.1}))
    logs = folder / "finetuned" / f"beta__esc50__finetune__{tuned['run_id']}" / "seed43-fold1"
    logs.mkdir(parents=True)
    (logs / "epochs.csv").write_text("epoch,loss\n0,2.5\n1,1.5\n2,1.0\n3,0.75\n")
    put_map(folder)
