"""The nearest right name for a wrong one."""

from evar.errors import did_you_mean


def test_a_near_name_is_offered():
    assert did_you_mean("esc5", ["esc50", "fsdd", "us8k"]) == " Did you mean 'esc50'?"


def test_all_names_are_listed_when_none_is_near():
    assert did_you_mean("zzz", ["fsdd", "esc50"]) == " There are: esc50, fsdd."


def test_nothing_is_said_when_there_is_nothing_to_choose_from():
    assert did_you_mean("zzz", []) == ""
