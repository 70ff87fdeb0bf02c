"""The feed of pre-training: right crops at the right places, whatever threads and ranks; statistics; noise."""

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden import needs_shared, shared
from helpers import write_audio
from pretrain_corpora import RATE, SETTINGS, whole_log_mel, write_corpus
from scipy.stats import chisquare

from evar.audio.log_mel import FLOAT32_EPS
from evar.errors import UserError
from evar.pretrain import stats as stats_module
from evar.pretrain.corpus import corpus, open_corpus
from evar.pretrain.crops import Cropper
from evar.pretrain.feed import PretrainFeed, crop_positions, epoch_batches, split_items
from evar.pretrain.noise import mix_noise, noise_order
from evar.pretrain.stats import norm_stats_of

STATS = (-7.0, 4.0)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVAR_CACHE", str(tmp_path_factory.mktemp("cache")))
        return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A corpus of background noise: three clips, the last shorter than a crop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVAR_CACHE", str(tmp_path_factory.mktemp("cache")))
        return write_corpus(tmp_path_factory.mktemp("quiet"), "quiet", (0.9, 1.2, 0.2))


def fed(found, epoch=0, settings=SETTINGS, first=0, **options):
    batches = list(epoch_batches(len(found), settings, epoch, first=first))
    return batches, list(PretrainFeed(found, settings, STATS, **options).epoch(batches, epoch))


def slow_crop(found, clip, time, epoch, settings=SETTINGS):
    """The obvious twin: the whole log-mel, cut at the place that is drawn, standardised."""
    full = whole_log_mel(found, clip, settings.min_seconds)
    offsets = full.shape[1] - 48 + 1
    (place,) = crop_positions([found.digests[clip]], np.array([time]), settings.seed, epoch)
    first = int(place * max(offsets, 1))
    raw = full[:, first : first + 48]
    return (torch.nn.functional.pad(raw, (0, 48 - raw.shape[1])) - STATS[0]) / STATS[1]


@pytest.mark.parametrize("epoch", [0, 3])
def test_batches_equal_the_plain_loop(found, epoch):
    batches, made = fed(found, epoch)
    assert len(made) == 6  # 8 clips, three times over, in fours
    for batch, own in zip(batches, made, strict=True):
        clips, times = split_items(batch.mine, len(found))
        assert own.clips.tolist() == clips.tolist()
        assert (own.log_mel.shape, own.log_mel.dtype) == ((4, 1, 80, 48), torch.float32)
        assert own.log_mel.is_contiguous() and own.noisy is None and own.text is None
        for row, clip, time_ in zip(own.log_mel, clips.tolist(), times.tolist(), strict=True):
            torch.testing.assert_close(row[0], slow_crop(found, clip, time_, epoch), rtol=0, atol=2e-5)


def test_threads_batches_and_resuming_do_not_matter(found):
    _, whole = fed(found, 1, workers=1)
    for options in ({"workers": 4}, {"workers": 2, "first": 3}, {}):
        _, again = fed(found, 1, **options)
        for one, other in zip(whole[options.get("first", 0) :], again, strict=True):
            assert torch.equal(one.log_mel, other.log_mel)  # to the last bit
            assert torch.equal(one.labels, other.labels)


def test_ranks_get_the_rows_of_one_process(found):
    _, alone = fed(found)
    feed = PretrainFeed(found, SETTINGS, STATS)
    shares = [list(feed.epoch(epoch_batches(8, SETTINGS, 0, rank, 3), 0)) for rank in range(3)]
    for batch, *parts in zip(alone, *shares, strict=True):
        rows = torch.cat([part.log_mel for part in parts])
        torch.testing.assert_close(rows, batch.log_mel, rtol=0, atol=1e-6)


def test_labels_are_multi_hot_where_there_are_any(found):
    _, made = fed(found)
    for batch in made:
        assert batch.labels.dtype == torch.float32
        assert batch.labels.tolist() == [[1.0 - n % 2, float(n % 2)] for n in batch.clips.tolist()]
    assert fed(found, labels=False)[1][0].labels is None
    bare = replace(found, labels=None, classes=())
    assert fed(bare)[1][0].labels is None
    with pytest.raises(UserError, match="has no labels, which this objective learns from"):
        PretrainFeed(bare, SETTINGS, STATS, labels=True)


