"""Embed your own files: ``python -m evar.embed MODEL FILES|DIR --out=embeddings.npz``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from evar.audio.decode import BadAudio, decode, read_header
from evar.audio.files import AUDIO_SUFFIXES, list_audio
from evar.audio.loading import broken_files
from evar.cli import main
from evar.command import options_of_models, pick_device
from evar.errors import UserError
from evar.progress import say, track
from model_adapters.base import AudioLanguage, EmbedsFrames
from model_adapters.registry import Model, load_model

Level = Literal["clip", "frame", "joint"]


def embed(
    model: str,
    files: tuple[str, ...],
    *,
    out: Path,
    level: Level = "clip",
    weights: str | None = None,
    device: str = "auto",
    **options: str,
) -> None:
    """Write a model's embeddings of your own audio files, each heard whole.

    The output is an .npz with files [N] and embeddings [N, D] (clip, joint), for --level=frame embeddings [rows, D],
    starts [N + 1] (file n has the rows starts[n]:starts[n + 1]) and seconds_per_frame. Or it is a .parquet with one
    row per clip or frame.

    Args:
        model: a model's name or path/to/file.py:ClassName (python -m evar.models lists them)
        files: audio files and folders, comma-separated
        out: where to write: a file that ends in .npz or .parquet
        level: clip, one vector per file; frame, one per time step; joint, the joint space of audio and text
        weights: checkpoint file, or random (an untrained network)
        device: auto, cpu, cuda or cuda:N
    """
    if out.suffix not in (".npz", ".parquet"):
        raise UserError(f"--out={out}: the name must end in .npz or .parquet")
    paths = _files(files)
    one = load_model(model, weights, options)
    one.adapter.to(pick_device(device))
    if level == "frame" and not isinstance(one.adapter, EmbedsFrames):
        raise UserError(f"{model} has no embedding per time step; use --level=clip")
    if level == "joint" and not isinstance(one.adapter, AudioLanguage):
        raise UserError(f"{model} has no joint space with text; use --level=clip")
    if one.adapter.prepares_for("joint" if level == "joint" else "clip"):
        raise UserError(
            f"{model} takes statistics from a task's training clips, which a list of files does not have; "
            f"give them as an option (python -m evar.models {model} lists its options)"
        )
    vectors, seconds = embed_files(one, paths, level)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.stem}.{os.getpid()}.part{out.suffix}")
    try:
        write_embeddings(part, paths, vectors, level, seconds)
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    shape = " x ".join(map(str, np.concatenate(vectors).shape))
    say(f"{out}: {len(paths)} files, {shape}")


def _files(places: tuple[str, ...]) -> list[Path]:
    for place in places:
        if not Path(place).exists():
            raise UserError(f"there is no file or folder {place}")
    paths = list_audio(places)
    if not paths:
        raise UserError(f"no audio in {', '.join(places)} (looked for {', '.join(AUDIO_SUFFIXES[:3])})")
    broken: dict[Path, str] = {}
    for path in paths:
        try:
            read_header(path)
        except BadAudio as error:
            broken[path] = str(error)
    if broken:
        raise broken_files(broken, len(paths), "replace them or take them out")
    return paths


def embed_files(model: Model, paths: Sequence[Path], level: Level) -> tuple[list[NDArray[np.float32]], float]:
    """Return ``(an array [rows, D] per file, seconds per frame or 0)``; files are heard whole, one at a time."""
    adapter: Any = model.adapter
    vectors: list[NDArray[np.float32]] = []
    seconds = 0.0
    for path in track(paths, "embedding", len(paths), "file"):
        try:
            samples = torch.from_numpy(decode(path, adapter.sample_rate)).to(adapter.device)[None]
        except BadAudio as error:
            raise broken_files({path: str(error)}, len(paths), "replace it or take it out") from None
        lengths = torch.tensor([samples.shape[1]], device=samples.device)
        with torch.inference_mode():
            if level == "frame":
                frames, seconds = adapter.embed_frames(samples, lengths)
                vectors.append(frames[0].float().cpu().numpy())
            else:
                function = adapter.embed_audio if level == "joint" else adapter.embed
                vectors.append(function(samples, lengths).float().cpu().numpy())
    return vectors, float(seconds)


def write_embeddings(
    path: Path, files: Sequence[Path], vectors: Sequence[NDArray[np.float32]], level: Level, seconds: float
) -> None:
    """Write the embeddings as .npz or .parquet, by the suffix of ``path``."""
    rows = np.concatenate(vectors)
    starts = np.cumsum([0, *(len(v) for v in vectors)])
    if path.suffix == ".npz":
        arrays: dict[str, Any] = {"files": np.array([str(f) for f in files]), "embeddings": rows}
        if level == "frame":
            arrays |= {"starts": starts, "seconds_per_frame": np.float64(seconds)}
        np.savez_compressed(path, **arrays)
        return
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            "a .parquet file needs pyarrow: pip install 'evar-harness[parquet]'; or write an .npz"
        ) from None
    names = [str(f) for f, v in zip(files, vectors, strict=True) for _ in range(len(v))]
    columns: dict[str, Any] = {"file": names}
    if level == "frame":
        columns["seconds"] = np.concatenate([np.arange(len(v)) * seconds for v in vectors])
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
    parquet.write_table(pa.table(columns), path)


if __name__ == "__main__":
    main(embed, extra=options_of_models)
