"""A map of a task's clips: embeddings in two dimensions, by t-SNE or UMAP, as a file for the report and a picture.

    python -m evar.embedding_map MODEL TASK [--labels=esc10] [--method=tsne|umap] [--plot=FILE.png]

The embeddings are those of linear evaluation, from the same store, each feature scaled to mean 0 and variance 1 as the
probe does. A map shows neighbourhoods; distances between far groups mean little, and it is no measure of quality.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evar.cli import main
from evar.clips import Clips
from evar.command import at_least_one, options_of_models, pick_device, request
from evar.errors import UserError, did_you_mean
from evar.extract import Precision, embed_clips
from evar.paths import runs_dir
from evar.probe_data import fit_scaler
from evar.progress import say
from evar.results import result_path, run_id
from evar.store import write_atomically
from evar.subject import subject_facts
from model_adapters.registry import Model

Method = Literal["tsne", "umap"]
FEWEST = 5
"""Below this neither method has neighbours to arrange."""
LABEL_SETS = {
    "esc10": (
        *("chainsaw", "clock_tick", "crackling_fire", "crying_baby", "dog"),
        *("helicopter", "rain", "rooster", "sea_waves", "sneezing"),
    ),
}
"""Names that ``--labels`` takes for several labels: ESC-10, the ten classes that ESC-50's table marks as such."""


def embedding_map_command(
    model: str,
    task: str,
    *,
    method: Method = "tsne",
    labels: tuple[str, ...] = (),
    plot: Path | None = None,
    clips: int = 5000,
    seed: int = 42,
    weights: str | None = None,
    root: Path | None = None,
    data: Path | None = None,
    results: Path | None = None,
    incomplete: bool = False,
    device: str = "auto",
    precision: Precision = "fp32",
    batch_size: int = 64,
    workers: int | None = None,
    **options: str,
) -> None:
    """Map a task's test clips (all clips, where it has folds) to the plane, for the report and as a picture.

    Writes <results>/<model>__<task>__<method>__<id>.map.json, which python -m evar.report --html draws.

    Args:
        model: a model's name or path/to/file.py:ClassName (python -m evar.models lists them)
        task: a task's name (python -m evar.tasks lists them)
        method: tsne, or umap (extra 'maps')
        labels: only clips of these classes, comma-separated; esc10 stands for the ten classes of ESC-10
        plot: draw the map into this file (.png, .pdf or .svg; extra 'plots')
        clips: at most this many clips, a seeded sample of a larger task
        seed: of the method and of the sample; the same seed gives the same map
        weights: checkpoint file, hub id where the model knows hubs, or random (an untrained network)
        root: folder with one folder per task, in the data sets' own layouts (default $EVAR_DATA, else the cache)
        data: folder of this task, instead of ROOT/TASK
        results: folder for the map's file (default results/runs)
        incomplete: go on with an incomplete copy of the data set
        device: auto, cpu, cuda or cuda:N
        precision: fp32, or bf16 (autocast)
        batch_size: clips per forward pass; changes speed only
        workers: decoding threads (default one per core, at most 8)
    """
    at_least_one(batch_size=batch_size, clips=clips)
    asked = request((model,), (task,), weights=weights, root=root, data=data, incomplete=incomplete, options=options)
    wanted = expand_labels(labels, asked.tasks[0].labels)
    ((one, opened),) = asked.cells(test_only=True)
    rows, names = choose(opened, wanted, clips, seed)
    found = embed_clips(
        one,
        opened,
        front=rows,
        training=np.empty(0, dtype=np.int64),
        device=pick_device(device),
        precision=precision,
        batch_size=batch_size,
        workers=workers,
    )
    points = embedding_map(found.vectors.take(found.front[rows]), method, seed)
    path = map_path(runs_dir(results), one, opened, rows, method, seed, precision)
    files = opened.names
    title = "ESC-10" if task == "esc50" and set(wanted) == set(LABEL_SETS["esc10"]) else opened.task.title
    about = {"method": method, "model": one.name, "task": task, "title": title}
    save_map(path, points, [files[n] for n in rows], names, seed=seed, **about)
    say(f"{path}: {len(rows)} clips of {len(set(names))} classes, {method}")
    if plot is not None:
        from evar.map_plot import plot_map

        plot_map(read_map(path), plot)


