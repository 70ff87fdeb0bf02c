"""Plan files: TOML and YAML say the same, and a mistake is one line."""

from __future__ import annotations

import pytest

from evar.errors import UserError
from evar.grid.plan import Entry
from evar.grid.planfile import read_plan
from evar.grid.study import Wanted

TOML = """
models = ["gpvad", {name = "m2d", weights = ["a.pth", "b.pth"], depth = 1, flag = true, shape = [80, 208]}]
tables = [3, 5]
protocols = ["lineareval"]
seeds = 2
[options]
precision = "bf16"
[lineareval]
probe = "both"
"""
YAML = """
models: [gpvad, {name: m2d, weights: [a.pth, b.pth], depth: 1, flag: true, shape: [80, 208]}]
tables: [3, 5]
protocols: lineareval
seeds: 2
options: {precision: bf16}
lineareval: {probe: both}
"""
M2D = {"depth": "1", "flag": "true", "shape": "80,208"}
SAME = Wanted(
    (Entry("gpvad"), Entry("m2d", "a.pth", M2D), Entry("m2d", "b.pth", M2D)),
    (3, 5),
    (),
    ("lineareval",),
    {"": {"precision": "bf16", "seeds": "2"}, "lineareval": {"probe": "both"}},
)


@pytest.mark.parametrize(("name", "text"), [("plan.toml", TOML), ("plan.yaml", YAML)])
def test_toml_and_yaml_say_the_same(tmp_path, name, text):
    if name.endswith(".yaml"):
        pytest.importorskip("yaml")
    (tmp_path / name).write_text(text)
    assert read_plan(tmp_path / name) == SAME


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "model = ['m2d']", "there is no key 'model'. Did you mean 'models'"),
        ("a.toml", "models = [3]", "models must be a list of names"),
        ("a.toml", "models = [{weights = 'x'}]", "a model needs a name"),
        ("a.toml", "models = [{name = 'm2d', weights = 3}]", "the weights of m2d must be a text"),
        ("a.toml", "tables = ['three']", "tables must be a list of whole numbers"),
        ("a.toml", "options = 3", "options must hold names and values"),
        ("a.toml", "[options]\nx = {y = 1}", "options.x must be a text, a number"),
        ("a.toml", "models = [", "is not TOML"),
        ("a.yaml", "models: [", r"is not YAML \(line 1\)"),
        ("a.yaml", "- m2d", "must hold names and values at the top"),
        ("a.txt", "", "ends in .toml, .yaml"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_plan(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_plan(tmp_path / "none.toml")


def test_yaml_runs_no_code(tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "a.yaml").write_text("models: !!python/object/apply:os.getcwd []")
    with pytest.raises(UserError, match="is not YAML"):
        read_plan(tmp_path / "a.yaml")
