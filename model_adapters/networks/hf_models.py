"""Models of transformers: loaded from a folder with every weight accounted for, or untrained from a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evar.errors import UserError, did_you_mean
from evar.fetch.first_bytes import not_weights
from evar.fetch.hub import weights_in
from model_adapters.networks.checkpoints import refusal
from model_adapters.networks.dense import take_faster

_HEAD = 64
"""Width of one attention head in all of these models."""
_NOT_HEARD = ("masked_spec_embed",)
"""Weights that only training uses: some checkpoints have them not."""


def read_config(folder: Path) -> Any:
    """Return the configuration in a folder; :class:`UserError` if transformers does not know such models."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds for a configuration that it cannot use
        raise UserError(f"'{folder}': the model's configuration cannot be read: {first_line(error)}") from None


def default_config(model_type: str) -> Any:
    """Return the configuration that transformers has for a kind of model, such as ``hubert``: its base size."""
    from transformers import CONFIG_MAPPING, AutoConfig

    try:
        return AutoConfig.for_model(model_type)
    except ValueError:
        near = did_you_mean(model_type, list(CONFIG_MAPPING.keys()))
        raise UserError(f"transformers knows no kind of model '{model_type}'.{near}") from None


def read_model(folder: Path, name: str) -> nn.Module:
    """Return the model in a folder, in float32 and eval mode, without its task's head.

    Raises :class:`UserError` for weights that are missing or do not fit; pickled weights are read as weights only.
    """
    from transformers import AutoModel

    try:
        with quiet():
            model, found = AutoModel.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, output_loading_info=True
            )
    except Exception as error:  # as above
        raise UserError(f"'{name}' cannot be loaded: {why_not(folder, error)}") from None
    wrong = [key for key in found["missing_keys"] if not key.endswith(_NOT_HEARD)]
    wrong += [str(entry[0]) for entry in found["mismatched_keys"]]
    if wrong:
        listed = ", ".join(sorted(wrong)[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        raise UserError(
            f"the weights of '{name}' do not fit {type(model).__name__}: missing or of another shape: {listed}. The "
            "files are of another model, or incomplete."
        )
    return take_faster(model.float().eval())


def why_not(folder: Path, error: BaseException) -> str:
    """Return in a line why transformers could not load the weights in a folder.

    Its own error on pickled weights tells how to switch torch's check off; what was refused is told instead.
    """
    for file in weights_in(folder):
        if what := not_weights(file):
            return f"{file.name} is {what}"
    named = ""
    cause: BaseException | None = error
    while not named and cause is not None:  # transformers 4 hides torch's error behind one of its own
        named, cause = refusal(cause), cause.__cause__ or cause.__context__
    return f"its weights file holds more than weights ({named})" if named else first_line(error)


def untrained(config: Any, seed: int) -> nn.Module:
    """Return the model of a configuration with weights that depend on ``seed`` alone, in eval mode."""
    from transformers import AutoModel

    try:
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(seed)
            return take_faster(AutoModel.from_config(config).float().eval())
    except Exception as error:  # as above
        kind = getattr(config, "model_type", "?")
        raise UserError(f"an untrained {kind} cannot be built: {first_line(error)}") from None


def resize(config: Any, hidden_size: int, depth: int) -> Any:
    """Make an untrained model smaller or larger: its width (a multiple of 64) and its number of blocks; 0 as it is.

    Heads stay 64 wide, the inner layer four times the width, and the convolutions of the speech models two thirds.
    """
    if hidden_size < 0 or hidden_size % _HEAD or depth < 0:
        raise UserError(f"--hidden_size must be a multiple of {_HEAD}, --depth a number of blocks (0: as published)")
    if not hidden_size and not depth:
        return config
    wanted = {("encoder_layers", "num_hidden_layers"): depth}
    if hidden_size:
        wanted[("d_model", "hidden_size")] = hidden_size
        wanted[("encoder_attention_heads", "num_attention_heads")] = hidden_size // _HEAD
        wanted[("encoder_ffn_dim", "intermediate_size")] = 4 * hidden_size
    for names, value in wanted.items():
        name = next((name for name in names if isinstance(getattr(config, name, None), int)), None)
        if name is None:
            raise UserError(f"a {config.model_type} has no size that can be chosen: no --hidden_size, no --depth")
        if value:
            setattr(config, name, value)
            if hasattr(config, decoders := name.replace("encoder", "decoder")):
                setattr(config, decoders, value)
    if hidden_size and hasattr(config, "conv_dim"):
        config.conv_dim = [min(512, 2 * hidden_size // 3)] * len(config.conv_dim)
    return config


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing bars and listing the weights of a head that is left out on purpose."""
    from transformers.utils import logging

    bar, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """Return an error's first line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
