"""Options of the command, evaluation on the side, and the curves of a run."""

import csv
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers import write_audio
from pretrain_runs import LABELS, column, corpus_of_tones, plan
from tuning import RATE, tone

from evar.errors import UserError
from evar.plots import plot_pretraining
from evar.pretrain.options import HELP, given_settings, setting_options
from evar.pretrain.run import pretrain
from evar.pretrain.settings import PretrainSettings
from evar.pretrain.side_eval import SideEvaluation


def test_every_setting_is_an_option_with_a_line_of_help():
    assert set(setting_options({})) == set(PretrainSettings.__dataclass_fields__) - {"our_constants"}
    assert all(HELP.values())


def test_texts_become_settings():
    given = given_settings({"input_size": "80x208", "ema": "0.9,0.99", "target_layers": "-1,3", "train_encoder": "no"})
    assert given == {"input_size": (80, 208), "ema": (0.9, 0.99), "target_layers": (-1, 3), "train_encoder": False}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("ema", "0.9", "--ema=0.9: numbers such as 0.99995,0.99999"),
        ("target_layers", "last", "--target_layers=last: numbers such as 10,11"),
        ("input_size", "80", "--input_size must be two numbers"),
        ("epochs", "many", "--epochs=many: expected a whole number"),
        ("mask", "rows", "--mask=rows is not one of its values"),
    ],
)
def test_a_text_that_is_no_such_setting_is_one_line(name, text, says):
    with pytest.raises(UserError, match=says.replace(".", r"\.")):
        given_settings({name: text})


def tones_to_classify(folder: Path) -> str:
    """Write a task of tones, six for training and three to test of each label, and return its name."""
    rows = [("file", "label", "split")]
    for n in range(27):
        label, split = LABELS[n % 3], "train" if n < 18 else "test"
        write_audio(folder / f"{n}.wav", tone([label], 100 + n, 1.0), RATE)
        rows.append((f"{n}.wav", label, split))
    with (folder / "tones.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return f"csv:{folder / 'tones.csv'}?seconds=1"


def test_a_run_is_evaluated_on_the_side_and_the_scores_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tones").mkdir()
    side = SideEvaluation((tones_to_classify(tmp_path / "tones"),), 1, seeds=1)
    side.check()
    run = plan(tmp_path / "run", corpus_of_tones(tmp_path), epochs=2, dim=64, heads=0, evaluate=side.run, eval_every=1)
    pretrain(run)
    assert column(run.out, "epoch", "side.csv") == ["1", "2"]
    assert all(0 <= float(score) <= 1 for score in column(run.out, "score", "side.csv"))
    assert not list((run.out / "side").glob("m2d*/*.pth")), "what was evaluated is not kept"
    if find_spec("matplotlib"):
        assert (run.out / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_side_evaluation_says_before_the_training_that_a_task_is_not_there(tmp_path):
    with pytest.raises(UserError, match="esc50"):
        SideEvaluation(("esc50",), 1, root=tmp_path).check()
    with pytest.raises(UserError, match="it has no classes"):
        SideEvaluation(("clotho",), 1).check()


def test_no_curves_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert not plot_pretraining(tmp_path / "a", tmp_path / "b", tmp_path / "c", tmp_path / "x.png")
