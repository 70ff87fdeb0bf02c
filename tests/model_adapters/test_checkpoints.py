"""Weights files: what is read, what is refused, and how plainly."""

import argparse
import hashlib
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from evar.errors import UserError
from model_adapters.networks.checkpoints import find_checkpoint, load_exactly, read_checkpoint


class Evil:
    def __reduce__(self):
        return print, ("this must never run",)


@pytest.fixture
def state():
    return {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {"state_dict": s, "epoch": 3}])
def test_reads_plain_and_wrapped_state_dicts(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / "w.pth")
    read, sha = read_checkpoint(tmp_path / "w.pth")
    assert read.keys() == state.keys()
    assert torch.equal(read["weight"], state["weight"])
    assert sha == hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()


def test_reads_a_training_checkpoint_with_its_arguments(tmp_path, state):
    whole = {"model": state, "optimizer": {"state": {}}, "epoch": 1, "scaler": None, "args": argparse.Namespace(lr=1.0)}
    torch.save(whole, tmp_path / "checkpoint-1.pth")
    assert read_checkpoint(tmp_path / "checkpoint-1.pth")[0].keys() == state.keys()


def test_reads_the_old_torch_format_and_safetensors(tmp_path, state):
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "new.safetensors")
    for name in ("old.pt", "new.safetensors"):
        assert torch.equal(read_checkpoint(tmp_path / name)[0]["bias"], state["bias"])


def test_a_folder_stands_for_the_one_file_in_it(tmp_path, state):
    torch.save(state, tmp_path / "a.pth")
    assert find_checkpoint(str(tmp_path)) == tmp_path / "a.pth"
    torch.save(state, tmp_path / "b.pth")
    with pytest.raises(UserError, match=r"exactly|must hold one.*a\.pth, b\.pth"):
        find_checkpoint(str(tmp_path))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_does_not_run(tmp_path, capsys, state, zipped):
    torch.save({"model": state, "bad": Evil()}, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    assert read_checkpoint(tmp_path / "evil.pth")[0].keys() == state.keys()
    (tmp_path / "bare.pth").write_bytes(pickle.dumps({"model": {}, "bad": Evil()}, protocol=2))
    with pytest.raises(UserError, match="is not read"):
        read_checkpoint(tmp_path / "bare.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["text.pth", "text.safetensors"])
def test_a_file_that_is_no_weights_file_gives_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"<!DOCTYPE html> not found")
    with pytest.raises(UserError) as caught:
        read_checkpoint(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_cut_file_gives_one_line(tmp_path, state):
    torch.save(state, tmp_path / "w.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:-200])
    with pytest.raises(UserError) as caught:
        read_checkpoint(tmp_path / "cut.pth")
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_its_neighbour(tmp_path, state):
    torch.save(state, tmp_path / "checkpoint-300.pth")
    with pytest.raises(UserError, match=r"Did you mean 'checkpoint-300\.pth'"):
        read_checkpoint(tmp_path / "checkpoint-30.pth")


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="no weights"):
        read_checkpoint(tmp_path / "w.pth")


def test_load_exactly_copies_and_ignores_only_what_it_is_told(state):
    layer = nn.Linear(3, 2)
    load_exactly(layer, {**state, "head.weight": torch.ones(1)}, ignore=["head."])
    assert torch.equal(layer.weight, state["weight"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"weight": None, "bias": None, "x": torch.ones(1)},
            ["missing: bias, weight", "unexpected: x", "another model"],
        ),
        ({"weight": torch.ones(4, 3)}, ["weight is [4, 3] and should be [2, 3]", "variant"]),
        ({"extra": torch.ones(1)}, ["unexpected: extra", "another version"]),
    ],
)
def test_load_exactly_says_everything_in_one_line(state, change, words):
    given = {key: value for key, value in {**state, **change}.items() if value is not None}
    layer = nn.Linear(3, 2)
    before = layer.weight.clone()
    with pytest.raises(UserError) as caught:
        load_exactly(layer, given, what="in 'w.pth'")
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)
    assert torch.equal(layer.weight, before)
