"""Text from the command line becomes what the type hint says, and nothing is guessed."""

from pathlib import Path
from typing import Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evar.convert import convert, keyword_parameters
from evar.errors import UserError


@given(st.text())
def test_text_stays_text(text):
    assert convert(text, str, "x") == text


@given(st.integers())
def test_whole_numbers(number):
    assert convert(str(number), int, "x") == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers(number):
    assert convert(repr(number), float, "x") == number


@given(st.lists(st.text("abcxyz0189_:/.", min_size=1), max_size=5))
def test_a_tuple_is_separated_by_commas(words):
    assert convert(",".join(words), tuple[str, ...], "x") == tuple(words)


def test_blanks_and_empty_parts_of_a_tuple_are_dropped():
    assert convert(" esc50, fsdd ,", tuple[str, ...], "x") == ("esc50", "fsdd")


def test_the_parts_of_a_tuple_are_converted_too():
    assert convert("1,2", tuple[int, ...], "x") == (1, 2)
    with pytest.raises(UserError, match="--x=b: expected a whole number"):
        convert("1,b", tuple[int, ...], "x")


@pytest.mark.parametrize(("text", "value"), [("true", True), ("ON", True), ("1", True), ("no", False), ("0", False)])
def test_truth(text, value):
    assert convert(text, bool, "x") is value


@pytest.mark.parametrize(
    ("text", "hint", "complaint"),
    [
        ("many", int, "--x=many: expected a whole number"),
        ("3.5", int, "--x=3.5: expected a whole number"),
        ("1e5", int, "--x=1e5: expected a whole number"),
        ("", int, "--x=: expected a whole number"),
        ("fast", float, "--x=fast: expected a number"),
        ("nan", float, "--x=nan: expected a number"),
        ("inf", float, "--x=inf: expected a number"),
        ("maybe", bool, "--x=maybe: expected true or false"),
        ("fp23", Literal["fp32", "bf16"], "--x=fp23 is not one of its values. Did you mean 'fp32'?"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(text, hint, complaint):
    with pytest.raises(UserError) as caught:
        convert(text, hint, "x")
    assert str(caught.value) == complaint


def test_a_choice_keeps_the_type_of_its_value():
    assert convert("2", Literal[1, 2], "x") == 2


@pytest.mark.parametrize("hint", [float | None, Optional[float]])  # noqa: UP045
def test_an_optional_value_is_the_value_or_none(hint):
    assert convert("0.1", hint, "x") == 0.1
    assert convert("none", hint, "x") is None
    assert convert("", hint, "x") is None


def test_a_path_may_begin_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert convert("~/data", Path, "x") == Path("/home/ada/data")


class Thing:
    def __init__(self, weights: str | None = None, *, depth: int = 12, name="x"):
        self.depth = depth


def test_the_options_of_a_class_are_those_of_its_constructor():
    assert list(keyword_parameters(Thing)) == ["weights", "depth", "name"]
