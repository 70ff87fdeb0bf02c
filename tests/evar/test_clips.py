"""From a folder to clips: what is missing, doubled, unknown or broken is told before any long work."""

import shutil

import numpy as np
import pytest
from helpers import RATE, ROWS, fold_clips, fold_rows, noise, tiny_folder, tiny_task, write_audio, write_table

from evar.audio.decode import decode
from evar.audio.windows import cut, random_position
from evar.clips import WINDOW_SEED, open_task, training_clips
from evar.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EVAR_DATA", raising=False)


@pytest.fixture
def folder(tmp_path):
    return tiny_folder(tmp_path / "root" / "tiny")


def complaint(task, folder, **how):
    with pytest.raises(UserError) as caught:
        open_task(task, data=folder, **how)
    return str(caught.value)


def test_a_complete_task(folder):
    clips = open_task(tiny_task(), root=folder.parent)
    assert (len(clips), clips.incomplete, clips.folder) == (4, "", folder)
    assert [p.name for p in clips.paths] == ["a.wav", "b.wav", "c.wav", "d.wav"]
    assert clips.targets.tolist() == [1, 0, 1, 0]  # labels are sorted: high, low
    (part,) = clips.parts()
    assert (part.train.tolist(), part.valid.tolist(), part.test.tolist()) == ([0, 1], [2], [3])
    assert clips.groups is None


def test_the_root_comes_from_the_option_the_environment_or_the_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("EVAR_DATA", str(folder.parent))
    assert open_task(tiny_task()).folder == folder
    monkeypatch.delenv("EVAR_DATA")
    with pytest.raises(
        UserError, match=f"tiny is not at {tmp_path}/cache/data/tiny; fetch it with .*evar.prepare tiny"
    ):
        open_task(tiny_task())
    shutil.copytree(folder, tmp_path / "cache" / "data" / "tiny")
    assert len(open_task(tiny_task())) == 4


def test_the_archives_own_top_folder_may_be_there_or_not(folder, tmp_path):
    task = tiny_task(top_folder="Tiny-master")
    without = open_task(task, data=folder)
    shutil.copytree(folder, tmp_path / "other" / "Tiny-master")
    within = open_task(task, data=tmp_path / "other")
    assert within.folder == tmp_path / "other" / "Tiny-master"
    assert within.fingerprint == without.fingerprint


def test_another_data_set_in_the_tasks_place_is_named(tmp_path):
    (tmp_path / "x").mkdir()
    assert "does not look like Tiny: there is no index.csv in it" in complaint(tiny_task(), tmp_path / "x")


def test_made_data_is_made_on_first_use_only(tmp_path):
    made = []

    def generate(folder):
        made.append(folder)
        tiny_folder(folder)

    task = tiny_task(generate=generate)
    for _ in range(2):
        assert len(open_task(task, root=tmp_path)) == 4
    assert made == [tmp_path / "tiny"]


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".FLAC"])
def test_a_copy_in_another_format_is_read(tmp_path, suffix):
    write_table(tmp_path / "x", ROWS)
    for seed, row in enumerate(ROWS):
        write_audio((tmp_path / "x" / row["file"]).with_suffix(suffix), noise(seed))
    clips = open_task(tiny_task(), data=tmp_path / "x")
    assert {p.suffix for p in clips.paths} == {suffix}
    assert clips.table["file"].tolist() == [row["file"] for row in ROWS]  # results name the data set's own files


def test_missing_files_stop_with_the_counts_unless_incomplete(folder):
    (folder / "audio" / "b.wav").unlink()
    message = complaint(tiny_task(), folder)
    assert message == (
        f"tiny at {folder} is not the complete data set: split train has 1 of 2 clips; 1 listed files are missing, the "
        "first: audio/b.wav. Fetch what is missing (python -m evar.prepare tiny), or go on with what is there: "
        "--incomplete"
    )
    clips = open_task(tiny_task(), data=folder, incomplete=True)
    assert len(clips) == 3
    assert clips.incomplete.startswith("split train has 1 of 2 clips")


