"""Captions on disk: drawn alike everywhere, embedded once, resumed after a kill."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from evar.errors import UserError
from evar.pretrain.caption_store import open_captions, uniform
from evar.pretrain.caption_vectors import BLOCK, VectorFile, read_vectors
from evar.pretrain.captions import Asked, Clips, make_captions, numbered

CLIPS = Clips(("a.wav", "b,1.wav", "c.wav"), [("dog",), ("dog",), ("dog",)])
TABLE = 'file,caption_1,caption_2,caption_3\na.wav,"one, ""two""",three,NA\n"b,1.wav",three,,\n'


class FakeEncoder:
    """A caption's vector is its length and its place in the alphabet; it can be killed at a call."""

    dim = 2

    def __init__(self, fail_at=None):
        self.fail_at, self.calls = fail_at, []

    def facts(self):
        return {"name": "fake", "pooling": "mean"}

    def to(self, device):
        return self

    def encode(self, texts):
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        self.calls.append(list(texts))
        return torch.tensor([[float(len(text)), float(ord(text[0]))] for text in texts])


def made(folder, clips=CLIPS, encoder="fake", **asked):
    folder.mkdir(exist_ok=True)
    (folder / "table.csv").write_text(TABLE)
    asked = Asked((f"csv:{folder}/table.csv",), encoder=encoder, **asked)
    make_captions(folder, clips, asked, None if encoder == "none" else FakeEncoder())
    return open_captions(folder)


def rows_of(found, clip):
    return found.rows[found.starts[clip] : found.starts[clip + 1]]


def test_every_clip_has_its_captions_and_their_embeddings(tmp_path):
    found = made(tmp_path)
    assert (found.names, found.dim, found.encoder, found.pooling) == (CLIPS.names, 2, "fake", "mean")
    assert found.texts(rows_of(found, 0)) == ('one, "two"', "three", "NA")
    assert found.texts(rows_of(found, 1)) == ("three",)
    assert found.texts(rows_of(found, 2)) == ("The sound of dog.",)
    vectors = found.embeddings(rows_of(found, 0).astype(np.int64))
    assert vectors.dtype == torch.float32
    assert vectors.tolist() == [[10.0, ord("o")], [5.0, ord("t")], [2.0, ord("N")]]
    assert len(found.vectors) == 4, "equal captions are embedded once"
    assert found.vectors.dtype == np.float16 and isinstance(found.vectors, np.memmap)
    header = (tmp_path / "captions.csv").read_text().splitlines()[0]
    assert header == "clip,caption,row,source"
    np.testing.assert_array_equal(load_file(tmp_path / "embeddings.safetensors")["embeddings"], found.vectors)


def test_the_record_says_of_what_it_was_made(tmp_path):
    made(tmp_path)
    about = json.loads((tmp_path / "captions.json").read_text())
    assert about["encoder"] == {"name": "fake", "pooling": "mean", "asked_for": "fake"}
    assert about["sources"] == [
        {"name": "labels", "captions_used": 1, "licence": ""},
        {"name": "table", "captions_used": 4, "licence": ""},
    ]
    assert (about["ids"], about["label_template"], about["dim"]) == ("exact", "The sound of {label}.", 2)


def test_the_fingerprint_follows_captions_and_encoder(tmp_path):
    one, same = made(tmp_path / "a"), made(tmp_path / "b")
    other, none = made(tmp_path / "c", label_template="{label}"), made(tmp_path / "d", encoder="none")
    assert one.fingerprint == same.fingerprint
    assert len({one.fingerprint, other.fingerprint, none.fingerprint}) == 3


def test_captions_without_embeddings_serve_a_text_encoder_that_is_trained(tmp_path):
    found = made(tmp_path, encoder="none")
    assert (found.dim, found.encoder) == (0, "")
    assert found.texts(found.drawn(np.array([1, 2]), 3, 0)) == ("three", "The sound of dog.")
    with pytest.raises(UserError, match="without embeddings"):
        found.embeddings(np.array([0]))


def test_another_order_of_clips_has_the_same_captions(tmp_path):
    found = made(tmp_path)
    turned = found.for_corpus(["c.wav", "a.wav", "c.wav"])
    assert [found.texts(rows_of(turned, n)) for n in range(3)] == [found.texts(rows_of(found, n)) for n in (2, 0, 2)]
    assert found.for_corpus(found.names).starts.tolist() == found.starts.tolist()


def test_clips_of_another_corpus_are_named(tmp_path):
    with pytest.raises(UserError, match=r"1 of 2 clips have no caption \(z.wav\): .* made for another corpus"):
        made(tmp_path).for_corpus(["a.wav", "z.wav"])


def test_a_clip_without_caption_stops_or_is_left_without(tmp_path):
    clips = Clips((*CLIPS.names, "d.wav"), None)
    with pytest.raises(
        UserError, match=r"2 of 4 clips have no caption \(c.wav, d.wav\): add tables .* --allow_missing"
    ):
        made(tmp_path, clips)
    found = made(tmp_path, clips, allow_missing=True).for_corpus(clips.names)
    np.testing.assert_array_equal(found.captioned, [0, 1])
    rows = found.drawn(np.array([3, 1, 2]), 0, 0)
    assert rows[0] == rows[2] == -1 and found.texts(rows) == ("", "three", "")
    assert found.embeddings(rows)[0].tolist() == [0.0, 0.0] and found.embeddings(rows)[1, 0] == 5.0
    with pytest.raises(UserError, match="4 of 4 clips have no caption"):
        made(tmp_path, Clips(("1", "2", "3", "4"), None), allow_missing=True)


