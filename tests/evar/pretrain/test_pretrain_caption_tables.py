"""Caption tables as their authors publish them, in miniature, become one form (MODELS 9)."""

import json

import pytest

from evar.errors import UserError
from evar.pretrain.caption_keys import Video, file_key, tails, video_of
from evar.pretrain.caption_labels import caption_rule, label_caption
from evar.pretrain.caption_readers import auto_acd_video, cleaned
from evar.pretrain.caption_tables import read_tables


def read(tmp_path, kind, text, name="table.csv", **options):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    (table,) = read_tables([f"{kind}:{path}"], **options)
    return table


@pytest.mark.parametrize(
    ("labels", "caption"),
    [
        (["Speech"], "The sound of Speech."),
        (["Speech", "Music"], "The sound of Speech, and Music."),
        (["Male speech, man speaking", "Dog", "Car"], "The sound of Male speech, man speaking, Dog, and Car."),
        (["dog_bark"], "The sound of dog bark."),
    ],
)
def test_label_captions_to_the_character(labels, caption):
    assert label_caption(labels) == caption


def test_label_captions_by_a_template_or_by_a_tasks_own_rule():
    assert caption_rule("A {label} is heard")(["dog_bark", "siren"]) == "A dog bark, and siren is heard"
    assert caption_rule("esc50")(["dog"]) == "dog can be heard"
    assert caption_rule("cremad")(["ANG"]) == "angry person talking can be heard"
    for wrong in ("no place for it", "{label} and {more}"):
        with pytest.raises(UserError, match="--label_template="):
            caption_rule(wrong)


@pytest.mark.parametrize(
    ("name", "video"),
    [
        ("--PJHxphWEs", Video("--PJHxphWEs", None)),
        ("Y--PJHxphWEs.wav", Video("--PJHxphWEs", None)),
        ("eval/YQSuFyFm3Lc_230.flac", Video("YQSuFyFm3Lc", 230)),
        ("YYQSuFyFm3Lc_000230", Video("YQSuFyFm3Lc", 230)),
        ("a/--PJHxphWEs_30.000.npy", Video("--PJHxphWEs", 30)),
        ("--PJHxphWEs_30_40", Video("--PJHxphWEs", 30)),
        ("--PJHxphWEs_30000_40000", Video("--PJHxphWEs", 30)),
        ("Santa Motor.wav", None),
        ("1-100032-A-0.wav", None),
    ],
)
def test_a_youtube_id_is_read_from_a_files_name(name, video):
    assert video_of(name) == video


def test_file_names_lose_suffix_and_what_file_systems_refuse():
    assert file_key(r"dev\Is it 5:00?.WAV") == "dev/Is it 5_00_"
    assert file_key("e\u0301te.flac") == "\u00e9te"
    assert tails("a/b/c") == ["a/b/c", "b/c", "c"]


def test_auto_acd(tmp_path):
    preamble = 'Sure! The caption could be: ""Rain falls on a roof."" I hope it helps'
    text = (
        "youtube_id,caption\n"
        "oPRC3zComfA_000117,A crowd cheers\n"
        "Y--PJHxphWEs,Water gushes\n"
        "YQSuFyFm3Lc_000230,A train\n"
        f'Y--aE2O5G5WE,"{preamble}"\n'
        "YhasNoCaptio,\n"
    )
    table = read(tmp_path, "auto_acd", text)
    assert table.source == "auto_acd" and not table.fills and table.skipped == 1
    assert table.videos == {
        "oPRC3zComfA": ((117, "A crowd cheers"),),
        "--PJHxphWEs": ((None, "Water gushes"),),
        "YQSuFyFm3Lc": ((230, "A train"),),
        "--aE2O5G5WE": ((None, "Rain falls on a roof."),),
    }


def test_the_references_cut_of_ids_errs_on_those_that_begin_with_y():
    assert auto_acd_video("oPRC3zComfA_000117", "reference") == Video("oPRC3zComfA", None)
    assert auto_acd_video("Y--PJHxphWEs", "reference") == Video("--PJHxphWEs", None)
    assert auto_acd_video("YQSuFyFm3Lc_000230", "reference") == Video("QSuFyFm3Lc_", None)
    assert auto_acd_video("YQSuFyFm3Lc_000230") == Video("YQSuFyFm3Lc", 230)


def test_the_clean_up_leaves_other_captions_alone():
    assert cleaned('It can be: "a dog" or "a cat"') == "a dog"
    assert cleaned('A man says "stop" and it may be late') == 'A man says "stop" and it may be late'
    assert cleaned('be: "never closed') == "never closed"


def test_acalt4(tmp_path):
    text = 'youtube_id,caption1,caption2,caption3,caption4\n--PJHxphWEs,one,"two, too",one,\n'
    assert read(tmp_path, "acalt4", text).videos == {"--PJHxphWEs": ((None, "one"), (None, "two, too"))}


