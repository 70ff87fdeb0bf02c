"""The sizes of a text tower from its tensors, and transformers' network of that size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from evar.errors import UserError

TowerKind = Literal["bert", "roberta", "gpt2", "clip"]
_OPENAI = {
    "token_embedding.": "embeddings.token_embedding.",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.": "final_layer_norm.",
}
_OPENAI_BLOCK = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}


@dataclass(frozen=True)
class TowerSize:
    """What fixes the shapes of a tower."""

    words: int
    width: int
    layers: int
    heads: int
    inner: int
    positions: int
    projection: int = 0
    """Outputs of CLIP's projection."""
    types: int = 2
    """BERT's kinds of segments."""


def size_of(kind: TowerKind, state: Mapping[str, Tensor], *, pooler: bool) -> tuple[TowerSize, dict[str, Tensor]]:
    """Return a tower's size and its tensors under transformers' names, without tables that old versions stored.

    All these models have heads of 64. Raises :class:`UserError` for tensors of something else.
    """
    tidied = _tidied(kind, state, pooler)
    tables = {
        "bert": ("embeddings.word_embeddings", "embeddings.position_embeddings", "encoder.layer", "intermediate.dense"),
        "roberta": (
            "embeddings.word_embeddings",
            "embeddings.position_embeddings",
            "encoder.layer",
            "intermediate.dense",
        ),
        "gpt2": ("wte", "wpe", "h", "mlp.c_fc"),
        "clip": (
            "text_model.embeddings.token_embedding",
            "text_model.embeddings.position_embedding",
            "text_model.encoder.layers",
            "mlp.fc1",
        ),
    }
    words, positions, layers, inner = tables[kind]
    needed = (f"{words}.weight", f"{positions}.weight", f"{layers}.0.{inner}.bias")
    if absent := [name for name in needed if name not in tidied]:
        raise UserError(f"the text tower's tensors are not those of a {kind.upper()}: there is no {absent[0]}")
    vocabulary, width = tidied[needed[0]].shape
    depth = 1 + max(int(k[len(layers) + 1 :].split(".")[0]) for k in tidied if k.startswith(f"{layers}."))
    types = tidied.get("embeddings.token_type_embeddings.weight")
    projection = tidied.get("text_projection.weight")
    return (
        TowerSize(
            vocabulary,
            width,
            depth,
            max(1, width // 64),
            len(tidied[needed[2]]),
            len(tidied[needed[1]]),
            0 if projection is None else len(projection),
            2 if types is None else len(types),
        ),
        tidied,
    )


def _tidied(kind: TowerKind, state: Mapping[str, Tensor], pooler: bool) -> dict[str, Tensor]:
    # position_ids and GPT-2's causal masks are constants that old versions of transformers wrote into files.
    dropped: tuple[str, ...] = ("position_ids", "token_type_ids")
    if kind == "gpt2":
        dropped += (".attn.bias", ".attn.masked_bias")
    kept = {k: v for k, v in state.items() if not k.endswith(dropped) and (pooler or not k.startswith("pooler."))}
    return _from_openai(kept) if kind == "clip" and "token_embedding.weight" in kept else kept


def _from_openai(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return OpenAI CLIP's text tensors under transformers' names; those of its image side are left out."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if key == "text_projection":
            found["text_projection.weight"] = value.T.contiguous()
        elif key.startswith("transformer.resblocks."):
            number, _, rest = key[len("transformer.resblocks.") :].partition(".")
            found.update(_openai_block(f"text_model.encoder.layers.{number}.", rest, value))
        else:
            for theirs, ours in _OPENAI.items():
                if key.startswith(theirs):
                    found[f"text_model.{ours}{key[len(theirs) :]}"] = value
    return found


def _openai_block(prefix: str, rest: str, value: Tensor) -> dict[str, Tensor]:
    if rest.startswith("attn.in_proj_"):
        end = rest[len("attn.in_proj_") :]
        parts = value.chunk(3)
        return {f"{prefix}self_attn.{n}_proj.{end}": part for n, part in zip("qkv", parts, strict=True)}
    rest = rest.replace("attn.out_proj", "self_attn.out_proj")
    for theirs, ours in _OPENAI_BLOCK.items():
        rest = rest.replace(theirs, ours)
    return {prefix + rest: value}


def build(kind: TowerKind, size: TowerSize, *, pooler: bool) -> nn.Module:
    """Return transformers' network with untrained weights; CLIP's with its projection."""
    import transformers as hf

    config: Any
    common: dict[str, Any] = {"vocab_size": size.words}
    if kind == "gpt2":
        config = hf.GPT2Config(
            **common, n_embd=size.width, n_layer=size.layers, n_head=size.heads, n_inner=size.inner,
            n_positions=size.positions,
        )  # fmt: skip
        return hf.GPT2Model(config)
    common |= {
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": size.inner,
        "max_position_embeddings": size.positions,
    }
    if kind == "clip":
        config = hf.CLIPTextConfig(**common, projection_dim=size.projection or size.width, hidden_act="quick_gelu")
        return hf.CLIPTextModelWithProjection(config)
    if kind == "bert":
        return hf.BertModel(hf.BertConfig(**common, type_vocab_size=size.types), add_pooling_layer=pooler)
    config = hf.RobertaConfig(**common, type_vocab_size=size.types, layer_norm_eps=1e-5)
    return hf.RobertaModel(config, add_pooling_layer=pooler)
