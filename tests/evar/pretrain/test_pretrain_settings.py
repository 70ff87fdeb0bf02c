"""Presets are the papers' recipes (MODELS 2.6, 2.7, 3, 4); what cannot be is one line before any data is read."""

from dataclasses import replace

import pytest

from evar.errors import UserError
from evar.pretrain.objectives import names
from evar.pretrain.presets import PRESETS, settings_for
from evar.pretrain.settings import check, run_name


def test_the_papers_recipe_is_the_default_and_its_learning_rate_is_that_of_the_published_batch():
    s = PRESETS["m2d_base"]
    assert (s.input_size, s.patch_size, s.mask_ratio, s.batch_size, s.epochs) == ((80, 608), (16, 16), 0.7, 2048, 300)
    assert s.lr == pytest.approx(2.4e-3) and s.ema == (0.99995, 0.99999) and s.grid == (5, 38)


@pytest.mark.parametrize(
    ("preset", "facts"),
    [
        ("m2d_clap_2024", {"w_m2d": 1.0, "w_other": 0.01, "projector": "mean", "seed": 3}),
        ("m2d_clap_2025_stage1", {"w_other": 0.01, "projector": "semantic", "seed": 7}),
        ("m2d_clap_2025_stage2", {"input_size": (80, 1001), "epochs": 30, "mask_ratio": 0.3, "train_encoder": False,
                                  "mask": "structured_reference", "temperature": 0.01}),
        ("m2d_clap_2025_stage21", {"mask_ratio": 0.0, "epochs": 30}),
        ("msm_mae", {"decoder_dim": 384, "decoder_depth": 4, "decoder_heads": 6, "mask_ratio": 0.75}),
        ("m2d_s", {"patch_size": (80, 2), "mask_ratio": 0.6, "w_other": 0.5, "noise_ratio": 0.2, "epochs": 1000}),
        ("m2d_x", {"input_size": (80, 200), "patch_size": (16, 4), "batch_size": 128, "noise_ratio": 0.3}),
    ],
)  # fmt: skip
def test_a_preset_is_its_papers_recipe(preset, facts):
    assert {name: getattr(PRESETS[preset], name) for name in facts} == facts


def test_stage_two_has_its_own_learning_rate():
    assert PRESETS["m2d_clap_2025_stage2"].lr == pytest.approx(2.4e-5)


def test_every_preset_can_be_and_its_objective_is_there():
    for name, settings in PRESETS.items():
        check(settings)
        assert settings.objective in names(), name


def test_where_the_paper_gives_no_constants_the_preset_says_that_they_are_ours():
    assert {name for name, s in PRESETS.items() if s.our_constants} == {"mam_clap", "supmam", "pocket"}


def test_values_replace_the_presets():
    s = settings_for("m2d_base", {"epochs": 400, "mask_ratio": None, "dim": 192})
    assert (s.epochs, s.mask_ratio, s.dim) == (400, 0.7, 192)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"mask_ratio": 1.0}, "--mask_ratio=1.0: a share"),
        ({"input_size": (64, 608)}, "80 mel bands"),
        ({"patch_size": (32, 16)}, "--patch_size=32x16: does not fit"),
        ({"epochs": 10}, "--warmup_epochs=20.0: from 0 to --epochs=10"),
        ({"base_lr": 0.0}, "--base_lr=0.0: must be above 0"),
        ({"decoder_heads": 7}, "--decoder_heads=7 does not divide"),
        ({"heads": 5}, "--heads=5 does not divide"),
        ({"ema": (0.9, 1.1)}, "--ema=0.9,1.1"),
        ({"temperature": 0.0}, "--temperature=0.0"),
        ({"sample_rate": 44100}, "16000 or 32000"),
    ],
)
def test_what_cannot_be_is_one_clear_line(given, says):
    with pytest.raises(UserError, match=says.replace("(", r"\(")):
        settings_for("m2d_base", given)


def test_an_unknown_preset_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"no preset 'm2d_bass'.*m2d_base"):
        settings_for("m2d_bass", {})


def test_a_folders_name_says_geometry_rate_and_text_encoder_to_the_adapters():
    s = PRESETS["m2d_base"]
    assert run_name(s, "x") == "m2d_vit_base-80x608p16x16-x"
    assert run_name(replace(s, sample_rate=32000), "x") == "m2d_vit_base-80x608p16x16p32k-x"
    stage_2 = run_name(PRESETS["m2d_clap_2025_stage2"], "x")
    assert stage_2 == "m2d_clap_vit_base-80x1001p16x16p16kpBpTI-x"
    assert run_name(PRESETS["pocket"], "x") == "m2d_clap_vit_d192x4-80x96p16x16-x"
