"""Batches for training: the right windows, drawn by content, seed and epoch; the same whatever threads and source."""

import shutil
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import RATE, fold_rows, noise, tiny_folder, tiny_task, write_audio, write_table
from scipy.stats import kstest

from evar import feed as feed_module
from evar.audio import pack_source
from evar.audio.decode import decode
from evar.audio.log_mel import LogMel, MelSpec
from evar.audio.windows import cut, random_position
from evar.clips import open_task
from evar.errors import UserError
from evar.feed import Feed, epoch_positions, open_feed, pack_task

UNIT = 4000  # half a second


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Twelve clips of 0.1 to 1.2 seconds; the task's unit is 0.5 s."""
    folder, rows = tmp_path_factory.mktemp("task"), fold_rows(12)
    write_table(folder, rows)
    for n, row in enumerate(rows):
        write_audio(folder / row["file"], noise(n, 0.1 * (n + 1)))
    return open_task(tiny_task(counts={1: 6, 2: 6}, unit_seconds=0.5), data=folder)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def feed(clips, cache):
    return open_feed(clips, RATE, seed=5, cache=cache, workers=2)


BATCHES = [[11, 0, 3], [7, 8, 9], [10]]


def plain_batch(clips, numbers, seed, epoch, window="random", padding="zeros"):
    """The slow twin: decode, draw, cut, one clip after the other."""
    rows = []
    for n in numbers:
        when = clips.identities[n].digest + epoch.to_bytes(8, "little")
        position = random_position(when, seed) if window == "random" else 0.0
        rows.append(cut(decode(clips.paths[n], RATE), UNIT, position, padding)[0])
    return np.stack(rows)


@pytest.mark.parametrize("window", ["random", "front"])
@pytest.mark.parametrize("epoch", [0, 3])
def test_batches_equal_the_plain_loop(clips, feed, window, epoch):
    found = list(feed.epoch(BATCHES, epoch, window))
    assert [batch.rows.tolist() for batch in found] == BATCHES
    for batch in found:
        assert (batch.inputs.dtype, batch.lengths.dtype) == (torch.float32, torch.int64)
        # 16-bit files at their own rate: stored exactly
        np.testing.assert_array_equal(batch.inputs.numpy(), plain_batch(clips, batch.rows, 5, epoch, window))
        assert batch.lengths.tolist() == [min(800 * (n + 1), UNIT) for n in batch.rows]


def test_order_threads_and_resuming_do_not_matter(clips, feed):
    whole = feed.read(range(12), 2).inputs
    for workers, batches in ((1, BATCHES), (4, [[n] for n in range(12)]), (3, BATCHES[1:]), (2, [[10, 11], [9, 0]])):
        for batch in replace(feed, workers=workers).epoch(batches, 2):
            for n, row in zip(batch.rows.tolist(), batch.inputs, strict=True):
                torch.testing.assert_close(row, whole[n], rtol=0, atol=0)


def test_a_long_clip_has_a_new_window_in_every_epoch_and_another_with_another_seed(feed):
    long = [feed.read([11], epoch).inputs for epoch in range(4)] + [replace(feed, seed=6).read([11], 0).inputs]
    assert len({tuple(wave[0, :50].tolist()) for wave in long}) == 5
    torch.testing.assert_close(feed.read([11], 1).inputs, long[1], rtol=0, atol=0)
    short = [feed.read([2], epoch).inputs for epoch in range(2)]
    torch.testing.assert_close(short[0], short[1], rtol=0, atol=0)


def test_windows_start_uniformly_over_clips_and_over_epochs():
    digests = [n.to_bytes(16, "big") for n in range(4000)]
    over_clips = epoch_positions(digests, 43, 7)
    over_epochs = np.concatenate([epoch_positions(digests[:1], 43, epoch) for epoch in range(4000)])
    for drawn in (over_clips, over_epochs):
        assert kstest(drawn, "uniform").pvalue > 0.001
        assert drawn.min() >= 0 and drawn.max() < 1
    next_epoch = epoch_positions(digests, 43, 8)
    assert abs(np.corrcoef(over_clips, next_epoch)[0, 1]) < 0.06


def test_the_unit_can_be_another_than_the_tasks(clips, cache):
    assert open_feed(clips, RATE, unit_seconds=0.25, cache=cache).read([11, 0], 0).inputs.shape == (2, 2000)


def test_short_clips_are_repeated_where_the_task_says_so(clips, cache):
    repeating = replace(clips, task=replace(clips.task, padding="repeat"))
    batch = open_feed(repeating, RATE, seed=1, cache=cache).read([0, 11], 0)
    np.testing.assert_array_equal(batch.inputs.numpy(), plain_batch(clips, [0, 11], 1, 0, padding="repeat"))
    assert batch.lengths.tolist() == [UNIT, UNIT]


def test_a_second_run_does_not_decode(clips, feed, cache, monkeypatch):
    def never(path, rate):
        raise AssertionError(f"{path} is decoded again")

    monkeypatch.setattr(pack_source, "decode", never)
    again = open_feed(clips, RATE, seed=5, cache=cache)
    torch.testing.assert_close(again.read([1, 11], 0).inputs, feed.read([1, 11], 0).inputs, rtol=0, atol=0)


@pytest.mark.parametrize("rate", [RATE, 6000])
@pytest.mark.parametrize("dtype", ["int16", "float16"])
def test_without_a_pack_the_batches_are_the_same_to_the_last_bit(clips, cache, rate, dtype):
    packed = open_feed(clips, rate, dtype=dtype, cache=cache)
    direct = open_feed(clips, rate, dtype=dtype, packed=False)
    for one, other in zip(packed.epoch(BATCHES, 1), direct.epoch(BATCHES, 1), strict=True):
        torch.testing.assert_close(one.inputs, other.inputs, rtol=0, atol=0)
        torch.testing.assert_close(one.lengths, other.lengths)


