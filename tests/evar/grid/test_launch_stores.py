"""Many workers that need the same embeddings at once: each clip is embedded once, and all read the same bits."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from helpers import CountingAdapter, counting_model, fold_clips

from evar.extract import embed_clips
from evar.store import KEY_BYTES

CLIPS, PROCESSES = 24, 6


def extract(model, clips):
    everything = np.arange(len(clips))
    return embed_clips(model, clips, front=everything, training=everything, batch_size=4, workers=1)


def work(clips, number, begin, reports, *, fatal):
    """Embed in a process of its own; a ``fatal`` one is killed when its third batch is due."""

    class Slow(CountingAdapter):
        def embed(self, waveforms, lengths):
            time.sleep(0.02)
            if fatal and len(self.calls) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().embed(waveforms, lengths)

    begin.wait()
    model = counting_model()
    model.adapter.__class__ = Slow
    found = extract(model, clips)
    reports.put((number, found.computed, found.vectors.take(found.front).tobytes()))


@pytest.mark.parametrize("killed", [False, True])
def test_processes_that_extract_the_same_store_at_once_end_with_one_right_store(tmp_path, monkeypatch, killed):
    clips = fold_clips(tmp_path / "x", CLIPS)
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "alone"))
    alone = extract(counting_model(), clips)
    expected = alone.vectors.take(alone.front).tobytes()
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "shared"))
    context = multiprocessing.get_context("fork")
    begin, reports = context.Event(), context.Queue()
    processes = [
        context.Process(target=work, args=(clips, n, begin, reports), kwargs={"fatal": killed and n == 0})
        for n in range(PROCESSES)
    ]
    if killed:  # it must be the one that holds the lock: the others begin when it has
        alone_first, *others = processes
        alone_first.start()
        begin.set()
        for process in others:
            process.start()
    else:
        for process in processes:
            process.start()
        begin.set()
    found = [reports.get(timeout=60) for _ in range(PROCESSES - killed)]
    for process in processes:
        process.join(timeout=60)
    codes = sorted(process.exitcode for process in processes)
    assert set(codes) <= {0, -signal.SIGKILL}
    assert {vectors for _, _, vectors in found} == {expected}
    (keys,) = (tmp_path / "shared").rglob("*.keys")
    (vectors,) = (tmp_path / "shared").rglob("*.vectors")
    stored = keys.read_bytes()
    rows = {stored[i : i + KEY_BYTES] for i in range(0, len(stored), KEY_BYTES)}
    assert len(rows) == len(stored) // KEY_BYTES == CLIPS  # none twice
    assert vectors.stat().st_size == CLIPS * 4 * alone.vectors.dim
    if killed and codes[0] < 0:  # what the killed one had stored was not embedded again
        assert sum(computed for _, computed, _ in found) == CLIPS - 8
    else:
        assert sum(computed for _, computed, _ in found) == CLIPS
