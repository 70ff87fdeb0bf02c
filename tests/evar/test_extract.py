"""Each (clip, window) is embedded once; a killed extraction goes on to the same bits."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import RATE, CountingAdapter, counting_model, fold_clips, noise, tiny_folder, tiny_task, write_audio

from evar.audio.decode import decode
from evar.audio.windows import cut, random_position
from evar.clips import WINDOW_SEED, open_task
from evar.errors import UserError
from evar.extract import embed_clips, model_facts
from evar.store import read_pair

HOME = Path(__file__).resolve().parents[2]
UNIT = 4000  # samples of half a second


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))


def extract(model, clips, **how):
    everything = np.arange(len(clips))
    return embed_clips(model, clips, **{"front": everything, "training": everything, "batch_size": 4} | how)


def features(waveform):
    """Return what the counting adapter gives for one window."""
    return CountingAdapter().embed(torch.from_numpy(waveform)[None], torch.tensor([UNIT])).numpy()[0]


def test_every_clip_is_embedded_once_and_a_second_call_computes_nothing(tmp_path):
    clips, model = fold_clips(tmp_path / "x", 10), counting_model()
    first = extract(model, clips)
    assert (model.adapter.calls, first.computed) == ([4, 4, 2], 10)
    again = counting_model()
    second = extract(again, clips)
    assert (again.adapter.calls, second.computed) == ([], 0)
    np.testing.assert_array_equal(second.vectors.take(), first.vectors.take())
    for row, path in zip(first.front, clips.paths, strict=True):
        expected = features(decode(path, RATE))
        np.testing.assert_allclose(first.vectors.take(np.array([row]))[0], expected, rtol=1e-6)


@pytest.mark.parametrize(("seconds", "windows"), [(0.4, 1), (0.5, 1), (0.6, 2)])
def test_only_a_clip_longer_than_the_unit_has_a_random_window_too(tmp_path, seconds, windows):
    clips, model = fold_clips(tmp_path / "x", 8, seconds), counting_model()
    found = extract(model, clips)
    assert found.computed == len(found.vectors) == 8 * windows
    assert (found.front == found.training).all() == (windows == 1)
    for number, path in enumerate(clips.paths):
        waveform, position = decode(path, RATE), random_position(clips.identities[number].digest, WINDOW_SEED)
        front, training = found.vectors.take(np.array([found.front[number], found.training[number]]))
        np.testing.assert_allclose(front, features(cut(waveform, UNIT)[0]), rtol=1e-6)
        np.testing.assert_allclose(training, features(cut(waveform, UNIT, position)[0]), rtol=1e-6)


def test_only_the_windows_that_were_asked_for_are_embedded(tmp_path):
    clips, model = fold_clips(tmp_path / "x", 8, seconds=0.6), counting_model()
    found = extract(model, clips, front=np.array([0, 1]), training=np.array([1, 2, 3]))
    assert found.computed == 5
    assert (found.front[[0, 1]] >= 0).all() and (found.front[4:] == -1).all()
    assert (found.training[[1, 2, 3]] >= 0).all() and (found.training[4:] == -1).all()
    later = extract(counting_model(), clips, front=np.array([0, 1, 2]), training=np.array([], dtype=np.int64))
    assert later.computed == 1


def test_an_extraction_that_failed_goes_on_and_gives_the_same_bits(tmp_path):
    clips = fold_clips(tmp_path / "x", 14, seconds=0.6)
    whole = extract(counting_model(), clips, cache=tmp_path / "whole").vectors.take()
    with pytest.raises(RuntimeError, match="killed"):
        extract(counting_model(CountingAdapter(fail_at=3)), clips)
    resumed = counting_model()
    found = extract(resumed, clips)
    assert (found.computed, resumed.adapter.calls) == (28 - 12, [4, 4, 4, 4])
    np.testing.assert_array_equal(found.vectors.take(), whole)


def main(folder, cache):
    """Embed a task and kill the own process, as the kernel would, at the third batch (run by the next test)."""
    adapter = CountingAdapter()

    def die_at_the_third_batch():
        if len(adapter.calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    adapter.before = die_at_the_third_batch
    task = tiny_task(counts={1: 8, 2: 6}, unit_seconds=0.5)
    extract(counting_model(adapter), open_task(task, data=Path(folder)), cache=Path(cache))


def test_a_process_killed_in_the_middle_of_a_batch_is_continued_to_the_same_bits(tmp_path):
    clips = fold_clips(tmp_path / "x", 14, seconds=0.6)
    whole = extract(counting_model(), clips, cache=tmp_path / "whole").vectors.take()
    code = f"import test_extract; test_extract.main({str(clips.folder)!r}, {str(tmp_path / 'killed')!r})"
    paths = os.pathsep.join(map(str, (HOME, HOME / "tests", HOME / "tests" / "evar")))
    environment = os.environ | {"PYTHONPATH": paths, "EVAR_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (keys,) = (tmp_path / "killed").rglob("*.keys")
    assert len(read_pair(keys.with_suffix(""), 4)[0]) == 12
    with open(keys.with_suffix(".vectors"), "ab") as torn:
        torn.write(b"half a row")
    found = extract(counting_model(), clips, cache=tmp_path / "killed")
    assert found.computed == 28 - 12
    np.testing.assert_array_equal(found.vectors.take(), whole)


def test_who_waited_for_another_extraction_takes_what_it_made(tmp_path):
    clips = fold_clips(tmp_path / "x", 8)
    adapters = [CountingAdapter(), CountingAdapter()]
    for adapter in adapters:
        adapter.before = lambda: time.sleep(0.2)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda adapter: extract(counting_model(adapter), clips), adapters))
    assert sorted(found.computed for found in both) == [0, 8]
    assert sorted(adapter.calls for adapter in adapters) == [[], [4, 4]]
    np.testing.assert_array_equal(both[0].vectors.take(), both[1].vectors.take())


def test_equal_content_is_embedded_once_wherever_it_lies(tmp_path):
    clips = fold_clips(tmp_path / "x", 8)
    shutil.copy(clips.paths[0], clips.paths[5])
    twins, model = open_task(clips.task, data=clips.folder), counting_model()
    found = extract(model, twins)
    assert (sum(model.adapter.calls), found.computed) == (7, 7)
    rows = found.vectors.take()
    np.testing.assert_array_equal(rows[found.front[0]], rows[found.front[5]])
    assert found.front[0] != found.front[5]  # each clip keeps a row of its own: labels differ

    shutil.copytree(clips.folder, tmp_path / "copy")
    assert extract(counting_model(), open_task(clips.task, data=tmp_path / "copy")).computed == 0


def test_another_task_on_the_same_clips_reuses_them(tmp_path):
    clips = fold_clips(tmp_path / "x", 8)
    extract(counting_model(), clips)
    other = open_task(tiny_task(name="other", counts={1: 4, 2: 4}, unit_seconds=0.5), data=clips.folder)
    assert extract(counting_model(), other).computed == 0


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_batch_size_changes_nothing(tmp_path, batch_size):
    clips = fold_clips(tmp_path / "x", 8, seconds=0.6)
    one = extract(counting_model(), clips, cache=tmp_path / "one").vectors.take()
    other = extract(counting_model(), clips, cache=tmp_path / "other", batch_size=batch_size).vectors.take()
    np.testing.assert_allclose(other, one, atol=1e-6)


def test_files_that_fail_while_decoding_are_told_together_after_the_rest_is_stored(tmp_path):
    clips = fold_clips(tmp_path / "x", 10)
    bad = noise(0)
    bad[7] = np.nan
    for number in (1, 6):
        write_audio(clips.paths[number], bad, subtype="FLOAT")
    clips = open_task(clips.task, data=clips.folder)
    with pytest.raises(UserError) as caught:
        extract(counting_model(), clips)
    lines = str(caught.value).splitlines()
    assert "audio files cannot be used" in lines[0]
    assert f"{clips.paths[1]}: holds NaN or infinite samples" in lines[1]
    write_audio(clips.paths[1], noise(100))
    write_audio(clips.paths[6], noise(101))
    assert extract(counting_model(), open_task(clips.task, data=clips.folder)).computed == 2


class NaNAdapter(CountingAdapter):
    def embed(self, waveforms, lengths):
        return super().embed(waveforms, lengths).log().where(waveforms[:, :1] != 0, torch.nan)


def test_embeddings_that_are_no_numbers_are_refused_with_the_clips_name(tmp_path):
    clips = fold_clips(tmp_path / "x", 8)
    write_audio(clips.paths[2], np.zeros(4000, dtype=np.float32))
    clips = open_task(clips.task, data=clips.folder)
    with pytest.raises(UserError) as caught:
        extract(counting_model(NaNAdapter()), clips)
    assert str(caught.value) == f"the model gives NaN or infinite embeddings for 1 clips, the first: {clips.paths[2]}"


def test_where_neighbours_matter_other_neighbours_are_other_embeddings(tmp_path):
    class Mixes(CountingAdapter):
        batch_matters = True

        def embed(self, waveforms, lengths):
            found = super().embed(waveforms, lengths)
            return found + found.mean(0)

    clips = fold_clips(tmp_path / "x", 8)
    every, some = np.arange(8), np.arange(4)
    nothing = np.arange(0)
    cache = tmp_path / "cache"
    whole, again, part = (
        embed_clips(counting_model(Mixes()), clips, front=front, training=nothing, batch_size=8, cache=cache)
        for front in (every, every, some)
    )
    assert (whole.computed, again.computed, part.computed) == (8, 0, 4)
    assert not np.allclose(part.vectors.take(part.front[:4]), whole.vectors.take(whole.front[:4]))


def test_a_model_that_draws_anew_is_asked_anew(tmp_path):
    """Stored, the first draw of ``--long_audio=random`` would stand for ever."""

    class Draws(CountingAdapter):
        draws_anew = True

        def embed(self, waveforms, lengths):
            return super().embed(waveforms, lengths) + torch.rand(1)

    clips = fold_clips(tmp_path / "x", 8)
    first, second = (extract(counting_model(Draws()), clips).vectors.take() for _ in range(2))
    assert first.shape == second.shape and not np.array_equal(first, second)


def test_the_kind_of_numbers_and_the_space_belong_to_an_embedding():
    def facts(model=None, unit=0.5, precision="fp32", space="clip", prepared_on="x"):
        return json.dumps(model_facts(model or counting_model(), unit, precision, space, prepared_on), sort_keys=True)

    class Newer(CountingAdapter):
        version = 2

    class Stateful(CountingAdapter):
        def state(self):
            return {"mean": -7.1}

    class Prepared(CountingAdapter):
        needs_prepare = True

    others = [
        facts(unit=0.6),
        facts(precision="bf16"),
        facts(space="joint"),
        facts(counting_model(options={"depth": 2})),
        facts(counting_model(weights_sha256="ab")),
        facts(counting_model(source_sha256="ab")),
        facts(counting_model(name="other")),
        facts(counting_model(CountingAdapter(sample_rate=16000))),
        facts(counting_model(Newer())),
        facts(counting_model(Stateful())),
        facts(counting_model(Prepared())),
        facts(counting_model(Prepared()), prepared_on="y"),
    ]
    assert len({facts(), *others}) == 1 + len(others)
    assert facts() == facts(prepared_on="y")  # who takes nothing from the task does not depend on it


def test_other_options_are_other_embeddings(tmp_path):
    clips = fold_clips(tmp_path / "x", 8)
    one = extract(counting_model(options={"gain": 1.0}), clips)
    two = extract(counting_model(CountingAdapter(gain=2.0), options={"gain": 2.0}), clips)
    assert two.computed == 8
    np.testing.assert_allclose(two.vectors.take(), 2 * one.vectors.take(), rtol=1e-6)


class Standardising(CountingAdapter):
    """Takes the mean of the training clips' features, as models with statistics of the task do."""

    needs_prepare = True

    def prepare(self, unit_seconds, training_clips):
        batches = training_clips.batches(self.sample_rate, 4)
        self.mean = torch.cat([CountingAdapter().embed(b.waveforms, b.lengths) for b in batches]).mean(0)

    def state(self):
        return {"mean": self.mean.tolist()}

    def embed(self, waveforms, lengths):
        return super().embed(waveforms, lengths) - self.mean


