"""One pre-training run: corpus and captions in, checkpoints and tables out; it goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evar import ranks
from evar.checkpoints import Checkpoint, load_last, same_settings, save_last_and_best
from evar.errors import UserError
from evar.optimisers import make_optimiser
from evar.plots import plot_pretraining
from evar.pretrain.base import Batch, DataFacts, Objective
from evar.pretrain.caption_store import Captions, open_captions
from evar.pretrain.corpus import Corpus, open_corpus
from evar.pretrain.feature_crops import features_of_corpus
from evar.pretrain.feature_store import Features
from evar.pretrain.feed import PretrainFeed, epoch_batches, steps_per_epoch
from evar.pretrain.files import begin_with, published_state, write_checkpoint
from evar.pretrain.log import FIGURES, STEPS, FigureLog, Parts
from evar.pretrain.objectives import build
from evar.pretrain.settings import PretrainSettings, run_name
from evar.pretrain.stats import norm_stats_of
from evar.progress import bar, say
from evar.results import versions
from evar.schedules import pretrain_lr
from evar.store import write_atomically
from evar.training import Machine, Trainer, micro_slices, set_recompute, step_line, step_log
from model_adapters.networks.checkpoints import read_checkpoint
from model_adapters.networks.vit import Block

Evaluate = Callable[[Path, Path, int, bool], Any]
SETTINGS, SIDE = "settings.json", "side.csv"
FIGURES_EVERY = 10
"""Steps between lines of loss parts: each is one more wait for the device."""


@dataclass(frozen=True)
class Plan:
    """A run, with everything its outcome depends on and where it goes."""

    preset: str
    settings: PretrainSettings
    corpus: Path
    out: Path
    captions: Path | None = None
    noise: Path | None = None
    """Corpus of background noise."""
    lms: Path | None = None
    """Folder of the reference's log-mel files, where ``corpus`` is its CSV."""
    init: str = ""
    norm_stats: tuple[float, float] | None = None
    """None: the corpus's own, or with ``init`` in stage 2 those of the checkpoint."""
    machine: Machine = field(default_factory=Machine)
    save_every: int = 0
    """Epochs between published checkpoints; 0: at the end only."""
    eval_every: int = 0
    """Epochs between evaluations on the side; 0 for none."""
    evaluate: Evaluate | None = None
    """What evaluates: a function of (checkpoint, folder of the run, epoch, whether the model has a text side)."""
    features: Path | None = None
    """Folder of a frozen model's features of the clips."""


def pretrain(plan: Plan) -> Path:
    """Run a plan, or the rest of it, and return the last published checkpoint."""
    run = _Run(plan)
    run.train()
    return run.last


