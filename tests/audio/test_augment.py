"""Mixup, SpecAugment and Random Resize Crop: equal to slow twins and to recorded runs, and drawn by the right law."""

import random

import numpy as np
import pytest
import torch
from audio.slow_augment import (
    on_clip,
    slow_box,
    slow_mixup,
    slow_resize_crop,
    slow_span,
    slow_spec_augment,
)
from golden import arrays, needs_shared
from scipy.stats import beta, ks_2samp, kstest

from evar import ranks
from evar.audio.augment import (
    CropDraws,
    MaskDraws,
    MixupDraws,
    draw_mixup,
    draw_resize_crop,
    draw_spec_augment,
    mixup,
    resize_crop,
    spec_augment,
)
from evar.errors import UserError


def tensors(*names):
    return [torch.from_numpy(arrays("augment.npz")[name]) for name in names]


def seeded(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def recorded_boxes(seed, n, bands, frames):
    seeded(seed)
    return [slow_box(bands, frames) for _ in range(n)]


def batch(n=8, bands=80, frames=101, seed=0):
    return torch.randn(n, 1, bands, frames, generator=torch.Generator().manual_seed(seed))


# --- Random Resize Crop ---


@needs_shared
def test_the_slow_law_of_crops_is_that_of_the_published_code():
    recorded = arrays("augment.npz")["rrc.params_80x608_seed2_first50"]
    assert np.array_equal(recorded_boxes(2, 50, 80, 608), recorded)


@needs_shared
@pytest.mark.parametrize(("name", "crops"), [("4", 3), ("3", 1)])  # a crop for each clip; one for all three
def test_crops_equal_the_recorded_ones(name, crops):
    x, wanted = (t.reshape(3, 1, 16, 40) for t in tensors(f"rrc.x{name}", f"rrc.y{name}_seed1"))
    boxes = [on_clip(box, 16, 40) for box in recorded_boxes(1, crops, 16, 40)] * (3 // crops)
    found = resize_crop(x, CropDraws(torch.tensor(boxes)))
    assert torch.allclose(found, wanted, atol=2e-6)


@pytest.mark.parametrize(("bands", "frames"), [(80, 1001), (64, 96), (1, 7), (5, 1)])
@pytest.mark.parametrize("canvas", [(1.0, 1.5), (1.25, 1.0)])
def test_crops_equal_cutting_and_stretching_each_clip_by_itself(bands, frames, canvas):
    torch.manual_seed(0)
    x = batch(12, bands, frames)
    draws = draw_resize_crop(12, bands, frames, canvas)
    assert torch.allclose(resize_crop(x, draws), slow_resize_crop(x, draws.boxes, canvas), atol=2e-5)


def test_crops_that_are_the_clip_a_single_cell_or_beyond_the_clip():
    x = batch(3, 16, 40)
    found = resize_crop(x, CropDraws(torch.tensor([[0, 0, 16, 40], [3, 5, 1, 1], [0, 40, 16, 10]])))
    assert torch.equal(found[0], x[0])
    assert torch.allclose(found[1], x[1, :, 3:4, 5:6].expand(1, 16, 40), atol=1e-6)
    assert torch.equal(found[2], torch.zeros(1, 16, 40))


def test_boxes_follow_the_law_of_the_published_code():
    n, bands, frames = 4000, 80, 608
    seeded(0)
    boxes = draw_resize_crop(n, bands, frames).boxes
    slow = np.array([on_clip(slow_box(bands, frames), bands, frames) for _ in range(n)])
    for column, name in enumerate(("top", "left", "height", "width")):
        assert ks_2samp(boxes[:, column].numpy(), slow[:, column]).pvalue > 0.01, name
    top, left, height, width = boxes.unbind(1)
    assert tuple(int(x) for x in (height.min(), height.max(), width.min(), width.max())) == (48, 80, 364, 911)
    assert top.min() == 0 and (top + height).max() == bands and left.min() == -152
    assert ((left + width) <= 912 - 152).all() and (left + width).max() > 750
    assert abs((height == bands).double().mean().item() - 5 / 9) < 0.03  # U(0.6, 1.5) is 1 or more in five of nine
    assert abs(width.double().mean().item() - 637.9) < 10
    lengths = np.corrcoef(height[height < bands].numpy(), width[height < bands].numpy())
    assert abs(lengths[0, 1]) < 0.1 and abs(np.corrcoef(top, left)[0, 1]) < 0.06  # the axes know nothing of each other


def test_a_box_lies_anywhere_with_equal_probability():
    torch.manual_seed(0)  # heights of 3 on 4 bands: top 0 or 1; width 3 on a canvas of 6: four places
    boxes = draw_resize_crop(8000, 4, 4, scale=(0.75, 0.75)).boxes
    assert boxes[:, 2:].unique().tolist() == [3]
    places, counts = boxes[:, :2].unique(dim=0, return_counts=True)
    assert places.tolist() == [[top, left] for top in (0, 1) for left in (-1, 0, 1, 2)]
    assert ((counts - 1000) ** 2 / 1000).sum() < 24.3  # chi square's 0.1 % point for 7 degrees of freedom


# --- Mixup ---


@needs_shared
def test_mixup_equals_the_recorded_one():
    x, targets, share, partner = tensors("mixup.X", "mixup.Y", "mixup.lambda", "mixup.perm")
    found = mixup(x, targets, MixupDraws(share, partner))
    for got, wanted in zip(found, tensors("mixup.mX_seed5", "mixup.mY_seed5"), strict=True):
        assert torch.allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 1000), (6, 1, 16, 40)])
