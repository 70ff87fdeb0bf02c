"""The packed store: numbers within their bound, whole clips or none whatever is killed, damage told by its name."""

import errno
import json
import multiprocessing
import os
import pickle
import resource
import time
import zlib

import numpy as np
import pytest
import torch
from helpers import RATE, noise, write_audio
from hypothesis import given, settings
from hypothesis import strategies as st

from evar.audio import pack_read, pack_source, pack_write
from evar.audio.decode import decode
from evar.audio.loading import ClipItem
from evar.audio.log_mel import LogMel, MelSpec
from evar.audio.pack import PackSpec, open_pack, pack_clips, pack_folder
from evar.audio.pack_format import from_stored, read_records, to_stored
from evar.audio.windows import cut
from evar.errors import UserError

INT16 = PackSpec(RATE)
MEL = MelSpec(RATE, 256, 80, 20, 50.0, 4000.0)
SAMPLES = [400 * (n + 1) for n in range(8)]
SHARD = 12_000  # bytes: 6,000 samples, so that the eight clips of 400 to 3,200 samples need three shards


def key(n):
    return n.to_bytes(16, "big")


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [ClipItem(write_audio(folder / f"{n}.wav", noise(n, size / RATE))) for n, size in enumerate(SAMPLES)]


@pytest.fixture(scope="module")
def keys(items):
    return [key(n) for n in range(len(items))]


@pytest.fixture(scope="module")
def unbroken(items, keys, tmp_path_factory):
    """What a pack looks like that was written in one go: its files' bytes."""
    folder = tmp_path_factory.mktemp("unbroken")
    pack_clips(items, keys, folder, INT16, shard_bytes=SHARD, workers=1)
    return contents(folder)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


@pytest.fixture
def decoded(monkeypatch):
    """The paths that were decoded, in any order."""
    paths = []
    monkeypatch.setattr(pack_source, "decode", lambda path, rate: paths.append(path) or decode(path, rate))
    return paths


# ---- the numbers


@given(st.lists(st.floats(-1, 1 - 2**-15, width=32), min_size=1, max_size=50))
def test_int16_is_within_half_a_step(values):
    wave = np.array(values, np.float32)
    stored, lost = to_stored(wave, "int16")
    assert lost == 0
    back = from_stored(torch.from_numpy(stored)).numpy()
    assert np.abs(back.astype(float) - wave).max() <= 2.0**-16


@given(st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=50))
def test_float16_is_within_half_a_unit_of_its_last_place(values):
    wave = np.array(values, np.float32)
    back = from_stored(torch.from_numpy(to_stored(wave, "float16")[0])).numpy()
    assert (np.abs(back - wave) <= np.maximum(2.0**-11 * np.abs(wave), 2.0**-25)).all()


def test_what_is_beyond_full_scale_is_clipped_and_counted():
    wave = np.array([-1.5, -1.0, 0.0, 1 - 2**-15, 1.0, 3.0], np.float32)
    stored, lost = to_stored(wave, "int16")
    assert (stored.tolist(), lost) == ([-32768, -32768, 0, 32767, 32767, 32767], 3)
    assert to_stored(wave, "float16")[1] == 0
    assert to_stored(np.float32([1e5, -1e5]), "float16")[0].tolist() == [65504, -65504]


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_16_bit_file_that_is_not_resampled_comes_back_bit_for_bit(tmp_path, suffix):
    wave = np.random.default_rng(0).integers(-32768, 32768, 5000, np.int16)
    item = ClipItem(write_audio(tmp_path / f"a{suffix}", wave))
    pack = pack_clips([item], [key(0)], tmp_path / "pack", INT16)
    (stored,) = pack.stored(np.array([0]))
    np.testing.assert_array_equal(stored, wave)
    np.testing.assert_array_equal(pack.read(np.array([0]), 5000)[0].numpy(), decode(item.path, RATE))


def test_clipping_is_counted_per_clip_and_said_once(tmp_path, capsys):
    loud = write_audio(tmp_path / "loud.wav", np.float32([2.0, -2.0, 0.5] * 100), subtype="FLOAT")
    items = [ClipItem(write_audio(tmp_path / "calm.wav", noise(0))), ClipItem(loud)]
    for _ in range(2):
        pack = pack_clips(items, [key(0), key(1)], tmp_path / "pack", INT16)
    assert pack.lost.tolist() == [0, 200]
    assert capsys.readouterr().err.count("200 samples in 1 of 2 clips are beyond full scale") == 1