def test_what_was_taken_from_the_task_is_kept_with_the_embeddings(tmp_path):
    clips = fold_clips(tmp_path / "x", 8)
    first = extract(counting_model(Standardising()), clips)
    rows, train = first.vectors.take(), clips.parts()[0].train
    np.testing.assert_allclose(rows[first.front[train]].mean(axis=0), 0, atol=1e-6)
    stored = Standardising()
    second = extract(counting_model(stored), clips)
    assert (second.state, second.computed) == (first.state, 0)
    assert not hasattr(stored, "mean")  # the training clips were not looked at again

    write_audio(clips.paths[train[0]], noise(77))
    changed = extract(counting_model(Standardising()), open_task(clips.task, data=clips.folder))
    assert changed.computed == 8
    assert changed.state != first.state


class Joint(CountingAdapter):
    joint_dim = 2

    def embed_audio(self, waveforms, lengths):
        return self.embed(waveforms, lengths)[:, :2]


def test_the_joint_space_is_stored_apart(tmp_path):
    clips = fold_clips(tmp_path / "x", 8)
    whole = extract(counting_model(Joint()), clips).vectors.take()
    joint = extract(counting_model(Joint()), clips, space="joint")
    assert (joint.computed, joint.vectors.dim) == (8, 2)
    np.testing.assert_allclose(joint.vectors.take(), whole[:, :2], rtol=1e-6)


def test_a_task_with_a_split_works_like_one_with_folds(tmp_path):
    clips = open_task(tiny_task(), data=tiny_folder(tmp_path / "x"))
    assert extract(counting_model(), clips).computed == 4