def test_mixup_equals_mixing_clip_by_clip(shape):
    torch.manual_seed(3)
    x, targets, draws = torch.randn(shape), torch.eye(6), draw_mixup(6, 0.5)
    found, wanted = mixup(x, targets, draws), slow_mixup(x, targets, draws.share, draws.partner)
    assert all(torch.allclose(got, want, atol=1e-6) for got, want in zip(found, wanted, strict=True))
    assert torch.allclose(found[1].sum(1), torch.ones(6))


@pytest.mark.parametrize("alpha", [0.02, 0.3, 0.5, 2.0])
def test_shares_are_beta_and_partners_a_uniform_permutation(alpha):
    torch.manual_seed(0)
    draws = draw_mixup(4000, alpha)
    assert torch.equal(draws.partner.sort().values, torch.arange(4000))
    assert draws.share.dtype == torch.float32 and draws.share.min() >= 0 and draws.share.max() <= 1
    inner = draws.share[(draws.share > 1e-6) & (draws.share < 1 - 1e-6)].numpy()  # float32 piles up at the ends
    ends = beta(alpha, alpha).cdf([1e-6, 1 - 1e-6])
    assert kstest(inner, lambda x: (beta(alpha, alpha).cdf(x) - ends[0]) / (ends[1] - ends[0])).pvalue > 0.01
    assert abs(draws.share.var().item() - 1 / (4 * (2 * alpha + 1))) < 0.01
    moved = torch.stack([draw_mixup(3, alpha).partner for _ in range(1200)]).unique(dim=0, return_counts=True)[1]
    assert len(moved) == 6 and ((moved - 200) ** 2 / 200).sum() < 20.5  # 0.1 % point for 5 degrees of freedom


def test_mixup_off_draws_nothing_and_returns_what_it_got():
    before = torch.get_rng_state()
    assert draw_mixup(4, 0.0) is None
    assert torch.equal(before, torch.get_rng_state())
    x, targets = torch.randn(2, 5), torch.eye(2)
    assert mixup(x, targets, None) == (x, targets)
    assert spec_augment(x, None) is x and resize_crop(x, None) is x


# --- SpecAugment ---


def test_the_same_bands_and_frames_of_every_clip_become_zero():
    x = batch(3, 16, 40)
    draws = MaskDraws(torch.tensor([2, 5]), torch.tensor([0, 10]))
    assert torch.equal(spec_augment(x, draws), slow_spec_augment(x, range(2, 5), range(10)))
    assert torch.equal(spec_augment(x, MaskDraws(torch.tensor([4, 4]), torch.tensor([9, 9]))), x)


