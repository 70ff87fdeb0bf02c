"""One fine-tuning run of one seed on one fold: the loop, its checkpoints, its best weights."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evar import metrics, ranks
from evar.checkpoints import BEST, LAST, Checkpoint, load_checkpoint, load_last, same_settings, save_last_and_best
from evar.clips import Clips, Part, TaskTrainingClips
from evar.errors import UserError
from evar.feed import FedBatch, Feed, open_feed
from evar.finetune_model import FineTuned, Inputs, augmented, features, losses
from evar.finetune_settings import FinetuneSettings, Preset
from evar.finetuned_files import load_into, save_model
from evar.optimisers import make_optimiser
from evar.progress import bar
from evar.sampling import Batch, balanced_order, batches, batches_per_epoch, epoch_order, weighted_order
from evar.schedules import finetune_lr
from evar.store import write_atomically
from evar.training import CsvLog, Machine, Trainer, micro_slices, set_recompute, step_line, step_log
from model_adapters.base import Adapter, Prepares
from model_adapters.registry import load_model

EPOCH_COLUMNS = ("epoch", "loss", "lr", "score", "best", "seconds")
EPOCHS, STEPS, MODEL = "epochs.csv", "steps.csv", "model"
DONE = "done.json"
OUTPUTS = "outputs.npy"


@dataclass(frozen=True)
class Job:
    """A model on a task, with everything its score depends on."""

    model: str
    """As the user wrote it."""
    weights: str | None
    options: Mapping[str, str]
    clips: Clips
    settings: FinetuneSettings
    preset: Preset
    machine: Machine
    folder: Path
    """Of result files."""
    sample_rate: int = 0
    """The model's (Hz)."""


@dataclass(frozen=True)
class FoldFit:
    """The outcome of one seed on one fold."""

    score: float
    every: dict[str, float]
    """Every score of the test part by name; the task's metric is ``score``."""
    scores: NDArray[np.float32]
    """``[n_test, C]``: softmax (single label) or sigmoid outputs of the weights that were kept, in the test's order."""
    details: dict[str, Any]
    seconds: float
    log: Path
    """The table of epochs."""


def fit_fold(job: Job, seed: int, part: Part, work: Path) -> FoldFit:
    """Train with this seed on this fold, or go on where a killed run was, and test; read what is done already."""
    folder = fold_folder(work, seed, part)
    if (folder / DONE).is_file():
        return _read_fit(folder)
    begin = time.perf_counter()
    loop = _Loop(job, seed, part, folder)
    loop.run()
    return loop.finish(begin)


def fold_folder(work: Path, seed: int, part: Part) -> Path:
    """Return where the checkpoints, tables and the model of this seed and fold lie."""
    return work / f"seed{seed}-{part.name.replace(' ', '')}"


def tested_again(job: Job, seed: int, part: Part, work: Path) -> FoldFit:
    """Test the model that was kept of this seed and fold; :class:`UserError` if there is none."""
    folder = fold_folder(work, seed, part)
    if not (folder / DONE).is_file():
        raise UserError(f"--eval_only: there is no finished run in {folder}; leave the option out to train it")
    network = FineTuned(adapter_of(job, part), len(job.clips.task.labels))
    load_into(network, folder / MODEL)
    logits = predict(network.to(job.machine.device), job, open_feed_of(job, seed), part.test, epoch=0, window="front")
    before, every = _read_fit(folder), scores_of(job.clips, part.test, logits)
    outputs = probabilities(job.clips, logits)
    return FoldFit(every[job.clips.task.metric], every, outputs, before.details, before.seconds, before.log)


def adapter_of(job: Job, part: Part) -> Adapter:
    """Return a fresh adapter on the machine's device, with the statistics of this fold's training clips."""
    adapter = load_model(job.model, job.weights, job.options).adapter
    for module in adapter.modules():
        if hasattr(module, "patchout_keeps"):
            keeps: Any = "marked" if job.settings.patchout_mode == "reference" else "unmarked"
            module.patchout_keeps = keeps
    set_recompute(adapter, job.machine.recompute)
    adapter.to(job.machine.device)
    if adapter.needs_prepare and isinstance(adapter, Prepares):
        task = job.clips.task
        training: Any = TaskTrainingClips(job.clips, part.train, task.batch_size)  # frozen, the protocol's is not
        with torch.no_grad():
            adapter.prepare(task.unit_seconds, training)
    return adapter


