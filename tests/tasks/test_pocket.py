"""The pocket suite as data sets: made the same everywhere, complete or not at all, and read as any other."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile as sf

from evar.errors import UserError
from tasks._pocket import events, notes, words
from tasks._pocket.writing import METADATA, table_text, write
from tasks.base import get_task
from tasks.pocket import CHECKSUMS

MODULES = {"pocket_events": events, "pocket_pitch": notes, "pocket_speech": words}
NAMES = sorted(MODULES)


@pytest.fixture(params=NAMES)
def made(request, pocket_data):
    """Return a task and its folder, generated."""
    task = get_task(request.param)
    task.generate(pocket_data / task.name)
    return task, pocket_data / task.name


def checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_index_is_what_the_facts_declare(made):
    task, folder = made
    table = task.index(folder)
    assert table["split"].value_counts().to_dict() == task.counts
    assert tuple(sorted(set(table["label"]))) == task.labels
    assert len(set(table["file"])) == len(table) == 480
    per_class = table.groupby(["split", "label"]).size().unstack()
    assert (per_class.nunique(axis=1) == 1).all()  # chance is 1 / classes


def test_groups_are_disjoint_between_the_parts(made):
    task, folder = made
    table = task.index(folder)
    assert table.groupby("group")["split"].nunique().max() == 1
    assert not task.groups_cross
    assert table.groupby("group")["label"].nunique().min() == len(task.labels)  # a group does not give the label away


def test_every_clip_has_a_caption_of_its_class_and_the_wording_varies(made):
    task, folder = made
    for label, rows in task.index(folder).groupby("label"):
        assert len(set(rows["caption"])) >= 15
        if task.name == "pocket_speech":
            assert rows["caption"].str.contains(label).all()
        if task.name == "pocket_pitch":
            assert rows["caption"].str.contains(rf"\b{notes.spoken(label)}\b(?! sharp)").all()


def test_files_are_ordinary_audio_of_the_units_length_neither_silent_nor_clipped(made):
    task, folder = made
    for file in task.index(folder)["file"][::7]:
        facts = sf.info(folder / file)
        assert (facts.format, facts.subtype, facts.samplerate, facts.channels) == ("WAV", "PCM_16", 16_000, 1)
        assert facts.frames == round(16_000 * task.unit_seconds)
        wave, _ = sf.read(folder / file)
        assert 0.005 < np.sqrt(np.mean(wave**2)) < 0.3
        assert np.abs(wave).max() < 0.99


def test_nothing_else_lies_in_the_folder_and_nothing_beside_it_but_the_lock(made):
    task, folder = made
    assert {p.name for p in folder.iterdir()} == {"audio", METADATA}
    assert len(list((folder / "audio").iterdir())) == 480
    assert not list(folder.parent.glob(f".{task.name}.partial"))


@pytest.mark.parametrize("name", NAMES)
def test_the_metadata_table_is_the_recorded_one(name):
    assert checksum(table_text(MODULES[name].clips())) == CHECKSUMS[name]


@pytest.mark.parametrize(
    ("name", "file", "samples"),
    [
        ("pocket_events", "audio/train00_siren_0.wav", [718, -875, -1257, 186, 1043, 54, 320, -992]),
        ("pocket_pitch", "audio/test01_a_sharp_1.wav", [-2142, 620, -4341, 483, 4391, 1318, -5388, 3298]),
        ("pocket_speech", "audio/valid02_sushi_0.wav", [1812, -1871, 1513, -221, 441, 349, -847, -408]),
    ],
)
def test_samples_are_the_recorded_ones_to_the_last_bit_or_two(name, file, samples):
    """Sines and filters may round differently on another machine: not the same bytes, but never another sound."""
    clip = next(clip for clip in MODULES[name].clips() if clip.file == file)
    found = np.round(clip.render()[4000:16000:1500] * 32768)
    np.testing.assert_allclose(found, samples, atol=2)


def test_another_process_with_another_hash_seed_makes_the_same_bytes():
    code = (
        "import hashlib\nfrom tasks._pocket import events, notes, words\n"
        "for m in (events, notes, words):\n"
        "    print(hashlib.sha256(b''.join(c.render().tobytes() for c in m.clips()[::97])).hexdigest())\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0].split())) == 3


def test_a_clip_does_not_depend_on_which_were_made_before():
    clips = words.clips()
    first = clips[5].render()
    clips[9].render()
    assert np.array_equal(first, words.clips()[5].render())


FEW = events.clips()[:6]
FEW_CHECKSUM = checksum(table_text(FEW))


def test_a_generation_that_breaks_off_leaves_no_half_data_set_and_the_next_one_is_whole(tmp_path):
    def break_off() -> np.ndarray:
        raise KeyboardInterrupt

    folder = tmp_path / "root" / "pocket"
    broken = [*FEW[:3], replace(FEW[3], render=break_off), *FEW[4:]]
    with pytest.raises(KeyboardInterrupt):
        write(folder, lambda: broken, FEW_CHECKSUM)
    assert not folder.exists()
    assert len(list(folder.parent.glob(".pocket.partial/audio/*.wav"))) == 3
    write(folder, lambda: FEW, FEW_CHECKSUM)
    assert len(list((folder / "audio").iterdir())) == 6
    assert not (folder.parent / ".pocket.partial").exists()


def test_two_processes_at_once_both_end_well(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom tasks._pocket import events\n"
        "from tasks._pocket.writing import table_text, write\nimport hashlib\n"
        "def clips():\n    print('made')\n    return events.clips()[:40]\n"
        "c = hashlib.sha256(table_text(events.clips()[:40]).encode()).hexdigest()\n"
        "write(Path(sys.argv[1]), clips, c)\nassert len(list(Path(sys.argv[1], 'audio').iterdir())) == 40\n"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "p")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    ended = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert sorted(out.split() for out, _ in ended) == [[], [b"made"]]  # the second found the work done


def test_what_is_there_is_not_made_again(tmp_path):
    write(tmp_path / "p", lambda: FEW, FEW_CHECKSUM)

    def never() -> list:
        raise AssertionError("made again")

    write(tmp_path / "p", never, FEW_CHECKSUM)


def test_an_empty_folder_is_filled_and_any_other_is_left_alone(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", lambda: FEW, FEW_CHECKSUM)
    assert (tmp_path / "empty" / METADATA).is_file()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match=r"full is there but has no metadata-v1\.csv .*--root=DIR"):
        write(tmp_path / "full", lambda: FEW, FEW_CHECKSUM)
    assert (tmp_path / "full" / "letter.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot make .*Choose another place: --root=DIR"):
        write(tmp_path / "file" / "p", lambda: FEW, FEW_CHECKSUM)


def test_a_table_that_differs_from_the_recorded_one_is_warned_of(tmp_path):
    with pytest.warns(UserWarning, match="made differently"):
        write(tmp_path / "p", lambda: FEW, "0" * 64)


def test_a_table_that_someone_changed_is_named(tmp_path):
    write(tmp_path / "p", lambda: FEW, FEW_CHECKSUM)
    table = tmp_path / "p" / METADATA
    table.write_text(table.read_text().replace(",train,", ",trian,", 1))
    with pytest.raises(UserError, match=r"metadata-v1\.csv, row 2: 'trian' in column 'split'\. Did you mean 'train'"):
        get_task("pocket_events").index(tmp_path / "p")
