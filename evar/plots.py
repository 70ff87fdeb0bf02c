"""Plots of results (extra 'plots': matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from evar.errors import UserError
from evar.results import Result


def plot_results(results: list[Result], path: Path) -> None:
    """Draw the results with their 95 % intervals, a panel per protocol, a group of bars per task; dotted: chance."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt
    except ImportError:
        raise UserError("--plot needs matplotlib: pip install 'evar-harness[plots]'") from None
    from evar.report import PROTOCOLS, row_names
    from tasks.base import all_tasks

    known = all_tasks()
    protocols = [p for p in PROTOCOLS if any(r["protocol"] == p for r in results)]
    height = 3.2 * len(protocols) + 0.4
    figure, axes = plt.subplots(len(protocols), 1, figsize=(9, height), squeeze=False, layout="constrained")
    for axis, protocol in zip(axes[:, 0], protocols, strict=True):
        of_protocol = [r for r in results if r["protocol"] == protocol]
        named = zip(row_names(of_protocol), of_protocol, strict=True)
        chosen = {(name, r["task"]): r for name, r in named}
        rows = list(dict.fromkeys(name for name, _ in chosen))
        tasks = list(dict.fromkeys(task for _, task in chosen))
        width = 0.8 / len(rows)
        for number, row in enumerate(rows):
            here = [(at, chosen[row, task]) for at, task in enumerate(tasks) if (row, task) in chosen]
            places = [at + (number - (len(rows) - 1) / 2) * width for at, _ in here]
            means = [100 * r["mean"] for _, r in here]
            errors = [100 * (r["ci95"] or 0.0) for _, r in here]
            axis.bar(places, means, 0.92 * width, yerr=errors, capsize=2, label=row, error_kw={"linewidth": 0.8})
        for at, task in enumerate(tasks):
            if task in known and not known[task].multi_label:
                chance = 100 / len(known[task].labels)
                axis.hlines(chance, at - 0.45, at + 0.45, colors="0.4", linestyles="dotted", linewidth=1)
        axis.set_xticks(range(len(tasks)), tasks)
        axis.set_ylim(0, 100)
        axis.set_ylabel("score (%)")
        axis.set_title(PROTOCOLS[protocol], loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write a figure of ``--plot`` and close it; :class:`UserError` for a file name whose ending is no picture's."""
    from matplotlib import pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(path, dpi=150)
    except ValueError as error:
        raise UserError(f"--plot={path}: {error}") from None
    finally:
        plt.close(figure)


def plot_pretraining(steps: Path, figures: Path, side: Path, path: Path) -> bool:
    """Draw a pre-training run from its tables: parts of the loss, learning rate, scores on the side (if there are any).

    Returns whether it was drawn: where matplotlib is not installed the tables have to do.
    """
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    taken, parts = pd.read_csv(steps), pd.read_csv(figures)
    scores = pd.read_csv(side) if side.is_file() else None
    figure, axes = pyplot.subplots(1, 2 if scores is None else 3, figsize=(12, 3.2), layout="constrained")
    for column in (name for name in parts if name not in ("step", "target_variance", "temperature")):
        axes[0].plot(parts["step"], parts[column], linewidth=1, label=column)
    axes[1].plot(taken["step"], taken["lr"], linewidth=1)
    axes[0].set(title="loss and its parts", xlabel="step")
    axes[1].set(title="learning rate", xlabel="step")
    if scores is not None:
        for (task, protocol), line in scores.groupby(["task", "protocol"]):
            half = 100 * line["ci95"].fillna(0)
            axes[2].errorbar(line["epoch"], 100 * line["score"], half, capsize=2, label=f"{task}, {protocol}")
        axes[2].set(title="on the side (%)", xlabel="epoch")
        axes[2].legend(fontsize="small")
    axes[0].legend(fontsize="small")
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True


def plot_curves(logs: Sequence[Path], path: Path) -> dict[str, str]:
    """Draw loss, learning rate and score by epoch, one line per table of epochs; return the file's name for ``files``.

    Nothing is drawn where matplotlib is not installed: the tables themselves lie beside the checkpoints.
    """
    try:
        import matplotlib
    except ImportError:
        return {}
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    for log in logs:
        table = pd.read_csv(log)
        for axis, (column, scale) in zip(axes, (("loss", 1), ("lr", 1), ("score", 100)), strict=True):
            axis.plot(table["epoch"] + 1, scale * table[column], linewidth=1, label=log.parent.name)
    for axis, title in zip(axes, ("training loss", "learning rate", "score for the best epoch (%)"), strict=True):
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
    if len(logs) <= 8:
        axes[2].legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return {"curves": path.name}
