"""Markup: what comes from outside is text, whatever it looks like."""

import json
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evar.html.markup import Markup, data_block, fold, join, tag, text


@given(st.text())
def test_any_text_comes_back_as_it_was(words):
    shown = text(words)
    assert not set("<>\"'") & set(shown)
    assert unescape(shown) == words


@given(st.text(), st.text())
def test_an_element_has_no_markup_of_its_children_or_attributes(inner, value):
    shown = tag("p", inner, title=value)
    assert (shown.count("<"), shown.count(">")) == (2, 2)
    assert shown.count('"') == 2


def test_markup_stays_as_it_is():
    assert tag("p", tag("b", "a<b"), None, " & ", 3) == "<p><b>a&lt;b</b> &amp; 3</p>"
    assert join(["<", Markup("<br/>")], ", ") == "&lt;, <br/>"


def test_attributes():
    assert tag("input", class_="x", data_v=1, aria_label="a", checked=True, hidden=None) == (
        '<input class="x" data-v="1" aria-label="a" checked/>'
    )
    assert tag("meta", name="n") == '<meta name="n"/>'
    assert fold("more", "x", open=False) == "<details><summary>more</summary>x</details>"


@given(st.recursive(st.text() | st.integers() | st.none(), lambda inner: st.lists(inner)))
def test_data_cannot_end_its_block(content):
    block = data_block("d", content)
    inner = block.removeprefix('<script type="application/json" id="d">').removesuffix("</script>")
    assert "<" not in inner and ">" not in inner
    assert json.loads(inner) == content


def test_a_block_with_a_script_in_it_is_data():
    assert "</script><img" not in data_block("d", "</script><img src=x>")


@pytest.mark.parametrize("name", ["<", '"'])
def test_the_name_of_a_block_is_escaped_too(name):
    assert name not in data_block(name, 1).split("id=")[1].split(">")[0].strip('"')
