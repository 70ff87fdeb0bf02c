"""A corpus of a few tones with captions, and a small run on it."""

import csv
from dataclasses import replace
from pathlib import Path

import torch
from helpers import write_audio
from pretrain_small import SMALL
from tuning import RATE, tone

from evar.audio.pack import PackSpec
from evar.pretrain.caption_store import open_captions
from evar.pretrain.captions import Asked, make_captions, read_clips
from evar.pretrain.corpus_build import Recipe, build_corpus
from evar.pretrain.corpus_sources import Places
from evar.pretrain.run import Plan
from evar.training import Machine

RUN = replace(
    SMALL, batch_size=8, epochs=2, warmup_epochs=1.0, base_lr=0.05, min_clips=0, min_seconds=0.0, short_clips="silence",
    ema=(0.9, 0.99),
)  # fmt: skip
LABELS = ("high", "low", "middle")


class Sentences(torch.nn.Module):
    """A text encoder that gives every caption its own random vector."""

    dim, name = 24, "tones"

    def facts(self):
        return {"name": self.name, "pooling": "mean", "normalise": False}

    def encode(self, texts):
        seeds = [sum(text.encode()) for text in texts]
        return torch.stack([torch.randn(self.dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def corpus_of_tones(folder: Path, clips: int = 24, seconds: float = 1.2) -> Path:
    """Make a corpus of labelled tones and return its folder."""
    rows = []
    for n in range(clips):
        name = f"{n:03d}.wav"
        write_audio(folder / "wavs" / name, tone([LABELS[n % 3]], n, seconds), RATE)
        rows.append((name, LABELS[n % 3]))
    with (folder / "wavs" / "tones.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *rows])
    build_corpus(
        folder / "corpus",
        Recipe((str(folder / "wavs" / "tones.csv"),), PackSpec(RATE), Places(None, None, False), (), False, "", 1),
    )
    return folder / "corpus"


def captions_of_tones(folder: Path, corpus: Path) -> Path:
    """Embed the label captions of a corpus and return their folder."""
    (folder / "captions").mkdir()
    make_captions(folder / "captions", read_clips(corpus), Asked(encoder="tones"), Sentences())
    assert open_captions(folder / "captions").dim == Sentences.dim
    return folder / "captions"


def plan(folder: Path, corpus: Path, *, captions: Path | None = None, preset: str = "test", **changes) -> Plan:
    """Return a run in ``folder``; ``changes`` are of its settings, or of the plan and its machine."""
    machine = {name: changes.pop(name) for name in list(changes) if name in Machine.__dataclass_fields__}
    own = {name: changes.pop(name) for name in list(changes) if name in Plan.__dataclass_fields__}
    settings = replace(RUN, **changes)
    return Plan(preset, settings, corpus, folder, captions, machine=Machine(workers=1, **machine), **own)


def column(folder: Path, name: str, table: str = "steps.csv") -> list[str]:
    """Return a column of a run's table."""
    with (folder / table).open(newline="") as file:
        return [line[name] for line in csv.DictReader(file)]


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a published checkpoint."""
    return torch.load(path, weights_only=True)["model"]