def test_audiocaps_knows_where_its_clips_start(tmp_path):
    text = (
        "audiocap_id,youtube_id,start_time,caption\n1,vfY_TJq7n_U,130,Ducks quack \n2,vfY_TJq7n_U,130,Water splashes\n"
    )
    table = read(tmp_path, "audiocaps", text)
    assert table.videos == {"vfY_TJq7n_U": ((130, "Ducks quack"), (130, "Water splashes"))}
    assert table.of_audioset and len(table) == 2


def test_clotho(tmp_path):
    head = "file_name," + ",".join(f"caption_{n}" for n in range(1, 6))
    table = read(tmp_path, "clotho", f"{head}\nAt 5:00?.wav,a,b,c,d,e\n")
    assert table.files == {"At 5_00_": ("a", "b", "c", "d", "e")}


def test_wavcaps_takes_the_folder_from_the_file_or_the_folder_it_is_in(tmp_path):
    entry = {"id": "Yb0RFKhbpFJA.wav", "caption": "Wind."}
    content = json.dumps({"num_captions_per_audio": 1, "data": [entry]})
    assert read(tmp_path, "wavcaps", content, "as_final.json").files == {"AudioSet_SL/Yb0RFKhbpFJA": ("Wind.",)}
    assert read(tmp_path, "wavcaps", content, "SoundBible/my.json").files == {"SoundBible/Yb0RFKhbpFJA": ("Wind.",)}
    (both,) = read_tables([f"wavcaps:{tmp_path}"])
    assert set(both.files) == {"AudioSet_SL/Yb0RFKhbpFJA", "SoundBible/Yb0RFKhbpFJA"}
    with pytest.raises(UserError, match="which part of WavCaps"):
        read(tmp_path, "wavcaps", content, "other/my.json")
    with pytest.raises(UserError, match="no list 'data'"):
        read(tmp_path, "wavcaps", "{}", "sb_final.json")


def test_a_users_csv(tmp_path):
    table = read(tmp_path, "csv", "File,Caption\na/x.wav,NA\na/y.wav,\n", "mine.csv")
    assert (table.source, table.files, table.skipped) == ("mine", {"a/x": ("NA",)}, 1)
    several = read(tmp_path, "csv", "file,caption_1,caption_2,other\nx.wav,one,two,three\n")
    assert several.files == {"x": ("one", "two")}
    joined = read(tmp_path, "csv", "ytid,caption\n--PJHxphWEs_000030,a\nSoundBible2219,b\n")
    assert joined.videos == {"--PJHxphWEs": ((30, "a"),)} and joined.files == {"SoundBible/2219": ("b",)}


def test_labels_of_audioset_and_vggsound_as_captions_that_fill(tmp_path):
    head = "# Segments csv created\n# num_ytids=2\n# YTID, start_seconds, end_seconds, positive_labels\n"
    rows = '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n--ZhevVpy1s, 50.000, 60.000, "/m/012xff"\n'
    table = read(tmp_path, "audioset", head + rows)
    assert table.fills and table.videos == {
        "--PJHxphWEs": ((30, "The sound of Speech, and Gush."),),
        "--ZhevVpy1s": ((50, "The sound of Toothbrush."),),
    }
    vggsound = read(tmp_path, "vggsound", '---g-f_I2yQ,1,"people marching",test\n')
    assert vggsound.fills and vggsound.videos == {"---g-f_I2yQ": ((1, "The sound of people marching."),)}


def test_a_tasks_own_table_gives_its_training_part(tmp_path):
    head = "audiocap_id,youtube_id,start_time,caption\n"
    (tmp_path / "train.csv").write_text(f"{head}1,vfY_TJq7n_U,130,Ducks quack\n")
    (tmp_path / "test.csv").write_text(f"{head}1,7fmOlUlwoNg,20,Rattling\n")
    (table,) = read_tables([f"audiocaps:{tmp_path}"])
    assert table.files == {"train/YvfY_TJq7n_U": ("Ducks quack",)}


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("auto_acd", "write KIND:PATH"),
        ("autoacd:{folder}/x.csv", "Did you mean 'auto_acd'"),
        ("csv:{folder}/x.csv", "no caption table"),
        ("csv:{folder}/keys.csv", "no column 'caption'"),
        ("acalt4:{folder}/files.csv", "no column youtube_id or ytid"),
        ("csv:{folder}/empty.csv", "cannot be read"),
        ("csv:{folder}/blank.csv", "no caption in it"),
        ("audioset:{folder}/files.csv", "row 1: not <YouTube id>"),
        ("audiocaps:{folder}/start.csv", "row 2: 'soon' is not the second"),
        ("esc50:{folder}", "esc50"),
    ],
)
def test_what_is_no_such_table_is_one_clear_line(tmp_path, place, message):
    files = {"keys": "file\nx\n", "files": "file,caption\nx,y\n", "empty": "", "blank": "file,caption\nx,\n"}
    files["start"] = "youtube_id,start_time,caption\nvfY_TJq7n_U,soon,Ducks\n"
    for name, text in files.items():
        (tmp_path / f"{name}.csv").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        read_tables([place.format(folder=tmp_path)])
    assert "\n" not in str(raised.value)
