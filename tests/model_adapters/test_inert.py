"""Checkpoints that hold more than weights are read without building what they name."""

import os

import numpy as np
import pytest
import torch

from evar.errors import UserError
from model_adapters.networks.checkpoints import read_checkpoint

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.steps": torch.tensor(3)}


class Callback:
    def __init__(self):
        self.best = np.float64(0.5)


class Harmful:
    def __reduce__(self):
        return os.system, ("touch should_not_be_here",)


def same(found):
    return found.keys() == STATE.keys() and all(torch.equal(found[k], v) for k, v in STATE.items())


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "before torch 1.6"])
@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"loss": np.float64(0.1)},
        {"sampler": {"indexes": [np.arange(5)], "state": np.random.RandomState(1)}},
        {"callbacks": {Callback: Callback()}},
        {"x": [Harmful()]},
    ],
    ids=["nothing", "a numpy scalar", "numpy arrays", "an object", "a call"],
)
def test_only_weights_come_out(tmp_path, monkeypatch, beside, archive):
    monkeypatch.chdir(tmp_path)
    content = {"epoch": 1, "state_dict": STATE, **beside}
    torch.save(content, "w.ckpt", _use_new_zipfile_serialization=archive)
    found, sha = read_checkpoint(tmp_path / "w.ckpt")
    assert same(found) and len(sha) == 64
    assert not (tmp_path / "should_not_be_here").exists()


def test_a_cut_file_of_the_older_form_is_an_error(tmp_path):
    whole = {"state_dict": STATE, "sampler": np.arange(3)}
    torch.save(whole, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(content[:-4])
    with pytest.raises(UserError):
        read_checkpoint(tmp_path / "w.pth")


def test_views_of_one_storage_keep_their_values(tmp_path):
    whole = torch.arange(12.0)
    state = {"a": whole[2:6], "b": whole.reshape(3, 4).T, "c": whole.half()}
    torch.save({"model": state, "x": np.arange(2)}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    found, _ = read_checkpoint(tmp_path / "w.pth")
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_a_damaged_file_stays_an_error(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(UserError):
        read_checkpoint(tmp_path / "w.pt")
    with pytest.raises(UserError, match="there is no weights file"):
        read_checkpoint(tmp_path / "none.pt")
