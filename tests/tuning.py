"""Small things to fine-tune: tones that differ in pitch, a transformer of one block, the settings of a short run."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from helpers import tiny_task, write_audio, write_table

from evar.clips import Clips, open_task
from evar.finetune_fit import Job
from evar.finetune_settings import FinetuneSettings
from evar.training import Machine

RATE = 16000
HERTZ = {"high": 3000.0, "low": 300.0, "middle": 1000.0}
SMALL = {"depth": "1", "embed_dim": "16", "heads": "2", "features": "flat"}
"""Options of a random M2D that trains in milliseconds."""
QUICK = FinetuneSettings(
    lr=0.05, batch_size=8, optimizer="sgd", weight_decay=0.0, mixup=0.3, freq_mask=12, time_mask=12, epochs=2,
    warmup_epochs=0, patchout=0.3,
)  # fmt: skip


def tone(labels: list[str], seed: int, seconds: float) -> np.ndarray:
    """Return tones of about the labels' pitches in noise, ``[T]``."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    sound = sum(np.sin(2 * np.pi * HERTZ[one] * random.uniform(0.9, 1.1) * time) for one in labels)
    return (0.2 * sound + 0.02 * random.standard_normal(len(time))).astype(np.float32)


def tones(
    folder: Path, *, seconds: float = 0.5, unit_seconds: float = 0.5, both: bool = False, weights: bool = False,
    **counts: int,
) -> Clips:  # fmt: skip
    """Write and open a task: ``train=18, test=6`` or ``fold1=9, fold2=9`` clips, the three labels in turn.

    ``both``: multi-label, every other clip has two tones; ``weights``: a column of sampling weights, 0 and 1 in turn.
    """
    names, rows = list(HERTZ), []
    for part, count in counts.items():
        for n in range(count):
            label = [names[n % 3]] + ([names[(n + 1) % 3]] if both and n % 2 else [])
            where = {"fold": int(part[4:])} if part.startswith("fold") else {"split": part}
            weight = {"weight": float(n % 2) if part == "train" else float("nan")} if weights else {}
            rows.append({"file": f"audio/{part}{n:03d}.wav", "label": ";".join(sorted(label)), **where, **weight})
            write_audio(folder / rows[-1]["file"], tone(label, len(rows), seconds), RATE)
    write_table(folder, rows)
    declared = {int(part[4:]) if part.startswith("fold") else part: count for part, count in counts.items()}
    kind = {"metric": "mAP"} if both else {}
    return open_task(tiny_task(labels=tuple(names), counts=declared, unit_seconds=unit_seconds, **kind), data=folder)


def job(clips: Clips, folder: Path, *, machine: Machine | None = None, **changes: Any) -> Job:
    """Return the fine-tuning of a random small M2D; ``changes`` are of the job, or of its settings."""
    facts = {"model": "m2d", "weights": "random", "options": SMALL, "preset": "default", "sample_rate": RATE}
    facts |= {name: changes.pop(name) for name in list(changes) if name in facts}
    settings = replace(QUICK, **changes)
    return Job(clips=clips, settings=settings, machine=machine or Machine(workers=1), folder=folder, **facts)


OWN_ADAPTER = """
    import os, signal
    import torch
    from model_adapters.base import Adapter, ModelInfo

    class Mine(Adapter):
        info = ModelInfo("mine", "audio", "", "MIT", needs_weights=False)
        sample_rate, embedding_dim = 16000, 6

        def __init__(self, *, width: int = 6) -> None:
            super().__init__()
            torch.manual_seed(5)
            self.layer, self.calls = torch.nn.Linear(40, width), 0

        def log_mel(self, waveforms):
            return waveforms.unflatten(1, (40, -1)).abs()[:, None, :, :20]

        def encode(self, log_mel):
            self.calls += self.training
            if self.calls == int(os.environ.get("KILL_AT", "0")) and self.training:
                os.kill(os.getpid(), signal.SIGKILL)
            return torch.tanh(self.layer(log_mel[:, 0].mean(2)))

        def embed(self, waveforms, lengths):
            return self.encode(self.log_mel(waveforms))
"""
"""A user's own model of two stages. With $KILL_AT it kills its own process at that forward pass of training."""


def own_adapter(folder: Path, source: str = OWN_ADAPTER) -> str:
    """Write a user's file and return how it is named on the command line."""
    path = folder / "mine.py"
    path.write_text(textwrap.dedent(source))
    return f"{path}:Mine"