def test_without_a_pack_clips_are_kept_up_to_the_budget(clips, monkeypatch):
    reads = []
    monkeypatch.setattr(pack_source, "decode", lambda path, rate: reads.append(path) or decode(path, rate))
    feed = open_feed(clips, RATE, packed=False, workers=1, budget=2 * 800 * (1 + 2 + 3) + 100)
    for _ in range(3):
        list(feed.epoch([[0, 1], [2, 3]], 0))
    assert [reads.count(clips.paths[n]) for n in range(4)] == [1, 1, 1, 3]


def test_without_a_pack_a_broken_file_is_named(clips, tmp_path):
    paths = [*clips.paths[:1], tmp_path / "bad.wav", *clips.paths[2:]]
    paths[1].write_text("no audio")
    feed = open_feed(replace(clips, paths=paths), RATE, packed=False)
    assert len(list(feed.epoch([[0, 2]], 0))) == 1
    with pytest.raises(UserError, match=r"bad.wav: cannot be decoded"):
        list(feed.epoch([*BATCHES[:1], [1]], 0))


def test_pieces_of_a_recording_are_clips_of_their_own(tmp_path):
    spans = [(0.0, 0.3), (0.3, 1.0), (0.2, 0.9)]
    rows = [
        {"file": "audio/a.wav", "label": ("low", "high")[n % 2], "fold": n % 2 + 1, "start": start, "end": end}
        for n, (start, end) in enumerate(spans)
    ]
    task = tiny_task(counts={1: 2, 2: 1}, unit_seconds=0.5)
    clips = open_task(task, data=tiny_folder(tmp_path / "data", rows, seconds=1.0))
    batch = open_feed(clips, RATE, cache=tmp_path).read([2, 0, 1], 0, "front")
    wave = decode(clips.paths[0], RATE)
    np.testing.assert_array_equal(batch.inputs[0].numpy(), wave[1600:5600])
    np.testing.assert_array_equal(batch.inputs[1].numpy(), np.pad(wave[:2400], (0, 1600)))
    np.testing.assert_array_equal(batch.inputs[2].numpy(), wave[2400:6400])
    assert batch.lengths.tolist() == [4000, 2400, 4000]


def test_a_log_mel_pack_is_fed_as_log_mel(clips, tmp_path):
    mel = MelSpec(RATE, 256, 80, 20, 50.0, 4000.0)
    pack = pack_task(clips, RATE, "float32", mel=mel, cache=tmp_path)
    digests = [identity.digest for identity in clips.identities]
    batch = Feed(pack, pack.rows(digests), digests, 50, fill=-2.0, seed=3).read([11, 0], 4)
    assert batch.inputs.shape == (2, 20, 50)
    whole = LogMel(mel)(torch.from_numpy(decode(clips.paths[11], RATE))[None])[0]  # 121 frames
    start = int(epoch_positions([digests[11]], 3, 4)[0] * (121 - 50))
    torch.testing.assert_close(batch.inputs[0], whole[:, start : start + 50])
    assert (batch.inputs[1, :, 11:] == -2.0).all()
    assert batch.lengths.tolist() == [50, 11]


def test_only_a_few_batches_are_made_ahead_and_none_after_the_consumer_stops(feed, monkeypatch):
    made, count, plain = [], threading.Lock(), feed_module.cut_batch

    def counted(*given, **options):
        with count:
            made.append(1)
        return plain(*given, **options)

    monkeypatch.setattr(feed_module, "cut_batch", counted)
    batches = replace(feed, workers=2).epoch([[n % 12] for n in range(100)], 0)
    next(batches)
    time.sleep(0.05)
    assert 1 <= len(made) <= 3
    batches.close()
    assert len(made) <= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


def test_batches_are_taken_from_the_sampler_only_as_they_are_needed(feed):
    asked = []
    batches = replace(feed, workers=1).epoch((asked.append(n) or [n % 12] for n in range(50)), 0)
    next(batches)
    assert len(asked) <= 3
    batches.close()


def test_damage_found_by_a_thread_reaches_the_consumer_as_one_line(clips, tmp_path):
    feed = open_feed(clips, RATE, cache=tmp_path)
    (shard,) = tmp_path.glob("packs/*/shard-00000.bin")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(UserError, match=rf"^{shard} is corrupt"):
        list(feed.epoch([[n] for n in range(12)], 0))


def test_too_small_a_disk_is_said_before_anything_is_decoded(clips, tmp_path, monkeypatch):
    seconds = sum(0.1 * (n + 1) for n in range(12))
    monkeypatch.setattr(pack_source, "decode", None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=int(2 * RATE * seconds) - 10))
    with pytest.raises(UserError, match=r"the pack of tiny at 8000 Hz needs 0.0 GB more, but .* EVAR_CACHE"):
        pack_task(clips, RATE, cache=tmp_path)
    monkeypatch.setattr(pack_source, "decode", decode)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=int(2 * RATE * seconds) + 10))
    assert len(pack_task(clips, RATE, cache=tmp_path)) == 12
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert len(pack_task(clips, RATE, cache=tmp_path)) == 12  # it is there


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_batches_are_the_same(feed):
    on_gpu = replace(feed, device=torch.device("cuda"))
    for one, other in zip(feed.epoch(BATCHES * 20, 0), on_gpu.epoch(BATCHES * 20, 0), strict=True):
        assert other.inputs.is_cuda and other.lengths.is_cuda
        torch.testing.assert_close(one.inputs, other.inputs.cpu(), rtol=0, atol=0)
        assert one.lengths.tolist() == other.lengths.tolist()
