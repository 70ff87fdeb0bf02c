"""The reference's pickled dictionaries of embeddings are read without running them (MODELS 9)."""

import io
import os
import pickle

import numpy as np
import pytest

from evar.cli import run
from evar.errors import UserError
from evar.pretrain.caption_convert import read_pickled_dictionary
from evar.pretrain.caption_store import open_captions
from evar.pretrain.captions import captions

D = 5
LABELS = {"--PJHxphWEs": np.arange(D, dtype=np.float16), "vfY_TJq7n_U": -np.arange(D, dtype=np.float16)}
ALTERNATIVES = {"--PJHxphWEs": np.arange(4 * D, dtype=np.float16).reshape(4, D) / 8}
OTHERS = {"SoundBible2219": np.ones((1, D), np.float16), "At 5:00?": np.full((5, D), 2, np.float16)}


def save(path, content):
    """Write what the reference writes: numpy.save of a dictionary."""
    np.save(path, content, allow_pickle=True)
    return path


def raw(path, pickled):
    """Write a .npy file with a pickle of our own making."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    path.write_bytes(header.getvalue() + pickled)
    return path


@pytest.mark.parametrize("content", [LABELS, ALTERNATIVES, {"x": np.asfortranarray(np.arange(6.0).reshape(2, 3))}])
def test_a_dictionary_is_read_as_numpy_would(tmp_path, content):
    found = read_pickled_dictionary(save(tmp_path / "x.npy", content))
    assert set(found) == set(content)
    for key, value in content.items():
        np.testing.assert_array_equal(found[key], np.atleast_2d(value))
        assert found[key].dtype == value.dtype


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("core", [b"numpy.core.", b"numpy._core."])
def test_files_of_old_and_new_numpy_are_read(tmp_path, protocol, core):
    pickled = pickle.dumps(np.array(LABELS, dtype=object), protocol=protocol)
    if protocol == 3:  # with names of a fixed length the module's name cannot simply be exchanged
        pickled = pickled.replace(b"cnumpy._core.", b"c" + core).replace(b"cnumpy.core.", b"c" + core)
    np.testing.assert_array_equal(
        read_pickled_dictionary(raw(tmp_path / "x.npy", pickled))["vfY_TJq7n_U"], [LABELS["vfY_TJq7n_U"]]
    )


class Runs:
    """A pickle of this calls a function when it is loaded."""

    def __init__(self, function, *arguments):
        self.what = function, arguments

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (os.system, ("touch {folder}/was_run",), "posix.system"),
        (eval, ("open('{folder}/was_run', 'w')",), "builtins.eval"),
        (np.load, ("{folder}/x.npy",), "numpy.load"),
        (np.fromfile, ("{folder}/x.npy",), "fromfile"),
        (getattr, (np, "load"), "builtins.getattr"),
    ],
)
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, function, arguments, named):
    arguments = [a.format(folder=tmp_path) if isinstance(a, str) else a for a in arguments if a is not np]
    for content in (Runs(function, *arguments), {"key": Runs(function, *arguments)}):
        path = raw(tmp_path / "bad.npy", pickle.dumps(content))
        with pytest.raises(UserError, match="is refused: its pickle asks for") as raised:
            read_pickled_dictionary(path)
        assert named in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "was_run").exists()


def test_a_name_with_dots_reaches_nothing_behind_an_allowed_one(tmp_path):
    for name in (b"ndarray.tofile", b"dtype.__class__", b"ndarray.__init_subclass__"):
        pickled = b"\x80\x04\x8c\x05numpy\x8c" + bytes([len(name)]) + name + b"\x93."
        with pytest.raises(UserError, match="refused"):
            read_pickled_dictionary(raw(tmp_path / "x.npy", pickled))
    with pytest.raises(UserError, match="a persistent object"):
        read_pickled_dictionary(raw(tmp_path / "x.npy", b"\x80\x04\x8c\x01x\x51."))


def test_arrays_are_no_bigger_than_their_bytes(tmp_path):
    pickled = pickle.dumps({"k": np.zeros(4, np.float16)}, protocol=4)
    assert b"K\x04\x85" in pickled  # the shape (4,)
    with pytest.raises(UserError, match="not as many bytes as its shape"):
        read_pickled_dictionary(raw(tmp_path / "x.npy", pickled.replace(b"K\x04\x85", b"K\xff\x85")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "does not hold a dictionary"),
        ({}, "does not hold a dictionary"),
        ({1: np.zeros(2)}, "a key that is no text"),
        ({"k": 1.0}, "the value of 'k'"),
        ({"k": np.float16(1)}, "the value of 'k'"),
        ({"k": np.zeros(2, np.int64)}, "the value of 'k'"),
        ({"k": np.zeros((1, 2, 3))}, "the value of 'k'"),
        ({"k": np.zeros(2, ">f2")}, "the value of 'k'"),
        ({"k": np.array(["a", None], dtype=object)}, "the value of 'k'"),
    ],
)
def test_other_content_is_one_clear_line(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_pickled_dictionary(raw(tmp_path / "x.npy", pickle.dumps(content)))


def test_other_files_are_one_clear_line(tmp_path):
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    (tmp_path / "text.npy").write_text("no array")
    raw(tmp_path / "cut.npy", pickle.dumps(LABELS)[:-20])
    for name, message in {
        "numbers": "an array of numbers",
        "text": "no .npy file",
        "cut": "cannot be read",
        "none": "no file",
    }.items():
        with pytest.raises(UserError, match=message):
            read_pickled_dictionary(tmp_path / f"{name}.npy")


def test_the_command_converts_what_belongs_to_the_corpus(tmp_path, capsys):
    for name, content in {"a": LABELS, "b": ALTERNATIVES, "c": OTHERS}.items():
        save(tmp_path / f"{name}.npy", content)
    clips = ["as/Y--PJHxphWEs.wav", "SoundBible/2219.flac", "clotho/At 5_00_.wav"]
    (tmp_path / "clips.csv").write_text("name\n" + "".join(f"{name}\n" for name in clips))
    words = [str(tmp_path / "out"), f"--corpus={tmp_path}", f"--convert={tmp_path}", "--encoder=thenlper/gte-base"]
    assert run(captions, words) == 0
    assert "thenlper/gte-base, 5 numbers each" in capsys.readouterr().out
    found = open_captions(tmp_path / "out").for_corpus(clips)
    assert np.diff(found.starts).tolist() == [5, 1, 5]
    vectors = found.embeddings(found.rows[: found.starts[1]].astype(np.int64)).numpy()
    np.testing.assert_array_equal(vectors, np.vstack([LABELS["--PJHxphWEs"], ALTERNATIVES["--PJHxphWEs"]]))
    assert len(found.vectors) == 11, "of other clips nothing is taken"
    assert set(found.facts["encoder"]["converted"]) == {"a.npy", "b.npy", "c.npy"}
    with pytest.raises(UserError, match="have no text"):
        found.texts(np.array([0]))


def test_files_of_two_encoders_do_not_mix(tmp_path, capsys):
    save(tmp_path / "a.npy", LABELS)
    save(tmp_path / "b.npy", {"x": np.zeros(D + 1)})
    (tmp_path / "clips.csv").write_text("name\n--PJHxphWEs.wav\n")
    assert run(captions, [str(tmp_path / "out"), f"--corpus={tmp_path}", f"--convert={tmp_path}"]) == 2
    assert "'x' has 6 numbers, others have 5" in capsys.readouterr().err