def test_rows_that_are_not_listed_are_missing_too(folder):
    write_table(folder, ROWS[:2] + ROWS[3:])
    assert "split valid has 0 of 1 clips" in complaint(tiny_task(), folder)
    (part,) = open_task(tiny_task(), data=folder, incomplete=True).parts()
    assert part.valid is None


@pytest.mark.parametrize("lost", ["train", "test"])
def test_even_an_incomplete_copy_needs_a_training_and_a_test_part(folder, lost):
    write_table(folder, [row for row in ROWS if row["split"] != lost])
    assert "both a training and a test part are needed" in complaint(tiny_task(), folder, incomplete=True)


def test_broken_files_are_listed_together_and_left_out_of_an_incomplete_copy(folder):
    (folder / "audio" / "b.wav").write_bytes(b"")
    (folder / "audio" / "c.wav").write_text("<html>")
    lines = complaint(tiny_task(), folder).splitlines()
    assert lines[0].startswith("2 of 4 audio files cannot be used")
    assert lines[1] == f"  {folder}/audio/b.wav: empty file"
    assert lines[2].startswith(f"  {folder}/audio/c.wav: not readable as audio (")
    clips = open_task(tiny_task(), data=folder, incomplete=True)
    assert [p.name for p in clips.paths] == ["a.wav", "d.wav"]
    assert clips.incomplete.endswith("2 files are broken, the first: b.wav, c.wav")


def test_a_file_in_two_parts_is_refused(folder):
    write_table(folder, [*ROWS, {"file": "audio/a.wav", "label": "low", "split": "test"}])
    for incomplete in (False, True):
        message = complaint(tiny_task(counts={"train": 2, "valid": 1, "test": 2}), folder, incomplete=incomplete)
        assert message.startswith("tiny: the file audio/a.wav stands in two parts (split test and train) of the index")


def test_a_file_twice_in_one_part_is_refused(folder):
    write_table(folder, [*ROWS, ROWS[0]])
    assert "audio/a.wav stands twice in split train" in complaint(tiny_task(), folder)


def test_rows_without_a_part_belong_to_nothing(folder):
    write_table(folder, [*ROWS, {"file": "audio/left_over.wav", "label": "low", "split": None}])
    assert len(open_task(tiny_task(), data=folder)) == 4


def test_an_unknown_label_is_named(folder):
    write_table(folder, [*ROWS[:3], ROWS[3] | {"label": "middle"}])
    assert "labels the task does not know: middle" in complaint(tiny_task(), folder)


def test_an_unknown_part_is_named(folder):
    write_table(folder, [*ROWS[:3], ROWS[3] | {"split": "dev"}])
    assert "there is an unknown split dev" in complaint(tiny_task(), folder)


def test_an_unknown_fold_is_named(tmp_path):
    tiny_folder(tmp_path / "x", [*fold_rows(4), {"file": "audio/z.wav", "label": "low", "fold": 7}])
    assert "there is an unknown fold 7" in complaint(tiny_task(counts={1: 2, 2: 2}), tmp_path / "x")


def test_an_empty_index_is_refused(folder):
    write_table(folder, [ROWS[0] | {"split": None}])
    assert "lists no clips" in complaint(tiny_task(), folder)


def test_folds_are_left_out_one_at_a_time(tmp_path):
    clips = fold_clips(tmp_path / "x", 8)
    one, two = clips.parts()
    assert (one.name, one.valid, two.name) == ("fold 1", None, "fold 2")
    assert one.test.tolist() == two.train.tolist() == [0, 1, 4, 5]
    assert two.test.tolist() == one.train.tolist() == [2, 3, 6, 7]


