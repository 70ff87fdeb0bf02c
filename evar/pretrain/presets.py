"""The papers' recipes of pre-training by name (MODELS 2.6, 2.7, 3, 4, 5, 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evar.errors import UserError, did_you_mean
from evar.pretrain.settings import PretrainSettings, check

_M2D = PretrainSettings()
_MAE = replace(
    _M2D, objective="msm_mae", decoder_dim=384, decoder_depth=4, decoder_heads=6, mask_ratio=0.75, loss="mse"
)
_STAGE_2 = replace(
    _M2D, objective="clap_text", input_size=(80, 1001), mask="structured_reference", mask_ratio=0.3,
    projector="semantic", w_m2d=0.0, w_other=1.0, temperature=0.01, train_encoder=False,
    text_encoder="google-bert/bert-base-uncased", epochs=30, warmup_epochs=5.0, base_lr=3e-6, seed=7,
)  # fmt: skip

PRESETS: Mapping[str, PretrainSettings] = {
    "m2d_base": _M2D,
    "m2d_clap_2024": replace(_M2D, objective="m2d_clap", seed=3),
    "m2d_clap_2025_stage1": replace(_M2D, objective="m2d_clap", projector="semantic", seed=7),
    "m2d_clap_2025_stage2": _STAGE_2,
    "m2d_clap_2025_stage21": replace(_STAGE_2, mask="random", mask_ratio=0.0),
    "m2d_as": replace(_M2D, objective="m2d_as", w_other=1.0, seed=3),
    "m2d_s": replace(
        _M2D, objective="m2d_s", input_size=(80, 400), patch_size=(80, 2), mask_ratio=0.6, w_other=0.5,
        noise_ratio=0.2, epochs=1000, warmup_epochs=60.0,
    ),
    "m2d_x": replace(
        _M2D, objective="m2d_x", input_size=(80, 200), patch_size=(16, 4), w_other=1.0, noise_ratio=0.3, epochs=600,
        batch_size=128, seed=6,
    ),
    "msm_mae": _MAE,
    "mam_clap": replace(_MAE, objective="mam_clap", w_other=1.0, our_constants=True),
    "supmam": replace(_MAE, objective="supmam", w_other=0.01, our_constants=True),
    "pocket": replace(
        _M2D, objective="m2d_clap", input_size=(80, 96), dim=192, depth=4, decoder_dim=96, decoder_depth=2,
        decoder_heads=3, mask_ratio=0.6, w_other=1.0, epochs=60, warmup_epochs=5.0, batch_size=64, base_lr=4e-3,
        min_clips=0, ema=(0.99, 0.999), short_clips="silence", min_seconds=0.0, our_constants=True,
    ),
}  # fmt: skip
"""M2D-AS, -X and -S are M2D with a second task. The paper of MAM-CLAP and SupMAM gives no constants: M2D's MSM-MAE
recipe stands in (``our_constants``). ``pocket`` is a demonstration of minutes on a laptop."""


def settings_for(preset: str, given: Mapping[str, Any]) -> PretrainSettings:
    """Return a preset's settings; ``given`` replaces what is not None in it.

    Raises :class:`UserError` for an unknown preset and for values that cannot be, before any data is read.
    """
    if preset not in PRESETS:
        raise UserError(f"there is no preset '{preset}'.{did_you_mean(preset, PRESETS)}")
    settings = replace(PRESETS[preset], **{name: value for name, value in given.items() if value is not None})
    check(settings)
    return settings
