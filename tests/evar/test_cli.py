"""The front door: what does not fit is refused in one line with exit code 2 before the command is called."""

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evar import cli
from evar.errors import UserError

HOME = Path(__file__).resolve().parents[2]


class Spy:
    """A command that writes down how it was called; it takes the options of a model through ``**options``."""

    def __init__(self, then=None):
        self.calls = []

        def evaluate(
            model: tuple[str, ...],
            task: tuple[str, ...],
            *,
            weights: str | None = None,
            root: Path | None = None,
            seeds: int = 3,
            lr: float | None = None,
            precision: Literal["fp32", "bf16"] = "fp32",
            incomplete: bool = False,
            paper: bool = True,
            batch_size: int = 64,
            **options: str,
        ) -> dict:
            """Evaluate a model.

            Args:
                model: model names
                seeds: number of seeds,
                    one run each
            """
            self.calls.append({k: v for k, v in locals().items() if k not in ("self", "then", "options")} | options)
            if then is not None:
                raise then
            return {"a result": "that nobody wants printed"}

        evaluate.__module__ = "evar.evaluate"
        self.command = evaluate


def options_of_models(positional):
    if "unknown" in positional["model"]:
        raise UserError("no model is called 'unknown'")
    kind = inspect.Parameter.KEYWORD_ONLY
    own = inspect.Parameter("lr", kind, default=1.0, annotation=float)  # the command has one of that name too
    return {"depth": inspect.Parameter("depth", kind, default=12, annotation=int), "lr": own}


def call(capsys, *argv, spy=None, extra=options_of_models):
    """Run a spy; return (exit code, stdout, lines of stderr, the calls)."""
    spy = spy or Spy()
    code = cli.run(spy.command, list(argv), extra)
    out, err = capsys.readouterr()
    return code, out, err.strip().splitlines(), spy.calls


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["m2d", "esc50", "--nonsense"], "there is no option --nonsense."),
        (["m2d", "esc50", "--nonsense=1"], "there is no option --nonsense."),
        (["m2d", "esc50", "--seed=1"], "there is no option --seed. Did you mean 'seeds'?"),
        (["m2d", "esc50", "-s"], "there is no option -s; options are written --name=value"),
        (["m2d", "esc50", "-"], "there is no option -; options are written --name=value"),
        (["m2d", "esc50", "--"], "there is no option --."),
        (["m2d", "esc50", "--seeds"], "--seeds needs a value: --seeds=..."),
        (["m2d", "esc50", "--seeds", "--incomplete"], "--seeds needs a value: --seeds=..."),
        (["m2d", "esc50", "fsdd"], "one argument too many: 'fsdd' (expected MODEL TASK)"),
        (["m2d"], "TASK is missing; --help shows what is expected"),
        ([], "MODEL is missing; --help shows what is expected"),
        (["--seeds=3"], "MODEL is missing; --help shows what is expected"),
        (["--depth=3"], "MODEL is missing; --help shows what is expected"),
        (["m2d", "esc50", "--seeds=three"], "--seeds=three: expected a whole number"),
        (["m2d", "esc50", "--seeds="], "--seeds=: expected a whole number"),
        (["m2d", "esc50", "--lr=fast"], "--lr=fast: expected a number"),
        (["m2d", "esc50", "--incomplete=perhaps"], "--incomplete=perhaps: expected true or false"),
        (["m2d", "esc50", "--precision=fp33"], "--precision=fp33 is not one of its values. Did you mean 'fp32'?"),
        (["m2d", "esc50", "--seeds=1", "--seeds=2"], "--seeds is given twice"),
        (["m2d", "esc50", "--batch-size=1", "--batch_size=2"], "--batch_size is given twice"),
        (["m2d", "esc50", "--paper", "--nopaper"], "--paper is given twice"),
        (["m2d", "esc50", "--noseeds"], "there is no option --noseeds."),
        (
            ["m2d", "esc50", "--model=byol_a"],
            "one argument too many: 'esc50' (expected MODEL TASK, given by name: model)",
        ),
        (["m2d", "--task"], "--task needs a value: --task=..."),
        (["m2d", "--task=esc50", "--task=fsdd"], "--task is given twice"),
        (["--task=esc50"], "MODEL is missing; --help shows what is expected"),
        (["--task=esc50", "--depth=3"], "MODEL is missing; --help shows what is expected"),
        (["--model=unknown", "--task=esc50", "--depth=3"], "no model is called 'unknown'"),
        (["unknown", "esc50", "--depth=3"], "no model is called 'unknown'"),
    ],
)
def test_what_does_not_fit_is_one_line_and_the_command_is_not_called(capsys, argv, complaint):
    code, out, err, calls = call(capsys, *argv)
    assert (code, out, len(err), calls) == (2, "", 1, [])
    assert err[0].startswith(f"evar.evaluate: error: {complaint}")


