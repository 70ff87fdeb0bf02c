"""HTS-AT (Chen et al., ICASSP 2022), the audio tower of most CLAPs, on transformers' ClapAudioEncoder.

A Swin transformer on a square of 256 x 256: 1024 frames of 64 mel bands, folded into four rows. The published files
name the tensors otherwise; :func:`to_transformers` and :func:`from_transformers` translate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evar.errors import UserError
from model_adapters.networks.checkpoints import load_exactly, require
from model_adapters.networks.dense import take_faster
from model_adapters.networks.frontends import SpectrogramSpec
from model_adapters.networks.options import seeded

MOST_FRAMES = 1024
_SPEC_SIZE = 256
_NAMES = {
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
    "attn.proj.": "attention.output.dense.",
    "attn.relative_position_bias_table": "attention.self.relative_position_bias_table",
}
_BLOCK = re.compile(r"(layers\.\d+\.blocks\.\d+\.)(.+)")
_LEFT_OUT = ("spectrogram_extractor.", "logmel_extractor.", "audio_feats_extractor.", "tscam_conv.", "head.")
_CONSTANT = (".relative_position_index", ".attn_mask")


@dataclass(frozen=True)
class HtsatSize:
    """What fixes the shapes: width of the first stage, blocks and heads of each stage."""

    width: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    n_mels: int = 64

    @property
    def dim(self) -> int:
        """Length of the embedding: the width of the last stage."""
        return self.width << (len(self.depths) - 1)

    def config(self) -> Any:
        """Return transformers' configuration."""
        from transformers import ClapAudioConfig

        return ClapAudioConfig(
            patch_embeds_hidden_size=self.width,
            depths=list(self.depths),
            num_attention_heads=list(self.heads),
            num_hidden_layers=len(self.depths),
            hidden_size=self.dim,
            num_mel_bins=self.n_mels,
            spec_size=_SPEC_SIZE,
        )


def shortened(depth: int, width: int) -> HtsatSize:
    """Return the size of an untrained network: ``depth`` blocks in every stage (0: as published), of this width."""
    if depth < 0 or width < 8 or width % 4:
        raise UserError(
            f"HTS-AT needs --depth of 0 or more and --embed_dim (8 or more) divisible by 4, not {depth} and {width}"
        )
    size = HtsatSize(width=width)
    return replace(size, depths=(depth,) * 4) if depth else size


def size_of(
    state: Mapping[str, Tensor], what: str = "", *, model: str = "HTS-AT", whole: Mapping[str, Tensor] | None = None
) -> HtsatSize:
    """Return the size of a published network from its tensors; raise :class:`UserError` if it is another one.

    what, model, whole: the file, the model of which the network is a part, all of its tensors: for the message.
    """
    needed = ("patch_embed.proj.weight", "bn0.weight", "layers.0.blocks.0.attn.relative_position_bias_table")
    require(state, needed, model, what, whole)
    if any("fusion_model" in name or "mel_conv2d" in name for name in state):
        raise UserError(
            f"the weights {what or 'given'} are of a fusion model, which hears four views of a clip; take the unfused "
            "one"
        )
    tables = [n.split(".") for n in state if n.endswith(".attn.relative_position_bias_table")]
    stages = 1 + max((int(n[1]) for n in tables), default=-1)
    depths = tuple(sum(int(n[1]) == stage for n in tables) for stage in range(stages))
    heads = tuple(
        state[f"layers.{stage}.blocks.0.attn.relative_position_bias_table"].shape[1] for stage in range(stages)
    )
    return HtsatSize(len(state["patch_embed.proj.weight"]), depths, heads, len(state["bn0.weight"]))


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a published network's tensors under the names of ClapAudioEncoder.

    The front end, the classifier and constant tables are left out; queries, keys and values are three tensors there.
    """
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(_LEFT_OUT) or key.endswith(_CONSTANT):
            continue
        if key.startswith("bn0."):
            found[key.replace("bn0.", "batch_norm.", 1)] = value
        elif block := _BLOCK.fullmatch(key):
            found.update(_block(block[1], block[2], value))
        else:
            found[key] = value
    return found


def _block(prefix: str, rest: str, value: Tensor) -> dict[str, Tensor]:
    if rest.startswith("attn.qkv."):
        end = rest.removeprefix("attn.qkv.")
        names = ("query", "key", "value")
        return {f"{prefix}attention.self.{n}.{end}": v for n, v in zip(names, value.chunk(3), strict=True)}
    for theirs, ours in _NAMES.items():
        if rest.startswith(theirs):
            return {prefix + ours + rest.removeprefix(theirs): value}
    return {prefix + rest: value}


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of ClapAudioEncoder under the published names (without front end and classifier)."""
    back = {ours: theirs for theirs, ours in _NAMES.items()}
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        block = _BLOCK.fullmatch(key)
        if key.endswith(_CONSTANT):
            found[key.replace("attention.self.", "attn.")] = value
        elif block and block[2].startswith("attention.self.query."):
            end = block[2].removeprefix("attention.self.query.")
            parts = [state[f"{block[1]}attention.self.{n}.{end}"] for n in ("query", "key", "value")]
            found[f"{block[1]}attn.qkv.{end}"] = torch.cat(parts)
        elif block and block[2].startswith(("attention.self.key.", "attention.self.value.")):
            continue
        elif block:
            ours = next((o for o in back if block[2].startswith(o)), "")
            found[block[1] + (back[ours] + block[2].removeprefix(ours) if ours else block[2])] = value
        else:
            found[key.replace("batch_norm.", "bn0.", 1) if key.startswith("batch_norm.") else key] = value
    return found