# ---- reading


@pytest.mark.parametrize(("dtype", "bound"), [("int16", 2.0**-16), ("float16", 2.0**-12)])
@pytest.mark.parametrize("padding", ["zeros", "repeat"])
@pytest.mark.parametrize("rate", [RATE, 6000])
def test_a_batch_is_what_cutting_the_decoded_waves_gives(items, keys, tmp_path, dtype, bound, padding, rate):
    pack = pack_clips(items, keys, tmp_path, PackSpec(rate, dtype), shard_bytes=SHARD)
    numbers, unit = [7, 0, 3, 3, 5], 1200
    positions = np.random.default_rng(1).random(len(numbers))
    found = pack.read(pack.rows([keys[n] for n in numbers]), unit, positions, padding)
    assert (found.dtype, found.shape) == (torch.float32, (5, unit))
    windows = [cut(decode(items[n].path, rate), unit, p, padding)[0] for n, p in zip(numbers, positions, strict=True)]
    np.testing.assert_allclose(found.numpy(), np.stack(windows), rtol=0, atol=bound)
    front = pack.read(pack.rows([keys[7]]), unit)
    np.testing.assert_allclose(front[0].numpy(), decode(items[7].path, rate)[:unit], rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_log_mel_spectrograms_are_cut_in_time(items, keys, tmp_path, dtype):
    pack = pack_clips(items, keys, tmp_path, PackSpec(RATE, dtype, mel=MEL), shard_bytes=10_000)
    frames = 20  # clips have 6, 11, … 41
    found = pack.read_log_mel(pack.rows([keys[7], keys[0]]), frames, np.array([0.5, 0.5]), fill=-3.0)
    assert (found.dtype, found.shape) == (torch.float32, (2, 20, frames))
    whole = [LogMel(MEL)(torch.from_numpy(decode(items[n].path, RATE))[None])[0] for n in (7, 0)]
    tolerance = {"float16": 2.0**-11 * 16, "float32": 1e-6}[dtype]
    torch.testing.assert_close(found[0], whole[0][:, 10:30], rtol=0, atol=tolerance)
    torch.testing.assert_close(found[1][:, :6], whole[1], rtol=0, atol=tolerance)
    assert (found[1][:, 6:] == -3.0).all()


def test_audio_and_log_mel_are_not_mistaken_for_each_other(items, keys, tmp_path):
    audio = pack_clips(items[:1], keys[:1], tmp_path / "audio", INT16)
    mel = pack_clips(items[:1], keys[:1], tmp_path / "mel", PackSpec(RATE, "float16", mel=MEL))
    with pytest.raises(TypeError, match="use read_log_mel"):
        mel.read(np.array([0]), 100)
    with pytest.raises(TypeError, match="use read"):
        audio.read_log_mel(np.array([0]), 10)


def test_pieces_of_a_file_share_its_decoding_and_equal_clips_are_stored_once(items, tmp_path, decoded):
    path = items[7].path  # 3,200 samples
    pieces = [ClipItem(path, 0.9, 0.0, 0.1), ClipItem(items[0].path), ClipItem(path, 0.0, 0.1, 0.3), ClipItem(path)]
    pack = pack_clips(pieces, [key(0), key(1), key(2), key(0)], tmp_path, INT16)
    assert sorted(decoded) == sorted([items[0].path, path])
    assert len(pack) == 3
    wave = decode(path, RATE)
    rows = pack.rows([key(2), key(0)])
    np.testing.assert_array_equal(pack.read(rows, 800).numpy(), [wave[800:1600], wave[:800]])
    assert pack.lengths[rows].tolist() == [1600, 800]


def test_no_more_than_the_asked_seconds_are_kept(items, keys, tmp_path):
    pack = pack_clips(items, keys, tmp_path, PackSpec(RATE, seconds=0.2))
    assert pack.lengths.tolist() == [min(size, 1600) for size in SAMPLES]


def test_a_pickled_pack_reads_the_same(items, keys, tmp_path):
    pack = pack_clips(items, keys, tmp_path, INT16)
    rows = np.arange(3)
    again = pickle.loads(pickle.dumps(pack))
    torch.testing.assert_close(again.read(rows, 500), pack.read(rows, 500), rtol=0, atol=0)
    assert len(pickle.dumps(pack)) < 1000  # the folder, not the clips


def test_an_empty_batch_has_no_rows(items, keys, tmp_path):
    pack = pack_clips(items, keys, tmp_path, INT16)
    assert pack.read(pack.rows([]), 500).shape == (0, 500)


# ---- writing


def test_threads_and_another_run_give_the_same_bytes(items, keys, tmp_path, unbroken):
    for _ in range(2):
        pack_clips(items, keys, tmp_path, INT16, shard_bytes=SHARD, workers=4)
    assert contents(tmp_path) == unbroken


def test_a_clip_lies_in_one_shard_and_a_shard_grows_no_larger_than_asked(items, keys, tmp_path):
    pack = pack_clips(items, keys, tmp_path, INT16, shard_bytes=SHARD)
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("shard-*.bin"))]
    assert sizes == [12_000, 10_400, 6_400]  # 5, 2 and 1 clips
    assert pack.lengths.tolist() == SAMPLES
    pack_clips(items[:4], keys[:4], tmp_path / "tiny", INT16, shard_bytes=1000).verify()
    sizes = [path.stat().st_size for path in sorted((tmp_path / "tiny").glob("shard-*.bin"))]
    assert sizes == [800, 1600, 2400, 3200]  # a clip larger than a shard has one of its own


