"""Batches come in order, whatever the threads do; broken files are told, good ones of the same batch are kept."""

import threading

import numpy as np
import pytest
import torch
from helpers import RATE, noise, write_audio

from evar.audio import loading
from evar.audio.decode import decode
from evar.audio.loading import ClipItem, broken_files, load_batches, workers_for
from evar.audio.windows import cut

UNIT = 2000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [write_audio(folder / f"{n}.wav", noise(n, 0.05 * (n + 1))) for n in range(10)]  # 400 to 4,000 samples


@pytest.mark.parametrize("workers", [1, 4])
def test_batches_equal_the_plain_loop(files, workers):
    items = [ClipItem(path, 0.4) for path in files]
    batches = [items[:3], items[3:6], items[6:9], items[9:]]
    found = list(load_batches(batches, RATE, UNIT, workers=workers))
    assert [batch.numbers for batch in found] == [[0, 1, 2], [0, 1, 2], [0, 1, 2], [0]]
    expected = [cut(decode(path, RATE), UNIT, 0.4) for path in files]
    waveforms = torch.cat([batch.clips.waveforms for batch in found])
    assert waveforms.dtype == torch.float32
    np.testing.assert_array_equal(waveforms.numpy(), np.stack([window for window, _ in expected]))
    assert torch.cat([batch.clips.lengths for batch in found]).tolist() == [length for _, length in expected]


def test_a_broken_file_does_not_take_its_batch_with_it(files, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    (batch,) = load_batches([[ClipItem(files[0]), ClipItem(bad), ClipItem(files[1])]], RATE, UNIT)
    assert batch.numbers == [0, 2]
    assert batch.clips.waveforms.shape == (2, UNIT)
    assert list(batch.broken) == [bad]
    assert batch.broken[bad].startswith("cannot be decoded")


def test_a_batch_of_broken_files_only_is_empty(tmp_path):
    (batch,) = load_batches([[ClipItem(tmp_path / "gone.wav")]], RATE, UNIT)
    assert (batch.numbers, batch.clips.waveforms.shape, len(batch.broken)) == ([], (0, UNIT), 1)


def test_no_batches_give_nothing():
    assert list(load_batches([], RATE, UNIT)) == []


def test_only_a_few_batches_are_decoded_ahead(files, monkeypatch):
    read, count = [], threading.Lock()

    def counted(path, rate):
        with count:
            read.append(path)
        return decode(path, rate)

    monkeypatch.setattr(loading, "decode", counted)
    batches = load_batches([[ClipItem(path)] for path in files], RATE, UNIT, workers=2)
    next(batches)
    batches.close()  # waits for the threads
    assert len(read) <= 3


def test_the_list_of_broken_files_is_sorted_and_bounded(tmp_path):
    message = str(broken_files({tmp_path / f"{n:03d}.wav": "empty file" for n in range(60)}, 200))
    lines = message.splitlines()
    assert lines[0].startswith("60 of 200 audio files cannot be used; replace them, or")
    assert lines[1] == f"  {tmp_path}/000.wav: empty file"
    assert (len(lines), lines[-1]) == (52, "  … and 10 more")


def test_threads_are_as_many_as_asked_for_or_as_there_are_cores_up_to_eight():
    assert workers_for(3) == 3
    assert 1 <= workers_for() <= 8