class InputNorm(nn.BatchNorm2d):
    """The encoder's first batch norm, taken out of it under its own names: the front end standardises with it.

    So fine-tuning's masks and canvases, which are 0, are each band's mean. Never with the batch's own statistics, not
    even in fine-tuning: it comes before augmentation.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input``, which is standardised already."""
        return input

    def standardise(self, log_mel: Tensor) -> Tensor:
        """Return the log-mel ``[B, 1, n_mels, T]`` in dB by the statistics seen in pre-training."""
        bands = log_mel.transpose(1, 2)
        found = F.batch_norm(bands, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return found.transpose(1, 2)


def _with_input_norm(encoder: nn.Module) -> None:
    """Put an :class:`InputNorm` with the tensors of the encoder's first batch norm in its place."""
    published: Any = encoder.get_submodule("batch_norm")
    norm = InputNorm(published.num_features, eps=published.eps, device=published.weight.device)
    norm.load_state_dict(published.state_dict())
    encoder.add_module("batch_norm", norm)


class Htsat(nn.Module):
    """The encoder: log-mels ``[B, 1, n_mels, T]``, standardised, at most 1024 frames, to ``[B, dim]``.

    repeats: a log-mel of T frames is laid floor(1024 / T) times one after the other, as HTS-AT does for inference;
        else it is stretched to 1024 frames by bicubic interpolation straight away.
    """

    def __init__(self, size: HtsatSize, *, repeats: bool = False, encoder: nn.Module | None = None) -> None:
        super().__init__()
        from transformers.models.clap.modeling_clap import ClapAudioEncoder

        self.size, self.repeats = size, repeats
        whole = encoder if encoder is not None else ClapAudioEncoder(size.config())
        _with_input_norm(whole)
        self.encoder = take_faster(whole)

    def standardise(self, log_mel: Tensor) -> Tensor:
        """Return what :meth:`forward` takes, of a log-mel ``[B, 1, n_mels, T]`` in dB."""
        norm = self.encoder.batch_norm
        assert isinstance(norm, InputNorm)
        return norm.standardise(log_mel)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Return the embeddings ``[B, dim]``: the mean over the last stage's map."""
        return self._encoded(log_mel).pooler_output

    def feature_map(self, log_mel: Tensor) -> Tensor:
        """Return the last stage's map ``[B, dim, 2, 32]``, time along the last axis."""
        return self._encoded(log_mel).last_hidden_state

    def _encoded(self, log_mel: Tensor) -> Any:
        frames = log_mel.transpose(2, 3)
        if self.repeats:
            frames = frames.repeat(1, 1, max(1, MOST_FRAMES // frames.shape[2]), 1)
        return self.encoder(frames, is_longer=None)


def htsat_from_state(
    state: Mapping[str, Tensor],
    what: str,
    *,
    repeats: bool = False,
    model: str = "HTS-AT",
    whole: Mapping[str, Tensor] | None = None,
) -> Htsat:
    """Return the network of a published state (names of HTS-AT, without prefix); raise if a tensor does not fit."""
    network = Htsat(size_of(state, what, model=model, whole=whole), repeats=repeats)
    constants = {k: v for k, v in network.encoder.state_dict().items() if k.endswith(_CONSTANT)}
    load_exactly(network.encoder, {**constants, **to_transformers(state)}, what=what)
    return network


def random_htsat(size: HtsatSize, seed: int, *, repeats: bool = False) -> Htsat:
    """Return an untrained network."""
    return seeded(lambda: Htsat(size, repeats=repeats), seed)


def mel_filters_of(state: Mapping[str, Tensor], spec: SpectrogramSpec | None = None, what: str = "") -> Tensor | None:
    """Return the mel filters ``[bins, n_mels]`` stored in a file (whatever its prefix); None if it has none.

    Raises :class:`UserError`, with the file as ``what`` names it, for filters that do not fit the front end ``spec``.
    """
    found = next((value for key, value in state.items() if key.endswith(".melW") or key == "melW"), None)
    if found is not None and spec is not None and found.shape != (fitting := (spec.n_fft // 2 + 1, spec.n_mels)):
        raise UserError(
            f"the weights {what or 'given'} have mel filters (melW) of {list(found.shape)} and not {list(fitting)}: "
            "they are of a model with another front end"
        )
    return found


def under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
