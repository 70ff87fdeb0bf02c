"""Tensors that do not fit: the sentence says why, and what to do."""

import pytest
import torch
from torch import nn

from evar.errors import UserError
from model_adapters.networks.checkpoints import load_exactly
from model_adapters.networks.misfits import likely_cause


def vit(width=8, depth=2, classes=0, positions=5):
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, positions, width)}
    for n in range(depth):
        shapes |= {f"blocks.{n}.norm1.weight": (width,), f"blocks.{n}.attn.qkv.weight": (3 * width, width)}
    return shapes | ({"head.weight": (classes, width), "head.bias": (classes,)} if classes else {})


BEATS = {"encoder.layers.0.self_attn.relative_attention_bias.weight": (320, 12), "encoder.layer_norm.weight": (768,)}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({f"module.{k}": v for k, v in vit().items()}, ["'module.' before them", "DataParallel", "without it"]),
        ({f"model.teacher.encoder.{k}": v for k, v in vit().items()}, ["'model.teacher.encoder.' before them"]),
        (vit(width=16), ["Another size (16 and not 8 wide)"]),
        (vit(depth=4), ["Another size", "4 layers ('blocks') and the network 2"]),
        (vit(classes=50), ["has a classification head", "fine-tuned"]),
        (vit(positions=9), ["tables of positions", "input length"]),
        (vit() | {"fc_norm.weight": (8,), "fc_norm.bias": (8,)}, ["has a classification head"]),
        (BEATS, ["another model", "those of BEATs"]),
        ({"x": (1,), "y": (2,)}, ["The file is of another model."]),
        ({k: v for k, v in vit().items() if k != "cls_token"}, ["another version", "incomplete"]),
    ],
)
def test_the_cause_is_named(given, words):
    cause = likely_cause(vit(), given)
    assert all(word in cause for word in words), cause
    assert "\n" not in cause


def test_causes_of_a_network_with_a_head():
    assert "no classification head" in likely_cause(vit(classes=10), vit())
    assert "(50 classes and not 10)" in likely_cause(vit(classes=10), vit(classes=50))


def test_a_part_of_a_model_is_told_from_another_model():
    whole = {f"encoder.{key}": shape for key, shape in vit().items()} | {"front_end.window": (400,)}
    assert "'encoder.', which they lack" in likely_cause(whole, vit())


def test_what_data_parallel_saved_is_loaded_as_it_is():
    layer, source = nn.Linear(3, 2), nn.DataParallel(nn.Linear(3, 2))
    load_exactly(layer, source.state_dict())
    assert torch.equal(layer.weight, source.module.weight)


def test_a_name_before_some_tensors_only_is_an_error_and_says_so():
    with pytest.raises(UserError, match=r"do not fit Linear: missing: .*; unexpected: .* 'net\.' before them"):
        load_exactly(nn.Linear(3, 2), {"net.weight": torch.ones(2, 3), "net.bias": torch.ones(2)}, what="in 'w.pth'")
