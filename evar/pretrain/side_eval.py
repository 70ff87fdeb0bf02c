"""Evaluation on the side: linear evaluation and zero-shot classification every few epochs of a training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evar import lineareval, zeroshot
from evar.clips import open_task
from evar.errors import UserError
from evar.pretrain.run import SIDE
from evar.progress import say
from evar.results import Result
from evar.training import CsvLog
from model_adapters.registry import load_model
from tasks.base import get_task

COLUMNS = ("epoch", "task", "protocol", "score", "ci95")


@dataclass(frozen=True)
class SideEvaluation:
    """Which tasks are evaluated, and how often."""

    tasks: tuple[str, ...]
    every: int
    """Epochs."""
    root: Path | None = None
    seeds: int = 3

    def check(self) -> None:
        """Open every task, so that a missing data set is said before the training."""
        for name in self.tasks:
            task = get_task(name)
            if task.kind == "retrieval":
                raise UserError(f"--eval_tasks={name}: it has no classes; side evaluation classifies")
            open_task(task, self.root)

    def run(self, checkpoint: Path, out: Path, epoch: int, has_text: bool) -> list[Result]:
        """Evaluate a published checkpoint and add lines to ``side.csv``; call it on one rank."""
        results: list[Result] = []
        model_name = "m2d_clap" if has_text else "m2d"
        machine = lineareval.Machine()
        for name in self.tasks:
            clips = open_task(get_task(name), self.root)
            model = load_model(model_name, str(checkpoint), {})
            rate = model.probe_lr(clips.task.name)
            settings = lineareval.ProbeSettings(seeds=self.seeds, lr=rate, probe="logistic")
            results.append(lineareval.evaluate_linear(model, clips, settings, machine, out / "side" / "runs")[0])
            if has_text:
                shots = zeroshot.evaluate_zeroshot(model, clips, zeroshot.Settings(), out / "side" / "runs")
                results.append(shots[0])
        log = CsvLog(out / SIDE, COLUMNS, epoch)
        for result in results:
            half = result["ci95"]
            log.write(
                epoch=epoch, task=result["task"], protocol=result["protocol"], score=f"{result['mean']:.4f}",
                ci95="" if half is None else f"{half:.4f}",
            )  # fmt: skip
            say(f"epoch {epoch}: {result['task']} · {result['protocol']}: {100 * result['mean']:.1f} %")
        return results
