"""What a file is: remembered as long as path, size and time of change are the same."""

import os
import shutil

import pytest
from helpers import noise, write_audio

from evar.audio import identity
from evar.audio.identity import Identity, identify


@pytest.fixture
def looks(monkeypatch):
    """Return the list of files that were really read."""
    seen, look = [], identity._look
    monkeypatch.setattr(identity, "_look", lambda path: seen.append(path.name) or look(path))
    return seen


def test_an_identity_is_content_length_and_rate(tmp_path):
    path = write_audio(tmp_path / "a.wav", noise(0))
    twin = shutil.copy(path, tmp_path / "twin.wav")
    other = write_audio(tmp_path / "b.wav", noise(1, rate=16000), 16000)
    (one, two, three), broken = identify([path, twin, other], tmp_path / "cache")
    assert (one.frames, one.sample_rate, len(one.digest)) == (4000, 8000, 16)
    assert two == one
    assert (three.frames, three.sample_rate) == (8000, 16000)
    assert three.digest != one.digest
    assert broken == {}


def test_a_known_file_is_not_read_again(tmp_path, looks):
    paths = [write_audio(tmp_path / "x" / f"{n}.wav", noise(n)) for n in range(3)]
    first, _ = identify(paths, tmp_path / "cache")
    assert sorted(looks) == ["0.wav", "1.wav", "2.wav"]
    again, _ = identify(paths, tmp_path / "cache")
    assert again == first
    assert len(looks) == 3


def test_a_changed_file_is_read_again(tmp_path, looks):
    path = write_audio(tmp_path / "a.wav", noise(0))
    (before,), _ = identify([path], tmp_path / "cache")
    write_audio(path, noise(1))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    (after,), _ = identify([path], tmp_path / "cache")
    assert after.digest != before.digest
    assert len(looks) == 2


def test_broken_files_are_told_and_not_remembered(tmp_path, looks):
    good = write_audio(tmp_path / "good.wav", noise(0))
    empty, gone, folder = tmp_path / "empty.wav", tmp_path / "gone.wav", tmp_path / "folder.wav"
    empty.touch()
    folder.mkdir()
    for _ in range(2):
        found, broken = identify([gone, good, empty, folder], tmp_path / "cache")
        assert [i is not None for i in found] == [False, True, False, False]
        assert broken[empty] == "empty file"
        assert broken[gone] == "No such file or directory"
        assert set(broken) == {empty, gone, folder}
    assert looks.count("good.wav") == 1
    write_audio(empty, noise(2))
    assert isinstance(identify([empty], tmp_path / "cache")[0][0], Identity)


def test_without_a_usable_memory_everything_is_read(tmp_path):
    path = write_audio(tmp_path / "a.wav", noise(0))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "files.sqlite").write_text("this is no database, it only has the name of one" * 50)
    (tmp_path / "file").touch()
    for cache in (tmp_path / "cache", tmp_path / "file"):
        (found,), broken = identify([path], cache)
        assert (found.frames, broken) == (4000, {})