class _Run:
    """The state of a run."""

    last: Path

    def __init__(self, plan: Plan) -> None:
        self.plan, s = plan, plan.settings
        self.corpus, self.captions = _data(plan)
        noise = open_corpus(plan.noise, None, s.sample_rate) if plan.noise is not None else None
        if s.noise_ratio and noise is None:
            raise UserError(f"--noise_ratio={s.noise_ratio} needs --noise=CORPUS, a corpus of background sounds")
        self.features = _features(plan, self.corpus)
        self.stats = _norm_stats(plan, self.corpus)
        self.facts = DataFacts(
            self.stats,
            0 if self.captions is None else self.captions.dim,
            self.corpus.classes,
            0 if self.features is None else self.features.dim,
        )
        torch.manual_seed(s.seed)
        self.objective: Objective = build(s, self.facts)
        self.init_sha256 = begin_with(self.objective, plan.init, quiet=not ranks.is_main()) if plan.init else ""
        _needs(self.objective, self.corpus, self.captions)
        if plan.features is not None and not self.objective.takes_features:
            raise UserError(f"{s.objective} learns no stored features: leave out --features")
        self.objective.to(plan.machine.device)
        _speed(self.objective, plan.machine)
        self.per_epoch = steps_per_epoch(len(self.corpus), s.batch_size, s.min_clips)
        self.feed = PretrainFeed(
            self.corpus,
            s,
            self.stats,
            device=plan.machine.device,
            noise=noise,
            workers=plan.machine.workers,
            labels=self.objective.takes_labels,
            features=self.features if self.objective.takes_features else None,
        )
        steps = s.epochs * self.per_epoch
        self.objective.plan(steps)
        optimiser = make_optimiser(
            "adamw", self.objective, weight_decay=s.weight_decay, decay_vectors=False, amsgrad=False
        )
        self.trainer = Trainer(
            self.objective, optimiser, pretrain_lr(s.lr, s.epochs, s.warmup_epochs, self.per_epoch, s.min_lr),
            seed=s.seed, device=plan.machine.device, precision=plan.machine.precision, clip_norm=s.clip_norm,
        )  # fmt: skip
        self.parts = Parts()

    def train(self) -> None:
        """Train to the last epoch, from the last checkpoint if there is one; write checkpoints on the way."""
        s, out, done = self.plan.settings, self.plan.out, self._resume()
        self.steps = step_log(self.plan.out / STEPS, done)
        self.figures = FigureLog(self.plan.out / FIGURES, done)
        self._describe()
        first = done // self.per_epoch
        with bar(run_name(s, self.plan.preset), s.epochs * self.per_epoch, initial=done, unit="step") as progress:
            progress.disable = progress.disable or not ranks.is_main()
            for epoch in range(first, s.epochs):
                for loss in self._epoch(epoch):
                    progress.set_postfix(epoch=epoch + 1, loss=f"{loss:.4f}", refresh=False)
                    progress.update()
                self._save()
                last = epoch + 1 == s.epochs
                if last or (self.plan.save_every and (epoch + 1) % self.plan.save_every == 0):
                    self.last = self._publish(epoch + 1)
                self._aside(epoch + 1, last)
                if ranks.is_main() and (last or self.plan.evaluate is not None):
                    plot_pretraining(out / STEPS, out / FIGURES, out / SIDE, out / "curves.png")
        if first >= s.epochs:
            there = self.plan.out / run_name(s, self.plan.preset) / f"checkpoint-{s.epochs}.pth"
            self.last = there if there.is_file() else self._publish(s.epochs)

    def _epoch(self, epoch: int) -> Iterator[float]:
        """Train one epoch, or the rest of it; yield the loss of each step."""
        s = self.plan.settings
        self.objective.train()
        begun = self.trainer.done - epoch * self.per_epoch
        own = list(epoch_batches(len(self.corpus), s, epoch, ranks.rank(), ranks.world(), first=begun))
        fed = self.feed.epoch(own, epoch)
        self.trainer.restart_clock()
        for batch, data in zip(own, fed, strict=True):
            parts = self._parts_of(data, batch.rows)
            info = self.trainer.step(self._losses, parts, rows=batch.rows)
            if not info.skipped:
                self.objective.after_step(info.step)
            self.steps.write(**step_line(info, epoch))
            if info.step % FIGURES_EVERY == 0:
                self._figures(info.step)
            else:
                self.parts.forget()
            every = self.plan.machine.checkpoint_every
            if every and self.trainer.done % every == 0 and self.trainer.done % self.per_epoch:
                self._save()
                self.trainer.restart_clock()
            yield info.loss

    def _parts_of(self, data: Batch, rows: int) -> Iterator[tuple[Batch, Tensor]]:
        """Yield this rank's rows of a step in as many parts as asked, with captions and noise for them."""
        noise = self.objective.draw(rows)  # on the CPU: the objective moves what it needs
        data = self._with_captions(data)
        for piece in micro_slices(len(data), self.plan.machine.accumulate):
            yield data.part(piece), noise[piece]

    def _with_captions(self, data: Batch) -> Batch:
        kind = self.objective.text_input
        if self.captions is None or kind == "none":
            return data
        drawn = self.captions.drawn(data.clips, self.plan.settings.seed, self.trainer.done)
        fields = {name: getattr(data, name) for name in data.__dataclass_fields__}
        if kind == "captions":
            return Batch(**fields | {"captions": self.captions.texts(drawn)})
        text = self.captions.embeddings(drawn).to(self.plan.machine.device, non_blocking=True)
        return Batch(**fields | {"text": text})

    def _losses(self, part: tuple[Batch, Tensor]) -> Tensor:
        return self.parts.add(self.objective.losses(*part))

    def _figures(self, step: int) -> None:
        means = self.parts.means()
        self.figures.write(step, means | dict(self.objective.figures()))

    def _recorded(self) -> dict[str, Any]:
        """Return what must not change when a run goes on."""
        machine = self.plan.machine
        features = {} if self.features is None else {"features": self.features.fingerprint}
        return asdict(self.plan.settings) | {
            "corpus": self.corpus.fingerprint,
            "captions": "" if self.captions is None else self.captions.fingerprint,
            "norm_stats": list(self.stats),
            "init": self.init_sha256,
            "precision": machine.precision,
            "parts": machine.accumulate,
            **features,
        }

    def _resume(self) -> int:
        last = load_last(self.plan.out, self.plan.machine.device)
        if last is not None:
            same_settings(last.facts, self._recorded())
            self.trainer.restore(last.state)
        return self.trainer.done

    def _save(self) -> None:
        s = self.plan.settings
        epoch = self.trainer.done // self.per_epoch
        save_last_and_best(
            self.plan.out, Checkpoint(self.trainer.state(), s.seed, epoch, None, self._recorded()), False
        )

    def _describe(self) -> None:
        if ranks.is_main():
            facts = self._recorded() | {"preset": self.plan.preset, "versions": versions(), "processes": ranks.world()}
            write_atomically(self.plan.out / SETTINGS, json.dumps(facts, indent=1) + "\n")

    def _publish(self, epoch: int) -> Path:
        folder = self.plan.out / run_name(self.plan.settings, self.plan.preset)
        path = folder / f"checkpoint-{epoch}.pth"
        if ranks.is_main():
            path = write_checkpoint(folder, published_state(self.objective), epoch, self._facts(), "full")
        ranks.barrier()
        return path

    def _facts(self) -> dict[str, Any]:
        """Return what stands beside a checkpoint; the adapters take the text encoder's id from it."""
        text: dict[str, Any] = {}
        if self.objective.text_input == "captions":
            text = {"text_encoder": self.plan.settings.text_encoder}
        elif self.captions is not None:
            text = {"text_encoder": self.captions.encoder, "pooling": self.captions.pooling}
            text |= {"normalise": self.captions.normalised}
        constants = "ours: the paper gives none" if self.plan.settings.our_constants else "the paper's"
        return text | {"preset": self.plan.preset, "constants": constants, "settings": self._recorded()}

    def _aside(self, epoch: int, last: bool) -> None:
        evaluate, every = self.plan.evaluate, self.plan.eval_every
        if evaluate is None or not (last or epoch % every == 0):
            return
        if ranks.is_main():
            name = run_name(self.plan.settings, self.plan.preset)
            folder = self.plan.out / "side" / name
            path = write_checkpoint(folder, published_state(self.objective), epoch, self._facts(), "full")
            evaluate(path, self.plan.out, epoch, self.objective.text_input != "none")
            path.unlink()
        ranks.barrier()
        self.trainer.restart_clock()