def test_one_fold_is_not_enough(tmp_path):
    tiny_folder(tmp_path / "x", [row for row in fold_rows(8) if row["fold"] == 1])
    message = complaint(tiny_task(counts={1: 4, 2: 4}), tmp_path / "x", incomplete=True)
    assert message == "tiny: at least two folds are needed, there is only [1]"


def test_a_multi_label_task_has_a_row_of_zeros_and_ones_per_clip(folder):
    labels = ("low;high", "high", "low", "high")
    write_table(folder, [row | {"label": label} for row, label in zip(ROWS, labels, strict=True)])
    clips = open_task(tiny_task(metric="mAP"), data=folder)
    assert clips.targets.tolist() == [[1, 1], [1, 0], [0, 1], [1, 0]]
    write_table(folder, [ROWS[0] | {"label": "low;middle"}, *ROWS[1:]])
    assert "a label the task does not know: middle" in complaint(tiny_task(metric="mAP"), folder)


def test_groups_are_names(folder):
    write_table(folder, [row | {"group": n // 2} for n, row in enumerate(ROWS)])
    assert open_task(tiny_task(), data=folder).groups == ["0", "0", "1", "1"]


def test_the_fingerprint_follows_content_labels_and_parts_and_not_the_place(folder, tmp_path):
    before = open_task(tiny_task(), data=folder).fingerprint
    moved = folder.rename(tmp_path / "elsewhere")
    assert open_task(tiny_task(), data=moved).fingerprint == before

    seen = {before}
    for change in ({"label": "high"}, {"split": "valid"}):
        write_table(moved, [ROWS[0] | change, *ROWS[1:]])
        seen.add(open_task(tiny_task(), data=moved, incomplete=True).fingerprint)
    write_table(moved, ROWS)
    seen.add(open_task(tiny_task(unit_seconds=0.4), data=moved).fingerprint)
    write_audio(moved / "audio" / "a.wav", noise(99))
    seen.add(open_task(tiny_task(), data=moved).fingerprint)
    assert len(seen) == 5


@pytest.fixture
def long_clips(tmp_path):
    return fold_clips(tmp_path / "x", 12, seconds=0.7)


def test_what_an_adapter_sees_before_its_first_clip_is_the_training_part_of_fold_one(long_clips):
    examples = training_clips(long_clips)
    assert examples.rows.tolist() == long_clips.parts()[0].train.tolist()
    assert (len(examples), examples.batch_size, examples.has_captions) == (6, 64, False)
    batches = list(examples.batches(RATE, 4))
    assert [len(batch.waveforms) for batch in batches] == [4, 2]
    for row, waveform in zip(examples.rows, np.concatenate([b.waveforms.numpy() for b in batches]), strict=True):
        position = random_position(long_clips.identities[row].digest, WINDOW_SEED)
        np.testing.assert_array_equal(waveform, cut(decode(long_clips.paths[row], RATE), 4000, position)[0])


def test_training_clips_can_be_shuffled_by_a_seed_and_limited(long_clips):
    examples = training_clips(long_clips)

    def firsts(**how):
        return [float(x) for batch in examples.batches(RATE, 2, **how) for x in batch.waveforms[:, 0]]

    assert firsts(shuffle_seed=1) == firsts(shuffle_seed=1) != firsts(shuffle_seed=2)
    assert sorted(firsts(shuffle_seed=1)) == sorted(firsts())
    assert firsts(limit=3) == firsts()[:4]


def test_training_clips_bring_their_captions(folder):
    write_table(folder, [row | {"caption": f"sound {n}"} for n, row in enumerate(ROWS)])
    examples = training_clips(open_task(tiny_task(), data=folder))
    (batch,) = examples.batches(RATE, 8)
    assert examples.has_captions
    assert batch.captions == ("sound 0", "sound 1")
    before = examples.fingerprint
    write_table(folder, [row | {"caption": f"noise {n}"} for n, row in enumerate(ROWS)])
    assert training_clips(open_task(tiny_task(), data=folder)).fingerprint != before