def test_the_description_has_each_shards_own_checksum(unbroken):
    about = json.loads(unbroken["pack.json"])
    assert [shard["file"] for shard in about["shards"]] == sorted(n for n in unbroken if n.startswith("shard"))
    for shard in about["shards"]:
        data = unbroken[shard["file"]]
        assert (len(data), zlib.crc32(data)) == (shard["bytes"], shard["crc32"])
    assert about["clips"] == len(SAMPLES)
    assert about["facts"]["sample_rate"] == RATE
    assert about["facts"]["resampler"] == "soxr-HQ"


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_a_kill_leaves_the_next_run_ends_as_an_unbroken_one(items, keys, unbroken, data, tmp_path_factory):
    """Samples reach the disk before their records: any cut of the two tails is what a kill can leave, and more."""
    folder = tmp_path_factory.mktemp("killed")
    records = data.draw(st.integers(0, len(unbroken["clips.index"])))
    shards = sorted(name for name in unbroken if name.startswith("shard"))
    last = data.draw(st.integers(0, len(shards) - 1))
    tail = data.draw(st.integers(0, len(unbroken[shards[last]])))
    (folder / "clips.index").write_bytes(unbroken["clips.index"][:records])
    for number, name in enumerate(shards[: last + 1]):
        (folder / name).write_bytes(unbroken[name] if number < last else unbroken[name][:tail])
    about = json.loads(unbroken["pack.json"])
    (folder / "pack.json").write_text(json.dumps(about | {"complete": False}))
    pack = pack_clips(items, keys, folder, INT16, shard_bytes=SHARD)
    pack.verify()
    assert contents(folder) == unbroken


