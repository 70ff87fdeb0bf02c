"""What a model with a fixed window hears of longer and shorter clips."""

import pytest
import torch

from evar.errors import UserError
from model_adapters.networks.windows import described, repeat_pad, starts, tiled, windows, zero_pad

CLIP = torch.arange(25.0) / 25


@pytest.mark.parametrize(("rule", "expected"), [("first", [0]), ("centre", [7]), ("chunks", [0, 10, 15])])
def test_fixed_places(rule, expected):
    assert starts(CLIP, 10, rule) == expected


def test_no_chunk_comes_twice():
    assert starts(torch.zeros(20), 10, "chunks") == [0, 10]
    assert starts(torch.zeros(21), 10, "chunks") == [0, 10, 11]


def test_a_seeded_place_is_the_clips_own():
    places = [
        starts(torch.randn(1000, generator=torch.Generator().manual_seed(n)) / 9, 10, "seeded") for n in range(60)
    ]
    flat = [place for [place] in places]
    assert len(set(flat)) > 40 and min(flat) < 150 and max(flat) > 840 and max(flat) <= 990
    clip = torch.rand(1000)
    [place] = starts(clip, 10, "seeded")
    assert [place] == starts(clip + 1e-6 * torch.randn(1000), 10, "seeded") != starts(clip, 10, "seeded", seed=1)


def test_a_random_place_is_drawn_anew_and_follows_torchs_seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [starts(torch.zeros(1000), 10, "random") for _ in range(5)]
        torch.manual_seed(0)
        assert drawn == [starts(torch.zeros(1000), 10, "random") for _ in range(5)]
    assert len({place for [place] in drawn}) > 1


def test_seeded_places_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    starts(CLIP, 10, "seeded")
    assert torch.equal(before, torch.get_rng_state())


def test_every_clip_has_its_own_place():
    clips = torch.stack([CLIP, CLIP.flip(0)])
    [piece] = windows(clips, 10, "seeded")
    for row, clip in zip(piece, clips, strict=True):
        [at] = starts(clip, 10, "seeded")
        assert torch.equal(row, clip[at : at + 10])
    assert [p.shape for p in windows(clips, 10, "chunks")] == [(2, 10)] * 3
    assert windows(clips, 25, "seeded") == [clips]


def test_short_clips():
    clip = torch.tensor([[1.0, 2, 3]])
    assert repeat_pad(clip, 8).tolist() == [[1, 2, 3, 1, 2, 3, 0, 0]]
    assert repeat_pad(clip, 3).tolist() == clip.tolist()
    assert zero_pad(clip, 5).tolist() == [[1, 2, 3, 0, 0]]
    [piece] = tiled(torch.tensor([[1.0, 2, 3, 0], [1, 2, 3, 4]]), torch.tensor([3, 4]), 7, "first")
    assert piece.tolist() == [[1, 2, 3, 1, 2, 3, 1], [1, 2, 3, 4, 1, 2, 3]]
    [piece] = tiled(torch.zeros(1, 4), torch.tensor([0]), 7, "first")
    assert piece.shape == (1, 7)


def test_rules_in_words():
    assert described("first", 10.0) == "the first 10 s"
    with pytest.raises(UserError, match="seeded, random, first, centre, chunks"):
        described("last", 10.0)  # type: ignore[arg-type]
