"""Every optimiser's step equals a plain float64 loop written from its paper; groups are the promised ones."""

import copy

import pytest
import torch
from torch import nn

from evar.errors import UserError
from evar.optimisers import NAMES, layer_scales, make_optimiser, set_lr

RATES = [0.0, 0.05, 0.1, 0.02, 0.3]
SHAPES = [(3, 4), (4,), (2, 3, 2), (1,)]


def tensors(seed):
    """Return parameters and, for each step, their gradients, all float64 and of known shapes."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]  # noqa: E731
    return draw(), [draw() for _ in RATES]


def trained(name, **options):
    """Return parameters after five steps of the optimiser made by name."""
    values, gradients = tensors(1)
    parameters = [nn.Parameter(value.clone()) for value in values]
    optimiser = make_optimiser(name, [(f"p{i}", p) for i, p in enumerate(parameters)], **options)
    for rate, step in zip(RATES, gradients, strict=True):
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        set_lr(optimiser, rate)
        optimiser.step()
    return parameters


def sgd_loop(decay=0.0, adapt=lambda w, g: g):
    """Momentum 0.9, no Nesterov: v = 0.9 v + g, w = w - lr v, the first v being g."""
    values, gradients = tensors(1)
    speeds = [0.0] * len(values)
    for rate, step in zip(RATES, gradients, strict=True):
        for i, gradient in enumerate(step):
            speeds[i] = 0.9 * speeds[i] + adapt(values[i], gradient)
            values[i] = values[i] - rate * speeds[i]
    return values


def lars_gradient(decay):
    def adapt(weight, gradient):
        size, slope = weight.norm(), gradient.norm()
        ratio = 0.001 * size / (slope + decay * size + 1e-8) if size > 0 and slope > 0 else 1.0
        return ratio * (gradient + decay * weight)

    return adapt


def adam_loop(betas, eps, decay, amsgrad=False, lamb=False):
    """Return parameters after AdamW's or LAMB's steps, written out."""
    values, gradients = tensors(1)
    means, squares, largest = ([torch.zeros_like(v) for v in values] for _ in range(3))
    for t, (rate, step) in enumerate(zip(RATES, gradients, strict=True), start=1):
        for i, gradient in enumerate(step):
            means[i] = betas[0] * means[i] + (1 - betas[0]) * gradient
            squares[i] = betas[1] * squares[i] + (1 - betas[1]) * gradient**2
            largest[i] = torch.maximum(largest[i], squares[i])
            square = (largest if amsgrad else squares)[i] / (1 - betas[1] ** t)
            move = means[i] / (1 - betas[0] ** t) / (square.sqrt() + eps) + decay * values[i]
            if lamb and decay:
                move = move * values[i].norm() / move.norm()
            values[i] = values[i] - rate * move
    return values


def assert_equal(found, expected, atol=1e-13):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.data, other, rtol=0, atol=atol)


def test_sgd_equals_the_loop():
    assert_equal(trained("sgd"), sgd_loop())


def test_lars_without_decay_is_sgd_to_the_last_bit():
    assert_equal(trained("lars"), [p.data for p in trained("sgd")], atol=0)


@pytest.mark.parametrize("decay", [1e-3, 0.1])
def test_lars_with_decay_equals_the_loop_and_is_not_sgd(decay):
    found = trained("lars", weight_decay=decay)
    assert_equal(found, sgd_loop(adapt=lars_gradient(decay)))
    assert not torch.allclose(found[0].data, sgd_loop()[0])


def test_lars_may_be_told_to_adapt_always():
    assert_equal(trained("lars", always_adapt=True), sgd_loop(adapt=lars_gradient(0.0)))


def test_lars_leaves_tensors_of_zeros_their_plain_gradient():
    weight = nn.Parameter(torch.zeros(3))
    weight.grad = torch.ones(3)
    make_optimiser("lars", [("w", weight)], lr=0.5, weight_decay=0.1).step()
    assert weight.tolist() == [-0.5] * 3


def test_adamw_equals_the_loop_with_the_protocols_settings():
    assert_equal(trained("adamw"), adam_loop((0.9, 0.95), 1e-8, 1e-4, amsgrad=True))
    assert not torch.equal(trained("adamw", amsgrad=False)[0], trained("adamw")[0])


def test_adamw_takes_pretrainings_settings():
    found = trained("adamw", weight_decay=0.05, amsgrad=False, decay_vectors=False)
    decayed, plain = adam_loop((0.9, 0.95), 1e-8, 0.05), adam_loop((0.9, 0.95), 1e-8, 0.0)
    assert_equal(found, [(decayed if len(shape) > 1 else plain)[i] for i, shape in enumerate(SHAPES)])


@pytest.mark.parametrize("decay", [0.0, 0.02])
def test_lamb_equals_the_loop(decay):
    assert_equal(trained("lamb", weight_decay=decay), adam_loop((0.9, 0.999), 1e-6, decay, lamb=True))


def network():
    """Return a network whose parameters have a transformer's names."""
    net = nn.Module()
    net.patch_embed = nn.Linear(2, 2)
    net.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    net.norm = nn.LayerNorm(2)
    return nn.ModuleDict({"encoder": net, "head": nn.Linear(2, 1)})


