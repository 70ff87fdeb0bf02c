"""MSM-MAE: masked spectrogram modelling with a masked autoencoder (Niizumi et al., HEAR 2021, PMLR 166)."""

from __future__ import annotations

from typing import ClassVar, Literal

from model_adapters.base import ModelInfo, Weights, WeightsFile
from model_adapters.m2d import M2D, M2D_RELEASES, NTT_LICENCE
from model_adapters.networks.m2d_files import Parts
from model_adapters.networks.options import one_of


class MsmMae(M2D):
    """M2D's encoder with MSM-MAE's weights, of the m2d code (the papers' MSM-MAE/0.75) or of the first msm-mae code.

    Parameters
    ----------
    padding_rule: ``m2d`` (the end padded to whole patches), ``original`` (padded to a whole chunk more, the columns of
        the padding dropped), or ``auto``: ``original`` for files of the first code, which have separate biases.

    The first code standardised every batch with its own statistics; that would make a clip's embedding depend on the
    others, and is not done here: ``norm_stats`` apply. The other parameters are those of ``m2d``.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="MSM-MAE",
        kind="audio",
        paper="Niizumi et al., Masked Spectrogram Modeling using Masked Autoencoders for Learning General-purpose "
        "Audio Representation, PMLR 166, 2022",
        code_licence="MIT (this implementation, from the papers)",
        weights=Weights(
            source=f"{M2D_RELEASES} (first code: https://github.com/nttcslab/msm-mae/releases)",
            licence=NTT_LICENCE,
            file_name="msm_mae_vit_base-80x608p16x16-220924-mr75",
            note="MSM-MAE/0.75; release v0.1.0 of m2d",
            files=(
                WeightsFile("80x512p16x16_paper", note="MSM-MAE 2022, first code"),
                WeightsFile("80x512p16x16_0425", note="first code"),
                WeightsFile("80x208p16x16_0422", note="first code"),
            ),
        ),
        trained_on=("as20k", "as2m", "as"),
        probe_lr=3e-5,
        paper_rows=("MSM-MAE/0.75", "MSM-MAE_2022"),
    )

    def __init__(
        self,
        *,
        weights: str,
        input_size: str = "",
        patch_size: str = "",
        sample_rate: int = 0,
        norm_stats: str = "",
        features: Literal["stacked", "flat"] = "stacked",
        layers: str = "-1",
        dur_frames: int = 0,
        heads: int = 0,
        depth: int = 12,
        embed_dim: int = 768,
        padding_rule: Literal["auto", "m2d", "original"] = "auto",
    ) -> None:
        one_of("padding_rule", padding_rule, "auto", "m2d", "original")
        self._rule = padding_rule
        super().__init__(
            weights=weights,
            input_size=input_size,
            patch_size=patch_size,
            sample_rate=sample_rate,
            norm_stats=norm_stats,
            features=features,
            layers=layers,
            dur_frames=dur_frames,
            heads=heads,
            depth=depth,
            embed_dim=embed_dim,
        )

    def _read_parts(self, parts: Parts, seed: int | None) -> None:
        super()._read_parts(parts, seed)
        if self._rule == "original" or (self._rule == "auto" and parts.original_msm_mae):
            self.padding = "original"


ADAPTER = MsmMae
