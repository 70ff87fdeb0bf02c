"""From audio in folders, tables, AudioSet and tasks to one packed corpus: what enters, is kept, is refused."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import mini_audioset
import numpy as np
import pytest
from helpers import fold_rows, noise, tiny_folder, tiny_task, write_audio

from evar.audio import pack_source
from evar.audio.decode import decode
from evar.cli import run
from evar.errors import UserError
from evar.pretrain import corpus_sources
from evar.pretrain.corpus import corpus, describe, open_corpus
from evar.pretrain.corpus_sources import youtube_ids

RATE = 16000


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def wild(tmp_path):
    """A folder of five files, one of them in a subfolder, one longer than half a second."""
    folder = tmp_path / "wild"
    for n, name in enumerate(["a.wav", "b.flac", "deep/c.wav", "deep/d.ogg"]):
        write_audio(folder / name, noise(n, 0.3, RATE), RATE)
    write_audio(folder / "long.wav", noise(9, 1.25, RATE), RATE)
    return folder


def make(out, *audio, **options):
    corpus(out, audio=tuple(map(str, audio)), **options)
    return open_corpus(out)


def test_a_folder_becomes_a_corpus(wild, tmp_path, capsys):
    found = make(tmp_path / "out", wild, max_seconds=0.5, licence="CC0")
    assert found.names == ("wild/a.wav", "wild/b.flac", "wild/deep/c.wav", "wild/deep/d.ogg", "wild/long.wav")
    assert found.seconds.tolist() == [0.3, 0.3, 0.3, 0.3, 0.5]
    assert (found.labels, found.classes, found.weights) == (None, (), None)
    for number, clip in enumerate(found.source.stored(found.rows)):
        wave = decode(wild.parent / found.names[number], RATE)[:8000]
        assert np.abs(clip / 32768 - wave).max() <= 2**-16
    said = capsys.readouterr().out
    assert "5 clips" in said and "audio, int16, 16000 Hz, up to 0.5 s each" in said and "licence: CC0" in said


def test_list_describes_what_is_there(wild, tmp_path, capsys):
    make(tmp_path / "out", wild)
    capsys.readouterr()
    corpus(tmp_path / "out", list=True)
    assert capsys.readouterr().out.splitlines() == describe(tmp_path / "out")
    with pytest.raises(UserError, match="no corpus"):
        corpus(tmp_path / "nowhere", list=True)


@pytest.mark.parametrize(("dtype", "store"), [("float16", "audio"), ("float32", "log_mel"), (None, "log_mel")])
def test_what_is_stored_can_be_chosen(wild, tmp_path, dtype, store):
    found = make(tmp_path / "out", wild, dtype=dtype, store=store)
    assert found.source.spec.dtype == (dtype or "float16")
    assert found.source.stored(found.rows[:1])[0].shape == ((31, 80) if store == "log_mel" else (4800,))


def test_a_table_brings_labels_weights_and_leaves_out_other_splits(wild, tmp_path):
    table = tmp_path / "lists" / "mine.csv"
    table.parent.mkdir()
    lines = ["file,label,weight,split", "a.wav,dog;cat,1.5,train", "deep/c.wav,,0,train", "b.wav,owl,2,test"]
    table.write_text("\n".join(lines))
    found = make(tmp_path / "out", table, root=wild)
    assert found.names == ("mine/a.wav", "mine/deep/c.wav")
    assert found.classes == ("cat", "dog") and found.weights.tolist() == [1.5, 0.0]
    assert found.labels[np.array([1, 0, 0])].tolist() == [[0, 0], [1, 1], [1, 1]]
    with pytest.raises(UserError, match=r"1 of 2 clips .* no label, the first: mine/deep/c.wav"):
        found.need_labels()


def test_several_sources_are_one_corpus_and_equal_files_are_stored_once(wild, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(wild / "a.wav", other / "again.wav")
    (wild / "mine.csv").write_text("file,label\nb.flac,x\n")
    found = make(tmp_path / "out", wild, other, wild / "mine.csv")
    assert len(found) == 7 and len(found.source) == 5
    assert found.rows[0] == found.rows[5] and found.names[5:] == ("other/again.wav", "mine/b.flac")
    about = json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert [(s["name"], s["clips"]) for s in about["sources"]] == [("wild", 5), ("other", 1), ("mine", 1)]
    with pytest.raises(UserError, match="two sources are called 'wild'"):
        make(tmp_path / "twice", wild, wild)


def test_a_part_of_a_corpus_is_a_corpus_of_its_own(wild, tmp_path):
    (wild / "mine.csv").write_text("file,label\na.wav,x\nb.flac,y\ndeep/c.wav,x;y\n")
    found = make(tmp_path / "out", wild / "mine.csv")
    part = found.only(np.array([2, 0]))
    assert part.names == ("mine/deep/c.wav", "mine/a.wav") and part.fingerprint != found.fingerprint
    assert part.rows.tolist() == found.rows[[2, 0]].tolist() and part.digests[1] == found.digests[0]
    assert part.labels[np.arange(2)].tolist() == [[1, 1], [1, 0]] and part.classes == found.classes


@pytest.mark.parametrize(
    ("stem", "ids"),
    [
        ("abcdefghijk", ["abcdefghijk"]),
        ("Yabcdefghijk", ["abcdefghijk", "Yabcdefghij"]),
        ("-bcdefghijk_30.000", ["-bcdefghijk"]),
        ("Yabcdefghijk_000030", ["abcdefghijk", "Yabcdefghij"]),
        ("Yabcdefghij_30", ["Yabcdefghij"]),
        ("Yabcdefghij", ["Yabcdefghij"]),
        ("1-100032-A-0", []),
        ("short", []),
    ],
)
def test_names_of_youtube_clips(stem, ids):
    assert youtube_ids(stem) == ids


def test_audiosets_tables_find_their_clips_and_know_all_classes(tmp_path):
    data = mini_audioset.write(tmp_path / "audioset")
    balanced, unbalanced, evaluation = (data / f"{name}.csv" for name in mini_audioset.TABLES)
    first = next(p for p in (data / balanced.stem).iterdir() if p.stem.endswith("0000"))
    first.rename(first.with_name(f"Y{first.name}"))
    found = make(tmp_path / "out", balanced, unbalanced)
    assert len(found) == 14 and len(found.classes) == 527
    assert f"{balanced.stem}/Y{first.name}" == found.names[0]
    hot = found.need_labels()[np.arange(14)]
    for row, (_, _, labels) in zip(hot[:7], mini_audioset.rows(balanced.stem), strict=False):
        assert {found.classes[n] for n in np.flatnonzero(row)} == set(labels)
    assert "1 listed clips are not there" in "\n".join(describe(tmp_path / "out"))
    with pytest.raises(UserError, match="evaluation part tests models"):
        make(tmp_path / "no", evaluation)
    with pytest.raises(UserError, match=r"none of the clips of .* is in"):
        make(tmp_path / "no", balanced, root=tmp_path / "cache")


def test_a_tasks_test_and_validation_clips_never_enter(tmp_path, monkeypatch):
    task = tiny_task()
    tiny_folder(tmp_path / "data" / "tiny")
    (tmp_path / "data" / "tiny" / "audio" / "d.wav").unlink()  # of the test: it need not even be there
    monkeypatch.setattr(corpus_sources, "get_task", lambda name: task)
    found = make(tmp_path / "out", "task:tiny", task_root=tmp_path / "data")
    assert found.names == ("tiny/audio/a.wav", "tiny/audio/b.wav")
    assert found.labels[np.arange(2)].tolist() == [[0, 1], [1, 0]]
    with pytest.raises(UserError, match="has a split and no folds"):
        make(tmp_path / "no", "task:tiny@1", task_root=tmp_path / "data")


def test_a_task_with_folds_needs_the_one_that_is_held_out(tmp_path, monkeypatch):
    task = tiny_task(counts={1: 4, 2: 4, 3: 4})
    tiny_folder(tmp_path / "data" / "tiny", fold_rows(12, 3))
    monkeypatch.setattr(corpus_sources, "get_task", lambda name: task)
    found = make(tmp_path / "out", "task:tiny@3", task_root=tmp_path / "data")
    train = {f"tiny/{row['file']}" for row in fold_rows(12, 3) if row["fold"] != 3}
    assert set(found.names) == train
    assert len(make(tmp_path / "one", "task:tiny@1+3", task_root=tmp_path / "data")) == 4
    for held_out in ("", "@9", "@1+2+3"):
        with pytest.raises(UserError, match=r"has the folds 1, 2, 3; say which is held out .*task:tiny@3"):
            make(tmp_path / "no", f"task:tiny{held_out}", task_root=tmp_path / "data")


def test_exclusion_lists_name_stems_and_ids(wild, tmp_path):
    write_audio(wild / "Yabcdefghijk.wav", noise(20, 0.3, RATE), RATE)
    (tmp_path / "out.txt").write_text("# evaluated\na\nd.ogg\nabcdefghijk\nabsent\n")
    found = make(tmp_path / "out", wild, exclude=(tmp_path / "out.txt",))
    assert found.names == ("wild/b.flac", "wild/deep/c.wav", "wild/long.wav")
    assert "excluded: 3 clips (out.txt)" in "\n".join(describe(tmp_path / "out"))


def counted(monkeypatch):
    decoded = []
    monkeypatch.setattr(pack_source, "decode", lambda path, rate: decoded.append(path.name) or decode(path, rate))
    return decoded


def test_a_second_run_decodes_nothing_and_a_new_source_only_what_is_new(wild, tmp_path, monkeypatch):
    decoded = counted(monkeypatch)
    first = make(tmp_path / "out", wild)
    before = (tmp_path / "out" / "corpus.json").stat().st_mtime_ns
    assert len(decoded) == 5 and make(tmp_path / "out", wild).fingerprint == first.fingerprint
    assert len(decoded) == 5 and (tmp_path / "out" / "corpus.json").stat().st_mtime_ns == before
    write_audio(tmp_path / "more" / "x.wav", noise(30, 0.3, RATE), RATE)
    both = make(tmp_path / "out", wild, tmp_path / "more")
    assert decoded[5:] == ["x.wav"] and len(both) == 6 and both.fingerprint != first.fingerprint
    fresh = make(tmp_path / "fresh", wild, tmp_path / "more")
    assert fresh.fingerprint == both.fingerprint
    with pytest.raises(UserError, match=r"corpus of other settings \(audio, int16, 16000 Hz, up to 30 s\)"):
        make(tmp_path / "out", wild, sample_rate=32000)


def test_an_interrupted_run_goes_on(wild, tmp_path, monkeypatch):
    def killed(path, rate):
        if path.name == "d.ogg":
            raise KeyboardInterrupt
        return decode(path, rate)

    monkeypatch.setattr(pack_source, "decode", killed)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "out", wild, workers=1)
    with pytest.raises(UserError, match="not finished: run the same command again"):
        open_corpus(tmp_path / "out")
    decoded = counted(monkeypatch)
    assert len(make(tmp_path / "out", wild)) == 5
    assert 1 <= len(decoded) < 5


def test_broken_files_are_listed_and_left_out_only_when_asked(wild, tmp_path):
    (wild / "e.wav").write_text("no audio")
    damaged = bytearray((wild / "b.flac").read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 40] = bytes(40)  # only decoding finds this
    (wild / "b.flac").write_bytes(damaged)
    with pytest.raises(UserError, match=r"1 of 6 audio files .*--skip_broken:\n.*e.wav: not readable"):
        make(tmp_path / "out", wild)
    (wild / "e.wav").unlink()
    with pytest.raises(UserError, match=r"1 of 5 audio files .*--skip_broken:\n.*b.flac: cannot be decoded"):
        make(tmp_path / "out", wild)
    (wild / "e.wav").write_text("no audio")
    found = make(tmp_path / "out", wild, skip_broken=True)
    assert [name for name in found.names if "b.flac" in name or "e.wav" in name] == [] and len(found) == 4
    assert "broken and left out: 2" in "\n".join(describe(tmp_path / "out"))
    write_audio(wild / "b.flac", noise(1, 0.3, RATE), RATE)
    assert len(make(tmp_path / "out", wild, skip_broken=True)) == 5


def test_damage_is_one_line_that_names_the_file(wild, tmp_path):
    out = tmp_path / "out"
    make(out, wild)
    shard = out / "pack" / "shard-00000.bin"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    found = open_corpus(out)
    with pytest.raises(UserError, match=rf"^{shard} is corrupt"):
        found.source.stored(found.rows)
    shard.write_bytes(whole[:-2])
    with pytest.raises(UserError, match=rf"^{shard} is truncated"):
        open_corpus(out)
    assert len(make(out, wild)) == 5  # what is damaged is decoded again
    (out / "clips.csv").write_text("name,key\n")
    with pytest.raises(UserError, match=r"clips.csv is missing or was changed"):
        open_corpus(out)
    make(out, wild)
    (out / "corpus.json").write_text("{")
    with pytest.raises(UserError, match=r"corpus.json cannot be read"):
        open_corpus(out)


@pytest.mark.parametrize(
    ("audio", "options", "says"),
    [
        ((), {}, "--audio=... is needed"),
        (("nowhere",), {}, "neither a folder, nor a .csv, nor task:NAME"),
        (("nowhere.csv",), {}, "there is no table"),
        (("task:esc51",), {}, "Did you mean 'esc50'"),
        (("EMPTY",), {}, "no audio in this folder"),
        (("WILD/bare.csv",), {}, r"no column 'file'"),
        (("WILD/lost.csv",), {}, r"1 of 2 files .* the first: gone.wav; --root"),
        (("WILD/heavy.csv",), {}, r"row 2: the weight 'much' is not a number"),
        (("WILD/twice.csv",), {}, "twice/a.wav stands in its source twice"),
        (("WILD",), {"dtype": "float32"}, "int16 or float16, not as float32"),
        (("WILD",), {"store": "log_mel", "dtype": "int16"}, "float16 or float32, not as int16"),
        (("WILD",), {"store": "log_mel", "sample_rate": 8000}, "16000 or 32000 Hz"),
        (("WILD",), {"max_seconds": -1.0}, "--max_seconds"),
        (("WILD",), {"exclude": (Path("nowhere.txt"),)}, "--exclude=nowhere.txt cannot be read"),
        (("WILD",), {"list": True}, "leave out --audio"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_decoded(audio, options, says, wild, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_source, "decode", None)
    (tmp_path / "empty").mkdir()
    (wild / "bare.csv").write_text("path\na.wav\n")
    (wild / "lost.csv").write_text("file\na.wav\ngone.wav\n")
    (wild / "heavy.csv").write_text("file,weight\na.wav,much\n")
    (wild / "twice.csv").write_text("file\na.wav\na.wav\n")
    places = tuple(x.replace("WILD", str(wild)).replace("EMPTY", str(tmp_path / "empty")) for x in audio)
    with pytest.raises(UserError, match=says) as error:
        corpus(tmp_path / "out", audio=places, **options)
    assert "\n" not in str(error.value)


def test_too_small_a_disk_is_said_first(wild, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_source, "decode", None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"needs 0.0 GB more, and .* make room"):
        make(tmp_path / "out", wild)


def test_the_command(wild, tmp_path, capsys):
    assert run(corpus, [str(tmp_path / "out"), f"--audio={wild}", "--max-seconds", "0.5"]) == 0
    assert "5 clips" in capsys.readouterr().out and open_corpus(tmp_path / "out").seconds.max() == 0.5
    assert run(corpus, [str(tmp_path / "out"), "--audoi=x"]) == 2
    assert "Did you mean 'audio'?" in capsys.readouterr().err
