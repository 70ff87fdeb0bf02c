"""A model's rows in the papers are those that it declares, whether it is imported or read."""

import subprocess
import sys

import pytest

from evar.paper_rows import paper_rows_of
from model_adapters.registry import model_info, model_names


@pytest.mark.parametrize("name", model_names())
def test_what_is_read_is_what_the_adapter_says(name):
    assert paper_rows_of(name) == model_info(name).paper_rows


def test_an_option_after_a_colon_is_not_part_of_the_name():
    assert paper_rows_of("m2d_clap:x") == paper_rows_of("m2d_clap") != ()


@pytest.mark.parametrize("name", ["no_such_model", "mine:Mine", "../evar/report", "a b", ""])
def test_a_model_that_is_not_known_has_none(name):
    assert paper_rows_of(name) == ()


def test_a_report_needs_no_torch():
    code = "import sys, evar.report, evar.html.page; from evar.paper_rows import paper_rows_of; paper_rows_of('m2d')"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout == "False\n", done.stderr
