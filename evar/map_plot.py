"""A map of embeddings as a picture: a colour and a shape for each class, so that neither colour nor print decides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evar.errors import UserError
from evar.plots import save

COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#3A3A3A"),
    *("#882255", "#999933", "#332288"),
)
"""For colour-blind readers: Okabe and Ito's set (Color Universal Design, 2008) without the yellow, which white
swallows, and three of Paul Tol's muted scheme (SRON technical note, 2021)."""
SHAPES = {"o": 30, "s": 26, "D": 22, "^": 34, "v": 34, "P": 42, "X": 42}
"""Shapes and their sizes in square points, of about equal weight. Their number shares no divisor with the colours'."""
MOST = len(COLOURS) * len(SHAPES)
METHODS = {"tsne": "t-SNE", "umap": "UMAP"}
A_COLUMN = 25
WIDTH = 6.6  # inches, without the legend
EDGE = 0.05  # around the points, as a share of the map
NAMED = 12
"""Up to this many classes have their name on the map itself, too."""


def plot_map(found: Mapping[str, Any], path: Path) -> None:
    """Draw a map (:func:`evar.embedding_map.read_map`) into ``path``.

    Raises :class:`UserError` for a suffix that matplotlib does not know, or where it is not installed.
    """
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import patheffects
        from matplotlib import pyplot as plt
    except ImportError:
        raise UserError("--plot needs matplotlib: pip install 'evar-harness[plots]'") from None
    points, labels = np.asarray(found["points"], dtype=np.float64), np.asarray(found["labels"])
    classes = sorted(set(labels.tolist()))
    columns = -(-min(len(classes), MOST) // A_COLUMN)
    low, high = points.min(axis=0), points.max(axis=0)
    edge = EDGE * max(*(high - low), 1e-6)
    wide, tall = high - low + 2 * edge
    height = float(np.clip(WIDTH * tall / wide, 4.4, 8.0))
    figure, axis = plt.subplots(figsize=(WIDTH + 1.6 * columns, height), layout="constrained")
    for number, name in enumerate(classes):
        here = points[labels == name]
        shape = tuple(SHAPES)[number % len(SHAPES)]
        style: dict[str, Any] = {"marker": shape, "s": SHAPES[shape], "alpha": 0.85, "linewidths": 0.5}
        axis.scatter(*here.T, color=COLOURS[number % len(COLOURS)], edgecolors="white", label=_words(name), **style)
    if len(classes) <= NAMED:
        halo = [patheffects.withStroke(linewidth=3, foreground="white")]
        for name in classes:
            x, y = _middle(points[labels == name])
            axis.annotate(_words(name), (x, y), ha="center", va="center", fontsize=10, color="0.1", path_effects=halo)
    method = METHODS.get(found["method"], found["method"])
    axis.set_title(f"{found['title'] or found['task']}: {found['model']}, {method}", loc="left", fontsize=12)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set(xlim=(low[0] - edge, high[0] + edge), ylim=(low[1] - edge, high[1] + edge), aspect="equal")
    axis.spines[["top", "right", "bottom", "left"]].set_color("0.8")
    heads, names = axis.get_legend_handles_labels()
    note = f"the first {MOST} of {len(classes)} classes" if len(classes) > MOST else None
    figure.legend(heads[:MOST], names[:MOST], title=note, loc="outside right center", ncols=columns, frameon=False)
    save(figure, path)


def _middle(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the point that the others are nearest to on the median: within the largest group, not between groups."""
    few = points[:: -(-len(points) // 500)]
    distances = np.linalg.norm(few[:, None] - few[None], axis=-1)
    return few[np.median(distances, axis=1).argmin()]


def _words(label: str) -> str:
    return label.replace("_", " ")
