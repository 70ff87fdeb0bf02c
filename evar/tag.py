"""Name what a tagger hears in your files: the top labels per segment, ``python -m evar.tag MODEL FILE[,FILE|DIR]``."""

from __future__ import annotations

import csv
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from evar.audio.decode import BadAudio, decode
from evar.audio.files import AUDIO_SUFFIXES, list_audio
from evar.cli import main
from evar.command import at_least_one, options_of_models, pick_device
from evar.errors import UserError
from evar.finetuned_files import WEIGHTS
from evar.progress import say, track
from model_adapters.registry import adapter_class, load_model

DEFAULT_SECONDS = 10.0
"""Length of a segment for a tagger that does not say what it was trained on."""
SHORTEST_SECONDS = 0.1
"""What every model here can hear something in."""


class Segment(NamedTuple):
    """A piece of a file and what is heard in it, the likeliest first."""

    file: Path
    start: float
    """Seconds."""
    end: float
    labels: list[tuple[str, float]]


def tag(
    model: str,
    files: tuple[str, ...],
    *,
    weights: str | None = None,
    top: int = 3,
    seconds: float | None = None,
    device: str = "auto",
    format: Literal["text", "csv"] = "text",
    **options: str,
) -> None:
    """Print the likeliest labels of every segment of your audio files, with their probabilities.

    MODEL is a tagger (python -m evar.models), or the folder of a model that python -m evar.finetune has left.

    Args:
        model: a tagger's name, or the folder of a fine-tuned model (.../seed43-split/model)
        files: audio files and folders, comma-separated
        weights: checkpoint file, or random (an untrained network)
        top: number of labels per segment
        seconds: length of a segment (default: the clips' length of the task it was trained on, else 10)
        device: auto, cpu, cuda or cuda:N
        format: text, or csv (file, start, end, label, probability)
    """
    at_least_one(top=top)
    if seconds is not None and seconds < SHORTEST_SECONDS:
        raise UserError(f"--seconds={seconds}: must be at least {SHORTEST_SECONDS}")
    paths = _files(files)
    adapter: Any = _tagger(model, weights, options).to(pick_device(device))
    length = seconds if seconds is not None else getattr(adapter, "unit_seconds", DEFAULT_SECONDS)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if format == "csv":
        writer.writerow(["file", "start", "end", "label", "probability"])
    broken = 0
    for path in track(paths, "tagging", len(paths), "file"):
        try:
            for found in segments(adapter, path, length, top):
                if format == "csv":
                    writer.writerows([path, found.start, found.end, n, f"{p:.4f}"] for n, p in found.labels)
                else:
                    said = "  ".join(f"{name} {100 * p:.1f} %" for name, p in found.labels)
                    print(f"{path}  {found.start:7.2f}-{found.end:.2f} s  {said}")
        except BadAudio as error:
            broken += 1
            say(f"{path}: {error}")
    if broken:
        raise UserError(f"{broken} of {len(paths)} files could not be read; they are named above")


def _files(places: tuple[str, ...]) -> list[Path]:
    for place in places:
        if not Path(place).exists():
            raise UserError(f"there is no file or folder {place}")
    paths = list_audio(places)
    if not paths:
        raise UserError(f"no audio in {', '.join(places)} (looked for {', '.join(AUDIO_SUFFIXES[:3])})")
    return paths


def _tagger(model: str, weights: str | None, options: dict[str, str]) -> Any:
    if _is_fine_tuned(model):
        if weights is not None:
            raise UserError(f"{model} has its own weights; leave out --weights")
        model, weights = "finetuned", model
    elif Path(model).is_dir():
        raise UserError(f"{model} is not the folder of a fine-tuned model: there is no {WEIGHTS} in it (.../model)")
    elif not hasattr(adapter_class(model)[0], "tag_probabilities"):
        raise UserError(f"{model} names no classes; take a tagger such as gpvad, or fine-tune it: evar.finetune")
    adapter = load_model(model, weights, options).adapter
    if not hasattr(adapter, "class_names"):
        raise UserError(
            f"{model}: these weights have no head for AudioSet's classes (or none that names them), so that they tag "
            "nothing; take weights that were trained to tag, or another tagger such as gpvad"
        )
    return adapter


def _is_fine_tuned(model: str) -> bool:
    return (Path(model).expanduser() / WEIGHTS).is_file()


def segments(adapter: Any, path: Path, seconds: float, top: int) -> Iterator[Segment]:
    """Yield the segments of a file with their ``top`` labels; a last one shorter than a tenth of ``seconds`` is left.

    Raises :class:`BadAudio` if the file cannot be read.
    """
    rate, unit = adapter.sample_rate, int(adapter.sample_rate * seconds)
    waveform = torch.from_numpy(decode(path, rate))
    for start in range(0, len(waveform), unit):
        piece = waveform[start : start + unit]
        if start and len(piece) < unit // 10:
            break
        padded = torch.nn.functional.pad(piece, (0, unit - len(piece)))[None].to(adapter.device)
        with torch.inference_mode():
            found = adapter.tag_probabilities(padded, torch.tensor([len(piece)], device=padded.device))[0]
        chosen = found.float().cpu().topk(min(top, len(adapter.class_names)))
        labels = [
            (adapter.class_names[n], p) for p, n in zip(chosen.values.tolist(), chosen.indices.tolist(), strict=True)
        ]
        yield Segment(path, start / rate, (start + len(piece)) / rate, labels)


def _options(positional: Mapping[str, str]) -> dict[str, inspect.Parameter]:
    return {} if _is_fine_tuned(positional["model"]) else options_of_models(positional)


if __name__ == "__main__":
    main(tag, extra=_options)