def test_masks_have_the_widths_the_places_and_the_share_of_cells_of_the_law():
    n, bands, frames, band_mask, frame_mask = 4000, 80, 1001, 30, 192
    seeded(1)
    drawn = [draw_spec_augment(bands, frames, band_mask, frame_mask) for _ in range(n)]
    shares = 1.0
    for size, mask, ends in (
        (bands, band_mask, torch.stack([d.bands for d in drawn])),
        (frames, frame_mask, torch.stack([d.frames for d in drawn])),
    ):
        widths = ends[:, 1] - ends[:, 0]
        assert (int(widths.min()), int(widths.max())) == (0, mask - 1)  # never the whole width that was asked for
        assert ends.min() == 0 and ends.max() <= size
        assert abs(widths.double().mean().item() - (mask - 1) / 2) < 4 * mask / (12 * n) ** 0.5
        slow = [slow_span(size, mask) for _ in range(n)]
        assert ks_2samp(ends[:, 0].numpy(), [s.start for s in slow]).pvalue > 0.01
        assert ks_2samp(widths.numpy(), [len(s) for s in slow]).pvalue > 0.01
        shares *= 1 - (mask - 1) / 2 / size
    ones = torch.ones(1, 1, bands, frames)
    masked = torch.stack([(spec_augment(ones, d) == 0).double().mean() for d in drawn[:1000]])
    assert abs(masked.mean().item() - (1 - shares)) < 4 * masked.std().item() / 1000**0.5  # 26 % of the cells


def test_a_mask_of_zero_masks_nothing_and_one_wider_than_the_clip_may_mask_all():
    x = torch.ones(1, 1, 16, 40)
    torch.manual_seed(0)
    assert all(torch.equal(spec_augment(x, draw_spec_augment(16, 40, 0, 0)), x) for _ in range(5))
    masked = [int((spec_augment(x, draw_spec_augment(16, 40, 0, 400)) == 0).sum()) for _ in range(200)]
    assert max(masked) == 16 * 40 and sum(m == 16 * 40 for m in masked) > 150  # wider than 40 in nine of ten


# --- of all three ---


def augmented(x, targets, draws, gather=ranks.gathered):
    x, targets = mixup(x, targets, draws[0], gather)
    return resize_crop(spec_augment(x, draws[1]), draws[2]), targets


def all_draws(n=8, bands=80, frames=101):
    torch.manual_seed(4)
    return draw_mixup(n, 0.5), draw_spec_augment(bands, frames, 30, 48), draw_resize_crop(n, bands, frames)


@pytest.mark.parametrize("parts", [2, 3, 9])  # 9: one rank has no clip at all
def test_ranks_do_together_what_one_process_does(monkeypatch, parts):
    x, targets, draws = batch(), torch.eye(8), all_draws()
    x0 = x.clone()
    whole = augmented(x, targets, draws)
    assert torch.equal(x, x0)  # what came in is left as it was
    pieces = []
    for rank in range(parts):
        rows = ranks.share(8, rank, parts)
        monkeypatch.setattr(ranks, "mine", lambda drawn, rows=rows: drawn[rows])
        gather = lambda local: x if local.ndim == 4 else targets  # noqa: E731
        pieces.append(augmented(x[rows], targets[rows], draws, gather))
    for k in (0, 1):
        # Not to the last bit: for a single clip torch takes another kernel.
        assert torch.allclose(torch.cat([piece[k] for piece in pieces]), whole[k], atol=1e-6)


def test_everything_is_drawn_from_torchs_generator_and_is_the_same_again():
    first = all_draws()
    random.seed(99)
    np.random.seed(99)
    again = all_draws()
    for one, other in zip(first, again, strict=True):
        assert all(torch.equal(getattr(one, k), getattr(other, k)) for k in vars(one))
    assert not torch.equal(first[2].boxes, draw_resize_crop(8, 80, 101).boxes)


def test_autocast_changes_nothing_and_half_precision_comes_back_as_such():
    x, targets, draws = batch(), torch.eye(8), all_draws()
    plain = augmented(x, targets, draws)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = augmented(x, targets, draws)
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))
    half, same_targets = augmented(x.bfloat16(), targets, draws)
    assert half.dtype == torch.bfloat16 and torch.equal(same_targets, plain[1])
    assert torch.allclose(half.float(), plain[0], atol=0.06)


def test_wrong_settings_are_one_clear_line():
    with pytest.raises(UserError, match=r"--mixup must be 0 \(off\) or more, not -0.1"):
        draw_mixup(4, -0.1)
    with pytest.raises(UserError, match="--mixup"):
        draw_mixup(4, float("nan"))
    for masks, name in (((-1, 5), "freq"), ((5, -1), "time")):
        with pytest.raises(UserError, match=f"--{name}_mask"):
            draw_spec_augment(80, 101, *masks)


def test_draws_for_another_number_of_clips_are_refused():
    with pytest.raises(ValueError, match="drawn for 8 clips of this rank, which has 4"):
        resize_crop(batch(4), draw_resize_crop(8, 80, 101))