def open_feed_of(job: Job, seed: int) -> Feed:
    """Return the feed of the job's clips at the model's rate, from the packed store."""
    rate = job.sample_rate
    if ranks.is_main():
        open_feed(job.clips, rate, seed=seed, workers=job.machine.workers)  # packs what is missing, once
    ranks.barrier()
    return open_feed(job.clips, rate, seed=seed, device=job.machine.device, workers=job.machine.workers)


class _Loop:
    """The state of one training: network, schedule, where it is."""

    def __init__(self, job: Job, seed: int, part: Part, folder: Path) -> None:
        self.job, self.seed, self.part, self.folder = job, seed, part, folder
        s, task = job.settings, job.clips.task
        self.targets = one_hot(job.clips)
        self.orders = _Orders(job.clips, part.train, s, seed)
        self.per_epoch = batches_per_epoch(len(self.orders), s.batch_size)
        self.feed = open_feed_of(job, seed)
        torch.manual_seed(seed)  # the head's weights
        self.network = FineTuned(adapter_of(job, part), len(task.labels)).to(job.machine.device)
        self.network.freeze(s)
        optimiser = make_optimiser(s.optimizer, self.network, weight_decay=s.weight_decay, layer_decay=s.layer_decay)
        lrs = finetune_lr(s.lr, s.epochs, s.warmup_epochs, self.per_epoch, reference=s.schedule == "reference")
        machine = job.machine
        self.trainer = Trainer(
            self.network,
            optimiser,
            lrs,
            seed=seed,
            device=machine.device,
            precision=machine.precision,
            compile=machine.compile,
        )
        self.facts = asdict(s) | {"clips": len(part.train), "precision": machine.precision, "parts": machine.accumulate}
        self.best = -math.inf
        self.history: list[float] = []
        self.losses: list[float] = []
        """Of this epoch's steps so far."""

    def run(self) -> None:
        """Train to the last epoch, from the last checkpoint if there is one."""
        self._resume()
        steps = step_log(self.folder / STEPS, self.trainer.done)
        first = self.trainer.done // self.per_epoch
        epochs = CsvLog(self.folder / EPOCHS, EPOCH_COLUMNS, first)
        name = f"{self.job.model} on {self.job.clips.task.name}, seed {self.seed}, {self.part.name}"
        with bar(name, self.job.settings.epochs, initial=first, unit="epoch") as progress:
            progress.disable = progress.disable or not ranks.is_main()
            for epoch in range(first, self.job.settings.epochs):
                begin = time.perf_counter()
                loss = self._epoch(epoch, steps)
                score = self._evaluate(epoch)
                is_best = score > self.best or self.job.settings.select == "last"
                self.best = score if is_best else self.best
                self.history.append(score)
                line = {"epoch": epoch, "loss": f"{loss:.6g}", "lr": f"{self._lr():.6g}", "score": f"{score:.6g}"}
                epochs.write(**line, best=int(is_best), seconds=f"{time.perf_counter() - begin:.3f}")
                save_last_and_best(self.folder, self._checkpoint(epoch + 1), is_best)
                progress.set_postfix(loss=f"{loss:.4f}", score=f"{100 * score:.2f}", best=f"{100 * self.best:.2f}")
                progress.update()

    def _resume(self) -> None:
        last = load_last(self.folder, self.job.machine.device)
        if last is not None:
            so_far = {name: last.facts[name] for name in ("history", "losses")}
            same_settings({k: v for k, v in last.facts.items() if k not in so_far}, self.facts)
            self.trainer.restore(last.state)
            self.history, self.losses = list(so_far["history"]), list(so_far["losses"])
            self.best = -math.inf if last.best is None else last.best

    def _checkpoint(self, epoch: int) -> Checkpoint:
        facts = self.facts | {"history": self.history, "losses": self.losses}
        return Checkpoint(self.trainer.state(), self.seed, epoch, self.best if self.history else None, facts)

    def _lr(self) -> float:
        return float(self.trainer.lrs[self.trainer.done - 1])

    def _epoch(self, epoch: int, log: CsvLog) -> float:
        """Train one epoch, or the rest of it; return the mean loss of its steps."""
        self.network.learning()
        begun = self.trainer.done - epoch * self.per_epoch
        order = self.orders.of(epoch)
        own = list(batches(order, self.job.settings.batch_size, ranks.rank(), ranks.world(), first=begun))
        fed = self.feed.epoch((batch.mine for batch in own), epoch, "random")
        every = self.job.machine.checkpoint_every
        self.trainer.restart_clock()
        for batch, clips in zip(own, fed, strict=True):
            info = self.trainer.step(self._losses, self._micro_batches(batch, clips), rows=batch.rows)
            log.write(**step_line(info, epoch))
            self.losses += [] if info.skipped else [info.loss]
            if every and self.trainer.done % every == 0 and self.trainer.done % self.per_epoch:
                save_last_and_best(self.folder, self._checkpoint(epoch), False)
                self.trainer.restart_clock()
        mean = sum(self.losses) / len(self.losses) if self.losses else math.nan
        self.losses = []
        return mean

    def _micro_batches(self, batch: Batch, clips: FedBatch) -> Iterator[Inputs]:
        """Yield this rank's share of a batch, augmented as a whole, in as many parts as asked."""
        targets = self.targets[torch.from_numpy(clips.rows)].to(self.job.machine.device, non_blocking=True)
        adapter, settings = self.network.adapter, self.job.settings
        whole = augmented(adapter, clips.inputs, clips.lengths, targets, batch.rows, settings)
        for piece in micro_slices(len(targets), self.job.machine.accumulate):
            yield Inputs(whole.x[piece], whole.lengths[piece], whole.targets[piece])

    def _losses(self, inputs: Inputs) -> Tensor:
        logits = self.network(inputs.x, inputs.lengths, self.job.settings.patchout)
        return losses(logits, inputs.targets, multi_label=self.job.clips.task.multi_label)

    def _evaluate(self, epoch: int) -> float:
        """Return the score that chooses the best epoch: validation (random windows, as published), else test."""
        rows, window = (self.part.test, "front") if self.part.valid is None else (self.part.valid, "random")
        logits = predict(self.network, self.job, self.feed, rows, epoch=epoch, window=window)
        return scores_of(self.job.clips, rows, logits)[self.job.clips.task.metric]

    def finish(self, begin: float) -> FoldFit:
        """Test the best weights, keep them as a model, and note that this seed and fold, begun then, are done."""
        self.network.load_state_dict(load_checkpoint(self.folder / BEST, self.job.machine.device).state["model"])
        logits = predict(self.network, self.job, self.feed, self.part.test, epoch=0, window="front")
        every = scores_of(self.job.clips, self.part.test, logits)
        kept = max(range(len(self.history)), key=self.history.__getitem__)
        kept = len(self.history) - 1 if self.job.settings.select == "last" else kept
        details = {
            "epochs": len(self.history),
            "best_epoch": kept,
            "best_valid": None if self.part.valid is None else self.history[kept],
            "epoch_scores": [round(score, 6) for score in self.history],
            "steps": self.trainer.done,
            "skipped_steps": self.trainer.skipped,
            "model_state": self.network.adapter.state(),
        }
        outputs, seconds = probabilities(self.job.clips, logits), time.perf_counter() - begin
        fit = FoldFit(every[self.job.clips.task.metric], every, outputs, details, seconds, self.folder / EPOCHS)
        if ranks.is_main():
            kept_as = self.folder / MODEL
            save_model(kept_as, self.network, self.job.clips.task, self.job.model, self.job.weights, self.job.options)
            _write_fit(self.folder, fit)
            for name in (LAST, BEST):
                (self.folder / name).unlink(missing_ok=True)
        ranks.barrier()
        return fit


