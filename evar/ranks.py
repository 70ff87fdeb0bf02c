"""Who am I among the processes of a run, and what do all of them know together.

Without ``torch.distributed`` every function here is the trivial one (rank 0 of 1), so that callers never ask. A global
batch of N rows is divided in rank order into shares that differ by at most one row; random draws are made for all N
rows on every rank alike, and each rank takes its own with :func:`mine`. Gradients and statistics are *summed* over
ranks and divided by N, hence a short batch with uneven shares gives what one process gives.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from evar.errors import UserError

BUCKET_BYTES = 25 * 2**20
"""Gradients travel in flat pieces of about this size: large enough for the network's full rate, small enough that
copying one piece overlaps with sending the one before."""


def rank() -> int:
    """Return this process's number among all processes, 0 without ``torch.distributed``."""
    return dist.get_rank() if world() > 1 else 0


def world() -> int:
    """Return the number of processes, 1 without ``torch.distributed``."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """Return whether this process writes files and prints."""
    return rank() == 0


def barrier() -> None:
    """Wait for all ranks."""
    if world() > 1:
        dist.barrier()


def start(device: str = "auto") -> torch.device:
    """Join the processes that ``torchrun`` started, if it did, and return this process's device.

    ``device`` is ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:1``. Under torchrun each local rank
    takes the GPU of its own number; CPU tensors travel by gloo, GPU tensors by nccl, in one group. Calling twice does
    no harm.

    Raises:
        UserError: no such GPU, or fewer GPUs than processes on this machine.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    many = int(os.environ.get("WORLD_SIZE", "1")) > 1
    chosen = torch.device(device)
    if chosen.type == "cuda":
        index = int(os.environ.get("LOCAL_RANK", "0")) if many else chosen.index or 0
        if index >= torch.cuda.device_count():
            raise UserError(f"no GPU number {index}: this machine shows {torch.cuda.device_count()} to torch")
        chosen = torch.device("cuda", index)
        torch.cuda.set_device(chosen)
    if many and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        # Rank 0 may pack or decode a large corpus while the others wait.
        dist.init_process_group(backend, timeout=timedelta(hours=2))
    return chosen


def stop() -> None:
    """Leave the group of processes, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def share(rows: int, part: int, parts: int) -> slice:
    """Return which of ``rows`` rows part number ``part`` of ``parts`` holds: in order, sizes differing by at most one.

    Where ``parts`` divides ``rows`` part r holds rows r*B to (r+1)*B. A part may be empty.
    """
    size, extra = divmod(rows, parts)
    first = part * size + min(part, extra)
    return slice(first, first + size + (part < extra))


def my_rows(rows: int) -> slice:
    """Return this rank's share of a global batch of ``rows`` rows."""
    return share(rows, rank(), world())


def mine(global_rows: Tensor) -> Tensor:
    """Return this rank's rows ``[B, ...]`` of a tensor ``[N, ...]`` that all ranks hold alike (a view)."""
    return global_rows[my_rows(len(global_rows))]


def gathered(local: Tensor, with_grad: bool = False) -> Tensor:
    """Return all ranks' rows ``[N, ...]``, in rank order, from each rank's ``[B, ...]``; B may differ, 0 included.

    With ``with_grad`` a gradient of the result flows back to every rank's own rows, summed over ranks: right where
    the loss is the sum of the ranks' losses, as in :mod:`evar.training`.
    """
    if world() == 1:
        return local
    if with_grad:
        gathered_rows: Tensor = _Gathered.apply(local)
        return gathered_rows
    return _all_rows(local.detach())[0]


def sum_over_ranks(values: Tensor, with_grad: bool = False) -> Tensor:
    """Return the sum over ranks of a tensor of one shape; with ``with_grad`` its gradients are summed likewise."""
    if world() == 1:
        return values
    if with_grad:
        summed: Tensor = _Summed.apply(values)
        return summed
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def mean_over_ranks(values: Tensor) -> Tensor:
    """Return the plain mean over ranks of a floating-point tensor of one shape, without gradient."""
    return sum_over_ranks(values) / world()


def sum_gradients(parameters: list[nn.Parameter], bucket_bytes: int = BUCKET_BYTES) -> None:
    """Replace every parameter's gradient by its sum over ranks; all ranks must pass the same parameters in one order.

    A parameter without gradient on this rank counts as zero, and stays without one if no rank has any, as it would
    in a single process: optimisers skip such parameters.
    """
    if world() == 1 or not parameters:
        return
    sent = []
    for bucket in _buckets(parameters, bucket_bytes):
        like = bucket[0]
        flags = torch.tensor([p.grad is not None for p in bucket], dtype=like.dtype).to(like.device)
        pieces = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket]
        flat = torch.cat([*pieces, flags])
        sent.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
    for bucket, flat, work in sent:
        work.wait()
        *pieces, flags = flat.split([*(p.numel() for p in bucket), len(bucket)])
        for index, (parameter, piece) in enumerate(zip(bucket, pieces, strict=True)):
            # The flag is read (and the device waited for) only in the rare case of a gradient missing here.
            if parameter.grad is not None or flags[index].item() > 0:
                parameter.grad = piece.view_as(parameter)


def same_start(module: nn.Module) -> None:
    """Copy rank 0's parameters and buffers to all ranks, so that they begin alike whatever made them."""
    if world() > 1:
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor.data, 0)


