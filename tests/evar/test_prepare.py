"""Preparing data sets: download, unpack, verify, and say what is wrong or what to do."""

from __future__ import annotations

import hashlib
import shutil
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from commands import evar
from golden import needs_shared, shared
from helpers import ROWS, tiny_folder, tiny_task

from evar.clips import open_task
from evar.errors import UserError
from evar.prepare import crossing_groups, describe, identical_across_parts, obtain
from tasks.base import Archive


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A folder served on this machine's loopback address."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()


def test_a_data_set_is_downloaded_unpacked_and_verified(tmp_path: Path, served: tuple[str, Path]) -> None:
    url, folder = served
    source = tiny_folder(tmp_path / "source")
    with zipfile.ZipFile(folder / "tiny.zip", "w") as archive:
        for path in sorted(source.rglob("*")):
            archive.write(path, Path("tiny-master") / path.relative_to(source))
    digest = hashlib.sha256((folder / "tiny.zip").read_bytes()).hexdigest()
    task = tiny_task(archives=(Archive(f"{url}/tiny.zip", "tiny.zip", f"sha256:{digest}"),), top_folder="tiny-master")
    obtain(task, tmp_path / "root" / "tiny")
    clips = open_task(task, tmp_path / "root")
    assert len(clips) == 4
    assert clips.folder.name == "tiny-master"
    assert "split train 2/2, split valid 1/1, split test 1/1" in describe(clips)[1]


def test_where_nothing_may_be_downloaded_the_steps_are_named(tmp_path: Path) -> None:
    task = tiny_task(manual="Ask the authors for it.")
    with pytest.raises(UserError, match="by hand: Ask the authors for it"):
        obtain(task, tmp_path / "tiny")


def test_groups_and_identical_files_that_cross_parts_are_reported(tmp_path: Path) -> None:
    rows = [{**row, "group": speaker} for row, speaker in zip(ROWS, "xyxz", strict=True)]
    folder = tiny_folder(tmp_path / "tiny", rows)
    shutil.copy(folder / "audio" / "a.wav", folder / "audio" / "d.wav")
    clips = open_task(tiny_task(group_is="speaker"), data=folder)
    assert crossing_groups(clips) == ["x"]
    assert identical_across_parts(clips) == [("audio/a.wav", "audio/d.wav")]
    text = "\n".join(describe(clips))
    assert "1 of 3 (speaker) stand in more than one split, NOT declared" in text
    declared = open_task(tiny_task(group_is="speaker", groups_cross=True), data=folder)
    assert "as declared by the official split" in "\n".join(describe(declared))


def test_the_command_makes_and_verifies_a_pocket_task(tmp_path: Path, pocket_data: Path) -> None:
    done = evar("prepare", "pocket_pitch", cache=tmp_path, data=pocket_data)
    assert done.returncode == 0, done.stderr
    assert "none crosses a split" in done.stdout


@needs_shared
def test_real_esc50_is_verified_and_an_incomplete_copy_is_refused_with_the_counts(tmp_path: Path) -> None:
    folder = shared()
    assert folder is not None
    done = evar("prepare", "esc50", f"--root={folder / 'data'}", cache=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fold 5 400/400" in done.stdout
    # A few Freesound recordings do stand in two folds of the official table; the task declares it.
    assert "as declared by the official split" in done.stdout
    part = tmp_path / "part"
    (part / "audio").mkdir(parents=True)
    shutil.copytree(folder / "data" / "esc50" / "meta", part / "meta")
    for path in sorted((folder / "data" / "esc50" / "audio").iterdir())[:20]:
        shutil.copy(path, part / "audio")
    refused = evar("lineareval", "log_mel_stats", "esc50", f"--data={part}", cache=tmp_path)
    assert refused.returncode == 2
    assert "fold 1 has 20 of 400 clips" in refused.stderr and "--incomplete" in refused.stderr
