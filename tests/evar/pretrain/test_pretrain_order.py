"""The order of an epoch: all clips, small corpora several times over, whole batches, the same after a restart."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evar.errors import UserError
from evar.pretrain.order import epoch_batches, items_per_epoch, split_items, steps_per_epoch
from evar.pretrain.settings import PretrainSettings

SETTINGS = PretrainSettings(batch_size=4, min_clips=25, seed=3)


def epoch_of(clips, epoch, settings=SETTINGS, **where):
    return list(epoch_batches(clips, settings, epoch, **where))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 12))
def test_an_epoch_has_every_clip_equally_often_but_for_what_does_not_fill_a_batch(clips, least, size):
    items = items_per_epoch(clips, least)
    assert items >= least and items % clips == 0 and items < least + clips + clips * (least <= clips)
    if items < size:
        return
    found = epoch_of(clips, 2, replace(SETTINGS, batch_size=size, min_clips=least))
    assert len(found) == steps_per_epoch(clips, size, least)
    assert {batch.rows for batch in found} == {size}
    drawn = np.concatenate([batch.indices for batch in found])
    assert len(set(drawn.tolist())) == len(drawn) > items - size
    per_clip = Counter(split_items(drawn, clips).clips.tolist())
    assert max(per_clip.values()) <= items // clips


def test_occurrences_of_a_clip_are_told_apart():
    found = split_items(np.concatenate([b.indices for b in epoch_of(10, 0, replace(SETTINGS, batch_size=30))]), 10)
    assert sorted(zip(found.clips.tolist(), found.times.tolist(), strict=True)) == [
        (clip, time) for clip in range(10) for time in range(3)
    ]


def test_the_order_is_of_seed_and_epoch_alone_and_can_be_entered_anywhere():
    whole = epoch_of(10, 1)
    for first in range(8):
        assert [b.indices.tolist() for b in epoch_of(10, 1, first=first)] == [b.indices.tolist() for b in whole[first:]]
    assert [b.indices.tolist() for b in epoch_of(10, 2)] != [b.indices.tolist() for b in whole]
    other = epoch_of(10, 1, replace(SETTINGS, seed=4))
    assert [b.indices.tolist() for b in other] != [b.indices.tolist() for b in whole]


def test_ranks_share_the_batches_of_one_process():
    alone = epoch_of(10, 1)
    shares = [epoch_of(10, 1, rank=rank, world=3) for rank in range(3)]
    for batch, *parts in zip(alone, *shares, strict=True):
        assert np.concatenate([part.mine for part in parts]).tolist() == batch.indices.tolist()


def test_a_corpus_smaller_than_a_batch_is_one_line():
    assert steps_per_epoch(3, 12, 10) == 1
    with pytest.raises(UserError, match=r"^the corpus has 3 clips, a batch takes 13: lower --batch_size, or raise"):
        steps_per_epoch(3, 13, 10)
    with pytest.raises(UserError, match="a batch takes 8"):
        epoch_of(7, 0, replace(SETTINGS, batch_size=8, min_clips=0))
    with pytest.raises(UserError, match="at least one clip"):
        steps_per_epoch(3, 0, 10)