class SyncBatchNorm1d(nn.BatchNorm1d):
    """``nn.BatchNorm1d`` whose training statistics are those of the rows of all ranks; same state dict, CPU and GPU.

    One process uses torch's own kernel. A global batch of a single value per channel has no variance: it is
    normalised with the running statistics and leaves them as they are (torch raises an error), so that the last,
    short batch of an epoch may be of any size.

    Args:
        num_features: channels.
        affine: learnt scale and shift; the fine-tuning head has none (spec RUNNERS 2.1).
    """

    def __init__(self, num_features: int, affine: bool = False, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum, affine=affine)

    def forward(self, rows: Tensor) -> Tensor:
        """Return ``rows`` ``[B, D]`` or ``[B, D, T]`` standardised over all ranks' B (and T), in their own dtype."""
        if not self.training:
            return super().forward(rows)
        if world() == 1:
            return super().forward(rows) if rows.numel() > self.num_features else self._with_running(rows)
        with torch.autocast(rows.device.type, enabled=False):
            half = rows.dtype in (torch.bfloat16, torch.float16)
            return self._over_ranks(rows.float() if half else rows).to(rows.dtype)

    def _over_ranks(self, rows: Tensor) -> Tensor:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        axes = [axis for axis in range(rows.dim()) if axis != 1]
        shape = [1, -1] + [1] * (rows.dim() - 2)
        # The count stays on the device: reading it here would make the host wait in the middle of the forward pass.
        count = sum_over_ranks(rows.new_tensor([rows.numel() / self.num_features]))
        enough = count >= 2
        # Two passes, deviations from the common mean: E[x²]-E[x]² would lose the digits of a small variance.
        mean = sum_over_ranks(rows.sum(axes), with_grad=True) / count
        var = sum_over_ranks((rows - mean.view(shape)).square().sum(axes), with_grad=True) / count
        mean = torch.where(enough, mean, self.running_mean.to(mean.dtype))
        var = torch.where(enough, var, self.running_var.to(var.dtype))
        with torch.no_grad():
            unbiased = torch.where(enough, var * count / (count - 1).clamp(min=1), var)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum or 0.0)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum or 0.0)
            self.num_batches_tracked += enough[0]
        out = (rows - mean.view(shape)) * torch.rsqrt(var + self.eps).view(shape)
        return out * self.weight.view(shape) + self.bias.view(shape) if self.affine else out

    def _check_input_dim(self, rows: Tensor) -> None:
        """Accept any number of axes after the channels: BatchNorm2d is replaced by this class too."""

    def _with_running(self, rows: Tensor) -> Tensor:
        stored = (self.running_mean, self.running_var, self.weight, self.bias)
        return nn.functional.batch_norm(rows, *stored, training=False, eps=self.eps)


def synchronise_batch_norms(module: nn.Module) -> nn.Module:
    """Replace every batch norm inside ``module`` by :class:`SyncBatchNorm1d`, sharing its parameters and statistics.

    Returns ``module``, or the replacement where it is a batch norm itself. State-dict names stay as they are.
    """
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and module.track_running_stats:
        if isinstance(module, SyncBatchNorm1d):
            return module
        twin = SyncBatchNorm1d(module.num_features, module.affine, module.eps, module.momentum or 0.0)
        twin.weight, twin.bias = module.weight, module.bias
        twin.running_mean, twin.running_var = module.running_mean, module.running_var
        twin.num_batches_tracked = module.num_batches_tracked
        return twin.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, synchronise_batch_norms(child))
    return module


class _Summed(torch.autograd.Function):
    """Sum over ranks whose backward is the sum over ranks of the gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return sum_over_ranks(values.contiguous())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return sum_over_ranks(gradient.contiguous())


class _Gathered(torch.autograd.Function):
    """All ranks' rows; backward: the gradients summed over ranks, this rank's rows of them."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        rows, ctx.sizes = _all_rows(local.detach())
        return rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        first = sum(ctx.sizes[: rank()])
        return sum_over_ranks(gradient.contiguous())[first : first + ctx.sizes[rank()]]


def _all_rows(local: Tensor) -> tuple[Tensor, list[int]]:
    """Return all ranks' rows and how many each has; shorter shares are padded on the way, as all_gather asks."""
    own = torch.tensor([len(local)], device=local.device)
    found = [torch.zeros_like(own) for _ in range(world())]
    dist.all_gather(found, own)
    sizes = torch.cat(found).tolist()
    sent = local.to(torch.uint8) if local.dtype == torch.bool else local
    padded = sent.new_zeros([max(sizes), *local.shape[1:]])
    padded[: len(local)] = sent
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    rows = torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
    return rows.to(local.dtype), sizes


def _buckets(parameters: list[nn.Parameter], limit: int) -> list[list[nn.Parameter]]:
    """Return parameters in groups of one dtype and device and about ``limit`` bytes, the last ones first."""
    buckets: list[list[nn.Parameter]] = []
    filled: dict[tuple[torch.dtype, torch.device], int] = {}
    current: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = {}
    for parameter in reversed(parameters):
        kind = (parameter.dtype, parameter.device)
        if kind not in current or filled[kind] >= limit:
            current[kind] = []
            filled[kind] = 0
            buckets.append(current[kind])
        current[kind].append(parameter)
        filled[kind] += parameter.numel() * parameter.element_size()
    return buckets