def _data(plan: Plan) -> tuple[Corpus, Captions | None]:
    """Return corpus and captions; of a corpus whose captions may be missing, the clips that have one."""
    corpus = open_corpus(plan.corpus, plan.lms, plan.settings.sample_rate)
    if plan.captions is None:
        return corpus, None
    captions = open_captions(plan.captions).for_corpus(corpus.names)
    there = captions.captioned
    if len(there) == len(corpus):
        return corpus, captions
    say(f"{len(corpus) - len(there):,} of {len(corpus):,} clips have no caption and are left out")
    corpus = corpus.only(there)
    return corpus, captions.for_corpus(corpus.names)


def _features(plan: Plan, corpus: Corpus) -> Features | None:
    """Return the stored features; with a teacher only those that are asked for (the objective refuses both)."""
    return None if plan.settings.teacher and plan.features is None else features_of_corpus(corpus, plan.features)


def _norm_stats(plan: Plan, corpus: Corpus) -> tuple[float, float]:
    """Return the mean and deviation that standardise: given, else a frozen encoder's own, else the corpus's."""
    if plan.norm_stats is not None:
        return plan.norm_stats
    if plan.init and not plan.settings.train_encoder:
        found, _ = read_checkpoint(plan.init, keep_module=True)
        for name in ("norm_stats", "backbone.norm_stats"):
            if name in found:
                mean, deviation = found[name].tolist()
                return mean, deviation
    if ranks.is_main():
        norm_stats_of(corpus, plan.settings)  # kept in the corpus's folder
    ranks.barrier()
    return norm_stats_of(corpus, plan.settings)


def _needs(objective: Objective, corpus: Corpus, captions: Captions | None) -> None:
    """Raise :class:`UserError` if the objective takes what was not given."""
    if objective.text_input != "none" and captions is None:
        raise UserError("this objective takes captions: --captions=DIR, made by python -m evar.pretrain.captions")
    if objective.text_input == "embeddings" and captions is not None and not captions.dim:
        raise UserError(
            "these captions have no embeddings: make them with --encoder (python -m evar.pretrain.captions)"
        )


def _speed(objective: Objective, machine: Machine) -> None:
    if machine.recompute:
        set_recompute(objective, True)
    for block in (part for part in objective.modules() if machine.compile and isinstance(part, Block)):
        block.compile()
