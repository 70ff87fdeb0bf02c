"""The engine of fine-tuning and pre-training: one optimiser step on one process or many, the same either way.

The caller writes the loop. A step seeds torch's generator from (seed, step), runs the forward and backward passes of
this rank's micro batches, sums gradients over ranks, and lets the optimiser act at the schedule's rate::

    trainer = Trainer(model, optimiser, finetune_lr(...), seed=43, device=device)
    for batch in batches(epoch_order(n, 43, epoch), 128, rank(), world()):
        info = trainer.step(loss_of, [load(batch.mine)], rows=batch.rows)
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from evar import ranks
from evar.errors import UserError
from evar.extract import Precision
from evar.optimisers import set_lr

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Machine:
    """What changes speed and memory of a training only, but for the precision, and the parts that a batch is cut into.

    Each part is standardised by batch norms, and contrasted, by itself.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "fp32"
    workers: int | None = None
    """Reading threads; None: one per core, at most eight."""
    accumulate: int = 1
    """Parts of a batch that pass one after the other."""
    checkpoint_every: int = 0
    """Optimiser steps between checkpoints to go on from; 0: after every epoch only."""
    compile: bool = False
    recompute: bool = False
    """Compute activations inside blocks again instead of keeping them."""


def set_recompute(module: nn.Module, recompute: bool) -> bool:
    """Have encoders compute activations again instead of keeping them, or not; return whether there is one that can."""
    able: list[Any] = [part for part in module.modules() if hasattr(part, "recompute")]
    for part in able:
        part.recompute = recompute
    return bool(able)


Micro = TypeVar("Micro")


@dataclass(frozen=True)
class StepInfo:
    """What one optimiser step did."""

    step: int
    """Its number in the run, from 0."""
    loss: float
    """Mean over the global batch's rows."""
    lr: float
    """The learning rate in force."""
    grad_norm: float
    """Euclidean norm of the whole gradient before clipping."""
    rows: int
    """Size of the global batch."""
    skipped: bool
    """The loss or gradient was not finite: nothing was learnt."""
    seconds: float
    """Wall time since the step before ended, waiting for data included."""
    waited: float
    """The part of it before this step began: the loader's."""


