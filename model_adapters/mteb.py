"""An audio model that the package mteb knows: ``mteb:ORG/NAME`` (extra 'mteb'), as ``mteb:laion/clap-htsat-fused``.

The model is mteb's own implementation, with the weights that it takes from the Hugging Face hub. It hears each clip in
its own length, as in mteb's evaluation; what it does with a long or a short one is its own affair.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from evar.errors import UserError
from evar.mteb_facts import own_tasks, require_mteb
from model_adapters.base import Adapter, ModelInfo, Weights

BATCH = 16
MEASURED_SECONDS = 1.0
RATES = ("sampling_rate", "target_sampling_rate", "AUDIO_SAMPLING_RATE")
"""Where mteb's models keep the rate they resample to (Hz)."""
USUAL_RATE = 16000
"""Where a model does not say: the rate of nearly all of them; what is not theirs they resample."""
SERVICE = "API"
"""How mteb marks a model that is somebody's service."""
INSTALL = "(pip install 'evar-harness[mteb]', and what this model needs beside it)"


class Rows(Dataset):
    """A data set as mteb's models expect it: rows by name of a column, and ``features`` with the columns."""

    def __init__(self, column: str, values: Sequence[Any]) -> None:
        self.column, self.values = column, values
        self.features = {column: None}
        self.column_names = [column]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.values)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Return one row."""
        return {self.column: self.values[row]}


def _collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


class MtebModel(Adapter):
    """``mteb:NAME``, where the package mteb lists NAME with audio among its modalities.

    A model that takes text as well gets ``embed_audio`` and ``embed_text``, and so zero-shot and retrieval.

    Parameters
    ----------
    revision: of the weights; the one that mteb names if left out.
    sample_rate: rate (Hz) at which clips are handed over; 0: the model's own.
    """

    info: ClassVar[ModelInfo] = ModelInfo(
        title="any audio model that the package mteb knows (mteb:ORG/NAME)",
        kind="audio",
        paper="the model's own; MTEB: arXiv 2210.07316",
        code_licence="Apache-2.0 (mteb)",
        weights=Weights(source="https://github.com/embeddings-benchmark/mteb", licence="the model's own"),
        needs_weights=False,
    )
    long_audio = "as mteb's implementation of the model does"
    short_audio = "handed over in its own length; then as mteb's implementation of the model does"

    embed_audio: Callable[[Tensor, Tensor], Tensor]
    """Like ``embed_text`` set on those models alone that have it: protocols ask whether it is there."""
    embed_text: Callable[[Sequence[str]], Tensor]

    def __init__(self, base: str = "", *, revision: str = "", sample_rate: int = 0) -> None:
        super().__init__()
        meta = _meta_of(base)
        self.model = _loaded(meta, revision)
        self.parts = nn.ModuleList([v for v in _own_values(self.model) if isinstance(v, nn.Module)])
        """The networks within, so that they move with the adapter."""
        self.facts = {"mteb": _version(), "model": base, "revision": revision or meta.revision}
        self.weights_sha256 = f"mteb:{base}@{self.facts['revision']}"
        self.trained_on = own_tasks(meta.training_datasets)
        self.sample_rate = sample_rate or _rate(self.model)
        self.task_metadata = _task_metadata()
        samples = round(MEASURED_SECONDS * self.sample_rate)
        heard = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            self.embedding_dim = self.embed(heard, torch.tensor([samples])).shape[1]
        if "text" in meta.modalities:
            self.embed_audio, self.embed_text, self.joint_dim = self.embed, self._embed_text, self.embedding_dim

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return mteb's embeddings ``[B, D]``; clips of one length together, so that no batch-mate changes a clip's."""
        found: dict[int, Tensor] = {}
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0].tolist()
            clips = waveforms[rows, : max(length, 1)].cpu().numpy()
            audio = [{"array": clip, "sampling_rate": self.sample_rate} for clip in clips]
            found |= dict(zip(rows, self._encode("audio", audio), strict=True))
        return torch.stack([found[row] for row in range(len(waveforms))])

    def _embed_text(self, texts: Sequence[str]) -> Tensor:
        return self._encode("text", list(texts))

    def _encode(self, column: str, values: Sequence[Any]) -> Tensor:
        if len(self.parts) and hasattr(self.model, "device"):
            self.model.device = str(self.device)  # where its inputs go; its networks have moved already
        loader: Any = DataLoader(Rows(column, values), batch_size=BATCH, collate_fn=_collate)
        names = {"task_metadata": self.task_metadata, "hf_split": "test", "hf_subset": "default"}
        try:
            found = self.model.encode(loader, **names, batch_size=BATCH, show_progress_bar=False)
        except ImportError as error:
            raise UserError(f"mteb:{self.facts['model']} lacks a package: {_first_line(error)} {INSTALL}") from None
        rows = found if isinstance(found, Tensor) else torch.from_numpy(np.asarray(found))
        if rows.ndim != 2 or len(rows) != len(values):
            raise UserError(
                f"mteb:{self.facts['model']} gives {tuple(rows.shape)} for {len(values)} clips, not a vector each"
            )
        return rows.float().to(self.device)

    @classmethod
    def known_names(cls) -> list[str]:
        """Return the names of the models that mteb lists with audio among their modalities and one vector per input."""
        return sorted(_listed())

    def state(self) -> dict[str, Any]:
        """Return what fixes the output: mteb's version, the model's name and revision, the rate."""
        return {**self.facts, "rate": self.sample_rate}