def test_all_parameters_stand_in_one_group_unless_asked():
    for name in NAMES:
        (group,) = make_optimiser(name, network()).param_groups
        assert len(group["params"]) == 12


def test_layer_wise_decay_halves_from_block_to_block():
    scales = layer_scales([name for name, _ in network().named_parameters()], 0.5)
    assert {name: scale for name, scale in scales.items() if name.endswith("weight")} == {
        "encoder.patch_embed.weight": 1 / 16,
        "encoder.blocks.0.weight": 1 / 8,
        "encoder.blocks.1.weight": 1 / 4,
        "encoder.blocks.2.weight": 1 / 2,
        "encoder.norm.weight": 1.0,
        "head.weight": 1.0,
    }
    optimiser = make_optimiser("sgd", network(), layer_decay=0.5)
    set_lr(optimiser, 0.8)
    assert sorted(group["lr"] for group in optimiser.param_groups) == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8])


def test_blocks_within_stages_count_in_their_order():
    names = ["stem.w", "layers.0.blocks.0.w", "layers.0.blocks.1.w", "layers.1.blocks.0.w", "norm.w"]
    assert list(layer_scales(names, 0.5).values()) == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]


def test_frozen_parameters_stay_out():
    net = network()
    net["encoder"].requires_grad_(False)
    (group,) = make_optimiser("sgd", net).param_groups
    assert len(group["params"]) == 2
    net.requires_grad_(False)
    with pytest.raises(UserError, match="frozen"):
        make_optimiser("sgd", net)


@pytest.mark.parametrize("name", NAMES)
def test_a_restored_state_goes_on_as_if_nothing_had_happened(name):
    def step(net, optimiser):
        optimiser.zero_grad()
        net["encoder"].patch_embed(torch.ones(1, 2)).square().sum().backward()
        optimiser.step()

    one = network()
    first = make_optimiser(name, one, lr=0.1, weight_decay=0.01)
    step(one, first)
    other = copy.deepcopy(one)
    second = make_optimiser(name, other, lr=0.1, weight_decay=0.01)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    step(one, first)
    step(other, second)
    for left, right in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "sdg"}, "Did you mean 'sgd'"),
        ({"name": "sgd", "weight_decay": -1}, "weight decay"),
        ({"name": "sgd", "lr": -1}, "learning rate"),
        ({"name": "sgd", "layer_decay": 1.5}, "at most at 1"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, words):
    with pytest.raises(UserError, match=words):
        make_optimiser(parameters=network(), **arguments)
    with pytest.raises(UserError, match="blocks"):
        layer_scales(["fc.weight"], 0.5)
