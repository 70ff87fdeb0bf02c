"""Settings of fine-tuning: the paper's table by name, what follows what, and bad ones refused before data are read."""

import re
from dataclasses import replace

import numpy as np
import pytest
from helpers import tiny_task
from tuning import tones

from evar.errors import UserError
from evar.finetune_settings import PAPER, FinetuneSettings, check_clips, settings_for

TABLE_1 = """
                as2m       as20k      esc50      spcv2      vc1
lr              2.0        0.5        0.5        0.5        0.0005
batch_size      64         64         128        128        64
optimizer       lars       sgd        sgd        sgd        adamw
mixup           0.5        0.3        0.0        0.3        0.0
rrc             False      True       True       True       False
freq_mask       30         30         15         30         30
time_mask       192        192        48         48         48
epochs          70         200        200        200        50
warmup_epochs   15         5          5          5          5
patchout        0.5        0.5        0.5        0.5        0.0
dur_frames      1001       1001       501        0          821
freeze_patch_embed False   False      True       False      False
sampler         weighted   shuffle    shuffle    shuffle    shuffle
draws           200000     0          0          0          0
short_clips     reference  silence    silence    silence    silence
weight_decay    0.0        0.0        0.0        0.0        0.0001
"""
"""RUNNERS 2.7, and for weight decay 2.6."""


def big_task(name="other", **facts):
    return tiny_task(name=name, counts={"train": 10**6, "valid": 5, "test": 5}, **facts)


@pytest.mark.parametrize("task", PAPER)
def test_the_paper_preset_is_table_1(task):
    names, *lines = TABLE_1.split("\n")[1:-1]
    column = names.split().index(task)
    wanted = {line.split()[0]: line.split()[1 + column] for line in lines}
    settings, preset = settings_for(big_task(task), None, {})
    assert preset == "paper"
    assert {name: str(getattr(settings, name)) for name in wanted} == {
        name: str(float(text)) if name in ("lr", "weight_decay") else text for name, text in wanted.items()
    }
    assert settings.patchout_mode == "reference", "the published numbers were made with it"
    assert not settings.freeze_encoder and settings.layer_decay == 1 and settings.select == "best"


def test_other_tasks_have_the_default_preset_and_patchout_as_it_was_meant():
    settings, preset = settings_for(big_task(), None, {})
    assert (settings, preset) == (FinetuneSettings(), "default")
    assert settings.patchout_mode == "intended"
    assert settings_for(big_task("esc50"), "default", {}) == (FinetuneSettings(), "default")


def test_every_value_can_be_replaced_and_what_is_not_given_stays():
    given = {"lr": 0.25, "mixup": 0.0, "rrc": False, "patchout_mode": "intended", "epochs": None}
    settings, preset = settings_for(big_task("as20k"), "paper", given)
    assert settings == replace(PAPER["as20k"], lr=0.25, mixup=0.0, rrc=False, patchout_mode="intended")
    assert preset == "paper"


def test_weight_decay_follows_the_optimiser_and_draws_follow_the_sampler():
    assert settings_for(big_task(), None, {"optimizer": "sgd"})[0].weight_decay == 0
    assert settings_for(big_task("esc50"), None, {"optimizer": "adamw"})[0].weight_decay == 1e-4
    assert settings_for(big_task("esc50"), None, {"optimizer": "adamw", "weight_decay": 0.1})[0].weight_decay == 0.1
    assert settings_for(big_task("as2m"), None, {"sampler": "shuffle"})[0].draws == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"patchout": 1.0}, "--patchout=1.0: a share of the patches, from 0 to below 1"),
        ({"patchout": -0.1}, "--patchout"),
        ({"mixup": -0.5}, "--mixup=-0.5: must be 0 (off) or more"),
        ({"mixup": float("nan")}, "--mixup"),
        ({"lr": 0.0}, "--lr=0.0: must be above 0"),
        ({"lr": float("inf")}, "--lr"),
        ({"batch_size": 0}, "--batch_size=0: must be at least 1"),
        ({"batch_size": 10**6 + 1}, "other has only 1000000 training clips"),
        ({"epochs": 0}, "--epochs=0: must be at least 1"),
        ({"epochs": 3}, "--warmup_epochs=5: must be from 0 to --epochs=3"),
        ({"warmup_epochs": -1}, "--warmup_epochs"),
        ({"freq_mask": -1}, "--freq_mask=-1"),
        ({"time_mask": -1}, "--time_mask=-1"),
        ({"layer_decay": 0.0}, "--layer_decay"),
        ({"layer_decay": 1.5}, "--layer_decay"),
        ({"weight_decay": -1.0}, "--weight_decay"),
        ({"dur_frames": -1}, "--dur_frames"),
        ({"draws": 100}, "--draws=100 is for --sampler=weighted or balanced"),
        ({"draws": -1, "sampler": "balanced"}, "--draws"),
        ({"draws": 10, "sampler": "balanced"}, "--batch_size=64: an epoch has only --draws=10 clips"),
    ],
)
def test_a_value_that_cannot_be_is_one_clear_line(given, says):
    with pytest.raises(UserError, match=re.escape(says)) as error:
        settings_for(big_task(), None, given)
    assert "\n" not in str(error.value)


def test_a_task_must_have_classes_and_the_table_must_have_the_task():
    with pytest.raises(UserError, match="captions and no classes"):
        settings_for(big_task(kind="retrieval", metric="R@1", labels=()), None, {})
    with pytest.raises(UserError, match="no settings for other, only for as2m, as20k"):
        settings_for(big_task(), "paper", {})


def test_batches_are_compared_with_the_clips_that_are_trained_on():
    folds = tiny_task(counts={1: 50, 2: 40, 3: 30})
    assert settings_for(folds, None, {"batch_size": 90})
    with pytest.raises(UserError, match="only 90 training clips"):
        settings_for(folds, None, {"batch_size": 91})
    with pytest.raises(UserError, match="only 20 training clips"):
        settings_for(tiny_task(counts={"train": 20, "valid": 100, "test": 100}), None, {})
    recordings = tiny_task(counts={"train": 20, "test": 5}, count_by="recording")
    assert settings_for(recordings, None, {}), "how many clips are cut from 20 recordings is not known yet"


def test_clips_that_are_there_are_checked_before_any_run(tmp_path):
    clips = tones(tmp_path / "a", train=9, test=3)
    check_clips(clips, FinetuneSettings(batch_size=9))
    with pytest.raises(UserError, match="only 9 training clips here"):
        check_clips(clips, FinetuneSettings(batch_size=10))
    with pytest.raises(UserError, match="--sampler=weighted: tiny has no weights"):
        check_clips(clips, FinetuneSettings(batch_size=4, sampler="weighted"))
    assert np.isfinite(tones(tmp_path / "b", train=4, test=2, weights=True).table["weight"][:4]).all()
    with pytest.raises(UserError, match="only 6 training clips beside fold 1 here"):
        check_clips(tones(tmp_path / "c", fold1=9, fold2=6), FinetuneSettings(batch_size=8))
