"""A frozen teacher: how it is named, what it hears, how its grid becomes ours, and that it stays what it is."""

from dataclasses import replace

import pytest
import torch
from pretrain_small import FACTS, LABELLED, random_batch, small

from evar.errors import UserError
from evar.pretrain import teacher
from evar.pretrain.settings import PretrainSettings
from evar.pretrain.teacher import Teacher, parse, resized, side_by_side

OWN = """
from model_adapters.base import Adapter
from model_adapters.m2d import M2D

class Small(M2D):
    def __init__(self, *, weights: str = "random", layers: str = "-1") -> None:
        super().__init__(weights=weights, layers=layers, input_size="80x96", norm_stats="-5,2", depth=2, embed_dim=64)

class Finer(M2D):
    def __init__(self, *, weights: str = "random") -> None:
        super().__init__(weights=weights, input_size="80x96", patch_size="16x4", depth=1, embed_dim=64)

class Fast(M2D):
    def __init__(self, *, weights: str = "random") -> None:
        super().__init__(weights=weights, input_size="80x96", sample_rate=32000, depth=1, embed_dim=64)

class Deaf(Adapter):
    sample_rate = 16000
    embedding_dim = 1
"""
SETTINGS = PretrainSettings(input_size=(80, 96))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "own.py"
    path.write_text(OWN)
    return path


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("m2d_clap:random", ("m2d_clap", "random", "")),
        ("m2d:random:7@0,1", ("m2d", "random:7", "0,1")),
        ("m2d_clap:runs/a@b/checkpoint-1.pth@-2", ("m2d_clap", "runs/a@b/checkpoint-1.pth", "-2")),
        ("log_mel_stats", ("log_mel_stats", None, "")),
        ("mine.py:Mine", ("mine.py:Mine", None, "")),
        ("mine.py:Mine:w.pth@3", ("mine.py:Mine", "w.pth", "3")),
    ],
)
def test_names(spec, expected):
    assert parse(spec) == expected


def test_a_path_alone_is_an_m2d(tmp_path):
    path = tmp_path / "checkpoint-1.pth"
    path.touch()
    assert parse(f"{path}@1") == ("m2d", str(path), "1")


def test_it_hears_the_crop_as_it_would_alone(own):
    found = Teacher(f"{own}:Small", SETTINGS, FACTS.norm_stats)
    log_mel = random_batch()[0].log_mel
    raw = log_mel * 4.2 - 7.1
    alone = found.adapter.frames_of((raw + 5) / 2)
    torch.testing.assert_close(side_by_side(found(log_mel)), alone, rtol=1e-4, atol=1e-4)
    assert (found.dim, found.frame_dim) == (64, 320)
    assert found(log_mel).shape == (4, 5, 6, 64)


def test_layers_are_side_by_side(own):
    last, both = (Teacher(f"{own}:Small{end}", SETTINGS, FACTS.norm_stats) for end in ("", "@0,1"))
    log_mel = random_batch()[0].log_mel
    assert both.dim == 128
    torch.testing.assert_close(both(log_mel)[..., 64:], last(log_mel))


def test_frames_that_fill_no_patch_are_left_out(own):
    found = Teacher(f"{own}:Finer", replace(SETTINGS, input_size=(80, 104)), FACTS.norm_stats)
    log_mel = torch.randn(1, 1, 80, 104)
    assert found(log_mel).shape == (1, 5, 24, 64)


def test_grids_are_averaged_or_interpolated():
    generator = torch.Generator().manual_seed(0)
    same = torch.randn(2, 5, 6, 3, generator=generator)
    assert torch.equal(resized(same, (5, 6)), same)
    fine = torch.randn(2, 10, 18, 3, generator=generator)
    expected = fine.unflatten(1, (5, 2)).unflatten(3, (6, 3)).mean((2, 4))
    torch.testing.assert_close(resized(fine, (5, 6)), expected)
    row = torch.randn(2, 1, 6, 3, generator=generator)
    torch.testing.assert_close(resized(row, (5, 6)), row.expand(-1, 5, -1, -1))
    line = torch.arange(4.0).view(1, 1, 4, 1)
    assert resized(line, (1, 8))[0, 0, :, 0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]


@pytest.mark.parametrize(("objective", "facts"), [("m2d_x", FACTS), ("mam_clap", FACTS), ("supmam", LABELLED)])
def test_it_stays_outside_and_as_it_is(own, objective, facts):
    model = small(objective, facts, teacher=f"{own}:Finer")
    batch, noise = random_batch(labels=torch.ones(4, 3))
    before = [p.clone() for p in model.teacher.adapter.parameters()]
    model.train()
    model.losses(batch, noise)["loss"].sum().backward()
    assert not any("teacher" in name for name in model.state_dict())
    assert not model.teacher.adapter.training
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.adapter.parameters())
    assert all(torch.equal(p, q) for p, q in zip(model.teacher.adapter.parameters(), before, strict=True))


def test_stored_features_and_a_teacher_say_the_same(own):
    live = small("m2d_x", FACTS, teacher=f"{own}:Small")
    stored = small("m2d_x", replace(FACTS, feature_dim=320))
    stored.load_state_dict(live.state_dict())
    batch, noise = random_batch()
    told = replace(batch, features=side_by_side(live.teacher(batch.log_mel)))
    torch.testing.assert_close(stored.losses(told, noise)["distilled"], live.losses(batch, noise)["distilled"])


def test_the_teacher_hears_the_clean_sound(own):
    model = small("mam_clap", FACTS, teacher=f"{own}:Small")
    batch, noise = random_batch()
    heard = []
    model.teacher = lambda log_mel: heard.append(log_mel) or torch.zeros(4, 5, 6, 64)
    model.losses(replace(batch, noisy=torch.zeros_like(batch.log_mel)), noise)
    assert heard[0] is batch.log_mel


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("Deaf", "does not start from the corpus's log-mel"),
        ("Fast", "takes 80 mel bands at 32000 Hz, the corpus has 80 at 16000"),
        ("Smal", "Did you mean 'Small'"),
    ],
)
def test_teachers_that_cannot_be(own, spec, said):
    with pytest.raises(UserError, match=said):
        Teacher(f"{own}:{spec}", SETTINGS, FACTS.norm_stats)


def test_a_teacher_or_stored_features_not_both(own):
    with pytest.raises(UserError, match="both"):
        small("m2d_x", replace(FACTS, feature_dim=320), teacher=f"{own}:Small")
    with pytest.raises(UserError, match="--features"):
        small("m2d_s", replace(FACTS, feature_dim=320), teacher=f"{own}:Small")
    with pytest.raises(ValueError, match="no stored features"):
        teacher.features_of(None, random_batch()[0])