def test_a_missing_required_option_is_named(capsys):
    def embed(model: str, *, out: Path, level: str = "clip") -> None:
        raise AssertionError("called")

    assert cli.run(embed, ["m2d"]) == 2
    assert capsys.readouterr().err.splitlines()[0].endswith("--out=... is needed; --help shows what is expected")


def test_a_users_mistake_found_by_the_command_is_one_line_too(capsys):
    code, out, err, calls = call(capsys, "m2d", "esc50", spy=Spy(UserError("esc50 is not here")))
    assert (code, out, err, len(calls)) == (2, "", ["evar.evaluate: error: esc50 is not here"], 1)


def test_a_fault_of_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        cli.run(Spy(ZeroDivisionError()).command, ["m2d", "esc50"])


def test_the_command_gets_typed_values_and_nothing_is_printed_of_what_it_returns(capsys):
    code, out, err, calls = call(capsys, "m2d,byol_a", "esc50", "--seeds=5", "--root=x/y", "--lr=1e-3", "--incomplete")
    assert (code, out, err) == (0, "", [])
    assert calls == [
        {
            "model": ("m2d", "byol_a"),
            "task": ("esc50",),
            "weights": None,
            "root": Path("x/y"),
            "seeds": 5,
            "lr": 1e-3,
            "precision": "fp32",
            "incomplete": True,
            "paper": True,
            "batch_size": 64,
        }
    ]


@pytest.mark.parametrize("text", ["1e5", "007", "a,b", "None-such", "[1, 2]", "{'a': 1}", "x=y", "'quoted'", "", "-1"])
def test_text_stays_text(capsys, text):
    *_, calls = call(capsys, "m2d", "esc50", f"--weights={text}")
    assert calls[0]["weights"] == (text or None)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")).filter(lambda t: t.lower() not in ("", "none")))
def test_any_text_arrives_as_it_was_written(text):
    spy = Spy()
    assert cli.run(spy.command, ["m2d", "esc50", f"--weights={text}"], options_of_models) == 0
    assert spy.calls[0]["weights"] == text


@pytest.mark.parametrize(
    "argv",
    [
        ["m2d", "esc50", "--batch_size=8", "--nopaper", "--incomplete"],
        ["m2d", "esc50", "--batch-size", "8", "--paper=false", "--incomplete=true"],
        ["--incomplete", "m2d", "--batch-size=8", "esc50", "--no_paper"],
        ["--no-paper", "--batch_size", "8", "--incomplete", "m2d", "esc50"],
    ],
)
def test_the_ways_to_write_the_same_options(capsys, argv):
    code, _, _, calls = call(capsys, *argv)
    assert code == 0
    assert (calls[0]["batch_size"], calls[0]["paper"], calls[0]["incomplete"]) == (8, False, True)
    assert (calls[0]["model"], calls[0]["task"]) == (("m2d",), ("esc50",))


def test_the_options_of_the_chosen_model_are_taken_as_text(capsys):
    code, _, _, calls = call(capsys, "m2d", "esc50", "--depth=2", "--seeds=1")
    assert (code, calls[0]["depth"], calls[0]["seeds"]) == (0, "2", 1)


@pytest.mark.parametrize(
    "argv",
    [
        ["m2d", "--task=folder:a/b?seconds=5", "--depth=2"],
        ["--task=folder:a/b?seconds=5", "m2d", "--depth=2"],
        ["--task", "folder:a/b?seconds=5", "--depth", "2", "--model", "m2d"],
        ["--depth=2", "--model=m2d", "folder:a/b?seconds=5"],
    ],
)
def test_an_argument_may_be_written_by_its_name(capsys, argv):
    code, _, err, calls = call(capsys, *argv)
    assert (code, err) == (0, [])
    assert (calls[0]["model"], calls[0]["task"], calls[0]["depth"]) == (("m2d",), ("folder:a/b?seconds=5",), "2")


