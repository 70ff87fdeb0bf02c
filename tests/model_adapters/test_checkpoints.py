"""Weights files: what is read, what is refused, and how plainly."""

import argparse
import hashlib
import pickle
import zipfile

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


def archive(path, *names):
    with zipfile.ZipFile(path, "w") as made:
        for name in names:
            made.writestr(name, b"content")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        (b"\xef\xbb\xbf\n <html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "a git-lfs pointer.*git lfs pull"),
        (b'{"error": "not found"}', r'is JSON, not weights \(\{"error": "not found"\}\)'),
        (b"Entry not found", "is a text, not weights: 'Entry not found'"),
        (b"Repository not found", "is a text.*'Repository not found'"),
        (b"file,label\na.wav,1\n", "is a text.*'file,label a.wav,1'"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt " + bytes(9), "is a RIFF file"),
        (b"\x1f\x8b" + bytes(range(99)), "is a gzip archive"),
        (b"\x93NUMPY\x01\x00", "is a numpy array"),
        (b"", "is empty"),
        (bytes(5000), "full of zeros"),
        (b"\x95" + b"\xff" * 40, "is no weights file"),
        (b"PK\x03\x04" + bytes(range(200)), "is cut"),
    ],
)
def test_what_lies_under_a_weights_name_is_said_in_one_line(tmp_path, content, words):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        read_checkpoint(tmp_path / "w.pt")
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)
    assert "was the download cut" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["m2d_clap_vit-80x608p16x16-1/checkpoint-300.pth"], "a zip with m2d_clap_.*/checkpoint-300.pth in it: unpack"),
        (["a.npy", "b.npy"], "is an .npz of numpy arrays"),
        (["x/code/__torch__/a.py", "x/data.pkl", "x/constants.pkl"], "is a TorchScript archive.*state_dict"),
        (["readme.txt"], r"a zip archive without weights \(in it: readme.txt\)"),
    ],
)
def test_what_another_zip_is_is_said(tmp_path, names, words):
    archive(tmp_path / "w.zip", *names)
    with pytest.raises(UserError, match=words) as caught:
        read_checkpoint(tmp_path / "w.zip")
    assert "download cut" not in str(caught.value)


def test_a_file_under_the_other_suffix_is_said(tmp_path, state):
    save_file(state, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").rename(tmp_path / "a.pt")
    torch.save(state, tmp_path / "b.safetensors")
    for name, right in (("a.pt", ".safetensors"), ("b.safetensors", ".pt")):
        with pytest.raises(UserError, match=f"rename it to {right}$"):
            read_checkpoint(tmp_path / name)


def test_a_whole_pickled_model_is_named_and_not_built(tmp_path):
    for content in (nn.Linear(2, 2), {"model": nn.Linear(2, 2)}):
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(UserError, match=r"a pickled object \(torch.nn.modules.linear.Linear\).*its state_dict"):
            read_checkpoint(tmp_path / "w.pt")


def test_what_is_refused_is_named_and_not_how_to_switch_the_check_off(tmp_path):
    (tmp_path / "w.pt").write_bytes(pickle.dumps({"bad": Evil()}, protocol=2))
    with pytest.raises(UserError, match=r"\(Unsupported global: GLOBAL print\)") as caught:
        read_checkpoint(tmp_path / "w.pt")
    assert "weights_only" not in str(caught.value) and "PyTorch" not in str(caught.value)


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