class _Orders:
    """Which clips every epoch sees, in which order."""

    def __init__(self, clips: Clips, rows: NDArray[np.int64], settings: FinetuneSettings, seed: int) -> None:
        self.rows, self.settings, self.seed = rows, settings, seed
        self.draws = settings.draws or len(rows)
        if settings.sampler == "weighted":
            self.weights = clips.table["weight"].to_numpy(dtype=np.float64)[rows]
            self.draws = min(self.draws, int(np.count_nonzero(self.weights)))
        self.targets = clips.targets[rows]

    def __len__(self) -> int:
        return self.draws if self.settings.sampler != "shuffle" else len(self.rows)

    def of(self, epoch: int) -> NDArray[np.int64]:
        """Return the clips of an epoch, in order."""
        if self.settings.sampler == "weighted":
            return self.rows[weighted_order(self.weights, self.draws, self.seed, epoch)]
        if self.settings.sampler == "balanced":
            return self.rows[balanced_order(self.targets, self.draws, self.seed, epoch)]
        return self.rows[epoch_order(len(self.rows), self.seed, epoch)]


def one_hot(clips: Clips) -> Tensor:
    """Return the targets ``[N, C]`` of all clips, float32: one-hot or multi-hot."""
    if clips.task.multi_label:
        return torch.from_numpy(clips.targets).float()
    return torch.nn.functional.one_hot(torch.from_numpy(clips.targets), len(clips.task.labels)).float()