def test_captions_are_drawn_uniformly(tmp_path):
    found = made(tmp_path)
    draws = np.concatenate([found.drawn(np.zeros(1, np.int64), 7, step) for step in range(3000)])
    counts = np.bincount(draws, minlength=4)[rows_of(found, 0)]
    assert counts.sum() == 3000 and (np.abs(counts - 1000) < 4 * np.sqrt(3000 * 2 / 9)).all()


def test_a_draw_depends_on_seed_step_and_clip_alone(tmp_path):
    found = made(tmp_path)
    clips = np.array([0, 1, 2, 0])
    whole = found.drawn(clips, 5, 9)
    np.testing.assert_array_equal(whole, np.concatenate([found.drawn(clips[n : n + 1], 5, 9) for n in range(4)]))
    numbers = np.arange(20000)
    u = uniform(5, 9, numbers)
    assert u.min() >= 0 and u.max() < 1
    np.testing.assert_allclose(np.histogram(u, 10, (0, 1))[0] / 2000, 1, atol=0.1)
    for other in (uniform(6, 9, numbers), uniform(5, 10, numbers), np.roll(u, 1)):
        assert abs(np.corrcoef(u, other)[0, 1]) < 0.03


def test_a_killed_run_goes_on_and_gives_the_same_file(tmp_path):
    texts, _ = numbered([f"caption {n}" for n in range(25)])

    def encode(encoder):
        return lambda some: encoder.encode(some).numpy()

    whole = VectorFile(tmp_path / "whole.safetensors", 25, 2, "f")
    assert whole.write(texts, encode(FakeEncoder()), block=4) == 25
    part = VectorFile(tmp_path / "part.safetensors", 25, 2, "f")
    with pytest.raises(KeyboardInterrupt):
        part.write(texts, encode(FakeEncoder(fail_at=3)), block=4)
    assert not part.path.exists()
    with open(part.part, "ab") as handle:
        handle.write(b"half")  # what a kill leaves of a block
    second = FakeEncoder()
    assert part.write(texts, encode(second), block=4) == 13
    assert second.calls[0] == texts[12:16]
    assert part.path.read_bytes() == whole.path.read_bytes()
    assert part.write(texts, encode(FakeEncoder(fail_at=0)), block=4) == 0, "what is there is not made again"


def test_captions_killed_while_embedding_go_on(tmp_path):
    clips = Clips(tuple(f"{n}.wav" for n in range(600)), [(f"sound {n}",) for n in range(600)])
    asked = Asked(encoder="fake")
    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    make_captions(tmp_path / "whole", clips, asked, FakeEncoder())
    with pytest.raises(KeyboardInterrupt):
        make_captions(tmp_path / "killed", clips, asked, FakeEncoder(fail_at=1))
    with pytest.raises(UserError, match="not finished: run the same command again"):
        open_captions(tmp_path / "killed")
    second = FakeEncoder()
    make_captions(tmp_path / "killed", clips, asked, second)
    assert sum(map(len, second.calls)) == 600 - BLOCK
    for name in ("captions.csv", "embeddings.safetensors", "captions.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_another_encoder_has_left_is_not_gone_on_with(tmp_path):
    def encode(some):
        return np.ones((len(some), 2))

    def killed(some):
        if "c" in some:
            raise KeyboardInterrupt
        return np.zeros((len(some), 2))

    with pytest.raises(KeyboardInterrupt):
        VectorFile(tmp_path / "v", 3, 2, "one").write(["a", "b", "c"], killed, block=1)
    assert VectorFile(tmp_path / "v", 3, 2, "two").write(["a", "b", "c"], encode, block=1) == 3
    vectors, fingerprint = read_vectors(tmp_path / "v")
    assert fingerprint == "two" and (vectors == 1).all()


@pytest.mark.parametrize("value", [np.nan, 1e6])
def test_vectors_that_cannot_be_stored_are_refused(tmp_path, value):
    with pytest.raises(UserError, match="NaN, or more than float16 holds, for: a dog"):
        VectorFile(tmp_path / "v", 1, 2, "f").write(["a dog"], lambda some: np.full((1, 2), value))


def test_a_full_disk_is_one_clear_line(tmp_path):
    def full(some):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left"):
        VectorFile(tmp_path / "v", 1, 2, "f").write(["a"], full)


def test_longer_captions_come_first():
    texts, rows = numbered(["ab", "", "abc", "ab", "b", "a"])
    assert texts == ["abc", "ab", "a", "b", ""]
    np.testing.assert_array_equal(rows, [1, 4, 0, 1, 3, 2])


@pytest.mark.parametrize("file", ["captions.csv", "embeddings.safetensors", "captions.json"])
def test_damage_is_seen_and_repaired_by_running_again(tmp_path, file):
    made(tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[:-3])
    with pytest.raises(UserError, match="again"):
        open_captions(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(UserError, match=r"again|not there|not finished"):
        open_captions(tmp_path)
    made(tmp_path)
    assert (tmp_path / file).read_bytes() == content
    with pytest.raises(UserError, match="not there"):
        open_captions(tmp_path / "nowhere")
