"""(d): peak memory of embedding does not grow with the number of clips: 2,000 against 20,000.

python benchmarks/memory.py [--model=log_mel_stats] [--counts=2000,20000]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from measure import python, run, table

WORK = """
import sys
from pathlib import Path
import numpy as np
import pandas as pd
from dataclasses import replace
from evar.clips import open_task
from evar.extract import embed_clips
from model_adapters.registry import load_model
from tasks.base import get_task

def index(folder):
    names = sorted(p.name for p in folder.iterdir())
    split = ["test" if n % 10 == 0 else "train" for n in range(len(names))]
    return pd.DataFrame({"file": names, "label": [str(n % 10) for n in range(len(names))], "split": split})

folder = Path(sys.argv[1])
task = replace(get_task("fsdd"), index=index, marker="", top_folder="", unit_seconds=1.0)
clips = open_task(task, data=folder, incomplete=True)
rows = np.arange(len(clips))
weights = "random" if sys.argv[2] != "log_mel_stats" else None
done = embed_clips(load_model(sys.argv[2], weights), clips, front=rows, training=rows, batch_size=64)
assert done.computed >= len(clips), (done.computed, len(clips))
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="log_mel_stats")
    parser.add_argument("--counts", default="2000,20000")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random = np.random.default_rng(0)
        audio = folder / "audio"
        audio.mkdir()
        made = 0
        for count in sorted(int(n) for n in given.counts.split(",")):
            for number in range(made, count):
                soundfile.write(audio / f"{number:06d}.wav", 0.1 * random.standard_normal(16000), 16000)
            made = count
            _, cost = run(python("-c", WORK, str(audio), given.model), {"EVAR_CACHE": str(folder / f"cache{count}")})
            rows.append((given.model, count, cost.peak_mib, cost.cpu / count * 1000))
    print(table(rows, ("model", "clips", "peak MiB", "CPU ms per clip")))
    print(f"growth from the first to the last: {rows[-1][2] / rows[0][2]:.2f} x")


if __name__ == "__main__":
    main()
