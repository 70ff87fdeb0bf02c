"""The registry and the contract: every task that ships is well formed, and a malformed one is told what is wrong."""

import dataclasses
from importlib import metadata
from types import SimpleNamespace

import pytest

from evar.errors import UserError
from tasks import base
from tasks.base import Archive, Task, all_tasks, default_caption, get_task, validate
from tasks.esc50 import TASKS as ESC50

GOOD = ESC50[0]


@pytest.mark.parametrize("name", sorted(all_tasks()))
def test_every_task_is_valid_and_registered_under_its_own_name(name):
    task = get_task(name)
    assert task.name == name
    assert validate(task) == []
    assert hash(task.labels) is not None  # a tuple: nobody sorts or extends it in place


def test_the_first_tasks_are_there():
    assert {"esc50", "fsdd", "pocket_events", "pocket_pitch", "pocket_speech"} <= set(all_tasks())
    pocket = [t.name for t in all_tasks().values() if "pocket" in t.tags]
    assert pocket == ["pocket_events", "pocket_pitch", "pocket_speech"]


def test_a_wrong_name_gets_the_nearest_right_one():
    with pytest.raises(UserError, match=r"no task is called 'esc5'\. Did you mean 'esc50'\?"):
        get_task("esc5")


def test_facts_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GOOD.unit_seconds = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        GOOD.archives[0].url = "elsewhere"


def test_the_default_caption_is_the_papers():
    assert default_caption("door_wood_knock") == "door wood knock can be heard"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": "Esc 50"}, "lower-case"),
        ({"unit_seconds": 0.0}, "unit_seconds"),
        ({"batch_size": 0}, "batch_size"),
        ({"domain": "noise"}, "domain is 'noise', must be one of environment"),
        ({"metric": "f1"}, "metric is 'f1'"),
        ({"labels": ("b", "a")}, "sorted"),
        ({"labels": ("a", "a", "b")}, "without repeats"),
        ({"labels": ("a",)}, "at least two labels"),
        ({"labels": ("a", "")}, "not empty"),
        ({"labels": ("a", 3)}, "must be a text"),
        ({"counts": {}}, "counts must name train, test"),
        ({"counts": {"train": 3, "dev": 3}}, "they name ['dev', 'train']"),
        ({"counts": {"train": 3, 1: 3}}, "they name ['1', 'train']"),
        ({"counts": {1: 3, 3: 3}}, "without gaps"),
        ({"counts": {1: 3}}, "to 2 at least"),
        ({"counts": {"train": 3, "test": 0}}, "above 0"),
        ({"archives": (), "manual": ""}, "where the data come from"),
        ({"archives": (Archive("http://x", "x.zip", "md5:abc"),)}, "the checksum of x.zip"),
        ({"licence": ""}, "licence is missing"),
        ({"citation": ""}, "citation is missing"),
        ({"caption": lambda label: "something"}, "the same caption"),
        ({"group_is": ""}, "group_is does not say"),
    ],
)
def test_a_malformed_task_is_told_what_is_wrong(change, complaint):
    wrong = validate(dataclasses.replace(GOOD, **change))
    assert len(wrong) == 1, wrong
    assert complaint in wrong[0]


def test_several_faults_are_all_told():
    assert len(validate(dataclasses.replace(GOOD, name="X", licence="", unit_seconds=-1.0))) == 3


def entry_point(task: object, name: str = "mine") -> SimpleNamespace:
    return SimpleNamespace(name=name, value=f"package.module:{name}", load=lambda: task)


@pytest.fixture
def installed(monkeypatch):
    def install(*entries):
        monkeypatch.setattr(metadata, "entry_points", lambda group: entries if group == "evar.tasks" else ())

    return install


def test_an_installed_package_adds_a_task(installed):
    installed(entry_point(dataclasses.replace(GOOD, name="mine")))
    assert get_task("mine").title == GOOD.title


def test_two_tasks_of_one_name_are_refused(installed):
    installed(entry_point(GOOD))
    with pytest.raises(UserError, match=r"two tasks are called 'esc50'.*package\.module:mine"):
        all_tasks()


def test_two_tasks_of_one_name_in_this_package_are_refused(monkeypatch):
    monkeypatch.setattr(base, "_modules", lambda: ["esc50", "esc50"])
    with pytest.raises(UserError, match=r"two tasks are called 'esc50' \(the second in tasks/esc50.py\)"):
        all_tasks()


def test_an_installed_package_that_is_broken_is_named(installed):
    def load() -> Task:
        raise ImportError("no module named 'their_dependency'")

    installed(SimpleNamespace(name="theirs", value="their.module:TASK", load=load))
    with pytest.raises(UserError, match=r"'theirs' \(their.module:TASK\) cannot be loaded: no module"):
        all_tasks()
    installed(entry_point("not a task"))
    with pytest.raises(UserError, match=r"is not a tasks\.base\.Task"):
        all_tasks()


def test_folds_and_multi_label_follow_from_the_facts():
    assert GOOD.has_folds
    assert not GOOD.multi_label
    assert not dataclasses.replace(GOOD, counts={"train": 1, "test": 1}).has_folds
    assert dataclasses.replace(GOOD, metric="mAP").multi_label
