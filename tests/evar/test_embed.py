"""Embeddings of a user's own files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import noise, write_audio

from evar.embed import embed
from evar.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_audio(tmp_path / "in" / "a.wav", noise(0, 1.0))
    write_audio(tmp_path / "in" / "deep" / "b.flac", noise(1, 2.5, 44100), 44100)
    return tmp_path / "in"


def test_clip_embeddings_of_a_folder(folder: Path, tmp_path: Path) -> None:
    embed("log_mel_stats", (str(folder),), out=tmp_path / "x.npz", device="cpu")
    with np.load(tmp_path / "x.npz") as stored:
        assert [Path(name).name for name in stored["files"]] == ["a.wav", "b.flac"]
        assert stored["embeddings"].shape == (2, 160)
        assert np.isfinite(stored["embeddings"]).all()


def test_frame_embeddings_know_where_a_file_begins(folder: Path, tmp_path: Path) -> None:
    options = {"depth": "1", "embed_dim": "64"}
    embed("m2d", (str(folder),), out=tmp_path / "x.npz", level="frame", weights="random", device="cpu", **options)
    with np.load(tmp_path / "x.npz") as stored:
        starts = stored["starts"]
        assert starts[0] == 0 and starts[-1] == len(stored["embeddings"])
        lengths = np.diff(starts) * float(stored["seconds_per_frame"])
        assert lengths[1] > 1.5 * lengths[0]


def test_parquet_has_a_row_per_clip(folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    embed("log_mel_stats", (str(folder),), out=tmp_path / "x.parquet", device="cpu")
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table.column_names == ["file", "embedding"]
    assert len(table["embedding"][0].as_py()) == 160


@pytest.mark.parametrize(
    ("files", "out", "level", "says"),
    [
        (("nowhere",), "x.npz", "clip", "no file or folder nowhere"),
        (("IN",), "x.txt", "clip", "must end in .npz or .parquet"),
        (("IN",), "x.npz", "joint", "no joint space"),
        (("EMPTY",), "x.npz", "clip", "no audio in"),
    ],
)
def test_mistakes_are_one_line(files, out: str, level, says: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    places = tuple({"IN": str(folder), "EMPTY": str(tmp_path / "empty")}.get(name, name) for name in files)
    with pytest.raises(UserError, match=says):
        embed("log_mel_stats", places, out=tmp_path / out, level=level, device="cpu")
    assert not (tmp_path / out).exists()


def test_broken_files_are_named_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    (folder / "c.wav").write_bytes(b"")
    (folder / "d.ogg").write_text("not audio")
    with pytest.raises(UserError, match=r"2 of 4.*\n.*c\.wav: empty file\n.*d\.ogg"):
        embed("log_mel_stats", (str(folder),), out=tmp_path / "x.npz", device="cpu")
    assert not (tmp_path / "x.npz").exists()
