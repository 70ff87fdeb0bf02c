"""Pengi (Deshmukh et al., NeurIPS 2023): the audio side of a model that answers by writing."""

from __future__ import annotations

from typing import ClassVar

from model_adapters.base import ModelInfo, Skeleton, Weights, WeightsFile
from model_adapters.msclap_2023 import AUDIO_PARTS, MsHtsat


class Pengi(MsHtsat):
    """Pengi's audio side, that of MS-CLAP 2023. Its published scores come from generated text, not from this.

    Parameters
    ----------
    weights: path of ``base.pth`` or ``base_no_text_enc.pth``, or ``random[:SEED]`` for an untrained network.
    le_layer: what linear evaluation gets: the projected vector (``joint``), or the ``encoder``'s.
    long_audio: what is heard of a clip over 7 s: one window, ``seeded`` by the clip, or ``random``, ``first``,
        ``centre``; or ``chunks``, averaged.
    window_seed: another number, other seeded windows.
    depth: blocks in each stage of an untrained network; 0 for the published sizes.
    embed_dim: width of its first stage.
    """

    family = "Pengi"
    parts = (*AUDIO_PARTS, "caption_encoder.", "caption_decoder.")
    foreign = ("logit_scale",)
    info: ClassVar[ModelInfo] = ModelInfo(
        title="Pengi (audio side)",
        kind="audio",
        paper="Deshmukh et al., Pengi: An Audio Language Model for Audio Tasks, NeurIPS 2023",
        code_licence="Apache-2.0 (transformers' ClapAudioEncoder)",
        weights=Weights(
            source="https://zenodo.org/records/8387083",
            licence="MIT",
            url="https://zenodo.org/records/8387083/files/base.pth?download=1",
            file_name="pengi/base.pth",
            files=(
                WeightsFile(
                    "pengi/base_no_text_enc.pth",
                    url="https://zenodo.org/records/8387083/files/base_no_text_enc.pth?download=1",
                    note="without its text encoder",
                ),
            ),
        ),
        trained_on=("as2m", "as20k", "as", "fsd50k", "nsynth", "audiocaps", "clotho"),
        probe_lr=3e-4,
        paper_rows=("Pengi",),
    )

    def skeleton(self) -> Skeleton | None:
        """Return an untrained network of this size; None where options cannot express it, or the mel filters differ."""
        options = self._size_options()
        return None if options is None else Skeleton("pengi", options)


ADAPTER = Pengi
