"""The stem decides: a WAV that the metadata names may lie there as FLAC or OGG."""

import pytest

from evar.audio.files import find_audio, list_audio


@pytest.mark.parametrize("there", ["a.wav", "a.flac", "a.ogg", "a.WAV"])
@pytest.mark.parametrize("named", ["a.wav", "a.flac", "a"])
def test_a_file_is_found_under_any_audio_suffix(tmp_path, there, named):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / there).touch()
    assert find_audio(tmp_path, f"x/{named}") == tmp_path / "x" / there


def test_the_named_file_goes_before_others_of_its_stem(tmp_path):
    for suffix in (".wav", ".flac", ".ogg"):
        (tmp_path / f"a{suffix}").touch()
    assert find_audio(tmp_path, "a.ogg") == tmp_path / "a.ogg"


def test_a_dot_in_a_name_is_no_suffix(tmp_path):
    (tmp_path / "note.60.flac").touch()
    assert find_audio(tmp_path, "note.60") == tmp_path / "note.60.flac"
    assert find_audio(tmp_path, "note.60.wav") == tmp_path / "note.60.flac"
    assert find_audio(tmp_path, "note.wav") is None


def test_what_is_not_there_is_none(tmp_path):
    (tmp_path / "a.wav").mkdir()
    (tmp_path / "a.mp3").touch()
    assert find_audio(tmp_path, "a.wav") is None


def test_folders_are_searched_to_any_depth_and_sorted_and_files_taken_as_they_are(tmp_path):
    for name in ("b.wav", "sub/deep/a.ogg", "notes.txt", "sub/c.FLAC"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = list_audio([tmp_path, tmp_path / "notes.txt"])
    assert [str(p.relative_to(tmp_path)) for p in found] == ["b.wav", "sub/c.FLAC", "sub/deep/a.ogg", "notes.txt"]