def test_a_resumed_run_decodes_only_what_is_missing(items, keys, tmp_path, monkeypatch, unbroken, decoded):
    def interrupted(path, rate):
        if path == items[5].path:
            raise KeyboardInterrupt
        return decode(path, rate)

    with monkeypatch.context() as patch:
        patch.setattr(pack_source, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pack_clips(items, keys, tmp_path, INT16, shard_bytes=SHARD, workers=1)
    with pytest.raises(UserError, match="is not finished; make the pack again"):
        open_pack(tmp_path)
    pack_clips(items, keys, tmp_path, INT16, shard_bytes=SHARD, workers=1)
    assert decoded[-3:] == [item.path for item in items[5:]]
    assert decoded.count(items[0].path) == 0  # nor any other that the interrupted run had stored
    assert contents(tmp_path) == unbroken


def test_samples_are_on_disk_before_their_records(items, keys, tmp_path, monkeypatch):
    order, fsync = [], os.fsync
    monkeypatch.setattr(
        pack_write.os, "fsync", lambda n: order.append(os.readlink(f"/proc/self/fd/{n}").rpartition("/")[2]) or fsync(n)
    )
    pack_clips(items[:2], keys[:2], tmp_path, INT16)
    written = [name for name in order if not name.startswith(".pack.json")]
    assert written == ["shard-00000.bin", "clips.index"]
    assert order[-1].startswith(".pack.json")  # complete is said last


def test_only_a_few_files_are_decoded_ahead(items, keys, tmp_path, decoded, monkeypatch):
    most, written = [0], [0]
    append = pack_write.PackWriter.append

    def slow(writer, *clip):
        time.sleep(0.02)
        most[0] = max(most[0], len(decoded) - written[0])
        written[0] += 1
        append(writer, *clip)

    monkeypatch.setattr(pack_write.PackWriter, "append", slow)
    pack_clips(items, keys, tmp_path, INT16, workers=1)
    assert most[0] <= 3


@pytest.mark.parametrize("call", range(1, 9))
def test_a_full_disk_leaves_what_was_complete(items, keys, tmp_path, monkeypatch, unbroken, decoded, call):
    """The disk is full when the description, a shard or the index is to be written, the first or the last time."""
    fsync, calls = os.fsync, []

    def full(number):
        calls.append(number)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(number)

    monkeypatch.setattr(pack_write.os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device") as caught:
        pack_clips(items, keys, tmp_path, INT16, shard_bytes=SHARD, workers=1)
    assert str(tmp_path) in str(caught.value) and "goes on from there" in str(caught.value)
    kept = len(read_records(tmp_path))
    assert kept == [0, 0, 5, 5, 7, 7, 8, 8][call - 1]
    decoded.clear()
    pack_clips(items, keys, tmp_path, INT16, shard_bytes=SHARD, workers=1)
    assert len(decoded) == len(items) - kept
    assert contents(tmp_path) == unbroken


def test_a_half_written_shard_is_cut_and_gone_on_with(items, keys, tmp_path, monkeypatch, unbroken):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(pack_write, "_FLUSH_BYTES", 1)  # each clip on its own
    resource.setrlimit(resource.RLIMIT_FSIZE, (7000, limits[1]))  # the system refuses what goes beyond
    try:
        with pytest.raises(UserError, match="cannot write the pack"):
            pack_clips(items, keys, tmp_path, INT16, shard_bytes=SHARD, workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "shard-00000.bin").stat().st_size == 7000
    assert len(read_records(tmp_path)) == 3  # 800 + 1600 + 2400 bytes
    pack_clips(items, keys, tmp_path, INT16, shard_bytes=SHARD, workers=1)
    assert contents(tmp_path) == unbroken


def pack_slowly(items, keys, folder, started):
    plain = pack_write.PackWriter.append

    def append(writer, *clip):
        started.set()
        time.sleep(0.01)
        plain(writer, *clip)

    pack_write.PackWriter.append = append
    pack_clips(items, keys, folder, INT16, shard_bytes=SHARD, workers=1)


def test_two_processes_at_once_make_one_pack(items, keys, tmp_path, unbroken, capfd):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    other = context.Process(target=pack_slowly, args=(items, keys, tmp_path, started))
    other.start()
    assert started.wait(30)
    pack_clips(items, keys, tmp_path, INT16, shard_bytes=SHARD)
    other.join(30)
    assert other.exitcode == 0
    assert contents(tmp_path) == unbroken
    assert "another process is packing the same clips" in capfd.readouterr().err


# ---- damage and mistakes


@pytest.fixture
def small(items, keys, tmp_path):
    pack_clips(items, keys, tmp_path, INT16, shard_bytes=SHARD)
    return tmp_path


@pytest.mark.parametrize(
    ("size", "state", "lost"),
    [
        (None, "missing", 2),
        (5000, "truncated (5000 bytes of 10400)", 1),
        (10_401, "too long (10401 bytes of 10400)", 0),
    ],
)
def test_a_shard_of_another_size_is_named_and_only_it_is_decoded_again(small, items, keys, decoded, size, state, lost):
    shard = small / "shard-00001.bin"
    shard.unlink() if size is None else os.truncate(shard, size)
    with pytest.raises(UserError) as caught:
        open_pack(small)
    assert str(caught.value).startswith(f"{shard} is {state}; make the pack again")
    pack = pack_clips(items, keys, small, INT16, shard_bytes=SHARD)
    assert decoded == [item.path for item in items[5:7]][2 - lost :]
    pack.verify()
    for n, item in enumerate(items):
        np.testing.assert_array_equal(pack.read(pack.rows([key(n)]), SAMPLES[n])[0].numpy(), decode(item.path, RATE))


def test_a_corrupt_shard_is_found_at_the_first_reading_and_mended_by_deleting_it(small, items, keys, decoded):
    shard = small / "shard-00002.bin"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    pack = open_pack(small)
    good = pack.rows([keys[0], keys[6]])
    assert pack.read(good, 400).shape == (2, 400)
    with pytest.raises(UserError, match=rf"^{shard} is corrupt .* delete it and make the pack again") as caught:
        pack.read(np.arange(len(pack)), 400)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"shard-00002.bin is corrupt"):
        pack.verify()
    shard.unlink()
    pack_clips(items, keys, small, INT16, shard_bytes=SHARD).verify()
    assert decoded == [items[7].path]


def test_a_checksum_is_computed_once_per_clip(small, monkeypatch):
    pack, computed, crc32 = open_pack(small), [], zlib.crc32
    monkeypatch.setattr(pack_read.zlib, "crc32", lambda data, before: computed.append(1) or crc32(data, before))
    for rows in ([0, 1], [1, 0], [1, 2]):
        pack.read(np.array(rows), 400)
    assert len(computed) == 3


def test_a_corrupt_index_is_not_trusted(small, items, keys):
    data = bytearray((small / "clips.index").read_bytes())
    data[20] ^= 1
    (small / "clips.index").write_bytes(data)
    for act in (lambda: open_pack(small), lambda: pack_clips(items, keys, small, INT16)):
        with pytest.raises(UserError, match=r"clips.index is corrupt: delete .* and make the pack again"):
            act()


def test_what_is_no_pack_or_another_one_is_said(small, items, keys, tmp_path):
    with pytest.raises(UserError, match=r"there is no pack at .*nowhere; make it with"):
        open_pack(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has a pack of other clips or settings: choose another folder"):
        pack_clips(items[:2], keys[:2], small, INT16)
    about = json.loads((small / "pack.json").read_text())
    about["facts"]["format"] = 99
    (small / "pack.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="pack of format 99, this program reads 1"):
        open_pack(small)
    (small / "pack.json").write_text("{")
    with pytest.raises(UserError, match=r"pack.json cannot be read: delete"):
        open_pack(small)
    with pytest.raises(UserError, match="no clips to pack"):
        pack_clips([], [], tmp_path / "empty", INT16)


def test_broken_files_are_told_when_all_others_are_stored(items, keys, tmp_path, decoded):
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    mixed, names = [items[0], ClipItem(bad), items[1]], [key(0), key(99), key(1)]
    with pytest.raises(UserError, match=r"1 of 3 audio files cannot be used.*\n.*bad.wav"):
        pack_clips(mixed, names, tmp_path / "pack", INT16)
    decoded.clear()
    pack = pack_clips(mixed, names, tmp_path / "pack", INT16, skip_broken=True)
    assert decoded == [bad]
    assert pack.left_out == [key(99).hex()]
    assert pack.lengths[pack.rows([key(1), key(0)])].tolist() == SAMPLES[1::-1]
    with pytest.raises(UserError, match="lacks 1 of 2 clips; 1 could not be decoded"):
        pack.rows([key(0), key(99)])
    with pytest.raises(UserError, match="1 of 1 audio files"):
        pack_clips([ClipItem(bad)], [key(99)], tmp_path / "none", INT16, skip_broken=True)


def test_a_pack_lies_where_its_clips_and_settings_say(tmp_path):
    folder = pack_folder(INT16, [key(1), key(2)], tmp_path)
    assert folder.parent == tmp_path / "packs"
    assert folder == pack_folder(INT16, [key(2), key(1), key(2)], tmp_path)
    others = [
        pack_folder(INT16, [key(1)], tmp_path),
        *(pack_folder(spec, [key(1), key(2)], tmp_path) for spec in (PackSpec(16000), PackSpec(RATE, "float16"))),
        pack_folder(PackSpec(RATE, seconds=1.0), [key(1), key(2)], tmp_path),
        pack_folder(PackSpec(RATE, "float16", mel=MEL), [key(1), key(2)], tmp_path),
    ]
    assert len({folder, *others}) == 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PackSpec(RATE, "float32"), "a pack of audio is stored as int16 or float16, not as float32"),
        (lambda: PackSpec(RATE, mel=MEL), "a pack of log_mel is stored as float16 or float32, not as int16"),
        (lambda: PackSpec(16000, "float16", mel=MEL), "the log-mel is made at 8000 Hz, the pack is to be at 16000"),
        (lambda: PackSpec(0), "positive rate"),
        (lambda: PackSpec(RATE, seconds=0.0), "positive rate and length"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
