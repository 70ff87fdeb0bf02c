"""How long the report of 720 results takes: 20 models x 12 tasks x 3 protocols, made up, with their files beside them.

    python benchmarks/report_page.py [--out=DIR]

Prints the seconds of the whole command, of its parts, and the size of the page. Not a timed test: machines differ.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import ROOT, measured, run

sys.path.insert(0, str(ROOT))

from evar.html.page import page
from evar.report import tables_of
from evar.results import read_results
from model_adapters.registry import model_names
from tasks.base import Task, all_tasks

TASKS = ("esc50", "us8k", "spcv2", "vc1", "voxforge", "cremad", "gtzan", "nsynth", "surge", "fsd50k", "as20k", "fsdd")
PROTOCOLS = ("lineareval", "finetune", "zeroshot")
MODELS = 20


def scores_of(stream: np.random.Generator, protocol: str) -> dict[str, object]:
    """Return the numbers of a result: one score for zero-shot, three for what is trained."""
    scores = np.clip(stream.normal(0.7, 0.15) + stream.normal(0, 0.01, 1 if protocol == "zeroshot" else 3), 0.02, 0.98)
    mean, half = float(scores.mean()), 0.02
    method = "bootstrap over 1000 clips" if protocol == "zeroshot" else "Student t over 3 seeds"
    numbers = {"mean": mean, "ci95": half, "ci_low": mean - half, "ci_high": min(mean + half, 1.0), "ci_method": method}
    return numbers | {"scores": scores.tolist(), "fold_scores": [[score] for score in scores.tolist()]}


def details_of(stream: np.random.Generator, protocol: str) -> list[object]:
    """Return what a result says of its seeds: epochs of the probe, or the scores of fine-tuning's epochs."""
    if protocol == "zeroshot":
        return []
    if protocol == "lineareval":
        return [[{"epochs": 150, "best_epoch": 130, "best_valid": 0.7, "seed": 42 + seed}] for seed in range(3)]
    curve = lambda: np.sort(stream.uniform(0.1, 0.9, 100)).round(6).tolist()  # noqa: E731
    return [[{"epochs": 100, "best_epoch": 98, "best_valid": 0.7, "epoch_scores": curve()}] for _ in range(3)]


def confusion_of(stream: np.random.Generator, labels: tuple[str, ...]) -> str:
    """Return a matrix as the protocols write it, with a third of the clips confused."""
    size = len(labels)
    counts = np.diag(np.full(size, 40))
    for row in range(size):
        np.add.at(counts[row], stream.integers(size, size=20), 1)
    lines = [",".join(["true \\ predicted", *labels])]
    lines += [",".join([name, *map(str, row)]) for name, row in zip(labels, counts.tolist(), strict=True)]
    return "\n".join(lines) + "\n"


def write_result(folder: Path, model: str, task: Task, protocol: str, stream: np.random.Generator) -> None:
    """Write one made-up result and its confusion matrix."""
    run = f"{stream.integers(16**10):010x}"
    stem = f"{model}__{task.name}__{protocol}__{run}"
    labels = task.labels or ("a", "b")
    files = {}
    if not task.multi_label:
        files = {"confusion": f"{stem}.confusion.csv"}
        (folder / files["confusion"]).write_text(confusion_of(stream, labels))
    settings = {"probe": "adam", "seeds": 3, "lr": 3e-5, "max_epochs": 200, "patience": 20, "model_options": {}}
    cost = {"parameters": int(10 ** stream.uniform(5, 9)), "gflops_per_second": 3.2, "real_time_factor": 0.002}
    cost |= {"audio_seconds_per_second": float(10 ** stream.uniform(1, 4)), "peak_memory_mib": 900.0}
    result = {
        "schema": 1, "run_id": run, "model": model, "task": task.name, "protocol": protocol, "metric": task.metric,
        **scores_of(stream, protocol), "seeds": [42, 43, 44], "flags": [], "notes": {},
        "per_class": {name: float(stream.uniform()) for name in labels}, "also": {"recall_macro": 0.5},
        "settings": settings, "weights": {"given": f"{model}.pth", "sha256": f"{abs(hash(model)):064x}"[:64]},
        "data": {"clips": 2000, "fingerprint": "f" * 32, "incomplete": ""}, "details": details_of(stream, protocol),
        "files": files, "timings": {"total": 12.0}, "created": "2026-01-01T00:00:00+00:00",
        "versions": {"evar": "0.1.0", "python": "3.11", "torch": "2.5", "device": "cpu"},
        "efficiency": cost | {"device": "cpu", "batch_size": 64, "clip_seconds": 5.0},
    }  # fmt: skip
    (folder / f"{stem}.json").write_text(json.dumps(result, indent=1))


def write_results(folder: Path) -> int:
    """Write all results into ``folder`` and return how many."""
    folder.mkdir(parents=True, exist_ok=True)
    stream, known = np.random.default_rng(0), all_tasks()
    cells = [(m, t, p) for m in model_names()[:MODELS] for t in TASKS for p in PROTOCOLS]
    for model, task, protocol in cells:
        write_result(folder, model, known[task], protocol, stream)
    return len(cells)


def main() -> None:
    """Write the results, build the page, say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="keep the results and the page here")
    with tempfile.TemporaryDirectory() as scratch:
        out = parser.parse_args().out or Path(scratch)
        folder = out / "runs"
        count = write_results(folder) if not list(folder.glob("*.json")) else len(list(folder.glob("*.json")))
        html = out / "report.html"
        _, cost = run([sys.executable, "-m", "evar.report", f"--results={folder}", f"--html={html}"])
        size = html.stat().st_size / 1e6
        print(f"{count} results: whole command {cost.wall:.1f} s ({cost.cpu:.1f} s CPU), {size:.1f} MB")
        with measured() as read:
            results, _ = read_results(folder)
        with measured() as tabled:
            tables = tables_of(results, paper="all")
        with measured() as built:
            page(results, tables, folder)
        print(f"reading {read.wall:.2f} s, tables {tabled.wall:.2f} s, page {built.wall:.2f} s")


if __name__ == "__main__":
    main()
