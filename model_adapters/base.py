"""The adapter contract: waveforms in, embeddings out. Ten minutes to read; `docs/adding_a_model.md` has an example.

An adapter is a torch module that declares what it needs (`sample_rate`) and gives (`embedding_dim`), and has

* ``embed(waveforms [B, T], lengths [B]) -> [B, D]``: one vector per clip, for linear evaluation.

The rest is optional, and a protocol that needs it says so when it is missing:

* ``embed_frames(waveforms, lengths) -> ([B, T', D], seconds per frame)``;
* ``embed_audio(waveforms, lengths) -> [B, J]`` and ``embed_text(list of C sentences) -> [C, J]``: a joint space, for
  zero-shot and retrieval; callers L2-normalise;
* ``prepare(unit_seconds, training_clips)``: called once before the first clip, for models that take statistics (or
  geometry, or captions) from the task's training part. What it found goes into ``state``;
* ``log_mel(waveforms) -> [B, 1, F, T]`` and ``encode(log_mel) -> [B, D]``: the two stages between which fine-tuning
  augments; ``encode(log_mel, patchout=0.0)`` for an encoder that can leave patches out in training, and
  ``log_mel(waveforms, lengths=None)`` for a model that does something else with a short clip than to hear its padding.

``waveforms`` are float32 mono at ``sample_rate``, cut or zero-padded at the end to one length T; ``lengths`` holds the
number of real samples of each clip. A clip's embedding may not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

RANDOM = "random"
"""The value of ``weights`` that asks for a seeded untrained network (``random:7`` for another seed than 0)."""


@dataclass(frozen=True)
class WeightsFile:
    """One published weights file."""

    name: str
    """File name, with the folder before it where that says something (M2D's geometry): where it lies in
    ``$EVAR_WEIGHTS``. Or the folder alone, where the one file in it is named in no publication."""
    url: str = ""
    """Direct URL, only where the licence lets anybody download it without a further step."""
    size: int = 0
    """Bytes; 0 where it is not known."""
    sha256: str = ""
    md5: str = ""
    """Where the publisher states no other checksum (Zenodo)."""
    note: str = ""
    """What it is, if an adapter has several."""

    @property
    def checksum(self) -> str:
        """``sha256:…`` or ``md5:…``; empty if none is known."""
        return f"sha256:{self.sha256}" if self.sha256 else f"md5:{self.md5}" if self.md5 else ""


@dataclass(frozen=True)
class TextSide:
    """What an audio-language model fetches from the hub for its text side, at the first sentence."""

    hub: str
    """``ORG/NAME``."""
    licence: str
    weights: bool = False
    """Whether its weights are needed too; else its tokenizer alone, for the model's own file has the text tower."""
    default: bool = True
    """Whether the weights that are taken by default go with it."""
    note: str = ""
    """With which of the model's files it goes, if not with all."""


@dataclass(frozen=True)
class Weights:
    """Published weights: where they come from, under which licence, and how to recognise them.

    The file described here is the one that is taken when ``--weights`` is left out; ``files`` are further ones.
    """

    source: str
    """Page or URL where the authors publish them."""
    licence: str
    url: str = ""
    """Direct URL, only where the licence lets anybody download them without a further step."""
    sha256: str = ""
    file_name: str = ""
    size: int = 0
    """Bytes; 0 where it is not known."""
    md5: str = ""
    note: str = ""
    """What that file is, if there are others."""
    hub: str = ""
    """Repository on the Hugging Face hub (``ORG/NAME``), where the adapter takes it from there by itself."""
    hub_size: int = 0
    """Bytes of its weights, rounded as on the hub's page; 0 where it is not known."""
    files: tuple[WeightsFile | str, ...] = ()
    """Further published files that the adapter reads; a name alone where nothing else is known."""
    further_hubs: tuple[tuple[str, str], ...] = ()
    """Further repositories on the hub that the adapter reads, each with what it is."""
    text: tuple[TextSide, ...] = ()
    """What the text side fetches from the hub."""

    def own_file(self) -> WeightsFile | None:
        """Return the file that is taken by default; None where that is a hub repository, or has no known name."""
        if not self.file_name:
            return None
        return WeightsFile(self.file_name, self.url, self.size, self.sha256, self.md5, self.note)

    def all_files(self) -> tuple[WeightsFile, ...]:
        """Return every file, the one that is taken by default first (if it has a name)."""
        own = self.own_file()
        others = [WeightsFile(one) if isinstance(one, str) else one for one in self.files]
        return (*([own] if own is not None else []), *(one for one in others if one.name != self.file_name))


@dataclass(frozen=True)
class ModelInfo:
    """Facts beside an adapter."""

    title: str
    kind: Literal["audio", "audio-language", "baseline"]
    paper: str
    code_licence: str
    weights: Weights | None = None
    needs_weights: bool = True
    """Whether ``--weights`` must be given (a path, or ``random``)."""
    trained_on: tuple[str, ...] = ()
    """Data sets the published weights were trained on, by task name; a zero-shot score on one of them is flagged.
    Others (``vggsound``, ``librispeech``) are named so that they show in the list of models."""
    probe_lr: float = 3e-4
    """Learning rate of the reference probe for this model (EVAR's ``lr_lineareval``)."""
    paper_rows: tuple[str, ...] = ()
    """Rows of the published tables that show this model."""


class ClipBatch(NamedTuple):
    """Clips of one length: ``waveforms [B, T]``, ``lengths [B]`` (true samples), ``captions`` (empty if none)."""

    waveforms: Tensor
    lengths: Tensor
    captions: tuple[str, ...] = ()


class TrainingClips(Protocol):
    """The training part of a task as ``prepare`` sees it."""

    batch_size: int
    """Extraction batch of the paper's run of this task."""

    def __len__(self) -> int:
        """Return the number of training clips."""
        ...

    def batches(
        self, sample_rate: int, batch_size: int, *, shuffle_seed: int | None = None, limit: int | None = None
    ) -> Iterator[ClipBatch]:
        """Yield the clips, each as its training window; in a seeded random order if ``shuffle_seed`` is given.

        ``limit``: stop after the batch that reaches this many clips.
        """
        ...

    @property
    def has_captions(self) -> bool:
        """Whether the task has a caption for each clip."""
        ...


class Skeleton(NamedTuple):
    """How to build an untrained model that another one's tensors fit into, and that then gives the same embeddings."""

    model: str
    """Its name; it is built with ``weights=random``."""
    options: dict[str, str]
    spare: tuple[str, ...] = ()
    """How the names of tensors begin that it has not, and that the clip's embedding does not depend on."""


class Adapter(nn.Module):
    """Base class of all adapters. Subclasses set ``info``, ``sample_rate``, ``embedding_dim`` and write ``embed``."""

    info: ClassVar[ModelInfo]
    probe_lrs: Mapping[str, float] = MappingProxyType({})
    """Learning rates of the reference probe on single tasks, where they are not the model's (``info.probe_lr``)."""
    for_untrained: ClassVar[tuple[str, ...]] = ()
    """Options that say how an untrained network is built (``depth``); weights that are read have a size of their own,
    and :func:`model_adapters.registry.load_model` refuses them there."""
    version: ClassVar[int] = 1
    """Raised by the author when the same options and weights give other embeddings: stored ones are then not used."""
    sample_rate: int
    embedding_dim: int
    joint_dim: int = 0
    """Length J of the joint space's vectors, for a model that has ``embed_audio`` and ``embed_text``."""
    long_audio: str = "whole clip"
    """What the model hears of a clip that is longer than its input."""
    short_audio: str = "zeros at the end, up to the task's window"
    """What is done with a clip that is shorter than the model's input; in every result, beside ``long_audio``."""
    weights_sha256: str = ""
    """Checksum of the weights file that was read; ``random:<seed>`` for an untrained network; empty if none."""
    settings_sha256: str = ""
    """Checksum of the settings that lie beside the weights (config.json), which their own checksum does not know."""
    batch_matters: bool = False
    """Whether a published fault that was asked for lets embeddings depend on what else is in the batch."""
    draws_anew: bool = False
    """Whether the same clip gives another vector each time, as a published model does that was asked for so."""
    needs_prepare: bool = False
    """Whether ``prepare`` must be called (with training clips) before the first clip; see ``prepares_for``."""
    weights_licence: str = ""
    """Licence of the weights, where they are those of another model than ``info`` describes."""

    @classmethod
    def weights_of(cls, base: str) -> Weights | str | None:
        """Return what ``NAME:BASE`` takes for weights: its own, the name of the model whose they are, or None.

        None: the facts beside the adapter say it, whatever stands after the colon.
        """
        return None

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return clip embeddings ``[B, D]`` of ``waveforms [B, T]`` with ``lengths [B]`` real samples each."""
        raise TypeError(f"{type(self).__name__} has no embed()")

    def hear_as(self, other: Adapter) -> None:
        """Take the facts of the input from the model that does the hearing for this one; and its embeddings' length."""
        self.sample_rate, self.embedding_dim = other.sample_rate, other.embedding_dim
        self.long_audio, self.short_audio = other.long_audio, other.short_audio
        self.batch_matters, self.draws_anew = other.batch_matters, other.draws_anew

    def prepares_for(self, space: str) -> bool:
        """Return whether ``prepare`` must come before the first clip of a space: ``clip`` (``embed``) or ``joint``."""
        return self.needs_prepare

    def made_of(self) -> dict[str, Any]:
        """Return what is known before ``prepare`` beside options and weights: settings, or the models within.

        JSON values; it stands in the embeddings' key even where ``state`` cannot, because that waits for the task.
        """
        return {"settings": self.settings_sha256} if self.settings_sha256 else {}

    def state(self) -> dict[str, Any]:
        """Return what, beside options and weights, determines the output (statistics of the task); JSON values only."""
        return {}

    def text_facts(self) -> dict[str, Any]:
        """Return what decides the text vectors beside options and weights: a tokenizer or an encoder from elsewhere.

        JSON values; they stand in the results of zero-shot and retrieval, and in their run ids. May load the text side.
        """
        return {}

    def skeleton(self) -> Skeleton | None:
        """Return an untrained model of this one's shape and front end, into which its tensors can be loaded.

        With it a fine-tuned model is rebuilt without the weights it began with; None: those are needed.
        """
        return None

    @property
    def device(self) -> torch.device:
        """The device of the parameters and buffers (CPU if there are none)."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")


def identity_of(adapter: Adapter) -> dict[str, Any]:
    """Return what decides an adapter's output beside its options and is known before ``prepare``, for ``made_of``."""
    return {
        "version": adapter.version,
        "weights": adapter.weights_sha256,
        "state": {} if adapter.needs_prepare else adapter.state(),
        "made_of": adapter.made_of(),
    }


def licence_of(adapter: Adapter) -> str:
    """Return the licence of an adapter's weights as their publisher states it; empty where there are none."""
    info: ModelInfo | None = getattr(adapter, "info", None)
    published = info.weights if info is not None else None
    return adapter.weights_licence or (published.licence if published is not None else "")


@runtime_checkable
class EmbedsFrames(Protocol):
    """An adapter with one embedding per time step."""

    def embed_frames(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
        """Return ``([B, T', D], seconds per frame)``."""
        ...


@runtime_checkable
class AudioLanguage(Protocol):
    """An adapter with a joint space of audio and text."""

    def embed_audio(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, J]``, not normalised."""
        ...

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Return ``[C, J]``, not normalised."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """An adapter that looks at the training part first."""

    def prepare(self, unit_seconds: float, training_clips: TrainingClips) -> None:
        """Take what is needed from the training part; the outcome shows in ``state()``."""
        ...


def parse_random(weights: str) -> int | None:
    """Return the seed if ``weights`` asks for an untrained network (``random`` is seed 0, ``random:7`` seed 7)."""
    name, _, seed = weights.partition(":")
    if name != RANDOM or (seed and not seed.isdigit()):
        return None
    return int(seed or 0)