def test_crops_lie_everywhere_alike():
    digests = [n.to_bytes(16, "big") for n in range(6000)]
    none = np.zeros(6000, np.int64)
    over_clips = crop_positions(digests, none, 7, 3)
    over_times = crop_positions(digests[:1] * 6000, np.arange(6000), 7, 3)
    over_epochs = np.concatenate([crop_positions(digests[:1], none[:1], 7, epoch) for epoch in range(6000)])
    for drawn in (over_clips, over_times, over_epochs):
        counts = np.bincount((drawn * 61).astype(int), minlength=61)  # 61 offsets: 10 s of noise, a crop of 6.08 s …
        assert chisquare(counts).pvalue > 0.001 and len(counts) == 61
    assert abs(np.corrcoef(over_clips, crop_positions(digests, none, 7, 3, "noise"))[0, 1]) < 0.05
    assert abs(np.corrcoef(over_clips, crop_positions(digests, none + 1, 7, 3))[0, 1]) < 0.05
    assert (crop_positions(digests, none, 8, 3) != over_clips).all()


def test_only_a_few_batches_are_made_ahead_and_none_after_the_consumer_stops(found):
    made, count = [], threading.Lock()
    feed = PretrainFeed(found, SETTINGS, STATS, workers=2)
    plain = feed._make

    def counted(*given):
        with count:
            made.append(1)
        return plain(*given)

    feed._make = counted
    batches = feed.epoch([*epoch_batches(8, SETTINGS, 0)] * 20, 0)
    next(batches)
    time.sleep(0.05)
    assert 1 <= len(made) <= 4
    batches.close()
    assert len(made) <= 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


def test_a_damaged_shard_is_one_line(found, tmp_path):
    own = write_corpus(tmp_path)
    shard = own.folder / "pack" / "shard-00000.bin"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    with pytest.raises(UserError, match=rf"^{shard} is corrupt"):
        fed(open_corpus(own.folder))


# --- statistics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [3, 50])
def test_statistics_are_of_one_crop_of_each_clip(found, monkeypatch, together):
    monkeypatch.setattr(stats_module, "_BATCH", together)
    mean, deviation = stats_module.compute_stats(found, SETTINGS)
    values = []
    for n in range(8):
        full = whole_log_mel(found, n, SETTINGS.min_seconds)
        drawn = stats_module.epoch_positions([found.digests[n]], 0, 0)[0]
        first = int(drawn * max(full.shape[1] - 47, 1))
        values.append(torch.nn.functional.pad(full[:, first : first + 48], (0, max(0, 48 - full.shape[1]))))
    every = torch.stack(values).double()
    assert mean == pytest.approx(every.mean().item(), rel=1e-6)
    assert deviation == pytest.approx(every.std(unbiased=True).item(), rel=1e-6)


def test_statistics_are_computed_once_per_geometry(tmp_path, monkeypatch):
    own = write_corpus(tmp_path)
    asked, plain = [], stats_module.compute_stats
    monkeypatch.setattr(stats_module, "compute_stats", lambda *given: asked.append(given) or plain(*given))
    first = norm_stats_of(own, SETTINGS)
    assert norm_stats_of(open_corpus(own.folder), replace(SETTINGS, base_lr=1.0)) == first and len(asked) == 1
    for other in ({"input_size": (80, 32)}, {"min_seconds": 1.0}, {"short_clips": "silence"}, {"input_size": (64, 48)}):
        norm_stats_of(own, replace(SETTINGS, **other))
    assert len(asked) == 5
    (path,) = own.folder.glob("norm_stats-80x32-*.json")
    assert json.loads(path.read_text())["corpus"] == own.fingerprint
    path.write_text("{")
    norm_stats_of(own, replace(SETTINGS, input_size=(80, 32)))
    assert len(asked) == 6


def test_statistics_of_a_folder_that_cannot_be_written_to(found, monkeypatch, capsys):
    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stats_module, "write_atomically", full)
    settings = replace(SETTINGS, input_size=(80, 40))
    assert norm_stats_of(found, settings) == stats_module.compute_stats(found, settings)
    assert "No space left on device" in capsys.readouterr().err


def test_a_corpus_without_sound_has_no_deviation(tmp_path):
    write_audio(tmp_path / "silent" / "a.wav", np.zeros(16000, np.float32), RATE)
    corpus(tmp_path / "out", audio=(str(tmp_path / "silent"),))
    with pytest.raises(UserError, match="is it all silence"):
        norm_stats_of(open_corpus(tmp_path / "out"), SETTINGS)


# --- background noise -----------------------------------------------------------------------------------------------


def test_mixing_is_in_power_after_each_has_lost_its_mean():
    signal, other = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    found = mix_noise(signal, other, (0.3, 2.0), -0.7, 0.2)
    s, n = (signal - 0.3).double(), (other + 0.7).double()
    torch.testing.assert_close(found.double(), torch.log(0.2 * n.exp() + 0.8 * s.exp()) / 2.0, rtol=1e-5, atol=1e-6)
    floor = mix_noise(signal - 100, other - 100, (0.0, 2.0), 0.0, 0.5)
    assert floor[0, 0, 0].item() == pytest.approx(np.log(FLOAT32_EPS) / 2)


