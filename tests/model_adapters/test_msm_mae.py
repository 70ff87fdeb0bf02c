"""MSM-MAE: the form of the m2d code, and the first code's biases and padding."""

import pytest
import torch

from evar.errors import UserError
from model_adapters.m2d import M2D
from model_adapters.msm_mae import MsmMae
from model_adapters.networks.m2d import sincos_2d
from model_adapters.networks.vit import ViT, ViTSize, initialise


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def files(tmp_path):
    """The same network in both forms; the first code has no bias for keys."""
    vit = ViT(ViTSize(64, 2, 0, 128, (16, 16), 5 * 4 + 1))
    initialise(vit, 0)
    vit.pos_embed.copy_(sincos_2d(64, 5, 4))
    for block in vit.blocks:
        block.attn.qkv.bias.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
        block.attn.qkv.bias[64:128] = 0
    new = vit.state_dict()
    old = dict(new)
    for i in range(2):
        bias = old.pop(f"blocks.{i}.attn.qkv.bias")
        old[f"blocks.{i}.attn.q_bias"], old[f"blocks.{i}.attn.v_bias"] = bias[:64], bias[128:]
    pretraining = {"decoder_embed.weight": torch.ones(2, 2), "mask_token": torch.ones(1, 1, 2)}
    for name, state in (("new", new), ("old", old)):
        folder = tmp_path / name / "80x64p16x16_test"
        folder.mkdir(parents=True)
        torch.save({"model": {**state, **pretraining}}, folder / "checkpoint-100.pth")
    return tmp_path


def test_both_forms_hold_the_same_network(files):
    log_mel = torch.randn(2, 1, 80, 64)
    new = MsmMae(weights=str(files / "new/80x64p16x16_test"))
    old = MsmMae(weights=str(files / "old/80x64p16x16_test"), padding_rule="m2d")
    assert torch.allclose(new.frames_of(log_mel), old.frames_of(log_mel))
    assert torch.equal(new.frames_of(log_mel), M2D(weights=str(files / "new/80x64p16x16_test")).frames_of(log_mel))


def test_the_padding_rule_follows_the_file_unless_told(files):
    path = {name: str(files / name / "80x64p16x16_test") for name in ("new", "old")}
    assert MsmMae(weights=path["new"]).state()["padding"] == "m2d"
    assert MsmMae(weights=path["old"]).state()["padding"] == "original"
    assert MsmMae(weights=path["new"], padding_rule="original").state()["padding"] == "original"
    assert MsmMae(weights=path["old"], padding_rule="m2d").state()["padding"] == "m2d"
    assert MsmMae(weights="random", depth=1, embed_dim=64).state()["padding"] == "m2d"


# A chunk of 64 frames has 4 columns; int(4 * pad / 64) of them are dropped.
@pytest.mark.parametrize(("length", "steps"), [(64, 4), (100, 7), (101, 7), (1, 1), (128, 8), (16, 1)])
def test_the_original_rule_drops_the_columns_of_the_padding(files, length, steps):
    model = MsmMae(weights=str(files / "old/80x64p16x16_test"))
    assert model.frames_of(torch.randn(2, 1, 80, length)).shape == (2, steps, 320)


def test_the_original_rule_sees_the_padding(files):
    original = MsmMae(weights=str(files / "new/80x64p16x16_test"), padding_rule="original")
    plain = MsmMae(weights=str(files / "new/80x64p16x16_test"))
    log_mel = torch.randn(1, 1, 80, 48)
    padded = torch.nn.functional.pad(log_mel, (0, 16))
    assert torch.allclose(original.frames_of(log_mel), plain.frames_of(padded)[:, :3], atol=1e-6)
    assert not torch.allclose(original.frames_of(log_mel), plain.frames_of(log_mel), atol=1e-3)


def test_wrong_rule():
    with pytest.raises(UserError, match="--padding_rule"):
        MsmMae(weights="random", padding_rule="none")
