"""The pocket run: generate, embed, probe, classify from captions, tabulate, plot; no download, minutes on a laptop.

python -m evar.pocket [--out=results]
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from evar.cli import main
from evar.clips import open_task
from evar.lineareval import Machine, ProbeSettings, evaluate_linear
from evar.plots import plot_results
from evar.progress import say
from evar.report import tables_of
from evar.results import Result
from evar.store import write_atomically
from evar.tables import render
from evar.zeroshot import Settings, evaluate_zeroshot
from model_adapters.registry import load_model
from tasks.base import all_tasks


@dataclass(frozen=True)
class Entry:
    """A model of the pocket run: how to build it, and under which protocol it runs."""

    spec: str
    protocol: str
    weights: str | None = None
    options: dict[str, str] = field(default_factory=dict)


ENTRIES = (
    Entry("log_mel_stats", "lineareval"),
    Entry("byol_a", "lineareval", "random"),
    Entry("m2d", "lineareval", "random", {"depth": "2"}),
    # Until pre-training has made a real audio-language model: a closed-form map fitted on the training captions.
    Entry("caption_map:log_mel_stats", "zeroshot"),
)


def pocket(*, out: Path = Path("results"), root: Path | None = None, seeds: int = 3) -> None:
    """Run the whole chain on the pocket suite: three small tasks that are generated on first use.

    Ends with a table (also OUT/pocket.md) and a plot (OUT/pocket.png); the results lie in OUT/runs.

    Args:
        out: folder for results, table and plot
        root: folder for the generated data (default $EVAR_DATA, else the cache)
        seeds: number of classifier seeds
    """
    begin = time.perf_counter()
    names = [name for name, task in all_tasks().items() if "pocket" in task.tags]
    results: list[Result] = []
    for name in names:
        clips = open_task(all_tasks()[name], root)
        for entry in ENTRIES:
            model = load_model(entry.spec, entry.weights, entry.options)
            if entry.protocol == "lineareval":
                settings = ProbeSettings(seeds=seeds, lr=model.info.probe_lr)
                result, there = evaluate_linear(model, clips, settings, Machine(), out / "runs")
            else:
                result, there = evaluate_zeroshot(model, clips, Settings(), out / "runs")
            state = " (already there)" if there else ""
            say(f"{name} · {entry.spec} · {entry.protocol}: {100 * result['mean']:.1f} %{state}")
            results.append(result)
    tables = tables_of(results)
    write_atomically(out / "pocket.md", "\n\n".join(render(table, "markdown") for table in tables) + "\n")
    plot_results(results, out / "pocket.png")
    print("\n\n".join(render(table, "text") for table in tables))
    say(f"table: {out / 'pocket.md'}   plot: {out / 'pocket.png'}   ({time.perf_counter() - begin:.0f} s)")


if __name__ == "__main__":
    main(pocket)