def test_without_noise_in_the_mixture_it_is_the_clean_crop():
    signal = torch.randn(2, 3, 5)
    torch.testing.assert_close(mix_noise(signal, signal, (0.3, 2.0), 0.0, 0.0), (signal - 0.3) / 2.0)


def test_noisy_crops_come_beside_the_clean_ones(found, quiet):
    settings = replace(SETTINGS, noise_ratio=0.3)
    batches, made = fed(found, 0, settings, noise=quiet)
    _, clean = fed(found, 0)
    noise_mean = norm_stats_of(quiet, settings)[0]
    order = noise_order(3, settings.seed, 0)
    assert order.tolist() != [0, 1, 2]
    cropper = Cropper(quiet.source.spec, replace(PretrainFeed(quiet, SETTINGS, STATS).cropper.rule, short="repeat",
                      min_seconds=0.0), torch.device("cpu"))  # fmt: skip
    for batch, own, plain in zip(batches, made, clean, strict=True):
        assert torch.equal(own.log_mel, plain.log_mel) and own.noisy.shape == own.log_mel.shape
        for row, (item, loud) in enumerate(zip(batch.mine.tolist(), own.noisy, strict=True)):
            number = int(order[item % 3])
            place = crop_positions([quiet.digests[number]], np.array([item // 3]), settings.seed, 0, "noise")
            heard = cropper.log_mel(cropper.cut(quiet.source.stored(quiet.rows[[number]]), place))
            raw = own.log_mel[row] * STATS[1] + STATS[0]
            torch.testing.assert_close(loud, mix_noise(raw, heard, STATS, noise_mean, 0.3), rtol=0, atol=2e-5)


def test_every_noise_clip_is_used_before_any_comes_again():
    assert sorted(noise_order(50, 3, 7).tolist()) == list(range(50))
    assert noise_order(50, 3, 7).tolist() != noise_order(50, 3, 8).tolist()


def test_noise_that_is_asked_for_must_be_there(found):
    with pytest.raises(UserError, match=r"--noise_ratio=0.3 needs --noise=CORPUS"):
        PretrainFeed(found, replace(SETTINGS, noise_ratio=0.3), STATS)
    with pytest.raises(UserError, match="from 0 to below 1"):
        PretrainFeed(found, replace(SETTINGS, noise_ratio=1.0), STATS)


# --- real audio -----------------------------------------------------------------------------------------------------


@needs_shared
def test_on_real_clips(tmp_path, monkeypatch):
    folder = shared() / "data" / "esc50"
    clips = sorted(folder.rglob("*.wav")) + sorted(folder.rglob("*.ogg")) + sorted(folder.rglob("*.flac"))
    if not clips:
        pytest.skip("no real audio")
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "real.csv").write_text("file\n" + "\n".join(str(p.relative_to(folder)) for p in clips[:12]))
    corpus(tmp_path / "out", audio=(str(tmp_path / "real.csv"),), root=folder)
    own = open_corpus(tmp_path / "out")
    settings = replace(SETTINGS, input_size=(80, 608), min_seconds=6.1, batch_size=6, min_clips=0)
    mean, deviation = norm_stats_of(own, settings)
    assert -14 < mean < -4 and 2 < deviation < 7
    (batch, _) = PretrainFeed(own, settings, (mean, deviation)).epoch(epoch_batches(12, settings, 0), 0)
    assert batch.log_mel.shape == (6, 1, 80, 608) and torch.isfinite(batch.log_mel).all()
    full = whole_log_mel(own, int(batch.clips[0]), 6.1)
    (place,) = crop_positions([own.digests[batch.clips[0]]], split_items(batch.clips[:1], 12).times, 5, 0)
    first = int(place * (full.shape[1] - 607))
    expected = (full[:, first : first + 608] - mean) / deviation
    torch.testing.assert_close(batch.log_mel[0, 0], expected, rtol=0, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_batches_are_the_same(found, quiet):
    settings = replace(SETTINGS, noise_ratio=0.3)
    _, there = fed(found, 0, settings, noise=quiet, device="cuda")
    for one, other in zip(fed(found, 0, settings, noise=quiet)[1], there, strict=True):
        assert other.log_mel.is_cuda and other.noisy.is_cuda and other.labels.is_cuda
        torch.testing.assert_close(other.log_mel.cpu(), one.log_mel, rtol=0, atol=1e-3)
        torch.testing.assert_close(other.noisy.cpu(), one.noisy, rtol=0, atol=1e-3)
        assert torch.equal(other.labels.cpu(), one.labels)
