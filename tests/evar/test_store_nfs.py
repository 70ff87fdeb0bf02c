"""The store on NFS, played: what another host wrote is seen when a file is opened, not by ``stat`` (for a minute)."""

import io
import os

import numpy as np
import pytest

from evar import store as store_module
from evar.store import EmbeddingStore, clip_key

DIM = 3


def key(n):
    return clip_key(n.to_bytes(16, "big"), "front")


def fill(store, numbers):
    with store.writing("esc50") as writer:
        writer.append([key(n) for n in numbers], np.array([[n] * DIM for n in numbers], dtype=np.float32))


class Client:
    """A host's memory of names and sizes: ``os.stat`` answers from it; an open asks the server (close-to-open)."""

    def __init__(self):
        self.memory, self.stat, self.open = {}, os.stat, io.open

    def stale_stat(self, path, *args, **named):
        name = os.fspath(path) if not isinstance(path, int) else path
        if not str(name).endswith((".keys", ".vectors")):
            return self.stat(path, *args, **named)
        if name not in self.memory:
            try:
                self.memory[name] = self.stat(path)
            except FileNotFoundError as error:
                self.memory[name] = error
        if isinstance(found := self.memory[name], Exception):
            raise found
        return found

    def fresh_open(self, path, *args, **named):
        self.memory.pop(os.fspath(path) if not isinstance(path, int) else path, None)
        return self.open(path, *args, **named)


@pytest.mark.parametrize("known", [[], [1, 2]])
def test_a_writer_on_another_host_never_cuts_off_what_it_has_not_heard_of(tmp_path, monkeypatch, known):
    facts = {"model": "m2d"}
    here, there = (EmbeddingStore(tmp_path, facts, DIM) for _ in range(2))
    if known:
        fill(there, known)
    client = Client()
    with monkeypatch.context() as patch:  # this host looks, and remembers
        patch.setattr(os, "stat", client.stale_stat)
        here.rows([key(1)])
        for suffix in (".keys", ".vectors"):
            (here.folder / f"esc50{suffix}").exists()
    fill(there, [3, 4, 5])  # the other host goes on
    mapped, _ = there.rows([key(5)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", client.stale_stat)
        patch.setattr(io, "open", client.fresh_open)
        patch.setattr("builtins.open", client.fresh_open)
        fill(here, [6])
    keys, vectors = store_module.read_pair(here.folder / "esc50", DIM)
    assert keys == [key(n) for n in [*known, 3, 4, 5, 6]]
    assert vectors[:, 0].tolist() == [*known, 3, 4, 5, 6]
    assert mapped.take()[0, 0] == 5  # a reader elsewhere still has its pages under it
