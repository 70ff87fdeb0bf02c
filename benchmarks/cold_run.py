"""(a), (b): the whole ESC-50 linear evaluation with BYOL-A, cold and warm, against the reference way, in one run.

    python benchmarks/cold_run.py --data=DIR [--weights=byol_a.pth]

Both get the same clips, weights and threads; the reference gets the number of loader processes that costs it least
processor time on this machine (tried first). Without --weights, seeded untrained ones are used: the work is the same.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from measure import ROOT, Cost, python, run, table
from plain_reference import AudioNTT
from scipy import stats


def reference(data: Path, weights: Path, folder: Path) -> tuple[dict, Cost, int]:
    """Run the plain version with its best number of workers."""
    script = str(ROOT / "benchmarks" / "plain_reference.py")
    given = [f"--data={data}", f"--weights={weights}"]
    costs = {}
    for workers in (0, 1, 2):
        out = folder / f"tune{workers}.json"
        run(python(script, *given, f"--workers={workers}", f"--out={out}", "--embed_only"))
        cost = json.loads(out.read_text())
        costs[workers] = sum(cost["cpu"].values())
        print(
            f"reference, {workers} loader processes: {costs[workers]:.1f} CPU s for statistics and one fold", flush=True
        )
    best = min(costs, key=lambda n: costs[n])
    out = folder / "reference.json"
    _, cost = run(python(script, *given, f"--workers={best}", f"--out={out}"))
    return json.loads(out.read_text()), cost, best


def ours(data: Path, weights: Path, folder: Path, name: str) -> tuple[dict, Cost]:
    """Run the harness's own command; the cache in ``folder`` makes it cold the first time and warm the second."""
    results = folder / name
    command = python("-m", "evar.lineareval", "byol_a", "esc50", f"--weights={weights}", f"--data={data}")
    _, cost = run([*command, f"--results={results}"], {"EVAR_CACHE": str(folder / "cache")})
    return json.loads(next(results.glob("*.json")).read_text()), cost


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = given.weights
        if weights is None:
            torch.manual_seed(0)
            weights = folder / "untrained.pth"
            torch.save(AudioNTT().state_dict(), weights)
        cold, cold_cost = ours(given.data.absolute(), weights.absolute(), folder, "cold")
        warm, warm_cost = ours(given.data.absolute(), weights.absolute(), folder, "warm")
        plain, plain_cost, workers = reference(given.data.absolute(), weights.absolute(), folder)
    parts = [
        ("statistics", plain["cpu"]["statistics"], cold["timings"]["prepare_cpu"]),
        ("embedding", plain["cpu"]["embedding"], cold["timings"]["embedding_cpu"]),
        ("15 probes", plain["cpu"]["probe"], cold["timings"]["probe_cpu"]),
        ("whole command", plain_cost.cpu, cold_cost.cpu),
    ]
    print(table([(n, a, b, a / b) for n, a, b in parts], ("part", "reference, CPU s", "harness, CPU s", "ratio")))
    print(
        f"wall: reference {plain_cost.wall:.1f} s ({workers} loader processes), cold {cold_cost.wall:.1f} s, ", end=""
    )
    print(f"warm {warm_cost.wall:.1f} s ({warm_cost.cpu:.1f} CPU s)")
    for who, scores in (("reference", plain["scores"]), ("harness", cold["scores"])):
        half = stats.t.ppf(0.975, len(scores) - 1) * np.std(scores, ddof=1) / np.sqrt(len(scores))
        print(f"{who}: {100 * np.mean(scores):.2f} ± {100 * half:.2f} %   {[round(100 * s, 2) for s in scores]}")
    assert warm["scores"] == cold["scores"], "a warm run must give the same scores"


if __name__ == "__main__":
    main()
