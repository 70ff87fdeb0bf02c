"""Maps of embeddings: a point per clip, coloured by class, which says its file and class under the pointer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evar.html.entries import Section
from evar.html.markup import Markup, fold, join, tag

COLOURS = 7
"""Colours of the style sheet, ``.k0`` to ``.k6``."""
SHAPES = (
    "m-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0",
    "m-2.9-2.9h5.8v5.8h-5.8z",
    "m0-4 3.7 6.5h-7.4z",
    "m0-4.1 4.1 4.1-4.1 4.1-4.1-4.1z",
    "m0 4 3.7-6.5h-7.4z",
    "m-1.2-3.8h2.4v2.6h2.6v2.4h-2.6v2.6h-2.4v-2.6h-2.6v-2.4h2.6z",
    "m-3.7-1.6 3.7-2.7 3.7 2.7-1.4 4.3h-4.6z",
    "m-4-1.2h8v2.4h-8z",
)
"""As many as share no divisor with the colours: 56 classes differ in colour or shape."""
MOST_POINTS = 2000
OPEN_MAPS = 4
METHODS = {"tsne": "t-SNE", "umap": "UMAP"}


class Map(NamedTuple):
    """What a ``….map.json`` says."""

    title: str
    points: list[tuple[float, float]]
    files: list[str]
    labels: list[str]


def map_section(folder: Path, tasks: Sequence[str], models: Sequence[str]) -> tuple[Section | None, list[str]]:
    """Return the maps of a results folder and a line for each file that is none; None without maps.

    ``tasks``, ``models``: only these, where given.
    """
    found, problems = [], []
    for path in sorted(folder.glob("*.map.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if _wanted(content.get("task"), tasks) and _wanted(content.get("model"), models):
                found.append(_read(content))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"{path.name} is not a map of embeddings ({str(error)[:100]})")
    if not found:
        return None, problems
    drawn = [draw_map(one) for one in found]
    boxes = [tag("div", *drawn[:OPEN_MAPS], class_="panels wide")]
    if drawn[OPEN_MAPS:]:
        boxes.append(fold(f"{len(drawn) - OPEN_MAPS} more maps", tag("div", *drawn[OPEN_MAPS:], class_="panels wide")))
    lead = (
        "Neighbours are alike to the model; distances between far groups mean little. A point says its file and class; "
        "a class in the legend stands out under the pointer, and stays so after a click."
    )
    return Section("maps", "Maps", "Maps of embeddings", lead, join(boxes)), problems


def _wanted(name: Any, names: Sequence[str]) -> bool:
    return not names or name in names


def _read(content: dict[str, Any]) -> Map:
    method = str(content.get("method", ""))
    title = f"{content.get('task', '')}: {content.get('model', '')}, {METHODS.get(method, method)}"
    points = [(float(x), float(y)) for x, y in content["points"]]
    files, labels = [str(f) for f in content["files"]], [str(name) for name in content["labels"]]
    if not (0 < len(points) == len(files) == len(labels)):
        raise ValueError(f"{len(points)} points, {len(files)} files, {len(labels)} labels")
    if not all(abs(v) < 1e30 for point in points for v in point):  # NaN too
        raise ValueError("a point is not finite")
    return Map(title, points, files, labels)


def draw_map(one: Map) -> Markup:
    """Return a map as a drawing with a legend."""
    stride = -(-len(one.points) // MOST_POINTS)
    width, height, edge = 460.0, 400.0, 10.0
    spans = [(min(axis), max(axis)) for axis in zip(*one.points, strict=True)]
    scale = min(
        (size - 2 * edge) / max(high - low, 1e-9) for size, (low, high) in zip((width, height), spans, strict=True)
    )

    def at(point: tuple[float, float]) -> str:
        x, y = (scale * (v - (low + high) / 2) for v, (low, high) in zip(point, spans, strict=True))
        return f"M{width / 2 + x:.1f} {height / 2 - y:.1f}"

    classes = sorted(set(one.labels))
    groups: list[Markup] = []
    legend: list[Markup] = []
    for number, name in enumerate(classes):
        shape = SHAPES[number % len(SHAPES)]
        here = [n for n in range(0, len(one.points), stride) if one.labels[n] == name]
        marks = [tag("path", d=at(one.points[n]) + shape, data_t=one.files[n]) for n in here]
        style = f"k{number % COLOURS}"
        groups.append(tag("g", *marks, class_=style, data_label=name))
        sample = tag("svg", tag("path", d="M6 6" + shape), viewBox="0 0 12 12", class_=style, aria_hidden="true")
        legend.append(tag("li", tag("button", sample, name, type="button", data_shows=name, aria_pressed="false")))
    size = f"0 0 {width:g} {height:g}"
    label = f"{one.title}: {len(one.points)} clips of {len(classes)} classes"
    drawing = tag("svg", *groups, viewBox=size, role="img", aria_label=label, class_="map")
    shown = f", one in {stride} drawn" if stride > 1 else ""
    caption = tag("figcaption", one.title, tag("small", f" {len(one.points)} clips{shown}"))
    return tag("figure", caption, drawing, tag("ul", *legend, class_="legend"), class_="mapbox")
