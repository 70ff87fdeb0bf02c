"""The Free Spoken Digit Dataset: the file's name says everything."""

import pytest
from golden import needs_shared, shared
from hypothesis import given
from hypothesis import strategies as st

from evar.errors import UserError
from tasks.base import get_task
from tasks.fsdd import NAME, RECORDINGS, WORDS, parse

TASK = get_task("fsdd")
SPEAKERS = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,12}", fullmatch=True)


@given(digit=st.integers(0, 9), speaker=SPEAKERS, number=st.integers(0, RECORDINGS - 1))
def test_a_name_is_read_as_it_was_written(digit, speaker, number):
    found = parse(f"{digit}_{speaker}_{number}")
    assert found == (str(digit), speaker, number)
    assert found.split == ("test" if number <= 4 else "valid" if number <= 9 else "train")
    assert found.digit in TASK.labels


@given(stem=st.text(max_size=20))
def test_any_other_name_is_one_clear_error(stem):
    if NAME.fullmatch(stem) and int(stem.rsplit("_", 1)[1]) < RECORDINGS:
        assert "_".join(map(str, parse(stem))) == stem
        return
    with pytest.raises(UserError) as raised:
        parse(stem)
    assert f"'{stem}' is not named <digit>_<speaker>_<number>" in str(raised.value)


@pytest.mark.parametrize(
    "stem",
    [
        "10_theo_1",
        "7_theo",
        "7_theo_50",
        "7_theo_100",
        "7_theo_01",
        "7__1",
        "x_theo_1",
        "7_theo_1 ",
        "7-theo-1",
        "٧_theo_1",
    ],
)
def test_names_that_nearly_fit_are_refused(stem):
    with pytest.raises(UserError, match="is not named"):
        parse(stem)


def test_the_index_lists_what_is_there_once_with_the_data_sets_own_suffix(tmp_path):
    (tmp_path / "recordings").mkdir()
    for name in ("3_theo_0.flac", "3_theo_0.wav", "3_theo_7.ogg", "0_lucas_49.wav", "README.md"):
        (tmp_path / "recordings" / name).touch()
    assert TASK.index(tmp_path)[["file", "label", "split", "group"]].to_numpy().tolist() == [
        ["recordings/0_lucas_49.wav", "0", "train", "lucas"],
        ["recordings/3_theo_0.wav", "3", "test", "theo"],
        ["recordings/3_theo_7.wav", "3", "valid", "theo"],
    ]


def test_a_stray_recording_is_named(tmp_path):
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "seven_theo_0.wav").touch()
    with pytest.raises(UserError, match="'seven_theo_0' is not named"):
        TASK.index(tmp_path)


def test_captions_spell_the_digit():
    assert TASK.captions()[7] == "the spoken digit seven can be heard"
    assert all(word in caption for word, caption in zip(WORDS, TASK.captions(), strict=True))


@needs_shared
def test_the_real_data_set_has_the_declared_counts_labels_and_crossing_speakers():
    index = TASK.index(shared() / "data" / "fsdd")
    assert index["split"].value_counts().to_dict() == TASK.counts
    assert tuple(sorted(set(index["label"]))) == TASK.labels
    assert set(index.groupby("group")["split"].nunique()) == {3}
    assert index["group"].nunique() == 6
    assert TASK.groups_cross
