"""Tagging files: the top labels per segment from a fine-tuned model or a tagger, and files that cannot be read."""

import csv
import io

import numpy as np
import pytest
import torch
from commands import evar
from helpers import sine, write_audio
from tuning import RATE, job, tone, tones

from evar.errors import UserError
from evar.finetune_fit import fit_fold
from evar.tag import segments, tag
from model_adapters.registry import build_adapter


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """The folder of a model that has learnt to tell tones apart, half a second each."""
    folder = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVAR_CACHE", str(folder / "cache"))
        clips = tones(folder / "data", train=24, valid=6, test=6)
        facts = {"model": "byol_a", "options": {"feature_d": "16"}, "patchout": 0.0, "optimizer": "adamw"}
        fit = fit_fold(job(clips, folder, lr=0.005, epochs=6, mixup=0.1, **facts), 43, clips.parts()[0], folder)
    assert fit.score == 1.0
    return str(folder / "seed43-split" / "model")


@pytest.fixture
def melody(tmp_path):
    """1.3 seconds: low, high, and a short rest of the middle one, at another rate than the model's."""
    parts = [tone(["low"], 1, 0.5), tone(["high"], 2, 0.5), tone(["middle"], 3, 0.3)]
    return write_audio(tmp_path / "melody.wav", np.concatenate(parts), RATE)


def test_a_fine_tuned_model_names_what_it_hears_in_every_segment(tuned, melody, capsys):
    tag(tuned, (str(melody),), top=2, device="cpu")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in lines] == ["low", "high", "middle"]
    assert lines[0].startswith(f"{melody}     0.00-0.50 s  low ") and lines[0].endswith(" %")
    assert lines[2].startswith(f"{melody}     1.00-1.30 s  ")
    assert lines[0].count("%") == 2, "top 2"


def test_csv_has_a_row_per_label_and_probabilities(tuned, melody, capsys):
    tag(tuned, (str(melody),), top=5, format="csv", seconds=1.3, device="cpu")
    said = capsys.readouterr().out
    assert "\r" not in said
    rows = list(csv.DictReader(io.StringIO(said, newline="")))
    assert list(rows[0]) == ["file", "start", "end", "label", "probability"]
    assert {row["label"] for row in rows} == {"high", "low", "middle"}, "no more labels than there are classes"
    assert sum(float(row["probability"]) for row in rows) == pytest.approx(1, abs=1e-3)
    assert [float(row["probability"]) for row in rows] == sorted((float(r["probability"]) for r in rows), reverse=True)


def test_a_segment_is_the_models_probabilities_of_its_padded_samples(tuned, tmp_path):
    path = write_audio(tmp_path / "a.wav", sine(440, 0.8, RATE), RATE)
    adapter = build_adapter("finetuned", tuned)
    first, second = segments(adapter, path, 0.5, 3)
    rest = torch.zeros(1, 8000)
    rest[0, :4800] = torch.from_numpy(sine(440, 0.8, RATE)[8000:])
    wanted = adapter.tag_probabilities(rest, torch.tensor([4800]))[0]
    assert (second.start, second.end) == (0.5, 0.8)
    for label, probability in second.labels:
        assert probability == pytest.approx(wanted[adapter.class_names.index(label)].item(), abs=1e-3)
    assert len(first.labels) == 3


def test_a_last_piece_below_a_tenth_of_a_segment_is_left_out_but_a_short_file_is_not(tuned, tmp_path):
    adapter = build_adapter("finetuned", tuned)
    for seconds, ends in ((1.04, [0.5, 1.0]), (1.06, [0.5, 1.0, 1.06]), (0.02, [0.02])):
        path = write_audio(tmp_path / "a.wav", sine(440, seconds, RATE), RATE)
        assert [segment.end for segment in segments(adapter, path, 0.5, 1)] == pytest.approx(ends)


def test_the_command_tags_folders_with_a_plain_tagger_and_names_a_broken_file(tmp_path):
    write_audio(tmp_path / "in" / "a.wav", sine(440, 0.5, RATE), RATE)
    (tmp_path / "in" / "b.wav").write_bytes(b"no audio")
    write_audio(tmp_path / "in" / "deep" / "c.flac", sine(880, 0.5, RATE), RATE)
    done = evar("tag", "gpvad", "in", "--weights=random", "--top=1", "--format=csv", "--pooling=mean", cache=tmp_path)
    assert done.returncode == 2, done.stderr
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == ["file", "in/a.wav", "in/deep/c.flac"]
    first, last = done.stderr.splitlines()
    assert first.startswith("in/b.wav: cannot be decoded")
    assert last == "evar.tag: error: 1 of 3 files could not be read; they are named above"


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("eat", {}, "eat names no classes; take a tagger such as gpvad"),
        ("gpvat", {}, "Did you mean 'gpvad'"),
        ("TUNED", {"weights": "random"}, "has its own weights"),
        ("TUNED/..", {}, "not the folder of a fine-tuned model: there is no model.safetensors"),
        ("TUNED", {"seconds": 0.01}, "--seconds=0.01: must be at least 0.1"),
        ("TUNED", {"top": 0}, "--top=0: must be at least 1"),
        ("TUNED", {"files": ("nowhere.wav",)}, "there is no file or folder nowhere.wav"),
        ("TUNED", {"files": ("EMPTY",)}, "no audio in"),
    ],
)
def test_a_users_mistake_is_one_line(tuned, melody, tmp_path, model, options, says):
    (tmp_path / "empty").mkdir()
    options = {"files": (str(melody),), **options}
    options["files"] = tuple(name.replace("EMPTY", str(tmp_path / "empty")) for name in options["files"])
    with pytest.raises(UserError, match=says) as error:
        tag(model.replace("TUNED", tuned), **options)
    assert "\n" not in str(error.value)


def test_weights_without_a_head_for_audiosets_classes_tag_nothing(tmp_path, melody, monkeypatch):
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path))
    network = build_adapter("panns", "random", {"width": "2"}).network
    state = network.state_dict() | {"fc_audioset.weight": torch.zeros(5, network.size.dim)}
    torch.save({"model": state | {"fc_audioset.bias": torch.zeros(5)}}, tmp_path / "five.pth")
    with pytest.raises(UserError, match="panns: these weights have no head for AudioSet's classes"):
        tag("panns", (str(melody),), weights=str(tmp_path / "five.pth"), device="cpu")
