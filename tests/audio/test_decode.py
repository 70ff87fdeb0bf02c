"""A file becomes mono float32 samples at the rate asked for; a broken one says what is wrong with it."""

import struct

import numpy as np
import pytest
import soundfile
from helpers import noise, sine, write_audio
from hypothesis import given, settings
from hypothesis import strategies as st

from evar.audio.decode import BadAudio, decode, read_header

SUFFIXES = (".wav", ".flac", ".ogg")


def reasons(path):
    """Return what the header check and decoding say of a file (None: nothing)."""
    found = []
    for look in (read_header, lambda p: decode(p, 8000)):
        try:
            look(path)
            found.append(None)
        except BadAudio as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_lossless_files_give_the_samples_that_were_written(tmp_path, suffix):
    samples = np.round(noise(0) * 32767) / 32768  # values that 16 bits hold exactly
    path = write_audio(tmp_path / f"a{suffix}", samples)
    assert read_header(path) == (len(samples), 8000)
    decoded = decode(path, 8000)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, samples.astype(np.float32))


def test_a_vorbis_file_gives_the_sound_that_was_written(tmp_path):
    samples = sine(440)
    decoded = decode(write_audio(tmp_path / "a.ogg", samples), 8000)
    assert len(decoded) == len(samples)
    assert np.corrcoef(decoded, samples)[0, 1] > 0.99


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_channels_are_averaged(tmp_path, suffix):
    both = np.stack([sine(300), -sine(300)], axis=1)
    opposite = decode(write_audio(tmp_path / f"a{suffix}", both), 8000)
    assert np.abs(opposite).max() < 0.02
    one = decode(write_audio(tmp_path / f"b{suffix}", np.stack([sine(300), 0 * sine(300)], axis=1)), 8000)
    assert 20 * np.log10(np.abs(one).max()) == pytest.approx(20 * np.log10(0.25), abs=0.5)


@pytest.mark.parametrize("rate", [8000, 16000, 22000, 32000, 44100, 48000])
@pytest.mark.parametrize("wanted", [16000, 44100])
def test_resampling_keeps_duration_and_pitch(tmp_path, rate, wanted):
    samples = decode(write_audio(tmp_path / "a.wav", sine(1000, seconds=1.0, rate=rate), rate), wanted)
    assert samples.dtype == np.float32
    assert abs(len(samples) - wanted) <= 1
    spectrum = np.abs(np.fft.rfft(samples[:wanted] * np.hanning(len(samples[:wanted]))))
    assert spectrum.argmax() == pytest.approx(1000, abs=1)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_few_samples_are_enough(tmp_path, count):
    path = write_audio(tmp_path / "a.wav", noise(0)[:count])
    assert read_header(path).frames == count
    assert len(decode(path, 8000)) == count
    assert np.isfinite(decode(path, 48000)).all()


def test_an_empty_file(tmp_path):
    (tmp_path / "a.wav").touch()
    assert reasons(tmp_path / "a.wav")[0] == "empty file"
    assert reasons(tmp_path / "a.wav")[1].startswith("cannot be decoded (")


@pytest.mark.parametrize("content", [b"<html>404: not found</html>", b"RIFF", bytes(1000), b"OggS" + bytes(40)])
def test_a_file_that_is_no_audio(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    header, decoding = reasons(tmp_path / "a.wav")
    assert header.startswith("not readable as audio (")
    assert decoding.startswith("cannot be decoded (")
    assert "()" not in header + decoding
    assert str(tmp_path) not in header + decoding  # whoever lists the files names them


def test_a_file_without_samples(tmp_path):
    path = write_audio(tmp_path / "a.wav", np.zeros(0, dtype=np.float32))
    assert reasons(path) == ["no samples", "no samples"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(tmp_path, bad):
    samples = noise(0)
    samples[1234] = bad
    path = write_audio(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert reasons(path) == [None, "holds NaN or infinite samples"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the bytes of one good file per format; WAVEX is what many programs write for 24 bits or float."""
    folder, files = tmp_path_factory.mktemp("whole"), {}
    for name, form, subtype in (
        ("wav", "WAV", "PCM_16"),
        ("wavex", "WAVEX", "PCM_24"),
        ("flac", "FLAC", "PCM_16"),
        ("ogg", "OGG", "VORBIS"),
    ):
        path = folder / f"whole.{name}"
        soundfile.write(path, noise(0, 0.3), 8000, format=form, subtype=subtype)
        files[name] = path.read_bytes()
    return files


@pytest.fixture(scope="module")
def cut_file(tmp_path_factory):
    return tmp_path_factory.mktemp("cut") / "a.bin"


@pytest.mark.parametrize("form", ["wav", "wavex", "flac", "ogg"])
def test_a_truncated_file_is_found_by_its_header_check_wherever_it_was_cut(whole, cut_file, form):
    content = whole[form]
    cut_file.write_bytes(content)
    assert reasons(cut_file) == [None, None]

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, len(content) - 1))
    def cut_at(size):
        if form.startswith("wav") and size == len(content) - 1:
            return  # the padding byte of a chunk may be missing
        cut_file.write_bytes(content[:size])
        with pytest.raises(BadAudio, match=r"truncated|not readable"):
            read_header(cut_file)

    cut_at()
    for missing in (2, 3, 30):
        cut_file.write_bytes(content[:-missing])
        with pytest.raises(BadAudio, match=r"truncated|not readable"):
            read_header(cut_file)


def test_the_reason_tells_how_much_of_a_wav_is_there(whole, cut_file):
    content = whole["wav"]
    cut_file.write_bytes(content[:1000])
    assert reasons(cut_file)[0] == f"truncated (1000 bytes of {len(content)})"


def test_decoding_finds_a_truncated_flac_by_itself(whole, cut_file):
    cut_file.write_bytes(whole["flac"][:-100])
    assert reasons(cut_file)[1] is not None


@pytest.mark.parametrize("length", [0, 0x7FFFF024, 0xFFFFFFFF])
def test_a_stream_writers_wav_has_no_length_and_is_read(whole, cut_file, length):
    content = bytearray(whole["wav"])
    content[4:8] = struct.pack("<I", length)
    content[40:44] = struct.pack("<I", length - 36 if length > 36 else 0xFFFFFFFF)
    cut_file.write_bytes(content)
    assert read_header(cut_file).frames == 2400
    assert len(decode(cut_file, 8000)) == 2400


def test_a_flac_stream_without_a_length_is_refused(whole, cut_file):
    content = bytearray(whole["flac"])
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that hold the number of samples; 0: unknown
    content[22:26] = bytes(4)
    cut_file.write_bytes(content)
    assert reasons(cut_file) == ["its header does not tell its length; copy it with a program that writes one"] * 2


def test_a_file_that_is_gone_cannot_be_decoded(tmp_path):
    with pytest.raises(BadAudio, match="cannot be decoded"):
        decode(tmp_path / "gone.wav", 8000)
