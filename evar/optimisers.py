"""The optimisers of the papers, with the reference's parameter handling: all parameters in one group, unless asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from evar.errors import UserError, did_you_mean

NAMES = ("sgd", "lars", "adamw", "lamb")
MOMENTUM = 0.9
BETAS = (0.9, 0.95)

_BLOCK = re.compile(r"^(?:.*\.)?(?:blocks|layers|layer)\.\d+(?=\.)")


def make_optimiser(
    name: str,
    parameters: nn.Module | Iterable[tuple[str, nn.Parameter]],
    lr: float = 0.0,
    weight_decay: float | None = None,
    layer_decay: float | None = None,
    decay_vectors: bool = True,
    **options: Any,
) -> torch.optim.Optimizer:
    """Return the optimiser ``name`` for the trainable parameters of a module, or for (name, parameter) pairs.

    ========  =====================================================================  ===================
    sgd       momentum 0.9, no Nesterov                                              decay 0
    lars      the same with steps scaled per tensor, see :class:`Lars`               decay 0
    adamw     betas 0.9 and 0.95, eps 1e-8, amsgrad                                  decay 1e-4
    lamb      Adam's step scaled per tensor, see :class:`Lamb`                       decay 0
    ========  =====================================================================  ===================

    (spec RUNNERS 2.6.) Each kernel is torch's fused or multi-tensor one.

    Args:
        lr: usually left 0: :func:`set_lr` sets it at every step from a schedule.
        weight_decay: ``None`` takes the table's value.
        layer_decay: learning rates fall by this factor from block to block towards the input, see
            :func:`layer_scales`; ``None`` or 1 is off.
        decay_vectors: ``False`` spares biases and other one-dimensional parameters the weight decay, as pre-training
            does; the reference's fine-tuning decays all alike.
        options: passed to the optimiser (``momentum``, ``betas``, ``amsgrad``, ``always_adapt`` ...).

    Raises:
        UserError: an unknown name, a value out of range, or nothing to train.
    """
    if name not in NAMES:
        raise UserError(f"unknown optimiser '{name}'.{did_you_mean(name, NAMES)}")
    if not lr >= 0 or not (weight_decay is None or weight_decay >= 0):
        raise UserError(f"learning rate and weight decay must be 0 or more, got {lr} and {weight_decay}")
    named = parameters.named_parameters() if isinstance(parameters, nn.Module) else parameters
    trained = [(key, value) for key, value in named if value.requires_grad]
    if not trained:
        raise UserError("there is no parameter to train: everything is frozen")
    decay = (1e-4 if name == "adamw" else 0.0) if weight_decay is None else weight_decay
    groups = _groups(trained, decay, layer_decay, decay_vectors)
    if name == "lamb":
        made: torch.optim.Optimizer = Lamb(groups, lr=lr, **options)
    else:
        # The fused kernels do the same sums in one pass over memory, on the CPU as on a GPU.
        settings: dict[str, Any] = {"fused": all(value.device.type in ("cpu", "cuda") for _, value in trained)}
        settings |= {"betas": BETAS, "amsgrad": True} if name == "adamw" else {"momentum": MOMENTUM}
        kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
            "sgd": torch.optim.SGD,
            "lars": Lars,
            "adamw": torch.optim.AdamW,
        }
        made = kinds[name](groups, lr=lr, **(settings | options))
    set_lr(made, lr)
    return made


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next step: ``lr`` times each group's own scale."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def layer_scales(names: list[str], decay: float) -> dict[str, float]:
    """Return each parameter's factor on the learning rate, by its depth in the network.

    The last block's parameters have ``decay``, the one before ``decay**2`` and so on; what stands before the first
    block (patch embedding, class token) one power more than the first block; what stands behind the last (norm, head)
    has 1. Blocks are found by names like ``blocks.3.`` or ``layers.0.blocks.1.``, in the order they come.

    Raises:
        UserError: no parameter has such a name, or ``decay`` is not in (0, 1].
    """
    if not 0 < decay <= 1:
        raise UserError(f"layer-wise learning-rate decay lies above 0 and at most at 1, got {decay}")
    blocks = [found.group() if (found := _BLOCK.match(name)) else None for name in names]
    order = {block: depth for depth, block in enumerate(dict.fromkeys(b for b in blocks if b is not None), start=1)}
    if not order:
        raise UserError("layer-wise learning-rate decay needs parameters named blocks.<n>.: this network has none")
    first = next(i for i, block in enumerate(blocks) if block is not None)
    head = len(order) + 1
    depths = [order[b] if b is not None else 0 if i < first else head for i, b in enumerate(blocks)]
    return {name: decay ** (head - depth) for name, depth in zip(names, depths, strict=True)}


def _groups(
    trained: list[tuple[str, nn.Parameter]], decay: float, layer_decay: float | None, decay_vectors: bool
) -> list[dict[str, Any]]:
    """Return parameter groups of equal learning-rate scale and weight decay, in the order they come."""
    names = [name for name, _ in trained]
    scales = dict.fromkeys(names, 1.0) if layer_decay is None or layer_decay == 1 else layer_scales(names, layer_decay)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained:
        own = decay if decay_vectors or parameter.dim() > 1 else 0.0
        groups.setdefault((scales[name], own), []).append(parameter)
    return [{"params": p, "lr_scale": scale, "weight_decay": own} for (scale, own), p in groups.items()]


def _with_gradient(group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the group's tensors that have a gradient, and their gradients."""
    weights = [p for p in group["params"] if p.grad is not None]
    return weights, [p.grad for p in weights]


