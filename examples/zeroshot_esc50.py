"""Zero-shot classification of ESC-50 in a page: sounds and class names in one space, the nearest name wins.

    python examples/zeroshot_esc50.py --root=DATA [--model=tag_text:gpvad] [--weights=PATH] [--clips=200]

DATA holds esc50/ as its authors ship it (python -m evar.prepare esc50 --root=DATA fetches it). The command
python -m evar.zeroshot does the same with all its options, keeps a result file and sets the papers' numbers beside it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from evar.cli import main
from evar.clips import open_task
from evar.extract import embed_clips
from evar.statistics import bootstrap_accuracy
from model_adapters.registry import load_model
from tasks.base import get_task


def zeroshot_esc50(
    *, root: Path | None = None, model: str = "tag_text:gpvad", weights: str | None = None, clips: int = 2000
) -> None:
    """Classify ESC-50 by the names of its classes alone, and say which are found and what is heard instead.

    Args:
        root: folder that holds esc50/ (default $EVAR_DATA, else the cache)
        model: a model with a text side (python -m evar.models lists them)
        weights: its weights, where they are not in the weights folder
        clips: only this many clips, spread evenly over the 2000
    """
    task = get_task("esc50")
    data = open_task(task, root)
    chosen = np.unique(np.linspace(0, len(data) - 1, min(clips, len(data))).astype(np.int64))

    heard = load_model(model, weights)
    found = embed_clips(heard, data, front=chosen, training=chosen[:0], space="joint")  # stored: the next run is quick
    audio = normalize(torch.from_numpy(found.vectors.take(found.front[chosen])), dim=1)
    with torch.inference_mode():
        text = normalize(heard.adapter.embed_text(task.captions()).float(), dim=1)  # "dog can be heard"

    guesses, truth = (audio @ text.T).argmax(dim=1).numpy(), data.targets[chosen]
    score = bootstrap_accuracy(guesses == truth)
    print(f"{model} on {len(chosen)} clips of ESC-50, without training on any: {100 * score.point:.1f} %")
    print(f"95 % interval: {100 * score.low:.1f} to {100 * score.high:.1f} % ({score.method})\n")
    for n in sorted(set(truth), key=lambda n: (-np.mean(guesses[truth == n] == n), n)):
        wrong = guesses[(truth == n) & (guesses != n)]
        instead = f"   otherwise mostly {task.labels[np.bincount(wrong).argmax()]}" if len(wrong) else ""
        print(f"{task.labels[n]:>18} {100 * np.mean(guesses[truth == n] == n):4.0f} %{instead}")


if __name__ == "__main__":
    main(zeroshot_esc50)
