"""Which captions belong to which clip, by name (MODELS 9, 12.15)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evar.pretrain.caption_keys import Row, Video, file_key
from evar.pretrain.caption_labels import label_caption
from evar.pretrain.caption_match import LABELS, match
from evar.pretrain.caption_tables import CaptionTable, table_of

ID, OTHER = "--PJHxphWEs", "vfY_TJq7n_U"


def videos(*rows, source="videos", fills=False, of_audioset=False):
    """Return a table of (id, start, caption)."""
    table = table_of(source, [Row(Video(i, start), text) for i, start, text in rows])
    return CaptionTable(source, table.videos, {}, fills, of_audioset)


def files(source="files", **captions):
    """Return a table of file=caption; __ stands for a folder's slash."""
    return table_of(source, [Row(file_key(name.replace("__", "/")), text) for name, text in captions.items()])


def captions_of(names, tables, labels=None, **options):
    """Return the captions of each clip."""
    found = match(names, tables, labels, **options)
    assert (np.diff(found.clips) >= 0).all()
    return [
        [text for clip, text in zip(found.clips, found.captions, strict=True) if clip == n] for n in range(len(names))
    ]


@pytest.mark.parametrize("name", [f"{ID}.wav", f"Y{ID}.flac", f"a/b/Y{ID}_30.npy", f"{ID}_30.000_40.000.wav"])
def test_a_clip_of_audioset_has_the_captions_of_all_tables(name):
    tables = [videos((ID, None, "one")), videos((ID, None, "two"), (ID, None, "one"), (OTHER, None, "no"))]
    assert captions_of([name], tables) == [["one", "two"]]


def test_the_start_second_decides_between_moments_of_one_video():
    acd = videos((ID, None, "of AudioSet"), (ID, 117, "of VGGSound"), source="auto_acd")
    audioset = videos((ID, 30, "The sound of Gush."), fills=True, of_audioset=True)
    names = [f"as/Y{ID}.wav", f"as/{ID}_30.wav", f"vgg/{ID}_000117.wav", f"x/{ID}_000200.wav"]
    mine, exact, vggsound, elsewhere = captions_of(names, [acd, audioset])
    assert mine == exact == ["of AudioSet"]
    assert vggsound == ["of VGGSound"]
    assert elsewhere == [], "AudioSet's table tells that its clip starts at 30"


def test_without_anybody_telling_the_start_the_id_alone_is_counted():
    acd = videos((ID, None, "of AudioSet"), (OTHER, 117, "of VGGSound"))
    found = match([f"{ID}_30.wav", f"{OTHER}_000117.wav", f"{OTHER}_5.wav"], [acd])
    assert found.captions == ["of AudioSet", "of VGGSound"]
    assert found.by_id_alone == 1
    np.testing.assert_array_equal(found.without, [2])


def test_starts_of_one_table_serve_the_captions_of_another():
    caps = videos((ID, 30, "from AudioCaps"), source="audiocaps", of_audioset=True)
    alternative = videos((ID, None, "alternative"), source="acalt4")
    assert captions_of([f"{ID}_30.wav", f"{ID}_000117.wav"], [caps, alternative]) == [
        ["from AudioCaps", "alternative"],
        [],
    ]


def test_the_references_rule_takes_what_is_said_of_another_moment():
    acd = videos((ID, None, "of AudioSet"))
    audioset = videos((ID, 30, "label"), fills=True, of_audioset=True)
    vggsound = [f"vgg/{ID}_000117.wav"]
    assert captions_of(vggsound, [acd, audioset]) == [[]]
    assert captions_of(vggsound, [acd, audioset], ids="reference") == [["of AudioSet"]]
    mine = files(**{f"vgg__{ID}_000117": "mine"})
    assert captions_of(vggsound, [acd, mine], ids="reference") == [["of AudioSet"]], "the id first, over all tables"
    assert captions_of(vggsound, [mine], ids="reference") == [["mine"]]


def test_a_files_own_captions_stand_beside_those_of_its_video():
    wavcaps = files("wavcaps", **{f"AudioSet_SL__Y{ID}": "by WavCaps"})
    assert captions_of([f"data/AudioSet_SL/Y{ID}.flac"], [videos((ID, None, "by id")), wavcaps]) == [
        ["by WavCaps", "by id"]
    ]


def test_folders_tell_files_of_one_name_apart():
    tables = [files(SoundBible__2219="bells", FreeSound__2219="birds")]
    names = ["wavcaps/SoundBible/2219.flac", "wavcaps/FreeSound/2219.flac", "wavcaps/BBC/2219.flac"]
    assert captions_of(names, tables) == [["bells"], ["birds"], []]
    assert captions_of(["2219.flac"], tables) == [[]]
    assert match(["2219.flac"], tables).ambiguous == ("2219",)


def test_table_and_corpus_may_know_differently_many_folders():
    clotho = files("clotho", **{"At 5:00?.wav": "a clock"})
    assert captions_of(["clotho/development/At 5_00_.wav"], [clotho]) == [["a clock"]]
    assert captions_of(["x.wav"], [files(home__me__x="mine")]) == [["mine"]]
    assert captions_of(["b/x.wav"], [files(a__x="another file")]) == [[]]


def test_a_name_that_could_be_several_clips_is_nobodys():
    found = match(["a/x.wav", "b/x.wav", "y.wav"], [files(x="which?", y="mine")])
    assert found.captions == ["mine"] and found.ambiguous == ("x",)
    assert captions_of(["x.wav", "b/x.wav"], [files(x="mine")]) == [["mine"], []]


def test_labels_fill_only_what_no_table_has():
    told, filling = files(a="told"), files(source="audioset", a="label", b="label")
    filling = CaptionTable("audioset", {}, filling.files, fills=True)
    labels = [("dog",), ("dog",), ("dog", "cat"), ()]
    found = match(["a.wav", "b.wav", "c.wav", "d.wav"], [filling, told], labels, rule=label_caption)
    assert found.captions == ["told", "label", "The sound of dog, and cat."]
    assert found.sources == ["files", "audioset", LABELS]
    np.testing.assert_array_equal(found.without, [3])
    assert captions_of(["a.wav"], [], [("dog",)]) == [[]], "no rule, no label captions"


@given(st.lists(st.sampled_from("abcdef"), unique=True, min_size=1), st.lists(st.sampled_from("abcdef"), unique=True))
def test_every_clip_has_its_captions_or_is_counted(clips, told):
    found = match([f"{name}.wav" for name in clips], [files(**dict.fromkeys(told, "text"))])
    assert set(found.clips) | set(found.without) == set(range(len(clips)))
    assert {clips[n] for n in found.clips} == set(clips) & set(told)
