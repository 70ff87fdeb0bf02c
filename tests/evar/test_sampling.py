"""Orders depend on seed and epoch alone; weights are honoured; every clip of a batch lies on exactly one rank."""

import time

import numpy as np
import pytest

from evar.errors import UserError
from evar.sampling import balanced_order, batches, batches_per_epoch, epoch_order, weighted_order


def test_an_epoch_holds_every_clip_once_in_an_order_of_its_own():
    order = epoch_order(1000, seed=42, epoch=3)
    assert sorted(order) == list(range(1000)) and order.dtype == np.int64
    assert (order == epoch_order(1000, 42, 3)).all()
    for seed, epoch in [(42, 4), (43, 3), (3, 42)]:
        assert (order != epoch_order(1000, seed, epoch)).any()


def test_weighted_draws_are_different_clips_and_repeatable():
    weights = np.random.default_rng(0).random(500)
    order = weighted_order(weights, 200, seed=1, epoch=0)
    assert len(set(order)) == 200
    assert (order == weighted_order(weights, 200, 1, 0)).all()
    assert (order != weighted_order(weights, 200, 1, 1)).any()
    assert sorted(weighted_order(weights, 500, 1, 0)) == list(range(500))
    assert len(weighted_order(weights, 0, 1, 0)) == 0


def test_weighted_draws_follow_the_law_of_drawing_one_after_another():
    """Chances of ordered pairs from weights 1, 2, 5: w_i / 8 times w_j / (8 - w_i)."""
    weights, trials = np.array([1.0, 2.0, 5.0]), 6000
    counts = np.zeros((3, 3))
    for epoch in range(trials):
        counts[tuple(weighted_order(weights, 2, seed=0, epoch=epoch))] += 1
    expected = weights[:, None] / 8 * weights[None] / (8 - weights[:, None])
    np.fill_diagonal(expected, 0)
    deviation = np.sqrt(expected * (1 - expected) / trials)
    assert (np.abs(counts / trials - expected) <= 4 * deviation + 1e-12).all()


def test_heavy_clips_come_early_in_the_draw():
    weights = np.repeat([1.0, 20.0], 1000)
    heavy = weighted_order(weights, 1600, seed=0, epoch=0) >= 1000
    assert heavy[:400].mean() > 0.9 > 0.2 > heavy[-400:].mean()


def test_clips_of_weight_zero_are_never_drawn():
    weights = np.array([0.0, 1.0, 0.0, 2.0])
    assert set(weighted_order(weights, 2, 0, 0)) == {1, 3}
    with pytest.raises(UserError, match="2 of 4"):
        weighted_order(weights, 3, 0, 0)


@pytest.mark.parametrize("weights", [[1.0, -1.0], [1.0, float("nan")], [[1.0]]])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(UserError, match="weights"):
        weighted_order(np.array(weights), 1, 0, 0)


def test_audioset_size_takes_less_than_an_instant():
    weights = np.random.default_rng(0).random(2_000_000) + 0.01
    begin = time.perf_counter()
    assert len(set(weighted_order(weights, 200_000, 0, 0).tolist())) == 200_000
    assert time.perf_counter() - begin < 5  # 0.1 s on a free core


def test_balanced_draws_give_every_class_its_turn():
    labels = np.array([0] * 90 + [1] * 9 + [7])
    order = balanced_order(labels, 300, seed=0, epoch=0)
    assert np.bincount(labels[order])[[0, 1, 7]].tolist() == [100, 100, 100]
    rounds = labels[order].reshape(100, 3)
    assert (np.sort(rounds, axis=1) == [0, 1, 7]).all() and len(np.unique(rounds, axis=0)) == 6  # in every order
    # No clip of a class comes twice before all of its class have come once.
    assert len(set(order[labels[order] == 0][:90])) == 90
    assert sorted(order[labels[order] == 1][:9]) == list(range(90, 99))


def test_balanced_draws_read_several_labels_a_clip():
    hot = np.zeros((10, 4), bool)
    hot[:8, 0] = hot[6:9, 1] = hot[9, 2] = True  # nobody has class 3
    order = balanced_order(hot, 30, seed=5, epoch=2)
    assert (order == 9).sum() == 10
    assert np.isin(order, [6, 7, 8]).sum() >= 10
    assert (order == balanced_order(hot, 30, 5, 2)).all()
    with pytest.raises(UserError, match="no clip"):
        balanced_order(np.zeros((3, 2)), 5, 0, 0)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_share_every_batch_and_the_last_short_one(world):
    order = epoch_order(34, 0, 0)
    by_rank = [list(batches(order, 8, rank, world)) for rank in range(world)]
    assert len(by_rank[0]) == batches_per_epoch(34, 8) == 5
    assert [batch.rows for batch in by_rank[0]] == [8, 8, 8, 8, 2]
    together = [np.concatenate([batch.mine for batch in step]) for step in zip(*by_rank, strict=True)]
    assert (np.concatenate(together) == order).all()
    for step in zip(*by_rank, strict=True):
        sizes = [len(batch.mine) for batch in step]
        assert max(sizes) - min(sizes) <= 1


def test_an_epoch_resumes_at_the_batch_it_had_reached():
    order = epoch_order(34, 0, 0)
    whole, rest = list(batches(order, 8)), list(batches(order, 8, first=3))
    assert [list(batch.indices) for batch in rest] == [list(batch.indices) for batch in whole[3:]]


def test_bad_settings_are_one_clear_line():
    with pytest.raises(UserError, match="at least one clip"):
        list(batches(np.arange(3), 0))
    with pytest.raises(UserError, match="seed"):
        epoch_order(3, -1, 0)
