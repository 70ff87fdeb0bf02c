"""Result files: valid by a documented schema, written once, readable by people, broken ones told in one line."""

import json
import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import pytest

from evar import results
from evar.errors import UserError
from evar.results import read_result, read_results, result_path, run_id, run_once, schema, versions, write_result


def result(**changes):
    return {
        "schema": 1,
        "run_id": "0123456789",
        "model": "m2d",
        "task": "esc50",
        "protocol": "lineareval",
        "metric": "accuracy",
        "mean": 0.5,
        "ci95": 0.01,
        "ci_method": "Student t over 3 seeds",
        "scores": [0.49, 0.5, 0.51],
        "fold_scores": [[0.49], [0.5], [0.51]],
        "flags": [],
        "settings": {"seeds": 3},
        "weights": {"given": None, "sha256": ""},
        "data": {"clips": 2000, "fingerprint": "ab", "incomplete": ""},
        "per_class": {"dog": 0.5, "cat": None},
        "versions": {},
        "created": "2026-01-01T00:00:00+00:00",
    } | changes


def test_the_schema_is_a_schema_and_says_what_every_key_means():
    jsonschema.Draft202012Validator.check_schema(schema())
    asked_for = {"model", "task", "protocol", "metric", "mean", "ci95", "ci_method", "scores", "fold_scores"}
    assert asked_for <= set(schema()["required"])
    self_explaining = {"task", "protocol", "metric", "seeds", "weights", "data", "versions", "created"}
    undescribed = {name for name, facts in schema()["properties"].items() if "description" not in facts}
    assert undescribed <= self_explaining


def test_a_result_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "runs" / "a.json"
    write_result(path, result())
    assert read_result(path) == result()
    assert path.read_text().endswith("}\n")


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": 50.0},
        {"mean": None},
        {"ci95": -0.1},
        {"scores": []},
        {"scores": [1.5]},
        {"fold_scores": [0.5]},
        {"protocol": "guessing"},
        {"metric": "F1"},
        {"flags": ["great"]},
        {"surprise": 1},
        {"schema": 2},
        {"weights": {}},
    ],
)
def test_what_does_not_fit_the_schema_is_not_written(tmp_path, changes):
    with pytest.raises(jsonschema.ValidationError):
        write_result(tmp_path / "a.json", result(**changes))
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("name", schema()["required"])
def test_every_required_key_is_required(tmp_path, name):
    short = result()
    del short[name]
    (tmp_path / "a.json").write_text(json.dumps(short))
    with pytest.raises(UserError, match=f"is not a result file: at the top level, '{name}' is a required property"):
        read_result(tmp_path / "a.json")


def test_numbers_that_json_does_not_know_are_not_written(tmp_path):
    with pytest.raises(ValueError):
        write_result(tmp_path / "a.json", result(settings={"lr": float("nan")}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", r"a.json is not JSON \(line 1: "),
        (b'{"schema": 1,\n', r"a.json is not JSON \(line 2: "),
        (b"\xff\xfe\x00", r"a.json is not JSON \('utf-8' codec"),
        (json.dumps(result(settings={"lr": float("nan")})).encode(), r"a.json is not JSON \(NaN is not"),
        (b"[]", r"a.json is not a result file: at the top level, \[\] is not of type 'object'"),
        (json.dumps(result(mean=50)).encode(), "a.json is not a result file: at mean, 50 is greater than"),
        (json.dumps(result(data={"clips": 1})).encode(), "a.json is not a result file: at data, 'fingerprint' is"),
    ],
)
def test_a_file_that_is_no_result_is_told_in_one_line(tmp_path, content, complaint):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=complaint) as caught:
        read_result(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_a_folder_of_results_is_read_in_spite_of_broken_files(tmp_path):
    write_result(tmp_path / "b.json", result(model="b"))
    write_result(tmp_path / "a.json", result(model="a"))
    (tmp_path / "c.json").write_text("{")
    (tmp_path / "d.json").mkdir()
    (tmp_path / "notes.txt").write_text("not looked at")
    found, problems = read_results(tmp_path)
    assert [r["model"] for r in found] == ["a", "b"]
    assert [line.split()[0] for line in problems] == [str(tmp_path / "c.json"), str(tmp_path / "d.json")]


def test_a_finished_run_is_not_run_again_unless_forced(tmp_path):
    path = tmp_path / "runs" / "a.json"
    assert run_once(path, lambda: result(mean=0.1)) == (result(mean=0.1), False)
    assert run_once(path, lambda: pytest.fail("computed again")) == (result(mean=0.1), True)
    assert run_once(path, lambda: result(mean=0.2), force=True) == (result(mean=0.2), False)
    assert read_result(path)["mean"] == 0.2


def test_a_failed_run_leaves_nothing_and_can_be_repeated(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(ZeroDivisionError):
        run_once(path, lambda: result(mean=1 / 0))
    assert not path.exists()
    assert run_once(path, result) == (result(), False)


def compute_slowly(path, started):
    with open(started, "a") as log:
        log.write("x")
    time.sleep(0.3)
    return result(mean=0.001 * (os.getpid() % 1000))


def same_run(path, started, answers):
    found, there = run_once(path, lambda: compute_slowly(path, started))
    answers.put((found["mean"], there))


def test_two_processes_with_the_same_run_have_one_result(tmp_path):
    context = multiprocessing.get_context("fork")
    answers, path = context.Queue(), tmp_path / "a.json"
    both = [context.Process(target=same_run, args=(path, tmp_path / "log", answers)) for _ in range(2)]
    for process in both:
        process.start()
    (one, one_there), (two, two_there) = answers.get(timeout=60), answers.get(timeout=60)
    for process in both:
        process.join(60)
    assert (tmp_path / "log").read_text() == "x"
    assert one == two == read_result(path)["mean"]
    assert sorted([one_there, two_there]) == [False, True]


def test_who_waited_for_a_forced_run_does_not_force_another(tmp_path):
    path = tmp_path / "a.json"
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run_once, path, lambda: compute_slowly(path, tmp_path / "log"), force=True) for _ in "ab"]
    assert sorted(run.result()[1] for run in runs) == [False, True]
    assert (tmp_path / "log").read_text() == "x"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"results cannot be written to .*file: .*; choose another --results"):
        run_once(tmp_path / "file" / "a.json", result)


def test_the_files_name_tells_the_run(tmp_path):
    assert result_path(tmp_path, "m2d", "esc50", "zeroshot", "01ab").name == "m2d__esc50__zeroshot__01ab.json"
    assert result_path(tmp_path, "tag_text:gpvad", "x", "y", "z").name == "tag_text-gpvad__x__y__z.json"
    assert result_path(tmp_path, "../a/b.py:C", "x", "y", "z").parent == tmp_path
    assert len(run_id({"seeds": 3})) == 10
    assert run_id({"seeds": 3}) != run_id({"seeds": 4})


def test_versions_name_what_ran():
    found = versions()
    assert {"evar", "python", "machine", "torch", "numpy", "scikit-learn"} <= set(found)
    assert found["torch"]


def test_a_table_beside_a_result(tmp_path):
    name = results.write_table(tmp_path / "a.csv", ["file", "label"], [["x,y.wav", "dog"], ["z.wav", 1]])
    assert name == "a.csv"
    assert (tmp_path / "a.csv").read_text() == 'file,label\n"x,y.wav",dog\nz.wav,1\n'
