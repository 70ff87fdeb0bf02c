"""CED's published order of the pieces of long clips against ours, on clips of 30 s made from ESC-50: a Markdown table.

python benchmarks/ced_long_clips.py --data=DIR/esc50 [--classes=25] [--size=base]

Six clips of one class and fold are joined to one of 30 s, for the first classes of the data set by name: one such clip
per class and fold. The network is untrained, so that the scores say nothing of CED; they say what mixing clips costs.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from measure import python, run, table

from evar.audio.decode import decode
from evar.clips import open_task
from tasks.base import get_task

RATE, JOINED = 16000, 6
ORDERS = (
    ("each clip its own (ours)", "sorted", "false"),
    ("as published, clips sorted by class", "sorted", "true"),
    ("as published, clips shuffled", "shuffled", "true"),
)


def make_clips(data: Path, folder: Path, classes: int) -> list[tuple[str, str, str]]:
    """Write the long clips into ``folder`` and return a row (file, label, fold) for each."""
    clips = open_task(get_task("esc50"), data=data)
    found = clips.table.assign(path=clips.paths)
    rows = []
    for (label, fold), group in found.groupby(["label", "fold"], sort=True):
        if label not in sorted(found["label"].unique())[:classes]:
            continue
        name = f"{label}-{fold}.wav"
        joined = np.concatenate([decode(path, RATE) for path in sorted(group["path"])[:JOINED]])
        soundfile.write(folder / name, joined, RATE, subtype="FLOAT")
        rows.append((name, str(label), str(fold)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--classes", type=int, default=25)
    parser.add_argument("--size", default="base")
    given = parser.parse_args()
    scores = []
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        rows = make_clips(given.data, folder, given.classes)
        shuffled = random.Random(0).sample(rows, len(rows))
        for name, order in (("sorted", rows), ("shuffled", shuffled)):
            with (folder / f"{name}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([("file", "label", "fold"), *order])
        for number, (_, order, published) in enumerate(ORDERS):
            results = folder / f"results{number}"
            words = [f"csv:{folder / order}.csv?audio={folder}&seconds=30", "--weights=random", f"--size={given.size}"]
            words += [f"--reference_split_order={published}", "--probe=logistic", "--batch_size=16", "--device=cpu"]
            run(python("-m", "evar.lineareval", "ced", *words, f"--results={results}"), {"EVAR_CACHE": str(folder)})
            (result,) = (json.loads(path.read_text()) for path in results.glob("*.json"))
            scores.append(f"{100 * result['mean']:.1f} %")
    print(table([(row[0], score) for row, score in zip(ORDERS, scores, strict=True)], ("order of the pieces", "right")))


if __name__ == "__main__":
    main()
