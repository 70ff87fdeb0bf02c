"""A tiny BERT with a tokenizer of its own, saved in the layout of transformers; for tests without a model hub."""

from __future__ import annotations

import json
from pathlib import Path

import torch

WORDS = ("a", "dog", "barks", "cat", "rain", "on", "the", "roof", "can", "be", "heard", "speech", "music", "this", "is")
MORE_WORDS = ("sound", "of", "loud", "and", "quiet")
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *MORE_WORDS, *(f"filler{n}" for n in range(1100))]


def save_tokenizer(folder: Path, vocabulary: list[str] = VOCABULARY) -> Path:
    """Write tokenizer.json and its settings: lower-case words of ``vocabulary``, in [CLS] … [SEP]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    numbers = {word: n for n, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", numbers["[CLS]"]), ("[SEP]", numbers["[SEP]"])]
    )
    special = {f"{k}_token": f"[{k.upper()}]" for k in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **special).save_pretrained(folder)
    return folder


def save_bert(folder: Path, pooling: dict | None = None, modules: tuple[str, ...] = ()) -> Path:
    """Write a two-layer BERT of width 128 (two heads) with seeded weights, and sentence-transformers' settings."""
    from transformers import BertConfig, BertModel

    save_tokenizer(folder)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=160,
        max_position_embeddings=40,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        BertModel(config).save_pretrained(folder)
    if modules:
        paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize", "Dense": "2_Dense"}
        listed = [{"type": f"sentence_transformers.models.{m}", "path": paths[m]} for m in modules]
        (folder / "modules.json").write_text(json.dumps(listed))
    if pooling is not None:
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder
