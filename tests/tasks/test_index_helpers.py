"""Tables and folders are read with errors that name the file, the row and the column."""

import csv
import io

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evar.errors import UserError
from tasks._index import audio_stems, one_of, read_table, whole_numbers


def table(folder, text, encoding="utf-8"):
    path = folder / "meta.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_columns_come_as_text_in_the_order_asked_for(tmp_path):
    path = table(tmp_path, "x,fold,file\nNA,01,a.wav\nnull,2,b.wav\n")
    read = read_table(path, ["file", "fold", "x"])
    assert read.to_dict("list") == {"file": ["a.wav", "b.wav"], "fold": ["01", "2"], "x": ["NA", "null"]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_byte_order_mark_line_ends_blank_lines_and_quotes_make_no_difference(tmp_path, encoding, newline):
    text = newline.join(["file,label", 'é.wav,"a, b"', "", "c.wav,d", ""])
    read = read_table(table(tmp_path, text, encoding), ["file", "label"])
    assert read.to_numpy().tolist() == [["é.wav", "a, b"], ["c.wav", "d"]]


WORD = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00\r", exclude_categories=("Cs",)), min_size=1
).filter(str.strip)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(WORD, WORD), min_size=1))
def test_whatever_is_written_is_read_back(tmp_path, rows):
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([("file", "label"), *rows])
    read = read_table(table(tmp_path, out.getvalue()), ["file", "label"])
    assert list(read.itertuples(index=False, name=None)) == rows


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"meta\.csv is empty"),
        ("file,label\n", r"has no rows below its header"),
        ("file,lable\na,b\n", r"has no column 'label' \(row 1 must name it\)\. Did you mean 'lable'\?"),
        ("file,label\na,b\nc,\n", r"meta\.csv, row 3: no value in column 'label'"),
        ("file,label\na,b\nc, \n", r"row 3: no value in column 'label'"),
        ("file,label\na,b\n\nc,d,e\n", r"row 4: 3 values where the header names 2 columns"),
        ("file,label\na\n", r"row 2: 1 values where the header names 2"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_by_file_row_and_column(tmp_path, text, complaint):
    with pytest.raises(UserError, match=complaint) as raised:
        read_table(table(tmp_path, text), ["file", "label"])
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_another_encoding_is_named_with_its_row(tmp_path):
    path = table(tmp_path, "file,label\na,b\nc,café\n", "latin-1")
    with pytest.raises(UserError, match=r"meta\.csv, row 3: not UTF-8"):
        read_table(path, ["file"])


def test_a_missing_table_and_a_folder_in_its_place_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"meta\.csv is missing: .*--data=DIR"):
        read_table(tmp_path / "meta.csv", ["file"])
    with pytest.raises(UserError, match="cannot be read"):
        read_table(tmp_path, ["file"])


def test_whole_numbers_and_choices_name_the_row(tmp_path):
    read = pd.DataFrame({"fold": ["1", "02"], "split": ["train", "trian"]})
    assert whole_numbers(read, "fold", tmp_path) == [1, 2]
    with pytest.raises(UserError, match=r"row 3: 'trian' in column 'split'\. Did you mean 'train'\?"):
        one_of(read, "split", ["train", "test"], tmp_path)
    assert one_of(read[:1], "split", ["train", "test"], tmp_path) == ["train"]


@pytest.mark.parametrize("bad", ["1.0", "-1", "one", "²", "1e3", " 1"])
def test_what_is_no_whole_number_is_refused(tmp_path, bad):
    with pytest.raises(UserError, match=r"row 2: .* in column 'fold' is not a whole number"):
        whole_numbers(pd.DataFrame({"fold": [bad]}), "fold", tmp_path)


def test_audio_stems_are_sorted_and_counted_once(tmp_path):
    for name in ("b.wav", "a.flac", "a.wav", "c.OGG", "notes.txt", "._b.wav", ".DS_Store"):
        (tmp_path / name).touch()
    assert audio_stems(tmp_path) == ["a", "b", "c"]


def test_a_folder_without_audio_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no audio files"):
        audio_stems(tmp_path)
    with pytest.raises(UserError, match="is missing"):
        audio_stems(tmp_path / "recordings")
