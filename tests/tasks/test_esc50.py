"""ESC-50 is read in its own layout and agrees with the published table and captions."""

import csv

import pandas as pd
import pytest
from golden import needs_shared, shared

from evar.errors import UserError
from tasks.base import get_task

HEADER = "filename,fold,target,category,esc10,src_file,take\n"
TASK = get_task("esc50")


def data_set(folder, *rows, header=HEADER):
    (folder / "meta").mkdir()
    (folder / "meta" / "esc50.csv").write_text(header + "".join(f"{row}\n" for row in rows))
    return folder


def test_a_row_becomes_file_label_fold_and_group(tmp_path):
    index = TASK.index(
        data_set(tmp_path, "1-100032-A-0.wav,1,0,dog,True,100032,A", "5-9-B-49.wav,5,49,hand_saw,False,9,B")
    )
    assert index[["file", "label", "fold", "group"]].to_numpy().tolist() == [
        ["audio/1-100032-A-0.wav", "dog", 1, "100032"],
        ["audio/5-9-B-49.wav", "hand_saw", 5, "9"],
    ]
    assert pd.api.types.is_integer_dtype(index["fold"])


def test_a_fold_that_is_no_number_is_named(tmp_path):
    with pytest.raises(UserError, match=r"esc50\.csv, row 2: 'one' in column 'fold'"):
        TASK.index(data_set(tmp_path, "1-100032-A-0.wav,one,0,dog,True,100032,A"))


def test_another_table_in_its_place_is_named(tmp_path):
    with pytest.raises(UserError, match="no column 'filename'"):
        TASK.index(data_set(tmp_path, "audio/a.wav,1,dog", header="file_name,fold,label\n"))


def test_facts():
    assert len(TASK.labels) == 50
    assert TASK.counts == dict.fromkeys(range(1, 6), 400)
    assert TASK.has_folds
    assert (TASK.unit_seconds, TASK.paper_name, TASK.top_folder) == (5.0, "ESC-50", "ESC-50-master")
    assert TASK.marker == "meta/esc50.csv"


@needs_shared
def test_captions_are_the_papers():
    with (shared() / "spec" / "metadata" / "zs_captions.csv").open() as lines:
        published = {row["class"]: row["caption"] for row in csv.DictReader(lines) if row["task"] == "esc50"}
    assert dict(zip(TASK.labels, TASK.captions(), strict=True)) == published


@needs_shared
def test_the_real_table_gives_the_reference_platforms_index():
    index = TASK.index(shared() / "data" / "esc50")
    theirs = pd.read_csv(shared() / "spec" / "metadata" / "esc50.csv")
    assert list(zip(index["file"], index["label"], index["fold"], strict=True)) == list(
        zip(theirs["file_name"], theirs["label"], theirs["fold"], strict=True)
    )
    assert tuple(sorted(set(index["label"]))) == TASK.labels
    assert index["fold"].value_counts().to_dict() == TASK.counts


@needs_shared
def test_four_source_recordings_stand_in_two_folds():
    """The set's paper says that none does; the table has four, each with another class in either fold: declared."""
    index = TASK.index(shared() / "data" / "esc50")
    folds = index.groupby("group")["fold"].nunique()
    assert sorted(folds.index[folds > 1]) == ["131943", "134049", "209698", "234879"]
    assert index.groupby(["group", "label"])["fold"].nunique().max() == 1
    assert TASK.groups_cross