class Trainer:
    """A model, its optimiser and its schedule, advanced one step at a time.

    Args:
        model: everything that is trained. The engine never calls it: ``loss_of`` does. Call ``model.train()``
            yourself.
        optimiser: from :func:`evar.optimisers.make_optimiser`.
        lrs: the learning rate of every step of the run, from :mod:`evar.schedules`; its length is the run's.
        seed: with the step's number, seeds torch's generators before each step.
        device: where ``model`` is.
        precision: ``fp32``, or ``bf16`` for autocast (weights and gradients stay float32).
        clip_norm: gradients longer than this are shortened to it; ``None`` is off.
        compile: let ``torch.compile`` compile ``model``'s own forward, in place: state-dict names stay.
        max_bad_steps: a step without a finite loss and gradient is skipped; so many in a row are an error.
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        lrs: Sequence[float] | np.ndarray,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        clip_norm: float | None = None,
        compile: bool = False,
        max_bad_steps: int = 10,
    ) -> None:
        if precision not in PRECISIONS:
            raise UserError(f"unknown precision '{precision}'. There are: {', '.join(PRECISIONS)}.")
        if clip_norm is not None and not clip_norm > 0:
            raise UserError(f"the gradient's norm can be clipped to a positive number only, got {clip_norm}")
        self.model, self.optimiser, self.lrs, self.seed = model, optimiser, lrs, seed
        self.device, self.precision, self.clip_norm = torch.device(device), precision, clip_norm
        self.max_bad_steps = max_bad_steps
        self.done = 0
        """Steps taken, skipped ones included: the number of the next step."""
        self.skipped = 0
        """Steps skipped in the whole run."""
        self.skipped_in_a_row = 0
        self.parameters: list[nn.Parameter] = [p for group in optimiser.param_groups for p in group["params"]]
        self._statistics = _running_statistics(model)
        self._last_end: float | None = None
        ranks.same_start(model)
        if compile:
            model.compile()

    def step(self, loss_of: Callable[[Micro], Tensor], micro_batches: Iterable[Micro], rows: int) -> StepInfo:
        """Take one optimiser step on a global batch of ``rows`` rows, of which this rank has its share.

        Args:
            loss_of: returns the losses of a micro batch's rows ``[b]``, called under autocast when asked. A loss that
                only exists for the whole micro batch is returned as ``loss.expand(b)``. The step's loss is the mean
                over all rows of all micro batches of all ranks.
            micro_batches: this rank's rows in one or more parts (gradient accumulation), as many parts on each rank;
                a part may be empty. May be a generator: its body runs after the seeding, so it can make the random
                draws for the global batch and then yield slices. Batch norms see one part at a time.
            rows: the global batch's size.

        Raises:
            UserError: too many steps in a row without a finite loss and gradient.
            ValueError: the losses were not one per row, or the schedule is at its end.
        """
        if self.done >= len(self.lrs):
            raise ValueError(f"the schedule ends after {len(self.lrs)} steps")
        begin = time.perf_counter()
        lr = float(self.lrs[self.done])
        set_lr(self.optimiser, lr)
        seed_step(self.seed, self.done)
        before = [statistic.clone() for statistic in self._statistics]
        self.optimiser.zero_grad(set_to_none=True)
        loss, norm = self._gradients(loss_of, micro_batches, rows)
        finite = bool(np.isfinite(loss) and np.isfinite(norm))
        if finite:
            self._clip(norm)
            self.optimiser.step()
        else:
            for statistic, old in zip(self._statistics, before, strict=True):
                statistic.copy_(old)
        self._count(finite, lr)
        end, last = time.perf_counter(), begin if self._last_end is None else self._last_end
        self._last_end = end
        return StepInfo(self.done - 1, loss, lr, norm, rows, not finite, end - last, begin - last)

    def restart_clock(self) -> None:
        """Leave the time since the last step (an evaluation, a checkpoint) out of the next step's."""
        self._last_end = None

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs besides seed and schedule; tensors are the live ones, not copies."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "optimiser_kind": type(self.optimiser).__name__,
            "step": self.done,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`, to the last bit on the CPU.

        Raises:
            UserError: the state is of another network or optimiser.
        """
        kind = type(self.optimiser).__name__
        if state["optimiser_kind"] != kind:
            raise UserError(f"the checkpoint is of the optimiser {state['optimiser_kind']}, not {kind}")
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError, KeyError) as error:
            first = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
            raise UserError(f"the checkpoint is of another network or optimiser: {first}") from error
        self.done, self.skipped = int(state["step"]), int(state["skipped"])
        self.skipped_in_a_row = int(state["skipped_in_a_row"])

    def _gradients(self, loss_of: Callable[[Micro], Tensor], parts: Iterable[Micro], rows: int) -> tuple[float, float]:
        """Leave the global batch's mean gradient in the parameters; return mean loss and gradient norm."""
        total = torch.zeros(2, dtype=torch.float64, device=self.device)
        for part in parts:
            with self._autocast():
                losses = loss_of(part)
            if losses.dim() != 1:
                raise ValueError(f"the losses must be one per row, got the shape {list(losses.shape)}")
            summed = losses.float().sum() if losses.dtype in (torch.bfloat16, torch.float16) else losses.sum()
            (summed / rows).backward()
            total += torch.stack([summed.detach().double(), total.new_tensor(len(losses))])
        ranks.sum_gradients(self.parameters)
        total = ranks.sum_over_ranks(total)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norms = torch.stack(torch._foreach_norm(gradients)) if gradients else total.new_zeros(1)
        # The one place where the host waits for the device: everything it must know comes in one transfer.
        loss, counted, norm = torch.cat([total, torch.linalg.vector_norm(norms).double()[None]]).tolist()
        if round(counted) != rows:
            raise ValueError(f"the ranks' micro batches hold {round(counted)} rows, the global batch {rows}")
        return loss / rows, norm

    def _autocast(self) -> Any:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _clip(self, norm: float) -> None:
        if self.clip_norm is not None and norm > self.clip_norm:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            torch._foreach_mul_(gradients, self.clip_norm / (norm + 1e-6))

    def _count(self, finite: bool, lr: float) -> None:
        self.done += 1
        self.skipped += not finite
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        if self.skipped_in_a_row >= self.max_bad_steps:
            raise UserError(
                f"{self.skipped_in_a_row} steps in a row up to step {self.done - 1} gave a loss or gradient that is "
                f"not a finite number (learning rate {lr:g}): lower the learning rate, or look for bad input"
            )


def seed_step(seed: int, step: int) -> None:
    """Seed torch's generators from (seed, step): the CPU's alike on every rank, each GPU's with its rank besides.

    Draws for the global batch are made on the CPU. A GPU draws for its own rows only (dropout), and must not repeat
    what another rank draws for others.
    """
    torch.manual_seed(_mixed(seed, step))
    if torch.cuda.is_available():
        torch.cuda.manual_seed(_mixed(seed, step, ranks.rank()))


def _mixed(*numbers: int) -> int:
    # SeedSequence scatters neighbouring numbers over the whole range; torch takes 63 bits.
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def micro_slices(rows: int, parts: int) -> list[slice]:
    """Return how ``rows`` rows are cut into ``parts`` micro batches: in order, sizes differing by at most one."""
    if parts < 1:
        raise UserError(f"gradients are accumulated over at least one micro batch, got {parts}")
    return [ranks.share(rows, part, parts) for part in range(parts)]


def _running_statistics(model: nn.Module) -> list[Tensor]:
    """Return the batch norms' running statistics: one bad batch must not stay in them for ever."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    return [buffer for module in norms for buffer in module.buffers(recurse=False)]


class CsvLog:
    """A growing table beside the checkpoint, a line per step or epoch, written by rank 0 only.

    Args:
        path: the file; made with its header where it is missing.
        columns: the header; the first one counts up (``step``, ``epoch``).
        resume_at: lines of this count and later are dropped first: a resumed run writes them again.
    """

    def __init__(self, path: Path, columns: Sequence[str], resume_at: int = 0) -> None:
        self.path, self.columns = path, list(columns)
        if not ranks.is_main():
            return
        kept: list[dict[str, str]] = []
        if resume_at and path.is_file():
            with path.open(newline="") as file:
                # A line cut by a kill has no number, or fewer cells: it is written again as well.
                kept = [line for line in csv.DictReader(file) if _is_before(line, self.columns, resume_at)]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)

    def write(self, **values: Any) -> None:
        """Append one line; columns that are not given stay empty."""
        unknown = set(values) - set(self.columns)
        if unknown:
            raise ValueError(f"no such column: {', '.join(sorted(unknown))}")
        if ranks.is_main():
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(values)


def _is_before(line: dict[str, str], columns: list[str], count: int) -> bool:
    first = line.get(columns[0]) or ""
    return first.isdigit() and int(first) < count and line.get(columns[-1]) is not None


STEP_COLUMNS = ("step", "epoch", "loss", "lr", "grad_norm", "clips_per_s", "waited_share", "skipped")


def step_log(path: Path, resume_at: int = 0) -> CsvLog:
    """Return the table of steps; write to it with :func:`step_line`."""
    return CsvLog(path, STEP_COLUMNS, resume_at)


def step_line(info: StepInfo, epoch: int) -> dict[str, Any]:
    """Return a step's line: ``log.write(**step_line(info, epoch))``. Floats have six digits."""
    seconds = max(info.seconds, 1e-9)
    return {
        "step": info.step,
        "epoch": epoch,
        "loss": f"{info.loss:.6g}",
        "lr": f"{info.lr:.6g}",
        "grad_norm": f"{info.grad_norm:.6g}",
        "clips_per_s": f"{info.rows / seconds:.6g}",
        "waited_share": f"{info.waited / seconds:.3f}",
        "skipped": int(info.skipped),
    }
