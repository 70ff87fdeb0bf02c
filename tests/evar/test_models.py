"""The list of models: wildcards, formats, facts; dimensions without weights."""

import csv
import io
import json

import pytest
from transformers import ASTConfig, ASTFeatureExtractor

from evar import models
from evar.errors import UserError
from evar.model_list import chosen_models, formatted
from evar.models import HEADS, Shape, describe, row_of, shape_of
from model_adapters.registry import model_names


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path))
    return tmp_path


def test_wildcards_choose_and_a_pattern_without_a_model_is_named():
    assert chosen_models(()) == model_names()
    assert {"m2d", "m2d_clap"} <= set(chosen_models(("m2d*",)))
    assert chosen_models(("gpvad", "gp*")) == ["gpvad"]
    with pytest.raises(UserError, match=r"no model is called 'm2x'\. Did you mean 'm2d'"):
        chosen_models(("m2x",))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("m2d", Shape(16000, 3840, 0, "chunks of 608 frames")),
        ("gpvad", Shape(22050, 256, 0, "whole clip")),
        ("caption_map", Shape()),
    ],
)
def test_dimensions_are_known_without_weights(name, shape):
    assert shape_of(name) == shape


def test_what_had_to_be_built_is_remembered(cache, monkeypatch):
    shape = shape_of("byol_a")
    assert any(key.startswith("byol_a ") for key in json.loads((cache / "models.json").read_text()))
    monkeypatch.setattr(models, "_built", lambda cls: pytest.fail("built again"))
    assert shape_of("byol_a") == shape
    (cache / "models.json").write_text("damaged")
    monkeypatch.setattr(models, "_built", lambda cls: Shape(1, 2))
    assert shape_of("byol_a") == Shape(1, 2)


def test_a_row_and_a_description():
    row = dict(zip(HEADS, row_of("gpvad"), strict=True))
    assert (row["dims"], row["Hz"], row["licence of the weights"]) == ("256", "22050", "MIT")
    assert row["trained on"] == "as, as20k"
    text = describe("gpvad")
    for line in ("can        linear evaluation, frames, tags", "input      22050 Hz", "options    --pooling"):
        assert line in text


def test_formats():
    heads, rows = ("a", "b"), [("one|two", "a, b"), ("x" * 30, "y")]
    assert formatted(heads, rows, "markdown").splitlines()[2] == "| one\\|two | a, b |"
    assert list(csv.reader(io.StringIO(formatted(heads, rows, "csv")))) == [list(heads), *map(list, rows)]
    table = formatted(heads, rows, "table", clip={0: 5}).splitlines()
    assert table == ["a       b", "one|t…  a, b", "xxxxx…  y"]


def test_the_commands_table(capsys):
    models.models(("gp*",), format="markdown")
    assert capsys.readouterr().out.splitlines()[0].startswith("| model | kind | dims | Hz |")
    models.models(("gpvad",))
    assert capsys.readouterr().out.startswith("gpvad\n  title ")


def test_what_stands_after_the_colon_gives_the_shape(cache, tmp_path):
    config = ASTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48)
    config.save_pretrained(tmp_path)
    ASTFeatureExtractor().save_pretrained(tmp_path)
    assert shape_of(f"hf:{tmp_path}")[:2] == (16000, 32)
    assert shape_of("tag_text:panns")[:3] == (16000, 2048, 0)
    assert shape_of("hf:org/name") == shape_of("tag_text") == Shape()
