"""Results as files of the MTEB package: one TaskResult each, in the folders that mteb.ResultCache reads.

    python -m evar.mteb_export --out=DIR [--results=DIR]

The protocol stays this harness's own, and its figures must not stand in MTEB's leaderboard, where eight clips per class
train a logistic regression. So every file says how it was made, the models have an owner of their own (evar-harness/…),
and all lies in MTEB's folders for experiments, which it reads only when asked to.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from evar.cli import main
from evar.errors import UserError
from evar.mteb_facts import OWN_PREFIX, model_meta, require_mteb, task_name
from evar.paths import runs_dir
from evar.progress import say
from evar.results import Result, read_results
from evar.store import write_atomically

PROTOCOLS = {
    "lineareval": "EVAR linear evaluation: a linear classifier on all training clips, mean over seeds",
    "finetune": "EVAR fine-tuning: the whole network is trained on the task",
    "zeroshot": "EVAR zero-shot classification: the captions are in settings",
    "retrieval": "EVAR audio-text retrieval: whole clips",
}
WARNING = "not MTEB's protocol, splits or prompts: do not compare with or submit to the MTEB leaderboard"
SPLIT, SUBSET = "test", "default"


class Entry(NamedTuple):
    """What becomes one file: mteb's records of the model and of its figures on one task."""

    meta: Any
    task: Any


def mteb_export(*, out: Path, results: Path | None = None) -> None:
    """Write all results in the MTEB result schema, each marked as made by another protocol than MTEB's.

    DIR/results/evar-harness__<model>/<weights>/experiments/<protocol and settings>/<task>.json

    Args:
        out: folder to write to; mteb.ResultCache(DIR) reads it
        results: folder of result files (default results/runs)
    """
    require_mteb()
    folder = runs_dir(results)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; run a protocol first, or name another with --results=DIR")
    found, problems = read_results(folder)
    for line in problems:
        say(f"left out: {line}")
    if not found:
        raise UserError(f"no results in {folder}; run a protocol first, for example python -m evar.lineareval")
    written = export_results(found, out)
    say(f"{out}: {len(written)} files of {len(found)} results; {WARNING}")


def export_results(results: Sequence[Result], out: Path) -> list[Path]:
    """Write every result below ``out`` and return the files; of two with one place the later made one stands."""
    from mteb import ResultCache

    cache = ResultCache(out)
    written: dict[Path, Result] = {}
    for result in sorted(results, key=lambda r: r["created"]):
        for meta, task in entries(result):
            path = cache.get_task_result_path(task.task_name, meta)
            if path in written:
                say(f"left out: run {written[path]['run_id']}, in whose place run {result['run_id']} was made later")
            written[path] = result
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.{os.getpid()}.part")
            task.to_disk(part)
            os.replace(part, path)
            write_atomically(path.parent / "model_meta.json", json.dumps(meta.to_dict(), default=str, indent=1) + "\n")
    return list(written)


def entries(result: Result) -> list[Entry]:
    """Return mteb's records of a result: one, or for retrieval one per direction, as MTEB counts them."""
    meta = _meta(result)
    if result["protocol"] != "retrieval":
        figures = {"main_score": result["mean"], result["metric"]: result["mean"]} | _spread(result)
        return [Entry(meta, _task(result, task_name(result["task"], result["protocol"]), figures))]
    found = []
    for way in ("t2a", "a2t"):
        also = {name.removeprefix(f"{way}_"): x for name, x in result["also"].items() if name.startswith(f"{way}_")}
        # hit_rate_at_k is MTEB's name for the share of queries with a right answer among the first k.
        rates = {f"hit_rate_at_{k}": also[f"R@{k}"] for k in (1, 5, 10)}
        intervals = {k.removeprefix(f"{way}_"): v for k, v in result.get("intervals", {}).items() if k.startswith(way)}
        figures = {"main_score": rates["hit_rate_at_5"], **rates, **also, "intervals": intervals}
        found.append(Entry(meta, _task(result, task_name(result["task"], "retrieval", way), figures)))
    return found


def _spread(result: Result) -> dict[str, Any]:
    """Return what is known of a score beyond its mean."""
    return {
        "scores_per_experiment": [{result["metric"]: score} for score in result["scores"]],
        "ci95": result["ci95"],
        "ci_method": result["ci_method"],
        "per_class": result["per_class"],
        "also": result.get("also", {}),
    }


def _meta(result: Result) -> Any:
    text = ["audio", "text"] if result["protocol"] in ("zeroshot", "retrieval") else ["audio"]
    parameters = (result.get("efficiency") or {}).get("parameters")
    weights = str(result["weights"]["sha256"])
    experiment = {"protocol": f"evar_{result['protocol']}", **_variant(result)}
    return model_meta(result["model"], weights, modalities=text, n_parameters=parameters, experiment_kwargs=experiment)


def _variant(result: Result) -> dict[str, str]:
    """Return what tells a model's experiments apart: its options, the probe, prompts, precision, changed settings."""
    settings = result["settings"]
    found = {**settings.get("model_options", {}), **settings.get("changed", {})}
    for name in ("probe", "precision"):
        if settings.get(name) not in (None, "adam", "fp32"):
            found[name] = settings[name]
    if settings.get("templates"):
        found["templates"] = " | ".join(settings["templates"])
    return {name: str(value) for name, value in found.items()}


def _task(result: Result, name: str, figures: dict[str, Any]) -> Any:
    from mteb.results import TaskResult

    timings = result.get("timings", {})
    seconds = timings.get("total", sum(timings.get(part, 0.0) for part in ("embedding", "probe")))
    about = {
        "hf_subset": SUBSET,
        "languages": _languages(name),
        "warning": WARNING,
        "protocol": PROTOCOLS[result["protocol"]],
        "metric": result["metric"],
        "harness": f"evar-harness {result['versions'].get('evar', '')}".strip(),
        **{key: result[key] for key in ("model", "task", "run_id", "flags", "notes", "settings", "weights", "data")},
    }
    return TaskResult(
        task_name=name,
        # Our own checksum of files, labels and parts: the data are not a revision of MTEB's copy on the hub.
        dataset_revision=f"evar:{result['data']['fingerprint']}",
        mteb_version=None,  # mteb did not compute it
        scores={SPLIT: [{**figures, **about}]},
        evaluation_time=float(seconds) or None,
        date=datetime.fromisoformat(result["created"]),
    )


def _languages(name: str) -> list[str]:
    """Return the languages that MTEB gives for a task of its own; for one of ours "undetermined, unwritten".

    Without any, mteb would leave the score out of its means.
    """
    import mteb

    if name.startswith(OWN_PREFIX):
        return ["und-Zxxx"]
    languages = mteb.get_task(name).metadata.eval_langs
    return list(languages) if not isinstance(languages, dict) else sorted({x for v in languages.values() for x in v})


if __name__ == "__main__":
    main(mteb_export)
