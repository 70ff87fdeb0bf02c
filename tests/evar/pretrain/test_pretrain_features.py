"""Stored features of a frozen model: made, killed and gone on with; cropped to the time of the log-mel; learnt from."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import evar
from hypothesis import given
from hypothesis import strategies as st
from pretrain_corpora import RATE, SETTINGS, wave, whole_log_mel, write_corpus
from pretrain_runs import column, corpus_of_tones, plan, weights

from evar.errors import UserError
from evar.pretrain import feature_store
from evar.pretrain.corpus import corpus as make_corpus
from evar.pretrain.corpus import open_corpus
from evar.pretrain.feature_crops import FeatureCrops, features_of_corpus, rows_at
from evar.pretrain.feature_store import ClipFeatures
from evar.pretrain.features import features, make_features, open_features
from evar.pretrain.feed import PretrainFeed, crop_positions, epoch_batches, split_items
from evar.pretrain.run import pretrain
from model_adapters.base import Adapter, ModelInfo
from model_adapters.registry import Model

STATS = (-7.0, 4.0)
INFO = ModelInfo(title="steps", kind="audio", paper="", code_licence="ours", needs_weights=False)


class Steps(Adapter):
    """Every 0.1 s a row: its number, and the mean of the sound's magnitude in it."""

    info, sample_rate, embedding_dim = INFO, RATE, 2
    heard = 0
    fails_at = -1

    def embed_frames(self, waveforms, lengths):
        self.heard += 1
        if self.heard == self.fails_at:
            raise KeyboardInterrupt
        level = waveforms[:, : waveforms.shape[1] // 1600 * 1600].unflatten(1, (-1, 1600)).abs().mean(2)
        return torch.stack([torch.arange(level.shape[1]).expand(level.shape), level], dim=2), 0.1


def steps(**attributes):
    adapter = Steps()
    for name, value in attributes.items():
        setattr(adapter, name, value)
    return Model("steps", adapter, INFO)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVAR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def log_mels(found, tmp_path_factory):
    """The log-mel itself as features, a row every 10 ms: it shows at once whether both are of one time."""
    folder = tmp_path_factory.mktemp("features") / "log_mel"
    features("log_mel_stats", folder, corpus=found.folder, device="cpu")
    return folder


def fed(found, folder, settings=SETTINGS, epoch=0, **options):
    own = features_of_corpus(found, folder)
    feed = PretrainFeed(found, settings, STATS, features=own, **options)
    return list(feed.epoch(epoch_batches(len(found), settings, epoch), epoch))


# --- the same time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("short", ["reference", "silence"])
def test_a_crops_features_are_of_the_time_of_its_log_mel(found, log_mels, short):
    for epoch in range(3):
        for batch in fed(found, log_mels, replace(SETTINGS, short_clips=short), epoch):
            assert (batch.features.shape, batch.features.dtype) == ((4, 48, 80), torch.float32)
            raw = batch.log_mel[:, 0].transpose(1, 2) * STATS[1] + STATS[0]
            for clip, own, heard in zip(batch.clips.tolist(), batch.features, raw, strict=True):
                there = 48 if clip != 2 else 32  # clip 2 has 0.31 s, of which its last frames see what follows it
                assert torch.allclose(own[: there - 2], heard[: there - 2], atol=0.02)
                assert not own[there:].any()


def test_threads_and_ranks_do_not_matter_and_parts_have_theirs(found, log_mels):
    alone = fed(found, log_mels, workers=1)
    for one, other in zip(alone, fed(found, log_mels, workers=4), strict=True):
        assert torch.equal(one.features, other.features)
        assert torch.equal(one.part(slice(1, 3)).features, one.features[1:3])
    feed = PretrainFeed(found, SETTINGS, STATS, features=features_of_corpus(found, log_mels))
    shares = [list(feed.epoch(epoch_batches(8, SETTINGS, 0, rank, 3), 0)) for rank in range(3)]
    for batch, *parts in zip(alone, *shares, strict=True):
        assert torch.equal(torch.cat([part.features for part in parts]), batch.features)


def test_without_features_a_batch_has_none(found):
    assert fed(found, None)[0].features is None


def test_features_of_another_rate_follow_the_crop_too(found, tmp_path):
    make_features(tmp_path, found, steps())
    settings = replace(SETTINGS, input_size=(80, 50), patch_size=(16, 8))  # 48 frames count: 5 rows of 0.1 s
    for batch in fed(found, tmp_path, settings):
        assert batch.features.shape == (4, 5, 2)
        for clip, own in zip(batch.clips.tolist(), batch.features, strict=True):
            if found.seconds[clip] < 0.6:
                continue
            numbers = own[:, 0].int().tolist()
            assert numbers == [min(n, int(found.seconds[clip] * 10 + 1e-6) - 1) for n in numbers]
            assert numbers == sorted(numbers) and numbers[-1] - numbers[0] <= 5
            heard = np.abs(wave(clip, float(found.seconds[clip])))
            for number, level in zip(numbers, own[:, 1].tolist(), strict=True):
                expected = heard[number * 1600 : number * 1600 + 1600].mean()
                assert level == pytest.approx(expected, rel=2e-3), "the sound of that tenth of a second"


@given(
    start=st.integers(0, 3000), count=st.integers(1, 200), step=st.sampled_from([0.02, 0.16, 0.08, 0.0213, 0.5]),
    stretch=st.floats(0.9, 1.1),
)  # fmt: skip
def test_rows_are_the_nearest_and_of_two_as_near_the_earlier(start, count, step, stretch):
    width = count * step * stretch
    rows = rows_at(start * 0.01, width, count, step)
    assert (np.diff(rows) >= 0).all() and len(rows) == count
    times = start * 0.01 + np.arange(count) * width / count
    assert np.abs(rows * step - times).max() <= step * (1 + 1e-4), "its begin and its pace are rounded, each to half"
    assert abs(rows[0] * step - times[0]) <= step * (0.5 + 1e-4)
    if stretch == 1.0 or count == 1:
        assert (np.diff(rows) == 1).all()


def test_hubert_rows_never_repeat_wherever_a_crop_begins():
    for start in range(300):
        assert rows_at(start * 0.01, 4.0, 200, 0.02).tolist() == list(range(start // 2, start // 2 + 200))


class Line:
    """Features 50 a second of clips of 1 s, but that the last two are missing, which are not zero anywhere."""

    dim, step, fingerprint = 1, 0.02, ""

    def of(self, clips):
        return [ClipFeatures(np.arange(1, 49, dtype=np.float32)[:, None], self.step, float("inf")) for _ in clips]


def test_after_the_last_row_it_is_repeated_and_after_the_clips_end_there_are_zeros():
    crops = FeatureCrops(Line(), replace(SETTINGS, input_size=(80, 96)))
    cut = crops.cut(np.array([0, 1]), np.array([10, 0]), np.array([101, 101]))[..., 0]
    assert cut.dtype == torch.float32 and cut.shape == (2, 48)
    assert cut[0].tolist() == [*range(6, 49), 48, 48, 48, 0, 0]
    assert cut[1].tolist() == list(range(1, 49))
    with pytest.raises(UserError, match="too short"):
        FeatureCrops(type("Slow", (Line,), {"step": 5.0})(), SETTINGS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_they_are_the_same(found, log_mels):
    for one, other in zip(fed(found, log_mels), fed(found, log_mels, device="cuda"), strict=True):
        assert other.features.is_cuda and torch.equal(other.features.cpu(), one.features)


# --- making them ----------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_and_leaves_what_an_unbroken_one_does(found, tmp_path, monkeypatch):
    make_features(tmp_path / "whole", found, steps())
    monkeypatch.setattr(feature_store, "_FLUSH_BYTES", 50)
    with pytest.raises(KeyboardInterrupt):
        make_features(tmp_path / "killed", found, steps(fails_at=5))
    with pytest.raises(UserError, match="are not finished"):
        open_features(tmp_path / "killed")
    for name in ("frames.bin", "frames.index"):  # a kill in the middle of writing
        with (tmp_path / "killed" / name).open("ab") as file:
            file.write(b"half")
    again = steps()
    make_features(tmp_path / "killed", found, again)
    assert again.adapter.heard == 4, "of eight clips four were there"
    for name in ("frames.bin", "frames.index", "features.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    make_features(tmp_path / "killed", found, again)
    assert again.adapter.heard == 4


def test_a_record_without_its_rows_is_made_again(found, tmp_path):
    make_features(tmp_path, found, steps())
    whole = (tmp_path / "frames.bin").read_bytes()
    (tmp_path / "frames.bin").write_bytes(whole[:-6])
    with pytest.raises(UserError, match=r"frames.bin has .* bytes of"):
        open_features(tmp_path)
    make_features(tmp_path, found, steps())
    assert (tmp_path / "frames.bin").read_bytes() == whole and open_features(tmp_path).dim == 2


def test_clips_of_one_length_are_heard_together_and_equal_ones_once(tmp_path):
    own = write_corpus(tmp_path, seconds=(0.5,) * 5 + (0.7,))
    twice = replace(own, names=(*own.names, "again"), digests=[*own.digests, own.digests[0]],
                    rows=np.append(own.rows, own.rows[0]), seconds=np.append(own.seconds, 0.5))  # fmt: skip
    one = steps()
    make_features(tmp_path / "out", twice, one, batch_size=4)
    assert one.adapter.heard == 3 and len(open_features(tmp_path / "out").records) == 6
    stored = open_features(tmp_path / "out").for_corpus(twice)
    for clip in stored.of(np.arange(7)):
        assert clip.frames[:, 0].tolist() == list(range(len(clip.frames)))
    make_features(tmp_path / "alone", own, steps(), batch_size=1)
    assert (tmp_path / "alone" / "frames.bin").read_bytes() == (tmp_path / "out" / "frames.bin").read_bytes()


def test_a_corpus_that_has_grown_gets_what_is_missing(found, tmp_path):
    make_features(tmp_path, found.only(np.arange(5)), steps())
    with pytest.raises(UserError, match=r"lacks 3 of 8 clips, the first: wild/005.wav; python -m evar.pretrain.feat"):
        open_features(tmp_path).for_corpus(found)
    more = steps()
    make_features(tmp_path, found, more)
    assert more.adapter.heard == 3
    stored = open_features(tmp_path).for_corpus(found)
    assert [len(one.frames) for one in stored.of(np.arange(8))] == [14, 9, 3, 11, 20, 6, 10, 8]
    some = open_features(tmp_path).for_corpus(found.only(np.array([4, 2])))
    assert [len(one.frames) for one in some.of(np.arange(2))] == [20, 3]


def test_what_is_beyond_float16_is_clipped_and_said(found, tmp_path, capsys):
    class Loud(Steps):
        def embed_frames(self, waveforms, lengths):
            frames, step = super().embed_frames(waveforms, lengths)
            return frames * 1e6, step

    make_features(tmp_path, found, Model("loud", Loud(), INFO))
    assert "beyond float16 and were clipped" in capsys.readouterr().err
    assert open_features(tmp_path).frames.max() == 65504


def test_a_changed_byte_is_found_when_it_is_read(found, tmp_path):
    make_features(tmp_path, found, steps())
    data = bytearray((tmp_path / "frames.bin").read_bytes())
    data[9] ^= 1
    (tmp_path / "frames.bin").write_bytes(data)
    with pytest.raises(UserError, match=r"frames.bin is corrupt"):
        fed(found, tmp_path)
    (tmp_path / "features.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read: delete"):
        open_features(tmp_path)


def test_mistakes_are_one_line(found, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="there are none; make them"):
        open_features(tmp_path)
    with pytest.raises(UserError, match=r"steps hears 8000 Hz, the corpus is stored at 16000 Hz.*--sample_rate=8000"):
        make_features(tmp_path, found, steps(sample_rate=8000))
    with pytest.raises(UserError, match="takes statistics from a task's training clips"):
        make_features(tmp_path, found, steps(needs_prepare=True))
    with pytest.raises(UserError, match="no embedding per time step"):
        make_features(tmp_path, found, Model("mute", Adapter(), INFO))
    make_corpus(tmp_path / "mel", audio=(str(found.folder.parent / "wild"),), store="log_mel")
    with pytest.raises(UserError, match="has log-mels only, steps hears audio"):
        make_features(tmp_path, open_corpus(tmp_path / "mel"), steps())
    make_features(tmp_path / "own", found, steps())
    with pytest.raises(UserError, match="has features of steps with other weights"):
        make_features(tmp_path / "own", found, replace(steps(), weights_sha256="another"))
    longer = replace(found, seconds=found.seconds + 1)
    with pytest.raises(UserError, match=r"those of wild/000.wav cover 1.4 of its 2.4 s \(8 clips"):
        features_of_corpus(longer, tmp_path / "own")
    with pytest.raises(UserError, match=r"no features of a clip as short as wild/002.wav"):
        make_features(tmp_path / "none", found, Model("no", type("No", (Steps,), {"embed_frames": empty})(), INFO))

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_store, "_append", full)
    with pytest.raises(UserError, match=r"No space left on device.*it goes on from there"):
        make_features(tmp_path / "full", found, steps())


def empty(self, waveforms, lengths):
    return torch.zeros(len(waveforms), 0, 2), 0.1


def test_features_made_of_audio_serve_a_corpus_of_log_mels(found, log_mels, tmp_path):
    make_corpus(tmp_path / "mel", audio=(str(found.folder.parent / "wild"),), store="log_mel")
    for batch in fed(open_corpus(tmp_path / "mel"), log_mels, replace(SETTINGS, min_seconds=0.0)):
        raw = batch.log_mel[:, 0].transpose(1, 2) * STATS[1] + STATS[0]
        real = batch.features.any(2)
        near = (batch.features[real] - raw[real]).abs() < 0.05
        assert near.float().mean() > 0.99, "all but where 16 bits were too few for the quietest"


# --- learnt from ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """A corpus of tones, and an untrained M2D's features of it made by the command."""
    folder = tmp_path_factory.mktemp("tones")
    corpus = corpus_of_tones(folder)
    options = ("--weights=random", "--depth=1", "--embed_dim=48", "--heads=3", "--patch_size=80x4")
    done = evar("pretrain.features", "m2d", folder / "m2d", f"--corpus={corpus}", "--device=cpu", *options,
                cache=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{folder / 'm2d'}: 24 clips, 744 x 48 features of m2d, 0.03")
    about = json.loads((folder / "m2d" / "features.json").read_text())
    assert about["facts"]["weights"] == "random:0" and about["corpus"] == open_corpus(corpus).fingerprint
    return corpus, folder / "m2d"


@pytest.mark.parametrize("objective", ["m2d_s", "m2d_x", "mam_clap", "supmam"])
def test_objectives_learn_stored_features(tones, tmp_path, objective):
    corpus, own = tones
    changes = {"objective": objective, "w_other": 1.0, "features": own}
    path = pretrain(plan(tmp_path / "run", corpus, **changes))
    losses = [float(x) for x in column(tmp_path / "run", "loss")]
    assert len(losses) == 6 and np.isfinite(losses).all() and losses[-1] < losses[0]
    head = "offline_predictor" if objective in ("m2d_s", "m2d_x") else "distil_head"
    assert weights(path)[f"{head}.weight"].shape[0] == 48
    recorded = json.loads((path.parent / "evar.json").read_text())["settings"]["features"]
    assert recorded == open_features(own).fingerprint


def test_a_run_does_not_go_on_with_other_features(tones, tmp_path):
    corpus, own = tones
    make_features(tmp_path / "steps", open_corpus(corpus), steps())
    pretrain(plan(tmp_path / "run", corpus, objective="m2d_s", features=own))
    with pytest.raises(UserError, match="cannot resume under other settings: features was"):
        pretrain(plan(tmp_path / "run", corpus, objective="m2d_s", features=tmp_path / "steps"))


@pytest.mark.parametrize(
    ("objective", "given", "says"),
    [
        ("m2d_s", False, "m2d_s learns stored features of a speech model: --features=DIR"),
        ("m2d_x", False, r"either --teacher=.*--features=DIR .*here are neither"),
        ("mam_clap", False, r"either --teacher=.*--features=DIR .*here are neither"),
        ("m2d", True, "m2d learns no stored features: leave out --features"),
    ],
)
def test_objectives_say_which_option_they_lack(tones, tmp_path, objective, given, says):
    corpus, own = tones
    with pytest.raises(UserError, match=says):
        pretrain(plan(tmp_path, corpus, objective=objective, features=own if given else None))
    assert not list(tmp_path.iterdir())


def test_the_option_of_the_command(tones, tmp_path):
    done = evar("pretrain", "--preset=m2d_s", f"--corpus={tones[0]}", f"--features={tmp_path / 'none'}",
                "--noise_ratio=0", "--device=cpu", cache=tmp_path)  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and f"--features={tmp_path / 'none'}: there are none" in line


# --- the reference's own files --------------------------------------------------------------------------------------


@pytest.fixture
def layout(found, tmp_path):
    """Files as M2D-S's: the log-mel of 0.9 s and more, every second frame of it as states, the length in samples."""
    for n in range(8):
        log_mel = whole_log_mel(found, n, 0.9).numpy()
        length = np.int64(round(found.seconds[n] * RATE))
        np.savez(tmp_path / f"{n}.npz", log_mel[None], log_mel[:, ::2].T.astype(np.float32), length)
    (tmp_path / "files_own.csv").write_text("\n".join(["file_name", *(f"{n}.npz" for n in range(8))]))
    return tmp_path


def test_npz_files_have_log_mel_and_features(layout):
    own = open_corpus(layout / "files_own.csv")
    for epoch in range(3):
        batches = [batch.mine for batch in epoch_batches(8, SETTINGS, epoch)]
        for items, batch in zip(batches, fed(own, None, epoch=epoch), strict=True):
            assert (batch.features.shape, batch.features.dtype) == ((4, 24, 80), torch.float32)
            clips, times = split_items(items, 8)
            places = crop_positions([own.digests[n] for n in clips.tolist()], times, SETTINGS.seed, epoch)
            for clip, place, features_ in zip(clips.tolist(), places.tolist(), batch.features, strict=True):
                stored = np.load(layout / own.names[clip])
                start = int(place * (stored["arr_0"].shape[2] - 48 + 1))
                states = torch.from_numpy(stored["arr_1"])[start // 2 :][:24]
                real = np.arange(len(states)) * 0.02 + start * 0.01 < float(stored["arr_2"]) / RATE
                states[~real] = 0
                assert torch.equal(features_[: len(states)], states)


@pytest.mark.parametrize(("length", "end"), [(None, np.inf), (np.int64(31), 0.31), (np.array([4960]), 0.31)])
def test_the_length_in_an_npz_file_is_of_frames_or_samples(layout, length, end):
    more = () if length is None else (length,)
    np.savez(layout / "2.npz", np.zeros((80, 90), np.float32), np.ones((1, 45, 80), np.float16), *more)
    (one,) = features_of_corpus(open_corpus(layout / "files_own.csv"), None).of(np.array([2]))
    assert one.frames.shape == (45, 80) and one.end == pytest.approx(end)


def test_m2d_s_learns_from_npz_files_and_m2d_leaves_them_alone(layout, tmp_path):
    changes = {"input_size": (80, 48), "patch_size": (80, 2), "batch_size": 4}
    path = pretrain(plan(tmp_path / "s", layout / "files_own.csv", objective="m2d_s", **changes))
    assert weights(path)["offline_predictor.weight"].shape == (80, 48)
    pretrain(plan(tmp_path / "m2d", layout / "files_own.csv", **changes))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ((np.zeros((1, 80, 90), np.float32),), "has no arr_1 of floats"),
        ((np.zeros((1, 80, 90), np.float32), np.zeros((45, 3))), "has 3 features per state, the others have 80"),
        ((np.array([{"a": 1}], dtype=object), np.zeros((45, 80))), "cannot be read as .npz"),
        (b"PK\x03\x04 cut", "cannot be read as .npz"),
        (None, "is missing"),
    ],
)
def test_an_npz_file_that_is_wrong_is_named(layout, arrays, says):
    own = open_corpus(layout / "files_own.csv")
    path = layout / "3.npz"
    path.unlink()
    if isinstance(arrays, bytes):
        path.write_bytes(arrays)
    elif arrays is not None:
        np.savez(path, *arrays, allow_pickle=True)
    with pytest.raises(UserError, match=rf"^{path} {says}") as error:
        fed(own, None)
    assert "\n" not in str(error.value)


def test_states_at_another_rate_are_refused(layout):
    np.savez(layout / "0.npz", np.zeros((1, 80, 200), np.float32), np.zeros((200, 80), np.float32))
    with pytest.raises(UserError, match=r"200 states cover 4.00 s at 50 a second, its log-mel 2.00 s"):
        fed(open_corpus(layout / "files_own.csv"), None)