def test_an_optional_argument_before_a_named_one_keeps_its_default(capsys):
    def show(first: int = 1, second: tuple[str, ...] = ("b",), *, check: bool = False) -> None:
        print(first, second, check)

    for argv, expected in (
        (["--second=x,y", "--check"], "1 ('x', 'y') True"),
        (["7", "--second=z"], "7 ('z',) False"),
        (["--first=7", "z"], "7 ('z',) False"),
    ):
        assert cli.run(show, argv) == 0
        assert capsys.readouterr().out.strip() == expected


def test_optional_positionals_may_be_left_out(capsys):
    def tasks(names: tuple[str, ...] = (), *, check: bool = False) -> None:
        print("names", names, check)

    for argv, expected in (([], "names () False"), (["a,b"], "names ('a', 'b') False"), (["--check"], "names () True")):
        assert cli.run(tasks, argv) == 0
        assert capsys.readouterr().out.strip() == expected


@pytest.mark.parametrize(
    "argv", [["--help"], ["-h"], ["m2d", "esc50", "--help"], ["m2d", "--nonsense", "-x", "--help"]]
)
def test_help_is_printed_and_the_command_is_not_called(capsys, argv):
    code, out, err, calls = call(capsys, *argv)
    assert (code, err, calls) == (0, [], [])
    lines = out.splitlines()
    assert lines[0] == "usage: python -m evar.evaluate MODEL TASK [--option=value ...]"
    assert "Evaluate a model." in lines
    assert "arguments (in this order, or as --name=value):" in lines
    assert f"  {'--seeds=N':<28} number of seeds, one run each (default 3)" in lines
    assert f"  {'--precision=fp32|bf16':<28}  (default fp32)" in lines
    assert f"  {'--paper':<28}  (default on; --nopaper)" in lines


def test_help_shows_the_options_of_a_named_model_or_says_how_to_see_them(capsys):
    assert "options of m2d:\n  --depth=N" in call(capsys, "m2d", "--help")[1]
    assert "--lr" not in call(capsys, "m2d", "--help")[1].partition("options of m2d")[2], "the command's own is above"
    assert "options of m2d:\n  --depth=N" in call(capsys, "--incomplete", "m2d", "--help")[1]
    assert "options of m2d:\n  --depth=N" in call(capsys, "--task=esc50", "--model=m2d", "--help")[1]
    assert "add its name before --help" in call(capsys, "--task=esc50", "--help")[1]
    assert "add its name before --help" in call(capsys, "--help")[1]
    assert "add its name before --help" in call(capsys, "unknown", "--help")[1]


def test_an_interrupt_is_one_line_and_130(capsys):
    code, out, err, calls = call(capsys, "m2d", "esc50", spy=Spy(KeyboardInterrupt()))
    assert (code, out, len(err), len(calls)) == (130, "", 1, 1)
    assert "the same command goes on from here" in err[0]


def test_main_leaves_with_the_exit_code():
    with pytest.raises(SystemExit) as left:
        cli.main(Spy().command, argv=["m2d"])
    assert left.value.code == 2


def python_m(*argv, cwd=HOME, **environment):
    """Run ``python -m …`` with the repository in reach, as a user would."""
    return subprocess.run(
        [sys.executable, "-m", *argv],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(HOME)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["evar.tasks", "--nonsense"], "evar.tasks: error: there is no option --nonsense."),
        (
            ["evar.lineareval", "m2dd", "esc50"],
            "evar.lineareval: error: no model is called 'm2dd'. Did you mean 'm2d'?",
        ),
        (["evar.lineareval", "m2d", "esc5"], "evar.lineareval: error: no task is called 'esc5'. Did you mean 'esc50'?"),
        (["evar.zeroshot", "m2d", "esc50", "--see=1"], "evar.zeroshot: error: there is no option --see."),
        (["evar", "lineareval"], "evar: error: write python -m evar.lineareval"),
    ],
)
def test_the_real_commands_name_the_mistake(argv, complaint):
    done = python_m(*argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(complaint)


def test_the_real_help_after_the_arguments():
    done = python_m("evar.lineareval", "m2d", "esc50", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "options of m2d:" in done.stdout


def test_a_reader_that_stops_reading_is_no_error():
    source = "from evar import cli\ndef f() -> None:\n    print('x' * 200000)\ncli.main(f)"
    script = f'"{sys.executable}" -c "{source}" | head -c 1; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", script], cwd=HOME, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("x0\n", "")
