"""Embeddings on disk: whole rows or none, whatever is killed when, and processes that share a folder."""

import json
import multiprocessing
import os
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evar import store as store_module
from evar.store import KEY_BYTES, EmbeddingStore, Writer, clip_key, fingerprint_of, read_pair, write_atomically

DIM = 3
FACTS = {"model": "m2d", "options": {"depth": 2}}


def key(n):
    return clip_key(n.to_bytes(16, "big"), "front")


def vector(n):
    return np.array([n, -n, 0.5 * n], dtype=np.float32)


def fill(writer, numbers):
    numbers = list(numbers)
    writer.append([key(n) for n in numbers], np.array([vector(n) for n in numbers]))


def test_what_was_appended_is_read_in_any_order(tmp_path):
    store = EmbeddingStore(tmp_path, FACTS, DIM)
    with store.writing("esc50") as writer:
        fill(writer, range(4))
        fill(writer, range(4, 6))
        writer.append([], np.empty((0, DIM)))
    vectors, there = store.rows([key(n) for n in (5, 0, 9, 5)])
    assert there.tolist() == [True, True, False, True]
    assert len(vectors) == 4
    np.testing.assert_array_equal(vectors.take(np.array([0, 1, 3])), [vector(5), vector(0), vector(5)])
    np.testing.assert_array_equal(vectors.take(slice(0, 2)), [vector(5), vector(0)])


def test_all_works_of_a_fingerprint_are_read_so_that_a_shared_clip_is_found(tmp_path):
    store = EmbeddingStore(tmp_path, FACTS, DIM)
    for work, numbers in (("esc50", [1, 2]), ("fsdd", [2, 3])):
        with store.writing(work) as writer:
            fill(writer, numbers)
    vectors, there = EmbeddingStore(tmp_path, FACTS, DIM).rows([key(n) for n in (3, 2, 1)])
    assert there.all()
    np.testing.assert_array_equal(vectors.take(), [vector(3), vector(2), vector(1)])


def test_another_fingerprint_has_another_folder(tmp_path):
    one = EmbeddingStore(tmp_path, FACTS, DIM)
    other = EmbeddingStore(tmp_path, FACTS | {"options": {"depth": 3}}, DIM)
    with one.writing("esc50") as writer:
        fill(writer, [1])
    assert one.folder != other.folder
    assert other.rows([key(1)])[1].tolist() == [False]


def test_the_facts_lie_beside_the_embeddings_for_people(tmp_path):
    store = EmbeddingStore(tmp_path, FACTS, DIM)
    assert json.loads((store.folder / "facts.json").read_text()) == FACTS | {"dim": DIM}
    assert store.folder == tmp_path / store.fingerprint[:2] / store.fingerprint


def test_a_fingerprint_does_not_depend_on_the_order_of_the_facts():
    assert fingerprint_of({"a": 1, "b": 2}) == fingerprint_of({"b": 2, "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})
    assert len(fingerprint_of({})) == 32


def test_a_clips_key_tells_windows_and_contents_apart():
    content = bytes(16)
    keys = {clip_key(content, "front"), clip_key(content, "random:42"), clip_key(b"x" * 16, "front")}
    assert len(keys) == 3
    assert all(len(k) == KEY_BYTES for k in keys)


def test_vectors_of_another_shape_are_refused_and_nothing_is_written(tmp_path):
    writer = Writer(tmp_path / "work", DIM)
    with pytest.raises(ValueError, match=r"2 keys, but vectors of shape \(1, 3\)"):
        writer.append([key(1), key(2)], np.zeros((1, DIM)))
    assert read_pair(tmp_path / "work", DIM)[0] == []


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 5 * KEY_BYTES), st.integers(0, 5 * 4 * DIM))
def test_a_half_written_tail_is_not_read_and_the_next_writer_cuts_it_off(tmp_path_factory, keys_left, vectors_left):
    base = tmp_path_factory.mktemp("torn") / "work"
    fill(Writer(base, DIM), range(5))
    os.truncate(base.with_suffix(".keys"), keys_left)
    os.truncate(base.with_suffix(".vectors"), vectors_left)
    whole = min(keys_left // KEY_BYTES, vectors_left // (4 * DIM))

    keys, vectors = read_pair(base, DIM)
    assert keys == [key(n) for n in range(whole)]
    np.testing.assert_array_equal(vectors, np.array([vector(n) for n in range(whole)]).reshape(-1, DIM))

    fill(Writer(base, DIM), range(whole, 7))
    keys, vectors = read_pair(base, DIM)
    assert keys == [key(n) for n in range(7)]
    np.testing.assert_array_equal(vectors, [vector(n) for n in range(7)])


def test_vectors_reach_the_disk_before_their_keys(tmp_path, monkeypatch):
    order, append = [], store_module._append
    monkeypatch.setattr(store_module, "_append", lambda path, data: order.append(path.suffix) or append(path, data))
    fill(Writer(tmp_path / "work", DIM), [1])
    assert order == [".vectors", ".keys"]


def embed_slowly(folder, numbers):
    """Do what an extraction does: take the lock, look what is there, embed the rest one by one."""
    store = EmbeddingStore(folder, FACTS, DIM)
    with store.writing("esc50") as writer:
        _, there = store.rows([key(n) for n in numbers])
        for n, here in zip(numbers, there, strict=True):
            if not here:
                fill(writer, [n])
                time.sleep(0.002)


def test_two_processes_at_once_end_with_every_row_once(tmp_path):
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=embed_slowly, args=(tmp_path, list(range(20)))) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    store = EmbeddingStore(tmp_path, FACTS, DIM)
    keys, vectors = read_pair(store.folder / "esc50", DIM)
    assert keys == [key(n) for n in range(20)]
    np.testing.assert_array_equal(vectors, [vector(n) for n in range(20)])


def test_who_waits_for_another_process_is_told(tmp_path, capsys):
    store = EmbeddingStore(tmp_path, FACTS, DIM)
    waiting = threading.Thread(target=embed_slowly, args=(tmp_path, [1]))
    with store.writing("esc50"):
        waiting.start()
        time.sleep(0.2)
        assert store.rows([key(1)])[1].tolist() == [False]
    waiting.join(30)
    assert store.rows([key(1)])[1].tolist() == [True]
    assert "another process is embedding the same clips" in capsys.readouterr().err


def test_a_text_file_is_the_old_one_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "sub" / "result.json"
    write_atomically(path, "old")
    write_atomically(path, "newer")
    assert path.read_text() == "newer"

    def full_disk(handle):
        raise OSError("no space left on device")

    monkeypatch.setattr(store_module.os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "a text that did not reach the disk")
    assert path.read_text() == "newer"
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]
