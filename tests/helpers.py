"""Builders that tests share: audio files of given samples, a tiny task in a folder, a tiny adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import soundfile
from torch import Tensor

from evar.clips import Clips, open_task
from model_adapters.base import Adapter, ModelInfo
from model_adapters.registry import Model
from tasks.base import Task

RATE = 8000
SUBTYPE = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}


def noise(seed: int, seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    """Return seeded noise ``[T]``, well below full scale."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, int(seconds * rate)).astype(np.float32)


def sine(hertz: float, seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    """Return a sine ``[T]`` of amplitude 0.5."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def write_audio(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str | None = None) -> Path:
    """Write samples ``[T]`` or ``[T, channels]`` in the format of the suffix and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    form, usual = SUBTYPE[path.suffix.lower()]
    soundfile.write(path, samples, rate, format=form, subtype=subtype or usual)
    return path


def read_table(folder: Path) -> pd.DataFrame:
    """Read a tiny task's own metadata: ``index.csv``; labels of a multi-label task are separated by ``;``."""
    table = pd.read_csv(folder / "index.csv", dtype={"label": str})
    if table["label"].str.contains(";").any():
        table["label"] = table["label"].str.split(";")
    return table


def write_table(folder: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write ``index.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / "index.csv", index=False)


def tiny_task(**facts: object) -> Task:
    """Return a task with two labels and two clips in train, one in valid and one in test; ``facts`` replace its own."""
    task = Task(
        name="tiny",
        title="Tiny",
        domain="mixed",
        metric="accuracy",
        unit_seconds=0.5,
        labels=("high", "low"),
        counts={"train": 2, "valid": 1, "test": 1},
        index=read_table,
        licence="CC0",
        citation="nobody, 2026",
        homepage="https://example.org",
        manual="Copy it.",
        marker="index.csv",
    )
    return replace(task, **facts)  # type: ignore[arg-type]


ROWS = (
    {"file": "audio/a.wav", "label": "low", "split": "train"},
    {"file": "audio/b.wav", "label": "high", "split": "train"},
    {"file": "audio/c.wav", "label": "low", "split": "valid"},
    {"file": "audio/d.wav", "label": "high", "split": "test"},
)


def tiny_folder(folder: Path, rows: Sequence[Mapping[str, object]] = ROWS, seconds: float = 0.5) -> Path:
    """Write the files that ``rows`` name (noise, another seed each) and the index; return the folder."""
    write_table(folder, rows)
    for seed, file in enumerate(dict.fromkeys(str(row["file"]) for row in rows)):
        write_audio(folder / file, noise(seed, seconds))
    return folder


def fold_rows(count: int, folds: int = 2) -> list[dict[str, object]]:
    """Return the rows of a task with folds: ``count`` clips, labels and folds in turn."""
    return [
        {"file": f"audio/{n:03d}.wav", "label": ("low", "high")[n % 2], "fold": n // 2 % folds + 1}
        for n in range(count)
    ]


def fold_clips(folder: Path, count: int, seconds: float = 0.5, unit_seconds: float = 0.5) -> Clips:
    """Write and open a task of ``count`` clips in two folds."""
    rows = fold_rows(count)
    counts = {k: sum(row["fold"] == k for row in rows) for k in (1, 2)}
    task = tiny_task(counts=counts, unit_seconds=unit_seconds)
    tiny_folder(folder, rows, seconds)
    return open_task(task, data=folder)


class CountingAdapter(Adapter):
    """Four numbers per clip (mean of squares of its quarters), and a list of the batch sizes it was called with."""

    info: ClassVar[ModelInfo] = ModelInfo("Counting", "audio", "", "MIT", needs_weights=False)

    def __init__(self, *, gain: float = 1.0, fail_at: int | None = None, sample_rate: int = RATE) -> None:
        super().__init__()
        self.sample_rate, self.embedding_dim = sample_rate, 4
        self.gain, self.fail_at = gain, fail_at
        self.calls: list[int] = []
        self.before: Callable[[], None] = lambda: None

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return ``[B, 4]``; raise at the call number ``fail_at``."""
        self.before()
        if self.fail_at == len(self.calls):
            raise RuntimeError("killed")
        self.calls.append(len(waveforms))
        return self.gain * waveforms.unflatten(1, (4, -1)).pow(2).mean(2)


def counting_model(adapter: Adapter | None = None, **facts: object) -> Model:
    """Return the model of a tiny adapter, named ``counting``."""
    adapter = adapter if adapter is not None else CountingAdapter()
    return replace(Model("counting", adapter, CountingAdapter.info), **facts)  # type: ignore[arg-type]
