"""AST (Gong et al., Interspeech 2021) through transformers, for log-mels of any length."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evar.audioset import display_names
from evar.errors import UserError
from model_adapters.networks.dense import take_faster
from model_adapters.networks.hf_files import locate, sha256_of_settings, sha256_of_weights
from model_adapters.networks.hf_models import quiet, read_config, why_not

_NUMBERS_AT_ONCE = 8_000_000
"""Numbers in the MLP's hidden layer of the clips that pass a CPU at once."""


class AnyLength(nn.Module):
    """What turns a log-mel into tokens, with a table of positions that follows the input's length.

    Takes over the parts of transformers' module of this name in the model, under the same names.
    """

    def __init__(self, published: nn.Module, config: Any) -> None:
        super().__init__()
        parts: Any = published
        self.cls_token, self.distillation_token = parts.cls_token, parts.distillation_token
        self.patch_embeddings, self.position_embeddings = parts.patch_embeddings, parts.position_embeddings
        self.dropout = parts.dropout
        self.rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1

    def forward(self, input_values: Tensor, **_: Any) -> Tensor:
        """Return tokens ``[B, 2 + F * T, D]`` of log-mels ``[B, frames, bands]``."""
        patches = self.patch_embeddings(input_values)
        first = torch.cat([self.cls_token, self.distillation_token], dim=1).expand(len(patches), -1, -1)
        return self.dropout(torch.cat([first, patches], dim=1) + self.positions(patches.shape[1] // self.rows))

    def positions(self, columns: int) -> Tensor:
        """Return the positions ``[1, 2 + F * columns, D]``: a window from the middle of the time, or stretched."""
        special, table = self.position_embeddings[:, :2], self.position_embeddings[:, 2:]
        grid = table.unflatten(1, (self.rows, -1)).permute(0, 3, 1, 2)
        have = grid.shape[3]
        if columns > have:
            grid = F.interpolate(grid, size=(self.rows, columns), mode="bilinear", align_corners=False)
        else:
            start = have // 2 - columns // 2
            grid = grid[..., start : start + columns]
        return torch.cat([special, grid.flatten(2).transpose(1, 2)], dim=1)


class Ast(NamedTuple):
    """The encoder (``ASTModel``), the tagging head if there is one, the names of its outputs, the files' checksums."""

    encoder: nn.Module
    head: nn.Module | None
    class_names: tuple[str, ...]
    sha256: str
    settings_sha256: str
    """Of config.json; empty for an untrained network."""


def read_ast(weights: str) -> Ast:
    """Return the model of a folder or a hub id; raise :class:`UserError` if it cannot be had or is no AST."""
    from transformers import ASTForAudioClassification

    folder = locate(weights)
    config = read_config(folder)
    if config.model_type != "audio-spectrogram-transformer":
        raise UserError(f"'{weights}' is no AST but a {config.model_type}")
    try:
        with quiet():
            read: Any = ASTForAudioClassification.from_pretrained
            model, found = read(str(folder), local_files_only=True, output_loading_info=True)
    except Exception as error:  # transformers raises many kinds for files that it cannot use
        raise UserError(f"'{weights}' cannot be loaded: {why_not(folder, error)}") from None
    missing = [key for key in found["missing_keys"] if not key.startswith("classifier.")]
    if missing or found["mismatched_keys"]:
        some = ", ".join(sorted(missing)[:4]) or str(found["mismatched_keys"][0])
        raise UserError(f"the weights of '{weights}' do not fit an AST: missing or of another shape: {some}")
    has_head = len(missing) == len(found["missing_keys"])
    names = tuple(str(config.id2label[i]) for i in range(config.num_labels)) if has_head else ()
    return _parts(model, names, sha256_of_weights(folder), sha256_of_settings(folder))


def proportions(depth: int, dim: int) -> dict[str, Any]:
    """Return the settings of an untrained model's configuration: AST's own, one head per 64 dimensions."""
    return {
        "hidden_size": dim,
        "num_hidden_layers": depth,
        "num_attention_heads": dim // 64,
        "intermediate_size": 4 * dim,
        "patch_size": 16,
        "time_stride": 10,
        "frequency_stride": 10,
        "max_length": 1024,
        "num_mel_bins": 128,
    }


def untrained_ast(seed: int, depth: int, dim: int) -> Ast:
    """Return a seeded untrained model of AST's proportions, with a head for AudioSet's classes."""
    from transformers import ASTConfig, ASTForAudioClassification

    if depth < 1 or dim < 64 or dim % 64:
        raise UserError("a random network needs --depth of 1 or more and --embed_dim divisible by 64")
    config = ASTConfig(
        **proportions(depth, dim),
        id2label=dict(enumerate(display_names())),
        label2id={name: i for i, name in enumerate(display_names())},
    )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        model = ASTForAudioClassification(config)
    return _parts(model, tuple(display_names()), f"random:{seed}")


def _parts(model: Any, names: tuple[str, ...], sha256: str, settings_sha256: str = "") -> Ast:
    encoder = model.audio_spectrogram_transformer.float()
    encoder.embeddings = AnyLength(encoder.embeddings, encoder.config)
    return Ast(take_faster(encoder), model.classifier.float() if names else None, names, sha256, settings_sha256)


def pooled(encoder: nn.Module, x: Tensor) -> Tensor:
    """Return the mean ``[B, D]`` of the class and the distillation token of log-mels ``[B, frames, bands]``."""
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return encoder(x).pooler_output
    config: Any = encoder.config
    patches = (x.shape[1] // config.time_stride) * (x.shape[2] // config.frequency_stride)
    at_once = max(1, _NUMBERS_AT_ONCE // (patches * config.intermediate_size))
    return torch.cat([encoder(piece).pooler_output for piece in x.split(at_once)])
