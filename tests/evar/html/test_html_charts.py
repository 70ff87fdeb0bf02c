"""Charts: numbers stand where they belong, and axes are round."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evar.html.charts import Bar, Curve, Dot, bars, curves, quantity, scatter, shortened


def test_a_bar_is_as_long_as_its_number():
    drawn = bars([Bar("full", 100.0), Bar("half", 50.0, 40.0, 60.0)], "chart")
    full, half = (float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', drawn))
    assert half == pytest.approx(full / 2, abs=0.1)
    (low, high) = re.findall(r'class="whisker"|d="M([\d.]+) [\d.]+H([\d.]+)', drawn)[0]
    assert float(high) - float(low) == pytest.approx(full / 5, abs=0.2)
    assert "half: 50.0 %, 95 % interval 40.0 to 60.0" in drawn


def test_chance_is_a_dotted_line_only_where_it_is_known():
    assert "chance: 10.0 %" in bars([Bar("a", 1.0)], "", chance=10.0)
    assert "chance" not in bars([Bar("a", 1.0)], "")


def test_a_longer_name_is_cut_and_whole_in_what_the_bar_says():
    name = "a very long name of a model with many options (and more)"
    drawn = bars([Bar(name, 10.0)], "")
    assert f"{name}: 10.0 %" in drawn and f">{name}<" not in drawn
    assert shortened("abcdef", 4) == "abc…"


@given(st.lists(st.tuples(st.floats(1e-3, 1e12), st.floats(0, 100)), min_size=1, max_size=12))
def test_points_lie_within_their_frame_in_their_order(points):
    drawn = scatter([Dot(f"m{n}", x, y) for n, (x, y) in enumerate(points)], "", "x", "y")
    places = [tuple(map(float, found)) for found in re.findall(r'<circle cx="([\d.-]+)" cy="([\d.-]+)"', drawn)]
    assert len(places) == len(points)
    assert all(44 <= x <= 446 and 12 <= y <= 260 for x, y in places)
    for (x1, y1), (px1, py1) in zip(points, places, strict=True):
        for (x2, y2), (px2, py2) in zip(points, places, strict=True):
            assert x1 > x2 or px1 <= px2
            assert y1 > y2 or py1 >= py2
    assert len(re.findall(r'class="tick"', drawn)) >= 4


def test_names_do_not_lie_on_each_other():
    drawn = scatter([Dot(f"model {n}", 100.0, 50.0 + 0.01 * n) for n in range(6)], "", "x", "y")
    heights = [float(y) for y in re.findall(r'<text x="[\d.]+" y="([\d.]+)"[^>]*>model', drawn)]
    sides = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>model', drawn)
    assert 2 <= len(heights) < 6 and len(set(sides)) == len(sides), "the rest have no room and speak when asked"


def test_a_curve_has_a_point_per_epoch_and_a_dot_at_its_best():
    drawn = curves([Curve([10.0, 20.0, 90.0], 2), Curve([0.0, 40.0, 30.0], 1)], "", "score", percent=True)
    lines = [re.findall(r"([\d.]+),([\d.]+)", points) for points in re.findall(r'points="([^"]*)"', drawn)]
    assert [len(line) for line in lines] == [3, 3, 3]
    mean = [float(y) for _, y in lines[2]]
    assert mean[0] > mean[1] > mean[2], "higher scores stand higher"
    assert re.findall(r'data-t="([^"]*)"', drawn) == ["epoch 3: 90", "epoch 2: 40"]


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0], [5.0] * 500])
def test_short_flat_and_long_curves_are_drawn(values):
    drawn = curves([Curve(values)], "", "loss", percent=False)
    assert "nan" not in drawn and len(drawn) < 6000


@pytest.mark.parametrize(
    ("value", "words"), [(1_234_000, "1.23 M"), (85e6, "85 M"), (999, "999"), (0.0012, "0.0012"), (2e9, "2 G")]
)
def test_quantities_in_words(value, words):
    assert quantity(value) == words