def _listed() -> dict[str, Any]:
    metas = require_mteb().get_model_metas(modalities=["audio"], model_types=["dense"])
    return {m.name: m for m in metas if m.name is not None and m.loader is not None and SERVICE not in m.framework}


def _meta_of(name: str) -> Any:
    """Return mteb's record of a model from its own list (nothing is fetched)."""
    listed = _listed()
    if name in listed:
        return listed[name]
    every = f"python -m evar.models mteb lists the {len(listed)} audio models that it knows"
    if not name:
        raise UserError(f"mteb needs a model's name: mteb:ORG/NAME. {every}")
    near = difflib.get_close_matches(name, listed, n=1, cutoff=0.5)
    try:
        meta = require_mteb().get_model_meta(name)
    except KeyError:
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UserError(f"mteb knows no audio model '{name}'.{hint} {every}") from None
    if SERVICE in meta.framework:
        raise UserError(
            f"mteb:{name} is a service to which your audio would be sent; only models that run here are used"
        )
    raise UserError(f"mteb:{name} does not turn audio into one vector (its modalities: {', '.join(meta.modalities)})")


def _loaded(meta: Any, revision: str) -> Any:
    """Build the model on the CPU, where adapters begin; its weights come from the hub or the hub's cache."""
    found = meta.model_copy(update={"revision": revision}) if revision else meta
    try:
        model = found.load_model(device="cpu")
    except ImportError as error:
        raise UserError(f"mteb cannot load {meta.name}: {_first_line(error)} {INSTALL}") from error
    except (OSError, RuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(f"mteb cannot load {meta.name}: {_first_line(error)}") from error
    for network in _own_values(model):
        if isinstance(network, nn.Module):
            network.eval()
    return model


def _own_values(model: Any) -> list[Any]:
    return [model] if isinstance(model, nn.Module) else list(vars(model).values())


def _rate(model: Any) -> int:
    return next((int(rate) for name in RATES if (rate := getattr(model, name, None))), USUAL_RATE)


def _task_metadata() -> Any:
    """Return the record of a task that mteb's models are told: a classification of audio without a prompt."""
    from mteb import TaskMetadata

    return TaskMetadata(
        name="EVAR",
        description="Embeddings for evar-harness",
        type="AudioClassification",
        modalities=["audio"],
        dataset={"path": "evar/none", "revision": "none"},
        eval_langs=["zxx-Zxxx"],
        main_score="accuracy",
    )


def _version() -> str:
    return str(require_mteb().__version__)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


ADAPTER = MtebModel
