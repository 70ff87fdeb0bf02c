"""Settings of pre-training, and what may not be asked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from evar.errors import UserError

MaskKind = Literal["random", "structured", "structured_reference", "blocks"]
LossKind = Literal["norm_mse", "mse"]
ShortClips = Literal["reference", "silence"]


@dataclass(frozen=True)
class PretrainSettings:
    """Everything a pre-trained network depends on beside the corpus and the captions. The defaults are M2D/0.7's."""

    objective: str = "m2d"
    """File in ``evar/pretrain/objectives``."""
    input_size: tuple[int, int] = (80, 608)
    """Mel bands and frames of a crop."""
    patch_size: tuple[int, int] = (16, 16)
    sample_rate: int = 16000
    """16000 or 32000 Hz."""
    dim: int = 768
    depth: int = 12
    heads: int = 0
    """0: one per 64 dimensions."""
    decoder_dim: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    mask: MaskKind = "random"
    mask_ratio: float = 0.7
    loss: LossKind = "norm_mse"
    standardise_targets: bool = True
    """Per token, over features (M2D) or pixels (MAE)."""
    target_layers: tuple[int, ...] = ()
    """Blocks of the target network whose outputs are averaged; none: the last one, normalised."""
    target_sees: Literal["masked", "all"] = "masked"
    """``all`` is the data2vec-like ablation."""
    w_m2d: float = 1.0
    w_other: float = 0.01
    """Weight of the second loss: contrastive, supervised or distilled."""
    clap_grad_scale: float = 1.0
    """Factor on the contrastive loss's gradient but not on the temperature's; the published runs on four GPUs had 0.25
    (MODELS 3)."""
    projector: Literal["mean", "semantic"] = "mean"
    projector_depth: int = 1
    temperature: float = 0.07
    """Initial; the largest scale is 100."""
    text_encoder: str = ""
    """Hub id or folder of the encoder that is trained (2025, stage 2); empty: stored sentence embeddings."""
    train_encoder: bool = True
    """Stage 2 keeps the audio encoder as it is."""
    teacher: str = ""
    """Adapter name or checkpoint of a frozen teacher (mam_clap, m2d_x)."""
    distance: Literal["cosine", "norm_mse", "mse", "l1"] = "norm_mse"
    """Of the distilled features (mam_clap, m2d_x)."""
    epochs: int = 300
    warmup_epochs: float = 20.0
    batch_size: int = 2048
    """Clips per optimiser step, over all processes."""
    base_lr: float = 3e-4
    """For 256 clips; the peak is ``base_lr * batch_size / 256``."""
    min_lr: float = 0.0
    weight_decay: float = 0.05
    clip_norm: float = 3.0
    ema: tuple[float, float] = (0.99995, 0.99999)
    """Decay of the target network's moving average at the first step and the last."""
    min_clips: int = 10000
    """A smaller corpus is repeated within an epoch to at least this many."""
    short_clips: ShortClips = "reference"
    """What follows a clip that is too short: zeros in the raw log-mel (published; a loud value), or silence."""
    min_seconds: float = 6.1
    """Shorter clips are first lengthened to this by silence, as the published log-mels were."""
    noise_ratio: float = 0.0
    """Share of background noise mixed in (M2D-X, M2D-S)."""
    seed: int = 0
    our_constants: bool = False
    """The paper does not give this recipe's constants: they are ours."""

    @property
    def lr(self) -> float:
        """The peak learning rate."""
        return self.base_lr * self.batch_size / 256

    @property
    def grid(self) -> tuple[int, int]:
        """Rows (frequency) and columns (time) of patches."""
        return self.input_size[0] // self.patch_size[0], self.input_size[1] // self.patch_size[1]


def check(s: PretrainSettings) -> None:
    """Raise :class:`UserError` for the first setting that cannot be."""
    (mels, frames), (high, wide) = s.input_size, s.patch_size
    rows, columns = s.grid
    wrong = (
        (mels != 80, f"--input_size={mels}x{frames}: the front end has 80 mel bands"),
        (rows * high != mels or columns < 1, f"--patch_size={high}x{wide}: does not fit into {mels}x{frames}"),
        (s.sample_rate not in (16000, 32000), f"--sample_rate={s.sample_rate}: 16000 or 32000"),
        (s.dim % 4 != 0 or s.dim < 4, f"--dim={s.dim}: must be divisible by 4"),
        (s.dim % (s.heads or max(1, s.dim // 64)) != 0, f"--heads={s.heads} does not divide --dim={s.dim}"),
        (s.decoder_dim % 4 != 0, f"--decoder_dim={s.decoder_dim}: must be divisible by 4"),
        (
            s.decoder_heads < 1 or s.decoder_dim % s.decoder_heads != 0,
            f"--decoder_heads={s.decoder_heads} does not divide --decoder_dim={s.decoder_dim}",
        ),
        (s.depth < 1 or s.decoder_depth < 1, "--depth and --decoder_depth must be at least 1"),
        (not 0 <= s.mask_ratio < 1, f"--mask_ratio={s.mask_ratio}: a share of the patches, from 0 to below 1"),
        (not 0 < s.temperature <= 1, f"--temperature={s.temperature}: above 0 and at most 1"),
        (s.epochs < 1, f"--epochs={s.epochs}: must be at least 1"),
        (not 0 <= s.warmup_epochs <= s.epochs, f"--warmup_epochs={s.warmup_epochs}: from 0 to --epochs={s.epochs}"),
        (s.batch_size < 1, f"--batch_size={s.batch_size}: must be at least 1"),
        (not 0 < s.base_lr < math.inf, f"--base_lr={s.base_lr}: must be above 0"),
        (s.weight_decay < 0, f"--weight_decay={s.weight_decay}: must be 0 or more"),
        (not s.clip_norm > 0, f"--clip_norm={s.clip_norm}: must be above 0"),
        (not all(0 <= x <= 1 for x in s.ema), f"--ema={s.ema[0]},{s.ema[1]}: decays lie between 0 and 1"),
        (not 0 <= s.noise_ratio < 1, f"--noise_ratio={s.noise_ratio}: from 0 to below 1"),
        (s.min_clips < 0 or s.min_seconds < 0, "--min_clips and --min_seconds must be 0 or more"),
    )  # fmt: skip
    for is_wrong, sentence in wrong:
        if is_wrong:
            raise UserError(sentence)


def run_name(s: PretrainSettings, tag: str) -> str:
    """Return the folder name that says a checkpoint's geometry to the adapters (MODELS 7.3)."""
    family = {"msm_mae": "msm_mae", "m2d_clap": "m2d_clap", "clap_text": "m2d_clap"}.get(s.objective, s.objective)
    size = {(768, 12): "base", (1024, 24): "large"}.get((s.dim, s.depth), f"d{s.dim}x{s.depth}")
    (mels, frames), (high, wide) = s.input_size, s.patch_size
    rate = f"p{s.sample_rate // 1000}k" if s.sample_rate != 16000 or s.objective == "clap_text" else ""
    inside = "pBpTI" if s.objective == "clap_text" else ""
    return f"{family}_vit_{size}-{mels}x{frames}p{high}x{wide}{rate}{inside}-{tag}"
