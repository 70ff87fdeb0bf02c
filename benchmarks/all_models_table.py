"""Linear evaluation of every model on FSDD and ESC-50: with its published weights where they lie here, else untrained.

python benchmarks/all_models_table.py --root=DIR [--tasks=fsdd,esc50] [--small] [--out=FILE] [NAME ...]

DIR holds a folder per task. ``--small`` makes untrained networks of one block and little width, where the class allows
it: for a machine without an accelerator; the table says it. The table goes to stdout, or into the part of ``--out``
between the two marks (the file is made if it is not there). Finished results are not run again: a broken run goes on
where it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

from measure import ROOT, python, table

from evar.convert import hints_of, keyword_parameters
from evar.errors import UserError
from evar.fetch.hub import in_hub_cache
from evar.fetch.published import find
from evar.results import read_results
from model_adapters.registry import adapter_class, model_info, model_names
from tasks.base import get_task

NOT_ALONE = ("finetuned", "tag_text", "caption_map", "hf", "mteb")
"""Models that are another one's, or one of a hub's."""
SMALL = {"depth": "1", "embed_dim": "64", "hidden_size": "64", "width": "16"}
SMALLEST = ("tiny", "nano", "small", "base")
BEGIN, END = "<!-- table of benchmarks/all_models_table.py -->", "<!-- end of the table -->"
INTRODUCTION = "# All models under one condition\n"


def weights_of(name: str) -> str | None:
    """Return what ``--weights`` is to be: nothing where the published ones are here, ``random`` otherwise."""
    if "weights" not in keyword_parameters(adapter_class(name)[0]):
        return None
    published = model_info(name).weights
    try:
        if find(published) is not None or (published and published.hub and in_hub_cache(published.hub)):
            return None
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
    return "random"


def options_of(name: str, weights: str | None) -> dict[str, str]:
    """Return the options that make an untrained network small, where its class has them."""
    cls = adapter_class(name)[0]
    own = keyword_parameters(cls)
    if not weights:
        return {}
    options = {option: text for option, text in SMALL.items() if option in own}
    if "embed_dim" in options and own["embed_dim"].default == 96:  # HTS-AT's kin grow to eight times that
        options["embed_dim"] = "16"
    sizes = [size for size in SMALLEST if size in get_args(hints_of(cls).get("size"))]
    return options | ({"size": sizes[0]} if sizes else {})


def evaluate(name: str, task: str, given: argparse.Namespace) -> None:
    """Run the command for one model and task; a failure is said and does not stop the others."""
    weights = weights_of(name)
    words = [f"--root={given.root}", f"--results={given.results}", f"--device={given.device}", f"--seeds={given.seeds}"]
    words += [f"--batch_size={given.batch_size}", *([f"--weights={weights}"] if weights else [])]
    words += [f"--{n}={text}" for n, text in options_of(name, weights).items()] if given.small else []
    begin = time.perf_counter()
    done = subprocess.run(python("-m", "evar.lineareval", name, task, *words), cwd=ROOT, capture_output=True, text=True)
    last = (done.stderr.strip().splitlines() or [""])[-1] if done.returncode else f"{time.perf_counter() - begin:.0f} s"
    print(f"{name} {task}: {last}", file=sys.stderr, flush=True)


def rows_of(names: list[str], tasks: list[str], results: Path) -> list[tuple[str, ...]]:
    """Return a row per model: name, weights, and a score per task."""
    found = {(r["model"], r["task"]): r for r in read_results(results)[0] if r["protocol"] == "lineareval"}
    rows = []
    for name in names:
        of_model = [found.get((name, task)) for task in tasks]
        there = next((r for r in of_model if r is not None), None)
        if there is None:
            continue
        weights = "untrained" if "untrained" in there["flags"] else there["weights"]["sha256"][:8] or "none"
        if "untrained" in there["flags"] and there["settings"]["model_options"]:
            weights += ", small"
        rows.append((name, weights, *(_score(r) for r in of_model), there["input"]["long_audio"]))
    return rows


def _score(result: dict | None) -> str:
    if result is None:
        return "–"
    half = f" ± {100 * result['ci95']:.1f}" if result["ci95"] is not None else ""
    return f"{100 * result['mean']:.1f}{half}"


def write(out: Path, text: str) -> None:
    """Put the table between the marks of a document, which is made if there is none."""
    old = out.read_text() if out.is_file() else f"{INTRODUCTION}\n{BEGIN}\n{END}\n"
    before, after = old.split(BEGIN)[0], old.split(END)[1]
    out.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--root", required=True)
    parser.add_argument("--tasks", default="fsdd,esc50")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "runs")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--small", action="store_true", help="one block and little width, where the class allows it")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    names = given.names or [name for name in model_names() if name not in NOT_ALONE]
    tasks = given.tasks.split(",")
    for name in names:
        for task in tasks:
            evaluate(name, task, given)
    heads = ("model", "weights", *(get_task(task).title for task in tasks), "long clips")
    text = table(rows_of(names, tasks, given.results), heads)
    text += f"\n\nMade by `python benchmarks/all_models_table.py --root=DIR --tasks={given.tasks}"
    text += (" --small" if given.small else "") + "`"
    text += f" ({json.dumps(versions())})." if given.out else ""
    print(text) if given.out is None else write(given.out, text)


def versions() -> dict[str, str]:
    """Return the packages that the numbers may depend on."""
    from evar import results

    return {name: str(results.versions()[name]) for name in ("torch", "transformers", "machine")}


if __name__ == "__main__":
    main()
