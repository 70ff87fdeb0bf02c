"""M2D: Masked Modeling Duo (Niizumi et al., ICASSP 2023; IEEE/ACM TASLP 2024). Also its variants M2D-AS, -X and -S."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from evar.audio.log_mel import M2D_16K, M2D_32K, LogMel
from evar.audioset import classes
from evar.errors import UserError
from model_adapters.base import Adapter, ModelInfo, Skeleton, Weights, WeightsFile, parse_random
from model_adapters.networks.checkpoints import find_checkpoint, load_exactly, read_checkpoint, unfilled
from model_adapters.networks.m2d import M2DEncoder, Padding, flat, sincos_2d, stacked
from model_adapters.networks.m2d_files import (
    DEFAULT_NORM_STATS,
    Geometry,
    Parts,
    facts_beside,
    parse_norm_stats,
    parse_pair,
    resolve_geometry,
    sort_out,
)
from model_adapters.networks.options import at_least, one_of
from model_adapters.networks.vit import ViT, ViTSize, initialise, size_of

M2D_RELEASES = "https://github.com/nttcslab/m2d/releases"
NTT_LICENCE = "NTT software evaluation licence (internal, non-commercial evaluation; no redistribution)"


class M2D(Adapter):
    """M2D's encoder: log-mel, chunks of the model's length, one embedding per time step, their mean per clip.

    Parameters
    ----------
    weights: a checkpoint's path (pre-training, encoder only or fine-tuned form), or ``random[:SEED]``.
    input_size, patch_size, sample_rate: geometry such as ``80x608``, ``16x16``, ``16000``, where the folder's name does
        not say it. A random network has 80x608 and 16x16 unless told otherwise.
    norm_stats: ``MEAN,STD`` of the log-mel; else the file's, else -7.1,4.2.
    features: ``stacked`` (frequency patches of a time step side by side, 3840 for ViT-Base) or ``flat`` (their mean).
    layers: which blocks, comma-separated (``-1`` the last one, normalised); several are concatenated; ``all`` for all.
    dur_frames: fine-tuning's way: one pass of this many frames, the table of positions cut or stretched; 0 for chunks.
    heads: attention heads if not one per 64 dimensions.
    depth, embed_dim: size of a random network.
    patchout_keeps: which patches structured patchout keeps in training: ``marked`` as the published code, ``unmarked``
        as the paper (RUNNERS 2.4).
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="M2D (Masked Modeling Duo)",
        kind="audio",
        paper="Niizumi et al., Masked Modeling Duo: Towards a Universal Audio Pre-training Framework, TASLP 2024",
        code_licence="MIT (this implementation, from the papers)",
        # Each is a zip of one folder in the release that is named; the licence must be accepted first, so no URLs.
        weights=Weights(
            source=M2D_RELEASES,
            licence=NTT_LICENCE,
            file_name="m2d_vit_base-80x608p16x16-221006-mr7",
            note="M2D/0.7; release v0.1.0",
            files=(
                WeightsFile("m2d_vit_base-80x608p16x16-221006-mr6", note="M2D/0.6; v0.1.0"),
                WeightsFile("m2d_vit_base-80x608p16x16-221006-mr7_enconly", note="M2D/0.7, encoder only; v0.1.0"),
                WeightsFile("m2d_vit_base-80x608p16x16-220930-mr7_enconly", note="M2D/0.7, encoder only; v0.1.0"),
                WeightsFile("m2d_vit_base-80x200p16x4-230529", note="M2D/0.7, frames of 40 ms; v0.1.0"),
                WeightsFile("m2d_as_vit_base-80x608p16x16-240213", note="M2D-AS; v0.1.0"),
                WeightsFile("m2d_as_vit_base-80x608p16x16p32k-240413_enconly", note="M2D-AS, 32 kHz; v0.1.0"),
                WeightsFile("m2d_s_vit_base-80x608p80x2-230220", note="M2D-S/0.6, speech; v0.2.0"),
                WeightsFile("m2d_s_vit_base-80x512p80x2-230301", note="M2D-S/0.6, speech; v0.2.0"),
                WeightsFile("m2d_s_vit_base-80x400p80x2-230201", note="M2D-S/0.6, speech; v0.2.0"),
                WeightsFile("m2d_vit_base-80x1001p16x16-221006-mr7_as_46ab246d", note="M2D/0.7, tagger; v0.3.0"),
                WeightsFile("m2d_as_vit_base-80x1001p16x16-240213_AS-FT_enconly", note="M2D-AS, fine-tuned; v0.3.0"),
                WeightsFile(
                    "m2d_as_vit_base-80x1001p16x16p32k-240413_AS-FT_enconly", note="M2D-AS, fine-tuned, 32 kHz; v0.3.0"
                ),
                WeightsFile(
                    "m2d_clap_vit_base-80x1001p16x16-240128_AS-FT_enconly", note="M2D-CLAP 2024, fine-tuned; v0.3.0"
                ),
            ),
        ),
        trained_on=("as20k", "as2m", "as"),
        probe_lr=3e-5,
        paper_rows=("M2D/0.7", "M2D/0.6", "M2D-AS/0.7", "M2D-AS", "M2D-AS_32k"),
    )
    for_untrained = ("depth", "embed_dim")
    padding: Padding = "m2d"
    class_names: tuple[str, ...]
    """AudioSet's classes in the order of a fine-tuned checkpoint's head, by machine id; absent without such a head."""

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
        patchout_keeps: Literal["marked", "unmarked"] = "marked",
    ) -> None:
        super().__init__()
        one_of("features", features, "stacked", "flat")
        one_of("patchout_keeps", patchout_keeps, "marked", "unmarked")
        at_least(0, dur_frames=dur_frames, heads=heads)
        self.patchout_keeps: Literal["marked", "unmarked"] = patchout_keeps
        self.made_by: dict[str, Any] = {}
        seed = parse_random(weights)
        if seed is None:
            path = find_checkpoint(weights)
            self.made_by = facts_beside(path)
            state, self.weights_sha256 = read_checkpoint(path, keep_module=True)
            parts = sort_out(state)
            size = size_of(parts.encoder, heads, f"in '{path.name}'", state)
            geometry = resolve_geometry(
                parts.encoder, path, input_size=input_size, patch_size=patch_size, sample_rate=sample_rate
            )
            vit = unfilled(lambda: ViT(size))
            load_exactly(vit, parts.encoder, what=f"in '{path.name}'")
        else:
            self.weights_sha256 = f"random:{seed}"
            geometry = random_geometry(input_size, patch_size, sample_rate)
            vit, parts = random_network(geometry, seed, depth=depth, dim=embed_dim, heads=heads)
        self.geometry = geometry
        self._read_parts(parts, seed)
        stats = parse_norm_stats(norm_stats) if norm_stats else (parts.norm_stats or DEFAULT_NORM_STATS)
        self.encoder = M2DEncoder(vit, geometry, stats, padding=self.padding, dur_frames=dur_frames)
        self.front_end = LogMel(M2D_16K if geometry.sample_rate == 16000 else M2D_32K)
        self.sample_rate = geometry.sample_rate
        self.layers = _layers(layers, len(vit.blocks))
        # A fine-tuned head as wide as one token was trained on the mean of tokens.
        self.flat = features == "flat" or self._head_width() == vit.size.dim
        self.embedding_dim = vit.size.dim * (1 if self.flat else geometry.grid[0]) * len(self.layers)
        self.long_audio = f"the first {dur_frames} frames" if dur_frames else f"chunks of {geometry.frames} frames"
        self.short_audio = self._short_audio()
        self.eval()

    def _short_audio(self) -> str:
        if self.padding == "original":
            return "zeros at the end, up to the task's window; then the mean, up to a chunk, whose columns are dropped"
        seconds = self.geometry.patch[1] * self.front_end.spec.hop / self.sample_rate
        return f"zeros at the end, up to the task's window; then the mean, up to whole patches of {seconds:g} s"

    def _read_parts(self, parts: Parts, seed: int | None) -> None:
        """Take what else the checkpoint holds: here the head of a fine-tuned one."""
        for name, tensor in parts.head.items():
            self.register_buffer(f"head_{name}", tensor)
        self.has_head = len(parts.head) == 4
        if self.has_head and len(parts.head["bias"]) == len(classes()):
            self.class_names = tuple(c.display_name for c in sorted(classes(), key=lambda c: c.mid))

    def _head_width(self) -> int:
        return self.get_buffer("head_weight").shape[1] if self.has_head else 0

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Return the standardised log-mel ``[B, 1, n_mels, frames]`` of ``[B, T]``: fine-tuning augments it."""
        return self.encoder.standardise(self.front_end(waveforms))[:, None]

    def frames_of(self, log_mel: Tensor) -> Tensor:
        """Return one embedding per time step ``[B, T', D]`` of a standardised log-mel ``[B, 1, n_mels, frames]``."""
        per_layer = []
        for chunks in self.encoder.chunks(log_mel, self.layers):
            steps = stacked(chunks)
            per_layer.append(steps.unflatten(2, (self.geometry.grid[0], -1)).mean(2) if self.flat else steps)
        return per_layer[0] if len(per_layer) == 1 else torch.cat(per_layer, dim=2)

    def tokens_of(self, log_mel: Tensor) -> Tensor:
        """Return the last layer's patch tokens ``[B, N, D]`` of a standardised log-mel ``[B, 1, n_mels, frames]``."""
        return flat(self.encoder.chunks(log_mel)[0])

    def encode(self, log_mel: Tensor, patchout: float = 0.0) -> Tensor:
        """Return clip embeddings ``[B, D]`` of a standardised log-mel ``[B, 1, n_mels, frames]``.

        patchout: share of patches that structured patchout takes away in training; the embedding is then the mean of
            the patches kept (one token wide: the model must be built with ``features=flat``).
        """
        if patchout and self.training:
            if not self.flat:
                raise UserError("structured patchout leaves no whole time steps to stack: set --features=flat")
            return self.encoder.kept_tokens(log_mel, patchout, self.patchout_keeps).mean(1)
        return self.frames_of(log_mel).mean(1)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean over time ``[B, D]``; padding counts as sound, as in the published evaluation."""
        return self.encode(self.log_mel(waveforms))

    def embed_frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
        """Return ``([B, T', D], seconds per frame)``; frame i begins at i times that."""
        frames = self.frames_of(self.log_mel(waveforms))
        if self.encoder.dur_frames:  # one pass, which may be of less or more than the clip
            return frames, self.geometry.patch[1] * self.front_end.spec.hop / self.sample_rate
        return frames, waveforms.shape[1] / self.sample_rate / max(frames.shape[1], 1)

    def logits(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the class scores ``[B, C]`` of a fine-tuned checkpoint's own head (batch norm, linear layer)."""
        if not self.has_head:
            raise UserError("these weights have no classification head: it needs a fine-tuned checkpoint")
        head = {name: self.get_buffer(f"head_{name}") for name in ("mean", "var", "weight", "bias")}
        x = (self.embed(waveforms, lengths) - head["mean"]) * (head["var"] + 1e-5).rsqrt()
        return x @ head["weight"].T + head["bias"]

    def tag_probabilities(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the probabilities ``[B, 527]`` of ``class_names``, each class for itself, as the head was trained."""
        return self.logits(waveforms, lengths).float().sigmoid()

    def skeleton(self) -> Skeleton | None:
        """Return an untrained encoder of this size, geometry and statistics; None where options cannot express them."""
        size, geometry = self.encoder.vit.size, self.geometry
        if size.mlp_dim != 4 * size.dim or not size.cls or geometry.n_mels != 80:
            return None
        # Only the first MSM-MAE code pads in another way. Projectors and a published head are not the encoder's.
        original = self.encoder.padding == "original"
        name, more = ("msm_mae", {"padding_rule": "original"}) if original else ("m2d", {})
        options = {
            "input_size": f"{geometry.n_mels}x{geometry.frames}",
            "patch_size": f"{geometry.patch[0]}x{geometry.patch[1]}",
            "sample_rate": str(geometry.sample_rate),
            "norm_stats": ",".join(repr(float(x)) for x in self.encoder.norm_stats),
            "features": "flat" if self.flat else "stacked",
            "layers": ",".join(map(str, self.layers)),
            "dur_frames": str(self.encoder.dur_frames),
            "heads": str(size.heads),
            "depth": str(size.depth),
            "embed_dim": str(size.dim),
        }
        return Skeleton(name, options | more, spare=("head_", "audio_proj.", "text_proj."))

    def state(self) -> dict[str, Any]:
        """Return the geometry and statistics in use: the folder's name may have decided them."""
        return {
            "geometry": str(self.geometry),
            "sample_rate": self.sample_rate,
            "norm_stats": [float(x) for x in self.encoder.norm_stats],
            "padding": self.encoder.padding,
        }


def _layers(text: str, depth: int) -> tuple[int, ...]:
    if text == "all":
        return tuple(range(depth))
    try:
        layers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--layers must be block numbers such as -1 or 3,7,11, or all, not '{text}'") from None
    if wrong := [layer for layer in layers if not -depth <= layer < depth]:
        raise UserError(f"--layers: there is no block {wrong[0]}; the encoder has {depth} (0 to {depth - 1})")
    return layers


def random_geometry(input_size: str, patch_size: str, sample_rate: int) -> Geometry:
    """Return the geometry of an untrained network: 80x608 in patches of 16x16 unless the options say otherwise."""
    n_mels, frames = parse_pair(input_size or "80x608", "input_size")
    patch = parse_pair(patch_size or "16x16", "patch_size")
    if n_mels != 80 or n_mels % patch[0] or frames < patch[1]:
        raise UserError(
            f"no patches of {patch[0]}x{patch[1]} in {n_mels}x{frames}: M2D takes 80 mel bands, e.g. 80x608"
        )
    if sample_rate not in (0, 16000, 32000):
        raise UserError(f"M2D's front end is made for 16000 or 32000 Hz, not {sample_rate}")
    return Geometry(n_mels, frames, patch, sample_rate or 16000)


def random_network(geometry: Geometry, seed: int, *, depth: int, dim: int, heads: int) -> tuple[ViT, Parts]:
    """Return an untrained encoder, seeded, and the parts of a checkpoint with nothing else."""
    if dim < 4 or dim % 4 or depth < 1:
        raise UserError(
            f"a random network needs --depth of 1 or more and --embed_dim divisible by 4, not {depth}, {dim}"
        )
    rows, columns = geometry.grid
    size = ViTSize(dim, depth, heads, 4 * dim, geometry.patch, rows * columns + 1)
    vit = unfilled(lambda: ViT(size))
    initialise(vit, seed)
    with torch.no_grad():
        vit.pos_embed.copy_(sincos_2d(dim, rows, columns))
    return vit, Parts(dict(vit.state_dict()), {}, {}, {}, {}, None, False)


ADAPTER = M2D
