"""LAION-CLAP's tensors as transformers' ClapModel: from a folder or the hub, from LAION's own .pt, or untrained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from evar.errors import UserError
from model_adapters.networks.checkpoints import find_checkpoint, load_exactly, read_checkpoint
from model_adapters.networks.frontends import LAION_CLAP
from model_adapters.networks.hf_files import locate, sha256_of_settings, sha256_of_weights
from model_adapters.networks.hf_models import quiet, read_config, read_model
from model_adapters.networks.htsat import HtsatSize, mel_filters_of, size_of, to_transformers, under
from model_adapters.networks.text_sizes import TowerSize
from model_adapters.networks.text_sizes import size_of as text_size_of

JOINT = 512
ROBERTA_EPS = 1e-5
"""RoBERTa's; transformers' ClapTextConfig has 1e-12 unless told otherwise."""
_UNUSED = ("audio_transform.", "text_transform.")
_CONSTANT = ("relative_position_index", "position_ids", "token_type_ids")


class ClapFile(NamedTuple):
    """A LAION-CLAP that was read."""

    model: nn.Module
    size: HtsatSize
    sha256: str
    filters: Tensor | None
    """The file's mel filters ``[bins, n_mels]``."""
    tokenizer: str
    """Where its own tokenizer is; empty if it has none."""
    settings_sha256: str = ""
    """Of the settings beside the weights, if there are any."""


def read_clap(weights: str) -> ClapFile:
    """Return the model of a LAION ``.pt``, of a folder in transformers' layout, or of a hub repository ``ORG/NAME``.

    Raises :class:`UserError` for files that cannot be had or do not fit, and for fusion models.
    """
    path = Path(weights).expanduser()
    folder = path if path.is_dir() else path.parent
    if path.suffix in (".pt", ".pth", ".ckpt") or (path.exists() and not (folder / "config.json").is_file()):
        path = find_checkpoint(weights)  # a folder stands for the one file in it
        state, sha = read_laion_state(weights)
        what = f"in '{path.name}'"
        model, size = clap_from_laion(state, what)
        return ClapFile(model, size, sha, mel_filters_of(state, LAION_CLAP, what), "")
    folder = locate(weights)
    config = read_config(folder)
    if config.model_type != "clap":
        raise UserError(f"'{weights}' is a {config.model_type}, not a CLAP")
    audio = config.audio_config
    if audio.enable_fusion:
        raise UserError(f"'{weights}' is a fusion model, which hears four views of a clip; take the unfused one")
    size = HtsatSize(
        audio.patch_embeds_hidden_size, tuple(audio.depths), tuple(audio.num_attention_heads), audio.num_mel_bins
    )
    own = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    tokenizer = (str(path) if path.is_dir() else weights) if own else ""
    shas = sha256_of_weights(folder), sha256_of_settings(folder)
    return ClapFile(read_model(folder, weights), size, shas[0], None, tokenizer, shas[1])


def read_laion_state(path: str) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of LAION's ``.pt`` under the names of its network, and the file's SHA-256."""
    state, sha = read_checkpoint(path)
    return {k: v for k, v in state.items() if not k.endswith("position_ids")}, sha


def clap_from_laion(state: Mapping[str, Tensor], what: str) -> tuple[nn.Module, HtsatSize]:
    """Return ClapModel with a LAION checkpoint's tensors; raise :class:`UserError` if one is missing or left over."""
    size = size_of(under(state, "audio_branch."), what, model="LAION-CLAP", whole=state)
    text, _ = text_size_of("roberta", under(state, "text_branch."), pooler=True)
    joint = len(state.get("audio_projection.2.bias", torch.zeros(0)))
    with torch.random.fork_rng(devices=[]):
        model = _clap(size, text, joint or JOINT)
    constants = {key: value for key, value in model.state_dict().items() if key.endswith(_CONSTANT)}
    load_exactly(model, {**constants, **to_clap_names(state)}, what=what)
    return model.eval(), size


def to_clap_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return LAION's tensors under the names of ClapModel."""
    found = {f"audio_model.audio_encoder.{k}": v for k, v in to_transformers(under(state, "audio_branch.")).items()}
    for key, value in state.items():
        if key.startswith(("audio_branch.", *_UNUSED)):
            continue
        if key.startswith(("audio_projection.", "text_projection.")):
            side, number, kind = key.split(".")
            key = f"{side}.linear{1 + int(number) // 2}.{kind}"
        found[key.replace("text_branch.", "text_model.", 1) if key.startswith("text_branch.") else key] = value
    return found


def untrained_clap(size: HtsatSize, seed: int, *, text_layers: int = 0) -> nn.Module:
    """Return an untrained ClapModel; ``text_layers`` above 0 makes its text side small: so many of width 128."""
    text = TowerSize(50265, 768, 12, 12, 3072, 514, types=1)
    if text_layers:
        text = TowerSize(50265, 128, text_layers, 2, 512, 514, types=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _clap(size, text, JOINT).eval()


def _clap(size: HtsatSize, text: TowerSize, joint: int) -> nn.Module:
    from transformers import ClapConfig, ClapModel

    audio: dict[str, Any] = size.config().to_dict()
    words = {
        "vocab_size": text.words,
        "hidden_size": text.width,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "intermediate_size": text.inner,
        "max_position_embeddings": text.positions,
        "type_vocab_size": text.types,
        "layer_norm_eps": ROBERTA_EPS,
    }
    with quiet():
        return ClapModel(ClapConfig(text_config=words, audio_config=audio, projection_dim=joint))
