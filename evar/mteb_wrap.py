"""An adapter of this harness as an encoder of the package mteb: ``mteb.evaluate(as_mteb_encoder(model), tasks)``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from evar.errors import UserError
from evar.mteb_facts import model_meta, require_mteb
from evar.numerics import full_float32
from model_adapters.base import Adapter, AudioLanguage
from model_adapters.registry import Model

Space = Literal["auto", "clip", "joint"]


class AdapterEncoder:
    """Our adapter behind mteb's ``EncoderProtocol``. Made by :func:`as_mteb_encoder`."""

    def __init__(self, adapter: Adapter, meta: Any, space: Space) -> None:
        self.adapter, self.space = adapter, space
        self.mteb_model_meta = meta

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Return embeddings ``[N, D]`` (or ``[N, J]``) of the batches of a DataLoader, in its order.

        inputs: batches with ``audio`` (a list of ``{"array": [T] or [channels, T], "sampling_rate": Hz}``) or ``text``.
        task_metadata: mteb's record of the task: where text is among its modalities, the joint space is used.
        """
        joint = self.space == "joint" or (self.space == "auto" and "text" in task_metadata.modalities)
        joint = joint and isinstance(self.adapter, AudioLanguage)
        found = []
        with torch.inference_mode():
            for batch in inputs:
                if ("audio" in batch) == ("text" in batch):
                    raise UserError(f"batches of audio or of text are understood, this one has: {', '.join(batch)}")
                vectors = self._audio(batch["audio"], joint) if "audio" in batch else self._text(batch["text"])
                found.append(vectors.float().cpu().numpy())
        return np.concatenate(found)

    def _audio(self, items: Sequence[Mapping[str, Any]], joint: bool) -> Tensor:
        """Embed clips whole, those of one length together: to some models the length of padding matters."""
        adapter: Any = self.adapter
        function = adapter.embed_audio if joint else adapter.embed
        clips = [samples_of(item, adapter.sample_rate) for item in items]
        lengths = np.array([len(clip) for clip in clips])
        rows: dict[int, Tensor] = {}
        for length in np.unique(lengths):
            here = np.flatnonzero(lengths == length).tolist()
            waveforms = torch.from_numpy(np.stack([clips[n] for n in here])).to(adapter.device)
            heard = torch.full((len(here),), int(length), device=waveforms.device)
            rows |= dict(zip(here, function(waveforms, heard), strict=True))
        return torch.stack([rows[n] for n in range(len(clips))])

    def _text(self, texts: Sequence[str]) -> Tensor:
        if not isinstance(self.adapter, AudioLanguage):
            raise UserError(f"{self.mteb_model_meta.name} has no text side; choose tasks of audio alone")
        return self.adapter.embed_text(list(texts))

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the cosines ``[N, M]`` of two sets of embeddings."""
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the cosine ``[N]`` of each embedding with its partner."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(-1)


def as_mteb_encoder(
    model: Model | Adapter, *, name: str = "", space: Space = "auto", device: str = "cpu"
) -> AdapterEncoder:
    """Return a model of this harness as an encoder that ``mteb.evaluate`` takes.

    Args:
        model: what :func:`model_adapters.registry.load_model` returns, or an adapter.
        name: for mteb's results, where it becomes ``evar-harness/<name>``; left out: the model's.
        space: ``clip``: embeddings as in linear evaluation; ``joint``: the space shared with text; ``auto``: joint for
            an adapter that has it on a task with text, else clip.
        device: where to compute.

    Raises :class:`UserError` without mteb, for a model without joint space where that is asked for, and for one that
    takes statistics from a task's training part, which mteb does not show.
    """
    require_mteb()
    adapter = model.adapter if isinstance(model, Model) else model
    called = name or (model.name if isinstance(model, Model) else type(adapter).__name__)
    if adapter.prepares_for("joint" if space == "joint" else "clip"):
        raise UserError(
            f"{called} takes statistics from a task's training clips, which mteb does not show; give them as an option "
            f"(python -m evar.models {called} lists its options)"
        )
    language = isinstance(adapter, AudioLanguage)
    if space == "joint" and not language:
        raise UserError(f"{called} has no joint space with text; use space='clip'")
    weights = model.weights_sha256 if isinstance(model, Model) else adapter.weights_sha256
    meta = model_meta(
        called,
        weights,
        modalities=["audio", "text"] if language else ["audio"],
        embed_dim=adapter.embedding_dim,
        n_parameters=sum(p.numel() for p in adapter.parameters()),
        experiment_kwargs={"space": space} if space != "auto" else None,
    )
    full_float32()
    return AdapterEncoder(adapter.to(device).eval(), meta, space)


def samples_of(item: Mapping[str, Any], sample_rate: int) -> NDArray[np.float32]:
    """Return an item of mteb's audio as mono samples ``[T]``, resampled as all audio here (soxr HQ); at least one."""
    samples = np.asarray(item["array"], dtype=np.float32)
    mono = samples.mean(axis=0) if samples.ndim == 2 else samples
    rate = int(item["sampling_rate"])
    if rate != sample_rate and len(mono):
        mono = soxr.resample(mono, rate, sample_rate, quality="HQ")
    return np.ascontiguousarray(mono, dtype=np.float32) if len(mono) else np.zeros(1, dtype=np.float32)


def _unit(embeddings: Any) -> Tensor:
    rows = embeddings if isinstance(embeddings, Tensor) else torch.from_numpy(np.asarray(embeddings))
    return F.normalize(rows.float(), dim=-1)
