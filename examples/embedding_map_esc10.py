"""ESC-10 on a map: 400 sounds of ten classes, each a point, near to what the model finds alike.

    python examples/embedding_map_esc10.py --root=DATA [--model=gpvad] [--weights=PATH] [--method=umap] [--out=FILE.png]

DATA holds esc50/ as its authors ship it; ESC-10 is a part of it. The command python -m evar.embedding_map does this for
any task and leaves the map where python -m evar.report --html finds it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evar.cli import main
from evar.clips import open_task
from evar.embedding_map import LABEL_SETS, Method, choose, embedding_map, read_map, save_map
from evar.extract import embed_clips
from evar.map_plot import plot_map
from model_adapters.registry import load_model
from tasks.base import get_task


def embedding_map_esc10(
    *,
    root: Path | None = None,
    model: str = "gpvad",
    weights: str | None = None,
    method: Method = "tsne",
    clips: int = 400,
    out: Path = Path("esc10.png"),
) -> None:
    """Draw ESC-10 as a model hears it, and say how often a point's nearest neighbour is of its class.

    Args:
        root: folder that holds esc50/ (default $EVAR_DATA, else the cache)
        model: any model (python -m evar.models lists them)
        weights: its weights, where they are not in the weights folder
        method: tsne, or umap (extra 'maps')
        clips: at most this many of the 400
        out: the picture; the points lie beside it as .map.json
    """
    data = open_task(get_task("esc50"), root)
    rows, labels = choose(data, LABEL_SETS["esc10"], clips, seed=42)
    found = embed_clips(load_model(model, weights), data, front=rows, training=rows[:0])
    points = embedding_map(found.vectors.take(found.front[rows]), method)

    near = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.diag(np.full(len(points), np.inf))
    alike = np.mean([labels[n] == labels[m] for n, m in enumerate(near.argmin(axis=1))])
    print(f"{len(rows)} clips; the nearest neighbour on the map is of the same class for {100 * alike:.0f} % of them")

    file, names = out.with_suffix(".map.json"), data.names
    save_map(file, points, [names[n] for n in rows], labels, method=method, model=model, task="esc50", title="ESC-10")
    plot_map(read_map(file), out)


if __name__ == "__main__":
    main(embedding_map_esc10)
