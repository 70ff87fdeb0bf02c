"""The reference's own layout: a folder of log-mels and a CSV gives the batches that a corpus of the audio gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pretrain_corpora import SETTINGS, whole_log_mel, write_corpus

from evar.errors import UserError
from evar.pretrain.corpus import open_corpus
from evar.pretrain.feed import PretrainFeed, crop_positions, epoch_batches, split_items
from evar.pretrain.npy_source import fingerprint_bytes
from evar.pretrain.stats import norm_stats_of

STATS = (-7.0, 4.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A corpus of audio, and the log-mels of its eight clips as the reference's converter leaves them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVAR_CACHE", str(tmp_path_factory.mktemp("cache")))
        audio = write_corpus(tmp_path_factory.mktemp("audio"))
    return audio.folder, [whole_log_mel(audio, n, 0.4)[None].contiguous().numpy() for n in range(len(audio))]


@pytest.fixture
def layout(tmp_path, made):
    """The log-mels in folders, and the list of them."""
    files = [f"part{n % 2}/clip_{n}.npy" for n in range(8)]
    for file, log_mel in zip(files, made[1], strict=True):
        (tmp_path / "lms" / file).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "lms" / file, log_mel)
    (tmp_path / "files_own.csv").write_text("file_name\n" + "\n".join(files))
    return tmp_path


def opened(layout):
    return open_corpus(layout / "files_own.csv", layout / "lms")


def test_batches_are_crops_of_the_files(layout):
    found = opened(layout)
    assert len(found) == 8 and found.names[3] == "part1/clip_3.npy" and np.isnan(found.seconds).all()
    batches = list(epoch_batches(8, SETTINGS, 1))
    for batch, own in zip(batches, PretrainFeed(found, SETTINGS, STATS).epoch(batches, 1), strict=True):
        clips, times = split_items(batch.mine, 8)
        for row, clip, time in zip(own.log_mel, clips.tolist(), times.tolist(), strict=True):
            full = torch.from_numpy(np.load(layout / "lms" / found.names[clip]))[0]
            name = fingerprint_bytes(found.names[clip])
            first = int(crop_positions([name], np.array([time]), 5, 1)[0] * max(full.shape[1] - 47, 1))
            raw = torch.nn.functional.pad(full[:, first : first + 48], (0, max(0, 48 - full.shape[1])))
            torch.testing.assert_close(row[0], (raw + 7.0) / 4.0)


def test_short_files_are_followed_by_raw_zeros_and_not_lengthened_again(layout):
    found = opened(layout)
    np.save(layout / "lms" / "part0" / "clip_2.npy", np.full((1, 80, 10), -3.0, np.float32))
    settings = replace(SETTINGS, batch_size=8, min_clips=0)
    (batch,) = PretrainFeed(found, settings, STATS).epoch(epoch_batches(8, settings, 0), 0)
    row = batch.log_mel[batch.clips.tolist().index(2), 0]
    assert (row[:, :10] == 1.0).all() and (row[:, 10:] == 7.0 / 4.0).all()


def test_statistics_and_labels(layout):
    table = layout / "files_own.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(["file_name,label,weight", *(f'{x},"b,a",2' for x in lines[1:5]), f"{lines[5]},c,1"]))
    found = opened(layout)
    assert found.classes == ("a", "b", "c") and found.weights.tolist() == [2, 2, 2, 2, 1]
    assert found.need_labels()[np.array([0, 4])].tolist() == [[1, 1, 0], [0, 0, 1]]
    mean, deviation = norm_stats_of(found, SETTINGS)
    assert -20 < mean < 0 and deviation > 1
    assert len(list(layout.glob("norm_stats-80x48-*.json"))) == 1
    table.write_text('file_name,label\npart0/clip_0.npy,"/m/09x0r,/m/04rlf"\n')
    found = opened(layout)
    assert len(found.classes) == 527 and found.labels[np.array([0])].sum() == 2


def test_the_rate_is_said_by_the_user(layout):
    found = open_corpus(layout / "files_own.csv", layout / "lms", 32000)
    PretrainFeed(found, replace(SETTINGS, sample_rate=32000), STATS)
    with pytest.raises(UserError, match="stored at 32000 Hz"):
        PretrainFeed(found, SETTINGS, STATS)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be read as a log-mel"),
        (b"\x93NUMPY\x01\x00v\x00{", "cannot be read as a log-mel"),
        (np.zeros((1, 80, 5), np.int16), "holds no log-mel"),
        (np.zeros((2, 80, 5), np.float32), r"shape \(2, 80, 5\)"),
        (np.zeros((1, 64, 5), np.float32), "has 64 mel bands, the others have 80"),
        (np.array([{"a": 1}], dtype=object), "cannot be read as a log-mel"),
        (None, "is missing"),
    ],
)
def test_a_file_that_is_no_log_mel_is_named_and_never_unpickled(layout, content, says):
    found = opened(layout)
    path = layout / "lms" / "part1" / "clip_3.npy"
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(UserError, match=rf"^{path} .*{says}") as error:
        list(PretrainFeed(found, SETTINGS, STATS).epoch(epoch_batches(8, SETTINGS, 0), 0))
    assert "\n" not in str(error.value)


def test_mistakes_in_the_list_are_one_line(layout, made):
    table = layout / "files_own.csv"
    with pytest.raises(UserError, match=r"8 of 8 files .* the first: part0/clip_0.npy; --lms=DIR"):
        open_corpus(table)
    with pytest.raises(UserError, match=r"--lms=.*: there is no such folder"):
        open_corpus(table, layout / "nowhere")
    with pytest.raises(UserError, match="there is no table"):
        open_corpus(layout / "nowhere.csv")
    table.write_text("file\nx\n")
    with pytest.raises(UserError, match=r"no column 'file_name' .* Did you mean"):
        opened(layout)
    table.write_text("file_name\npart0/clip_0.npy\npart0/clip_0.npy\n")
    with pytest.raises(UserError, match=r"lists part0/clip_0.npy twice"):
        opened(layout)
    with pytest.raises(UserError, match="--lms belongs to a table"):
        open_corpus(made[0], layout / "lms")
