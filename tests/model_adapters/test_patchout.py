"""Structured patchout: which patches stay, as the published code has it and as it was meant."""

import numpy as np
import pytest
import torch
from audio.slow_augment import slow_kept, slow_stripes
from golden import arrays, needs_shared

from evar import ranks
from evar.errors import UserError
from model_adapters.networks.m2d import kept_by_patchout, kept_of_marked

GRID = (5, 62)
TABLE = {0: (31, 155, 155, 155), 1: (19, 172, 138, 138), 2: (6, 168, 142, 142), 3: (0, 124, 124, 186)}
"""RUNNERS 2.4, r = 0.5: rows marked → columns marked, patches kept, how many of them are marked, marked in all."""


def replayed(seed, n, ratio):
    """Return per clip the marked rows and columns: those with the smallest of the numbers the product draws."""
    torch.manual_seed(seed)
    n_rows, n_columns = slow_stripes(GRID, ratio, torch.rand(()).item())
    row_keys, column_keys = torch.rand(n, GRID[0]), torch.rand(n, GRID[1])
    return [
        (set(np.argsort(row_keys[k])[:n_rows].tolist()), set(np.argsort(column_keys[k])[:n_columns].tolist()))
        for k in range(n)
    ]


@pytest.mark.parametrize("keeps", ["marked", "unmarked"])
@pytest.mark.parametrize("ratio", [0.0, 0.2, 0.5, 0.9])
def test_equal_to_the_slow_twin_clip_by_clip(keeps, ratio):
    for seed in range(24):  # u reaches 0.97: at a ratio of 0.9 one row is spared by rule
        wanted = [slow_kept(GRID, rows, columns, keeps) for rows, columns in replayed(seed, 4, ratio)]
        torch.manual_seed(seed)
        assert kept_by_patchout(4, GRID, ratio, keeps).tolist() == wanted


@pytest.mark.parametrize("keeps", ["marked", "unmarked"])
def test_numbers_kept_and_marked_are_those_measured_on_the_published_code(keeps):
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        kept = set(kept_by_patchout(1, GRID, 0.5, keeps)[0].tolist())
        ((rows, columns),) = replayed(seed, 1, 0.5)
        marked = {k for k in range(310) if k // 62 in rows or k % 62 in columns}
        n_columns, n_kept, n_marked_kept, n_marked = TABLE[len(rows)]
        assert (len(columns), len(kept), len(marked)) == (n_columns, n_kept, n_marked)
        assert len(kept & marked) == (n_marked_kept if keeps == "marked" else 0)
        seen.add(len(rows))
    assert seen == set(TABLE)


def test_numbers_of_rows_come_with_the_right_probabilities():
    torch.manual_seed(0)
    kept = torch.tensor([kept_by_patchout(1, GRID, 0.5, "marked").shape[1] for _ in range(4000)])
    shares = [(kept == TABLE[rows][1]).double().mean().item() for rows in range(4)]
    assert shares == pytest.approx([2 / 7, 2 / 7, 2 / 7, 1 / 7], abs=0.03)


def test_every_row_and_column_is_marked_equally_often_and_clips_differ():
    torch.manual_seed(2)  # two rows and six columns
    kept = kept_by_patchout(3000, GRID, 0.5, "unmarked")
    assert kept.shape == (3000, 168)
    left = torch.zeros(3000, 310).scatter_(1, kept, 1.0).view(3000, *GRID)
    rows, columns = left.any(2).double().mean(0), left.any(1).double().mean(0)
    assert torch.allclose(rows, torch.full_like(rows, 3 / 5), atol=0.04)
    assert torch.allclose(columns, torch.full_like(columns, 56 / 62), atol=0.03)
    assert len(kept.unique(dim=0)) > 2900


@needs_shared
@pytest.mark.parametrize("case", [f"structured{k}" for k in range(5)])
def test_the_same_marks_keep_what_the_published_code_kept(case):
    """The recorded order has all marked patches first; the marks themselves are read back from it."""
    stored = arrays("masks.npz")
    seed, ratio = stored[f"{case}.seed_ratio"]
    shuffled, count = torch.from_numpy(stored[f"{case}.ids_shuffle"]), int(stored[f"{case}.len_keep"])
    np.random.seed(int(seed))
    n_rows, n_columns = slow_stripes((5, 31), ratio, np.random.rand())
    assert (n_rows, n_columns) == tuple(stored[f"{case}.NF_NT"])
    assert count == (5 - n_rows) * (31 - n_columns)
    mark = torch.zeros(3, 155, dtype=torch.bool).scatter_(1, shuffled[:, : 155 - count], True)
    grid = mark.view(3, 5, 31)
    assert (grid.all(2).sum(1) == n_rows).all() and (grid.all(1).sum(1) == n_columns).all()
    kept, recorded = kept_of_marked(mark, count, "marked"), shuffled[:, :count]
    assert torch.equal(mark.gather(1, kept).sum(1), mark.gather(1, recorded).sum(1))
    if count >= 155 - count:  # all marked ones stay; which of the others do is left to the sort
        assert all(set(kept[k].tolist()) >= set(recorded[k, : 155 - count].tolist()) for k in range(3))


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_ranks_do_together_what_one_process_does(monkeypatch, parts):
    for seed in range(4):
        torch.manual_seed(seed)
        whole, state = kept_by_patchout(8, GRID, 0.5, "marked"), torch.get_rng_state()
        pieces = []
        for rank in range(parts):
            rows = ranks.share(8, rank, parts)
            with monkeypatch.context() as patch:
                patch.setattr(ranks, "mine", lambda drawn, rows=rows: drawn[rows])
                patch.setattr(ranks, "sum_over_ranks", lambda own: torch.tensor(8))
                torch.manual_seed(seed)
                pieces.append(kept_by_patchout(rows.stop - rows.start, GRID, 0.5, "marked"))
            assert torch.equal(state, torch.get_rng_state())  # every rank goes on from the same place
        assert torch.equal(torch.cat(pieces), whole)


@pytest.mark.parametrize("ratio", [1.0, 1.5, -0.1, float("nan")])
def test_a_share_that_leaves_nothing_is_one_clear_line(ratio):
    with pytest.raises(UserError, match="--patchout must be at least 0 and less than 1"):
        kept_by_patchout(2, GRID, ratio, "marked")