def predict(
    network: FineTuned, job: Job, feed: Feed, rows: NDArray[np.int64], *, epoch: int, window: Any
) -> NDArray[np.float32]:
    """Return the logits ``[len(rows), C]`` in evaluation mode; each rank does its share of the clips."""
    network.eval()
    mine = rows[ranks.my_rows(len(rows))]
    size = max(1, job.settings.batch_size // ranks.world())
    pieces = [mine[i : i + size] for i in range(0, len(mine), size)]
    device, found = job.machine.device, []
    half = torch.autocast(device.type, torch.bfloat16, enabled=job.machine.precision == "bf16")
    with torch.no_grad(), half:
        for batch in feed.epoch(pieces, epoch, window):
            x = features(network.adapter, batch.inputs, batch.lengths, job.settings.short_clips)
            found.append(network(x, batch.lengths))
    width = len(job.clips.task.labels)
    logits = ranks.gathered(torch.cat(found) if found else torch.zeros(0, width, device=device))
    return logits.cpu().numpy()


def probabilities(clips: Clips, logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the softmax of logits ``[n, C]``, or for a multi-label task their sigmoid."""
    of = torch.from_numpy(logits)
    return (of.sigmoid() if clips.task.multi_label else of.softmax(dim=1)).numpy()


def scores_of(clips: Clips, rows: NDArray[np.int64], outputs: NDArray[np.float32]) -> dict[str, float]:
    """Return every score by name of the logits ``[len(rows), C]`` of these clips; the task's metric is among them.

    Logits and not probabilities (RUNNERS 2.2): in float32 a sigmoid of 17 is 1 and would tie with all above it.
    """
    task, targets = clips.task, clips.targets[rows]
    if task.score is not None:
        return task.score(clips.table.iloc[rows], outputs)
    if task.multi_label:
        return {task.metric: metrics.mean_average_precision(outputs, targets)}
    return {task.metric: metrics.accuracy(outputs, targets)}


def _write_fit(folder: Path, fit: FoldFit) -> None:
    part = folder / f".{OUTPUTS}.part.npy"
    np.save(part, fit.scores)
    part.replace(folder / OUTPUTS)
    facts = {"score": fit.score, "every": fit.every, "details": fit.details, "seconds": fit.seconds}
    write_atomically(folder / DONE, json.dumps(facts, indent=1))


def _read_fit(folder: Path) -> FoldFit:
    facts = json.loads((folder / DONE).read_text())
    log, outputs = folder / EPOCHS, np.load(folder / OUTPUTS)
    return FoldFit(facts["score"], facts["every"], outputs, facts["details"], facts["seconds"], log)