def expand_labels(given: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the labels that ``--labels`` names, sets such as ``esc10`` spelled out; none given: all (an empty tuple).

    ``known`` may be empty: a task without a list of its own takes its classes from the data, where they are checked.
    """
    wanted = [label for name in given for label in ([name] if name in known else LABEL_SETS.get(name, (name,)))]
    for label in wanted:
        if known and label not in known:
            raise UserError(f"--labels: the task has no class '{label}'.{did_you_mean(label, known)}")
    return tuple(dict.fromkeys(wanted))


def choose(clips: Clips, wanted: Sequence[str], most: int, seed: int) -> tuple[NDArray[np.int64], list[str]]:
    """Return ``(numbers [n] of the test clips with one of the labels, the label of each)``.

    No ``wanted`` labels: all. A clip with several labels has the first of them in the list's order. More than ``most``
    clips: a seeded sample.
    """
    if clips.task.kind == "retrieval":
        raise UserError(f"{clips.task.name} has captions and no classes to colour a map by; choose another task")
    order = tuple(wanted) or clips.task.labels
    expand_labels(order, clips.task.labels)
    rank = {label: n for n, label in enumerate(order)}
    first: list[str | None] = []
    for entry in clips.table["label"].tolist():
        own = [label for label in (entry if isinstance(entry, list) else [str(entry)]) if label in rank]
        first.append(min(own, key=lambda label: rank[label]) if own else None)
    tested = np.unique(np.concatenate([part.test for part in clips.parts()]))
    rows = np.array([n for n in tested if first[n] is not None], dtype=np.int64)
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    return rows, [str(first[n]) for n in rows]


def embedding_map(embeddings: NDArray[np.float32], method: Method = "tsne", seed: int = 42) -> NDArray[np.float32]:
    """Return a point in the plane for each embedding: ``[n, D] -> [n, 2]``, the same for the same seed.

    t-SNE (van der Maaten and Hinton, 2008) starts from the two main components, with perplexity 30; UMAP (McInnes et
    al., 2018) looks at 15 neighbours. Both take less of it where there are few clips. Raises :class:`UserError` for
    fewer than five clips, embeddings that are not finite or all the same, or where umap-learn is not installed.
    """
    if method not in get_args(Method):
        raise UserError(f"--method={method} is not one of its values.{did_you_mean(method, get_args(Method))}")
    if len(embeddings) < FEWEST:
        raise UserError(f"a map needs at least {FEWEST} clips, there are {len(embeddings)}; ask for more labels")
    rows = np.arange(len(embeddings))
    scaled = fit_scaler(embeddings, rows).apply(embeddings, rows)
    if not np.ptp(scaled, axis=0).any():
        raise UserError("the embeddings of all clips are the same: the model's output is broken")
    return _tsne(scaled, seed) if method == "tsne" else _umap(scaled, seed)


def _tsne(scaled: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # One thread: with several, the order of a sum, and hence the map, would change from run to run.
    with threadpool_limits(1):
        tsne = TSNE(perplexity=min(30.0, (len(scaled) - 1) / 3), init="pca", random_state=seed, n_jobs=1)
        return np.asarray(tsne.fit_transform(scaled), dtype=np.float32)


def _umap(scaled: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    try:
        with warnings.catch_warnings():  # about parts of it that are not used here
            warnings.simplefilter("ignore")
            from umap import UMAP
    except ImportError:
        raise UserError("--method=umap needs umap-learn: pip install 'evar-harness[maps]'; or --method=tsne") from None
    # With few clips the starting point from the graph's spectrum has too few dimensions to choose from.
    start = "spectral" if len(scaled) > 2 * FEWEST else "random"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        umap = UMAP(n_neighbors=min(15, len(scaled) - 1), init=start, random_state=seed, n_jobs=1)
        return np.asarray(umap.fit_transform(scaled), dtype=np.float32)


def map_path(
    folder: Path, model: Model, clips: Clips, rows: NDArray[np.int64], method: str, seed: int, precision: Precision
) -> Path:
    """Return where a map lies: beside the results, named as they are."""
    subject = subject_facts(model, clips, precision, "clip")
    run = run_id({"map": method, "seed": seed, "subject": subject, "rows": rows.tolist()})
    return result_path(folder, model.name, clips.task.name, method, run).with_suffix(".map.json")


def save_map(
    path: Path,
    points: NDArray[Any],
    files: Sequence[str],
    labels: Sequence[str],
    *,
    method: str,
    model: str,
    task: str,
    title: str = "",
    seed: int = 42,
) -> None:
    """Write ``points [n, 2]`` with a file and a label each, atomically, as JSON that the report reads.

    ``title`` says in words what was mapped, where the task's name does not.
    """
    if not (len(points) == len(files) == len(labels)):
        raise ValueError(f"{len(points)} points, {len(files)} files and {len(labels)} labels: expected as many of each")
    found = {
        "method": method,
        "model": model,
        "task": task,
        "title": title,
        "seed": seed,
        "points": [[round(float(x), 4), round(float(y), 4)] for x, y in points],
        "files": list(files),
        "labels": list(labels),
    }
    write_atomically(path, json.dumps(found, allow_nan=False) + "\n")


def read_map(path: Path) -> dict[str, Any]:
    """Return what :func:`save_map` wrote; raise :class:`UserError` for a file that is no map."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        lengths = {len(found[key]) for key in ("points", "files", "labels")}
        if len(lengths) != 1 or np.asarray(found["points"], dtype=np.float64).shape[1:] != (2,):
            raise ValueError("as many points [x, y] as files and labels are expected")
        return {"method": "", "model": "", "task": "", "title": "", **found}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a map of embeddings: {error}; delete it and make it again") from None


if __name__ == "__main__":
    main(embedding_map_command, extra=options_of_models)
