"""The contrastive loss: the published numbers, the textbook's form, and one process or several alike."""

import math
import sys
from pathlib import Path

import pytest
import torch
from golden import arrays, needs_shared
from torch.nn import functional as F
from two_ranks import launch

from evar import ranks
from evar.errors import UserError
from evar.pretrain.contrastive import (
    MAX_LOGIT_SCALE,
    clamp_logit_scale,
    contrastive_losses,
    new_logit_scale,
    scaled_gradient,
)

CLIPS = (8, 7, 1)
"""Global batches: even shares, uneven ones, and nothing for the second rank."""


def textbook(audio, text, logit_scale):
    """Return the loss with the whole matrix at once and torch's cross-entropy."""
    logits = logit_scale.exp() * F.normalize(audio, dim=-1) @ F.normalize(text, dim=-1).T
    rows = torch.arange(len(audio))
    return (F.cross_entropy(logits, rows) + F.cross_entropy(logits.T, rows)) / 2


def embeddings(clips, dim=16, dtype=torch.float64):
    generator = torch.Generator().manual_seed(clips)
    audio, text = torch.randn(2, clips, dim, generator=generator, dtype=dtype)
    scale = torch.tensor(2.66, dtype=dtype)
    return [tensor.requires_grad_() for tensor in (audio.clone(), text.clone(), scale)]


def step(clips, grad_scale=1.0):
    """Return global loss and gradients as the Trainer takes them: summed over ranks, divided by the rows of all."""
    audio, text, scale = embeddings(clips)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(list(t.shape)) or t, lambda t: t):
        losses = contrastive_losses(ranks.mine(audio), ranks.mine(text), scale, grad_scale)
    assert losses.shape == (len(ranks.mine(audio)),)
    (losses.sum() / clips).backward()
    summed = [ranks.sum_over_ranks(tensor.grad) for tensor in (audio, text, scale)]
    return {"loss": ranks.sum_over_ranks(losses.sum()) / clips, "gradients": summed, "kept": kept}


def main(folder):
    ranks.start("cpu")
    torch.save({clips: step(clips) for clips in CLIPS}, folder / f"rank{ranks.rank()}.pt")
    ranks.barrier()
    ranks.stop()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return launch(__file__, tmp_path_factory.mktemp("two"))


@needs_shared
def test_published_values():
    stored = arrays("clip_loss.npz")
    audio, text = (torch.from_numpy(stored[name]) for name in ("audio", "text"))
    for scale, loss, swapped in zip(stored["scale"], stored["loss"], stored["swapped"], strict=True):
        logit_scale = torch.tensor(math.log(scale), dtype=torch.float32)
        assert contrastive_losses(audio, text, logit_scale).mean().item() == pytest.approx(loss, rel=1e-5)
        assert contrastive_losses(text, audio, logit_scale).mean().item() == pytest.approx(swapped, rel=1e-5)
    for start, end in zip((9.0, -1.0), stored["clamp_hi_lo"], strict=True):
        clamp_logit_scale(logit_scale.fill_(start))
        assert logit_scale.item() == pytest.approx(end, abs=1e-7)


@pytest.mark.parametrize("clips", CLIPS)
def test_value_and_gradient_are_the_textbooks(clips):
    found, plain = step(clips), embeddings(clips)
    loss = textbook(*plain)
    loss.backward()
    assert found["loss"].item() == pytest.approx(loss.item(), abs=1e-12)
    for ours, tensor in zip(found["gradients"], plain, strict=True):
        torch.testing.assert_close(ours, tensor.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("clips", CLIPS)
def test_two_processes_have_the_loss_and_gradient_of_one(two, clips):
    alone = step(clips)
    for found in two:
        assert found[clips]["loss"].item() == pytest.approx(alone["loss"].item(), abs=1e-6)
        for ours, theirs in zip(found[clips]["gradients"], alone["gradients"], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_a_rank_keeps_its_rows_against_all_columns_and_no_whole_matrix(two):
    for rank, found in enumerate(two):
        for clips in CLIPS[:2]:
            shapes, own = found[clips]["kept"], ranks.share(clips, rank, 2)
            assert shapes.count([own.stop - own.start, clips]) == 2, "one matrix for each direction"
            assert [clips, clips] not in shapes


def test_gradient_scale_acts_on_the_embeddings_and_not_on_the_temperature():
    """0.25 is what the published runs on four GPUs had (MODELS 3)."""
    full, quarter = step(8), step(8, grad_scale=0.25)
    assert torch.equal(full["loss"], quarter["loss"])
    for side in (0, 1):
        torch.testing.assert_close(quarter["gradients"][side], 0.25 * full["gradients"][side], rtol=1e-12, atol=0)
    assert torch.equal(full["gradients"][2], quarter["gradients"][2])


def test_scaled_gradient_leaves_the_values():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = scaled_gradient(x, 3.0)
    y.square().sum().backward()
    assert torch.equal(y.detach(), x.detach()) and x.grad.tolist() == [6.0, 12.0]
    assert scaled_gradient(x, 1.0) is x


def test_loss_of_equal_vectors_is_that_of_guessing_and_of_matching_ones_almost_nothing():
    same, scale = torch.ones(5, 4), torch.tensor(MAX_LOGIT_SCALE)
    torch.testing.assert_close(contrastive_losses(same, same, scale), torch.full((5,), math.log(5)))
    apart = torch.eye(5) * 3
    assert contrastive_losses(apart, apart, scale).abs().max() < 1e-5
    assert contrastive_losses(apart, apart.roll(1, 0), scale).min() > 99


def test_under_autocast_the_loss_stays_in_full_precision():
    audio, text, scale = (tensor.detach().float() for tensor in embeddings(8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = contrastive_losses(audio, text, scale)
        halves = contrastive_losses(audio.bfloat16(), text.bfloat16(), scale)
    assert torch.equal(found, contrastive_losses(audio, text, scale))
    assert halves.dtype == torch.float32
    assert torch.equal(halves, contrastive_losses(audio.bfloat16().float(), text.bfloat16().float(), scale))


@pytest.mark.parametrize(("temperature", "start"), [(0.07, 2.65926), (0.01, 4.6052), (1.0, 0.0)])
def test_the_scale_starts_at_the_inverse_of_the_temperature(temperature, start):
    parameter = new_logit_scale(temperature)
    assert parameter.shape == () and parameter.item() == pytest.approx(start, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0, 0.001, 2.0, float("nan")])
def test_a_temperature_out_of_range_is_said(temperature):
    with pytest.raises(UserError, match=r"between 0\.01 and 1"):
        new_logit_scale(temperature)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
