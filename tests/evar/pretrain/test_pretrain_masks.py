"""Masks: how many patches are visible, which shape the hidden ones have, and that ranks draw alike."""

import numpy as np
import pytest
import torch
from golden import arrays, needs_shared
from hypothesis import given
from hypothesis import strategies as st

from evar import ranks
from evar.errors import UserError
from evar.pretrain import masks

GRID = (5, 31)
STRUCTURED = ("structured", "structured_reference")


def visible(kind, ratio, seed=0, rows=3, grid=GRID):
    """Return ``[rows, F, T]``, True where a patch is visible."""
    torch.manual_seed(seed)
    order, keep = masks.order(masks.draw(kind, rows, grid, ratio), kind, grid, ratio)
    assert torch.equal(order.sort(1).values, torch.arange(grid[0] * grid[1]).expand(rows, -1))
    seen = torch.zeros(rows, grid[0] * grid[1], dtype=torch.bool)
    return seen.scatter(1, order[:, :keep], True).unflatten(1, grid).numpy()


@needs_shared
def test_recorded_numbers_of_visible_patches():
    for patches, ratio, keep in arrays("pretrain_forward.npz")["len_keep_table"]:
        assert masks.visible_count(int(patches), float(ratio)) == int(keep)


@pytest.mark.parametrize(
    ("patches", "ratio", "keep"),
    [(190, 0.7, 57), (190, 0.6, 76), (190, 0.75, 47), (310, 0.7, 93), (250, 0.7, 75), (304, 0.6, 121), (256, 0.6, 102)],
)
def test_published_numbers_of_visible_patches(patches, ratio, keep):
    assert masks.visible_count(patches, ratio) == keep
    assert visible("random", ratio, grid=(1, patches)).sum() == 3 * keep


def test_random_masks_are_those_of_the_noise():
    noise = torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.0, 0.2, 0.1, 0.3]])
    order, keep = masks.order(noise, "random", (2, 2), 0.5)
    assert order.tolist() == [[1, 3, 2, 0], [0, 2, 1, 3]]
    assert keep == 2


def test_random_masks_hide_every_patch_equally_often():
    share = visible("random", 0.7, rows=4000).mean(0)
    assert np.abs(share - 46 / 155).max() < 0.04


@needs_shared
@pytest.mark.parametrize("case", range(5))
def test_as_many_visible_patches_as_recorded(case):
    stored = arrays("masks.npz")
    ratio = float(stored[f"structured{case}.seed_ratio"][1])
    for kind in STRUCTURED:
        # Only the first draw decides how many rows and columns, and the reference's was numpy's.
        rows, columns = stored[f"structured{case}.NF_NT"]
        counts = {int(visible(kind, ratio, seed=s, rows=1).sum()) for s in range(40)}
        assert int(stored[f"structured{case}.len_keep"]) == (5 - rows) * (31 - columns)
        assert int(stored[f"structured{case}.len_keep"]) in counts
    assert visible("blocks", ratio).sum() == 3 * int(stored[f"oned{case}.len_keep"])


@needs_shared
@pytest.mark.parametrize("case", range(5))
def test_recorded_blocks_are_of_the_kind_ours_are(case):
    stored = arrays("masks.npz")
    keep = int(stored[f"oned{case}.len_keep"])
    for order in stored[f"oned{case}.ids_shuffle"]:
        seen = np.zeros(155, bool)
        seen[order[:keep]] = True
        whole = seen.reshape(GRID)
        assert (whole == whole[0]).all()
        assert len(_runs(~whole[0])) <= -(-int(31 * stored[f"structured{case}.seed_ratio"][1]) // masks.BLOCK_COLUMNS)


def _runs(flags):
    edges = np.flatnonzero(np.diff(np.r_[0, flags.astype(int), 0]))
    return list(zip(edges[::2], edges[1::2], strict=True))


@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), st.integers(1, 5), st.integers(2, 60))
def test_blocks_hide_whole_columns_in_runs(seed, ratio, rows, columns):
    seen = visible("blocks", ratio, seed, rows=2, grid=(rows, columns))
    hidden = int(columns * ratio)
    for clip in seen:
        assert (clip == clip[0]).all()
        assert (~clip[0]).sum() == hidden
        assert len(_runs(~clip[0])) <= max(1, hidden)


def test_blocks_come_in_their_length_and_anywhere():
    hidden = ~visible("blocks", 0.5, rows=2000, grid=(1, 60))[:, 0]
    lengths = [end - begin for clip in hidden for begin, end in _runs(clip)]
    assert np.median(lengths) >= masks.BLOCK_COLUMNS
    share = hidden.mean(0)
    # A block that begins before the clip, or ends after it, is followed by another: the ends are hidden as often.
    assert np.abs(share - 0.5).max() < 0.05


@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.3, 0.5, 0.7]))
def test_structured_masks_leave_a_grid_of_rows_and_columns(seed, ratio):
    seen = visible("structured", ratio, seed)
    for clip in seen:
        rows, columns = clip.any(1), clip.any(0)
        assert np.array_equal(clip, rows[:, None] & columns)
    assert len({clip.sum() for clip in seen}) == 1


def test_the_published_code_keeps_what_it_meant_to_mask():
    intended, reference = visible("structured", 0.5, seed=4), visible("structured_reference", 0.5, seed=4)
    assert intended.sum() == reference.sum()
    assert (intended & reference).sum() < 0.3 * intended.sum()
    clip = reference[0]
    assert (clip.all(1).any() or clip.all(0).any()) and not clip.all()


@pytest.mark.parametrize("kind", ["random", "blocks", *STRUCTURED])
def test_ranks_draw_for_all_and_take_their_own(kind, monkeypatch):
    torch.manual_seed(1)
    whole = masks.draw(kind, 8, GRID, 0.5)
    parts = []
    monkeypatch.setattr(ranks, "world", lambda: 2)
    monkeypatch.setattr(ranks, "sum_over_ranks", lambda values, with_grad=False: torch.tensor(8))
    for rank in (0, 1):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        torch.manual_seed(1)
        parts.append(masks.draw(kind, 8, GRID, 0.5))
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(
    ("kind", "ratio", "grid", "said"),
    [
        ("random", 1.0, GRID, "less than 1"),
        ("random", 0.9, (2, 4), "none of the 2x4 patches visible"),
        ("random", 0.0, GRID, "masks none"),
        ("blocks", 0.1, (1, 9), "masks none"),
        ("structured", 0.0, GRID, "masks none"),
        ("stripes", 0.5, GRID, "--mask must be"),
    ],
)
def test_masks_that_cannot_be(kind, ratio, grid, said):
    with pytest.raises(UserError, match=said):
        masks.check(kind, grid, ratio)


def test_a_network_that_predicts_nothing_may_see_everything():
    masks.check("random", GRID, 0.0, predicts=False)
    assert visible("random", 0.0).all()
