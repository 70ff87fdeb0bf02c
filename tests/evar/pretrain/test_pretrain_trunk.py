"""The shared network: its published names and sizes, its start, the fast path against the obvious one, the average."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pretrain_small import FACTS, SMALL, random_batch, small
from slow_m2d import slow_average, slow_losses

from evar.errors import UserError
from evar.pretrain import ema
from evar.pretrain.base import DataFacts
from evar.pretrain.objectives import build
from evar.pretrain.settings import PretrainSettings
from evar.pretrain.trunk import M2DNetwork, MaskedViT, in_grid_order, pick
from evar.schedules import ema_decay
from model_adapters.networks.m2d import sincos_2d

BLOCK = {
    "norm1.weight": (1,), "norm1.bias": (1,), "attn.qkv.weight": (3, 1), "attn.qkv.bias": (3,),
    "attn.proj.weight": (1, 1), "attn.proj.bias": (1,), "norm2.weight": (1,), "norm2.bias": (1,),
    "mlp.fc1.weight": (4, 1), "mlp.fc1.bias": (4,), "mlp.fc2.weight": (1, 4), "mlp.fc2.bias": (1,),
}  # fmt: skip


def published(dim=768, inner=512):
    """Return the names and shapes of MODELS 2.3."""
    shapes = {
        "norm_stats": (2,), "cls_token": (1, 1, dim), "pos_embed": (1, 191, dim),
        "patch_embed.proj.weight": (dim, 1, 16, 16), "patch_embed.proj.bias": (dim,),
        "decoder_embed.weight": (inner, dim), "decoder_embed.bias": (inner,), "mask_token": (1, 1, inner),
        "decoder_pos_embed": (1, 191, inner), "decoder_pred.weight": (dim, inner), "decoder_pred.bias": (dim,),
    }  # fmt: skip
    for prefix, depth, width in (("", 12, dim), ("target_", 12, dim), ("decoder_", 8, inner)):
        shapes |= {f"{prefix}norm.{part}": (width,) for part in ("weight", "bias")}
        for i in range(depth):
            shapes |= {f"{prefix}blocks.{i}.{name}": tuple(n * width for n in s) for name, s in BLOCK.items()}
    return shapes


def on_meta(facts=FACTS, **settings):
    with torch.device("meta"):
        return build(PretrainSettings(**settings), facts)


def trainable(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_the_published_names_and_shapes():
    state = on_meta().state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == published()
    assert len(state) == 401


def test_the_published_sizes():
    m2d = on_meta()
    assert sum(value.numel() for value in m2d.state_dict().values()) == 196_562_946
    assert trainable(m2d) == 111_262_464
    assert trainable(m2d.blocks) == 85_054_464
    labelled = on_meta(DataFacts((0.0, 1.0), classes=tuple(map(str, range(527)))), objective="m2d_as")
    assert trainable(labelled) == 113_286_671
    assert len(labelled.state_dict()) == 403
    assert trainable(on_meta(DataFacts((0.0, 1.0), feature_dim=3840), objective="m2d_x")) == 126_011_904
    mae = on_meta(objective="msm_mae", decoder_dim=384, decoder_depth=4, decoder_heads=6, mask_ratio=0.75)
    assert trainable(mae) == 92_747_008
    assert len(mae.state_dict()) == 207
    large = on_meta(dim=1024, depth=24)
    assert trainable(large) == pytest.approx(328.8e6, rel=1e-3)


def test_the_start():
    model = small(dim=192, decoder_dim=96)
    state = model.state_dict()
    for name, value in state.items():
        if name.endswith("proj.bias") and "patch" in name:
            assert 0 < value.abs().max() <= 1 / 16
        elif name.endswith("bias"):
            assert not value.any()
        elif value.ndim == 1 and name.endswith("weight"):
            assert (value == 1).all()
        elif name.endswith("weight"):
            fan_out, fan_in = value.flatten(1).shape
            bound = math.sqrt(6 / (fan_in + fan_out))
            assert 0.98 * bound < value.abs().max() <= bound
            assert value.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        elif name in ("cls_token", "mask_token"):
            assert value.std() == pytest.approx(0.02, rel=0.25)
    assert torch.equal(state["decoder_pos_embed"], sincos_2d(96, 5, 6))
    assert state["norm_stats"].tolist() == pytest.approx(FACTS.norm_stats)


def test_the_start_follows_torchs_generator_and_the_target_is_no_copy():
    one, again = small().state_dict(), small().state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    other = "target_blocks.0.attn.qkv.weight"
    assert not torch.equal(one[other], one[other.removeprefix("target_")])


def test_what_is_trained():
    model = small()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert {name for name in frozen if not name.startswith("target_")} == {"pos_embed", "decoder_pos_embed"}
    assert {name for name, _ in model.named_parameters() if name.startswith("target_")} < frozen
    batch, noise = random_batch()
    model.losses(batch, noise)["loss"].sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is None} == frozen


def test_the_fast_path_equals_the_obvious_one_and_so_do_gradients():
    model = small().double()
    batch, noise = random_batch()
    log_mel = batch.log_mel.double()
    found = {}
    for name, losses in (
        ("fast", model.losses(replace(batch, log_mel=log_mel), noise)["loss"]),
        ("slow", slow_losses(model, log_mel, noise)),
    ):
        model.zero_grad()
        losses.mean().backward()
        found[name] = [losses.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
    assert len(found["fast"]) == len(found["slow"]) > 50
    for fast, slow in zip(found["fast"], found["slow"], strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("objective", ["m2d", "msm_mae"])
def test_recomputing_changes_nothing(objective):
    model = small(objective)
    batch, noise = random_batch()
    found = []
    for model.recompute in (False, True):
        model.zero_grad()
        losses = model.losses(batch, noise)["loss"]
        losses.sum().backward()
        found.append([losses.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_recomputing_keeps_less_in_memory():
    model = small(depth=6, decoder_depth=6)
    batch, noise = random_batch()
    kept = []
    for model.recompute in (False, True):
        numbers = 0

        def count(tensor):
            nonlocal numbers
            numbers += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            model.losses(batch, noise)
        kept.append(numbers)
    assert kept[1] < kept[0] / 3


def test_a_clips_loss_does_not_depend_on_the_others_and_a_part_may_be_empty():
    model = small()
    batch, noise = random_batch(6)
    together = model.losses(batch, noise)["loss"]
    pieces = [slice(0, 1), slice(1, 1), slice(1, 6)]
    apart = torch.cat([model.losses(batch.part(rows), noise[rows])["loss"] for rows in pieces])
    torch.testing.assert_close(apart, together)


@pytest.mark.parametrize("objective", ["m2d", "msm_mae"])
def test_bfloat16_gives_about_the_same_loss_in_float32(objective):
    model = small(objective)
    batch, noise = random_batch()
    exact = model.losses(batch, noise)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.losses(batch, noise)["loss"]
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.02, atol=0)


def test_the_target_network_follows_the_online_one():
    model = small(ema=(0.9, 0.99))
    online = {n: v.clone() for n, v in model.state_dict().items() if n.startswith(("blocks.", "norm."))}
    target = {n: model.state_dict()[f"target_{n}"].clone() for n in online}
    model.plan(5)
    for step, decay in enumerate(ema_decay(5, 0.9, 0.99)):
        model.after_step(step)
        target = slow_average(target, online, float(decay))
    for name, value in target.items():
        torch.testing.assert_close(model.state_dict()[f"target_{name}"], value, rtol=1e-6, atol=1e-7)
        assert torch.equal(model.state_dict()[name], online[name])


def test_the_average_needs_a_plan_and_twins():
    with pytest.raises(ValueError, match="plan"):
        small().after_step(0)
    with pytest.raises(ValueError, match="not those of"):
        ema.pairs([torch.nn.Linear(2, 3)], [torch.nn.Linear(3, 3)])
    ema.move([], [], 0.5)


def test_an_average_of_published_slowness_still_moves_in_float32():
    target, online = [torch.ones(3)], [torch.full((3,), 2.0)]
    for _ in range(1000):
        ema.move(target, online, 0.99999)
    np.testing.assert_allclose(target[0], 2 - 0.99999**1000, rtol=1e-6)


def test_the_variance_of_targets_tells_of_a_collapse():
    model = small()
    assert model.figures() == {}
    batch, noise = random_batch()
    model.losses(batch, noise)
    before = model.figures()["target_variance"]
    with torch.no_grad():
        model.target_norm.weight.zero_()
    model.losses(batch, noise)
    assert before > 0.05
    assert model.figures()["target_variance"] < 1e-9


def test_grid_order_undoes_the_shuffle():
    order = torch.rand(3, 30).argsort(1)
    tokens = torch.randn(3, 30, 8)
    assert torch.equal(in_grid_order(pick(tokens, order), order), tokens)


def test_an_input_of_another_size_is_refused():
    model = small()
    with pytest.raises(ValueError, match=r"\(5, 5\) patches for a network of \(5, 6\)"):
        model.tokens(torch.zeros(1, 1, 80, 80))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"decoder_heads": 5}, "--decoder_heads"),
        ({"heads": 5}, "--heads"),
        ({"dim": 50}, "--dim"),
        ({"decoder_depth": 0}, "--decoder_depth"),
        ({"patch_size": (32, 16)}, "--patch_size"),
        ({"mask_ratio": 0.0}, "masks none"),
        ({"target_layers": (2,)}, "--target_layers"),
        ({"loss": "mes"}, "Did you mean 'mse'"),
    ],
)
def test_sizes_that_cannot_be(settings, said):
    with pytest.raises(UserError, match=said):
        small(**settings)


def test_the_networks_stand_alone():
    assert issubclass(M2DNetwork, MaskedViT)
    network = MaskedViT(SMALL, FACTS, outputs=7)
    batch, noise = random_batch(2)
    masked = network.masked_pass(batch.log_mel, noise)
    assert masked.prediction.shape == (2, 21, 7)
    assert masked.visible.shape == (2, 9, 48)
    assert masked.hidden.shape == (2, 21)
    encoded = network(batch.log_mel)[0]
    torch.testing.assert_close(network.encode_tokens(network.tokens(batch.log_mel))[:, 1:], encoded)