class Lars(torch.optim.SGD):
    """SGD with momentum whose gradient is scaled per tensor by 0.001·‖w‖ / (‖g‖ + decay·‖w‖) (You et al. 2017).

    As in timm, the scaling acts only on groups with a weight decay, or with ``always_adapt``: with the reference's
    decay of 0 every step equals plain SGD (spec ODDITIES 15), and here it *is* SGD's step. The scaling is done on the
    gradients in place.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float = 0.0,
        always_adapt: bool = False,
        trust: float = 0.001,
        eps: float = 1e-8,
        **options: Any,
    ) -> None:
        # The decay belongs into the scaled gradient: SGD itself must not add it again.
        moved = [group | {"lars_decay": group.get("weight_decay", 0.0), "weight_decay": 0.0} for group in groups]
        super().__init__(moved, lr=lr, **options)
        self.always_adapt, self.trust, self.eps = always_adapt, trust, eps

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Scale the gradients, then take SGD's step."""
        for group in self.param_groups:
            decay = group["lars_decay"]
            weights, gradients = _with_gradient(group)
            if weights and (decay != 0 or self.always_adapt):
                sizes = torch.stack(torch._foreach_norm(weights))
                slopes = torch.stack(torch._foreach_norm(gradients))
                ratios = self.trust * sizes / (slopes + decay * sizes + self.eps)
                ratios = torch.where((sizes > 0) & (slopes > 0), ratios, torch.ones_like(ratios))
                torch._foreach_add_(gradients, weights, alpha=decay)
                torch._foreach_mul_(gradients, list(ratios))
        return super().step(closure)


class Lamb(torch.optim.Optimizer):
    """Adam's bias-corrected step plus decay, scaled per tensor by ‖w‖ / ‖step‖ (You et al. 2020).

    As in timm, the scaling acts only on groups with a weight decay, or with ``always_adapt``. Gradients are not
    clipped here: that is the training engine's ``clip_norm``.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        always_adapt: bool = False,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "steps": 0})
        self.always_adapt = always_adapt

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step."""
        for group in self.param_groups:
            weights, gradients = _with_gradient(group)
            if weights:
                group["steps"] += 1
                self._step_group(group, weights, gradients)
        return None if closure is None else closure()

    def _step_group(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]) -> None:
        first, second = group["betas"]
        means, squares = self._moments(weights)
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        divisors = torch._foreach_sqrt(squares)
        torch._foreach_div_(divisors, (1 - second ** group["steps"]) ** 0.5)
        torch._foreach_add_(divisors, group["eps"])
        steps = list(torch._foreach_div(means, divisors))
        torch._foreach_div_(steps, 1 - first ** group["steps"])
        torch._foreach_add_(steps, weights, alpha=group["weight_decay"])
        if group["weight_decay"] != 0 or self.always_adapt:
            sizes = torch.stack(torch._foreach_norm(weights))
            lengths = torch.stack(torch._foreach_norm(steps))
            ratios = torch.where((sizes > 0) & (lengths > 0), sizes / lengths, torch.ones_like(sizes))
            torch._foreach_mul_(steps, list(ratios))
        torch._foreach_add_(weights, steps, alpha=-group["lr"])

    def _moments(self, weights: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = {"mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
        return [self.state[p]["mean"] for p in weights], [self.state[p]["square"] for p in weights]
