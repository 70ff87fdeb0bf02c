"""The command: pairs found and refused, clip by clip, what is printed in every format, verdicts that are right."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import evar
from helpers import CountingAdapter, counting_model, fold_clips, tiny_folder, tiny_task

from evar import pairing
from evar.clips import open_task
from evar.compare import compare
from evar.comparison import Line, corrected
from evar.errors import UserError
from evar.lineareval import Machine, ProbeSettings, evaluate_linear
from evar.metrics import mean_average_precision
from evar.paired import Difference, mcnemar, paired_bootstrap
from evar.results import Result, result_path, run_id, write_result
from evar.statistics import Interval
from tasks.base import get_task

FIXED = "2026-01-01T00:00:00+00:00"


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Return a result of the model ``counting`` on 40 clips in two folds, with its files in ``runs``."""
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))
    clips = fold_clips(tmp_path / "data", 40)
    settings = ProbeSettings(seeds=2, max_epochs=5)
    return evaluate_linear(counting_model(), clips, settings, Machine(), tmp_path / "runs")[0]


def invented(
    folder: Path,
    like: Result,
    model: str,
    hits: np.ndarray,
    *,
    task: str = "tiny",
    folds: int = 1,
    groups: list[str] | None = None,
    **facts: object,
) -> Result:
    """Write a result with its predictions: right where ``hits [seeds, n]``, in folds of growing size; return it."""
    n = hits.shape[1]
    fold = np.minimum(np.arange(n) * folds // (n - n // 4 if folds > 1 else n), folds - 1)
    scores = [[float(row[fold == k].mean()) for k in range(folds)] for row in hits]
    run = run_id({"model": model, "task": task, "facts": facts})
    path = result_path(folder, model, task, str(facts.get("protocol", "lineareval")), run)
    new = like | {
        "model": model, "task": task, "run_id": run, "mean": float(np.mean(scores)), "fold_scores": scores,
        "scores": [float(np.mean(row)) for row in scores], "files": {"predictions": f"{path.stem}.predictions.csv"},
        "seeds": list(range(42, 42 + len(hits))), "ci95": None, "ci_low": None, "ci_high": None, "ci_method": None,
        "created": FIXED,
    } | facts  # fmt: skip
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["file", "part", "label", *(["group"] if groups else []), *(f"seed {s}" for s in new["seeds"])])
    for k in range(n):
        guesses = ["low" if hit else "high" for hit in hits[:, k]]
        writer.writerow([f"audio/{k}.wav", f"fold {fold[k]}", "low", *([groups[k]] if groups else []), *guesses])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / new["files"]["predictions"]).write_text(table.getvalue())
    write_result(path, new)
    return new


def lines_of(capsys: pytest.CaptureFixture[str], *words: str, **options: object) -> list[dict[str, str]]:
    compare(*words, format="csv", **options)
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def random_hits(seed: int, shape: tuple[int, int], share: float) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share


def test_two_models_are_paired_clip_by_clip_whatever_the_files_order(result, tmp_path, capsys):
    runs = tmp_path / "invented"
    a, b = random_hits(1, (1, 200), 0.9), random_hits(2, (1, 200), 0.7)
    invented(runs, result, "first", a)
    other = invented(runs, result, "second", b)
    path = runs / other["files"]["predictions"]
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *rows[::-1]]) + "\n")
    (line,) = lines_of(capsys, "first", "second", results=runs)
    expected = paired_bootstrap(a[0], b[0])
    assert float(line["difference"]) == pytest.approx(100 * (a.mean() - b.mean()))
    assert [float(line["low"]), float(line["high"])] == pytest.approx(
        [100 * expected.interval.low, 100 * expected.interval.high]
    )
    assert line["interval"] == "paired bootstrap over 200 clips" and line["mcnemar"] == "McNemar, mid-p"
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    assert float(line["p_mcnemar"]) == pytest.approx(mcnemar(only_a, only_b))
    assert float(line["p"]) == float(line["p_holm"]) < 0.05 and line["verdict"] == "A is better"
    (line,) = lines_of(capsys, "second", "first", results=runs)
    assert line["verdict"] == "B is better"


def test_seeds_are_averaged_and_folds_count_alike(result, tmp_path, capsys):
    runs = tmp_path / "invented"
    first = invented(runs, result, "first", random_hits(1, (3, 200), 0.8), folds=3)
    second = invented(runs, result, "second", random_hits(2, (2, 200), 0.8), folds=3)
    (line,) = lines_of(capsys, "first", "second", results=runs)
    assert float(line["difference"]) == pytest.approx(100 * (first["mean"] - second["mean"]))
    assert line["mcnemar"] == "McNemar, clustered" and line["verdict"] == "no difference shown"
    compare("first", "second", results=runs)
    shown = capsys.readouterr().out
    assert "mean of its hits over the seeds" in shown and "runs: A 3, B 2 (tiny)" in shown


def test_groups_of_the_files_are_kept_together(result, tmp_path, capsys):
    runs = tmp_path / "invented"
    groups = [f"speaker {n // 10}" for n in range(200)]
    for seed, name in enumerate(("first", "second")):
        invented(runs, result, name, random_hits(seed, (1, 200), 0.8 - 0.2 * seed), groups=groups)
    (line,) = lines_of(capsys, "first", "second", results=runs)
    assert line["interval"] == "paired bootstrap over 20 groups" and line["mcnemar"] == "McNemar, clustered"
    (line,) = lines_of(capsys, "first", "second", results=runs, units="clips")
    assert line["interval"] == "paired bootstrap over 200 clips" and line["mcnemar"] == "McNemar, mid-p"


def test_holm_is_over_the_tasks_of_a_protocol(result, tmp_path, capsys):
    runs = tmp_path / "invented"
    for number, (task, gap) in enumerate((("one", 0.12), ("two", 0.0), ("three", 0.3))):
        for side, name in enumerate(("first", "second")):
            hits = random_hits(10 * number + side, (1, 150), 0.85 - gap * side)
            invented(runs, result, name, hits, task=task)
    lines = {line["task"]: line for line in lines_of(capsys, "first", "second", results=runs)}
    raw = sorted(float(line["p"]) for line in lines.values())
    assert float(lines["three"]["p_holm"]) == pytest.approx(3 * raw[0])
    assert float(lines["two"]["p_holm"]) == pytest.approx(raw[2])
    only = lines_of(capsys, "first", "second", results=runs, tasks=("one",))
    assert [line["task"] for line in only] == ["one"] and only[0]["p"] == only[0]["p_holm"]


def test_a_line_without_a_test_does_not_count_in_the_correction():
    found = [Difference(Interval(0.1, 0.0, 0.2, ""), 0.03), Difference(Interval(0.1, None, None, ""), None)]
    lines = [Line("lineareval", str(n), "accuracy", 9, 0.5, 0.4, f, None, "") for n, f in enumerate(found)]
    first, second = corrected(lines)
    assert (first.holm, first.verdict, second.holm, second.verdict) == (0.03, "A is better", None, "no test")


@pytest.mark.parametrize("form", ["text", "markdown", "csv", "latex"])
def test_every_format_says_what_its_numbers_are(form, result, tmp_path):
    runs = tmp_path / "invented"
    invented(runs, result, "first", random_hits(1, (2, 90), 0.9))
    invented(runs, result, "se<co_nd", random_hits(2, (2, 90), 0.6))
    compare("first", "se<co_nd", results=runs, format=form, out=tmp_path / "out")
    text = (tmp_path / "out").read_text()
    assert "paired bootstrap over 90 clips" in text and "McNemar, clustered" in text and "A is better" in text
    assert form == "csv" or "Holm" in text
    assert (r"se\textless{}co\_nd" if form == "latex" else "se&lt;co_nd" if form == "markdown" else "se<co_nd") in text
    if form == "markdown":
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len(rows) == 3 and len({row.count("|") for row in rows}) == 1
    if form == "latex":
        assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
        assert r"A $-$ B" in text and "…" not in text


def refused(match: str, *words: str, **options: object) -> str:
    with pytest.raises(UserError, match=match) as raised:
        compare(*words, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_cannot_be_paired_is_refused_in_one_line(result, tmp_path):
    runs = tmp_path / "invented"
    hits = random_hits(1, (1, 60), 0.7)
    first = invented(runs, result, "first", hits)
    invented(runs, result, "other_data", hits, data=first["data"] | {"fingerprint": "f" * 32, "clips": 59})
    invented(runs, result, "other_clips", hits[:, :59])
    invented(runs, result, "zero", hits, protocol="zeroshot")
    assert "59 clips" in refused("ran on different data", "first", "other_data", results=runs)
    refused("were not tested on the same clips", "first", "other_clips", results=runs)
    refused(r"A has tiny \(lineareval\), B has tiny \(zeroshot\)", "first", "zero", results=runs)
    refused("the same results", "first", "first", results=runs)
    refused("Did you mean 'first'", "frist", "zero", results=runs)
    refused("no pair of results of esc50|none of both", "first", "other_clips", results=runs, tasks=("esc50",))
    refused("cannot be read", str(tmp_path / "nothing.json"), "first", results=runs)


def test_two_protocols_of_one_model_are_paired(result, tmp_path, capsys):
    runs = tmp_path / "invented"
    probed = invented(runs, result, "m", random_hits(1, (1, 80), 0.5))
    tuned = invented(runs, result, "m", random_hits(2, (1, 80), 0.9), protocol="finetune")
    compare(tuned["run_id"], probed["run_id"], results=runs)
    assert capsys.readouterr().out.startswith("Fine-tuning against Linear evaluation, paired by clip\n")
    (line,) = lines_of(capsys, tuned["run_id"], probed["run_id"], results=runs)
    assert line["protocol"] == "finetune/lineareval"
    assert float(line["difference"]) == pytest.approx(100 * (tuned["mean"] - probed["mean"]))


def test_a_zero_shot_model_that_saw_the_training_part_is_paired_by_name(result, tmp_path, capsys):
    runs, data = tmp_path / "invented", result["data"]
    hits = random_hits(1, (1, 60), 0.7)
    invented(runs, result, "first", hits, protocol="zeroshot", data=data | {"clips": 60})
    fitted = data | {"clips": 160, "fingerprint": "f" * 32}
    invented(runs, result, "fitted", hits, protocol="zeroshot", data=fitted)
    invented(runs, result, "other", hits, protocol="zeroshot", data=fitted | {"clips": 60})
    compare("first", "fitted", results=runs)
    assert "B looked at other parts of the data too" in capsys.readouterr().out
    refused("ran on different data", "first", "other", results=runs)


def test_a_score_by_patient_is_not_paired(result, tmp_path):
    runs = tmp_path / "invented"
    for name in ("first", "second"):
        invented(runs, result, name, random_hits(len(name), (1, 60), 0.7), metric="patient_accuracy")
    refused("tiny: its patient_accuracy is scored by patient", "first", "second", results=runs)


def test_files_that_are_missing_cut_or_of_another_run_are_named(result, tmp_path):
    runs = tmp_path / "invented"
    hits = random_hits(1, (1, 60), 0.7)
    invented(runs, result, "first", hits)
    second = invented(runs, result, "second", hits)
    path = runs / second["files"]["predictions"]
    whole = path.read_text()
    path.write_text(whole.replace("low,low", "low,high", 1))
    refused("of another run", "first", "second", results=runs)
    path.write_text(whole[: len(whole) // 2 + 15].rpartition(",")[0])
    refused("cut off", "first", "second", results=runs)
    path.write_text("")
    refused("cut off", "first", "second", results=runs)
    path.unlink()
    refused("the predictions of second · tiny", "first", "second", results=runs)


def test_rows_ids_files_and_weights_choose_a_result(result, tmp_path, capsys):
    runs = tmp_path / "invented"
    other = invented(runs, result, "other", random_hits(0, (1, 80), 0.5))
    old = invented(runs, result, "m", random_hits(1, (1, 80), 0.6), created="2025-01-01T00:00:00+00:00")
    logistic = result["settings"] | {"probe": "logistic"}
    new = invented(runs, result, "m", random_hits(2, (1, 80), 0.8))
    solved = invented(runs, result, "m", random_hits(3, (1, 80), 0.9), settings=logistic, created="2026-03-01T00:00:00")

    def score(text: str, **options: object) -> float:
        (line,) = lines_of(capsys, text, "other", results=runs, **options)
        return float(line["score_a"])

    assert score("m") == pytest.approx(100 * new["mean"])  # the row's own name, and its latest result
    assert score("m (logistic probe)") == pytest.approx(100 * solved["mean"])
    assert score(old["run_id"]) == pytest.approx(100 * old["mean"])
    path = result_path(runs, "m", "tiny", "lineareval", old["run_id"])
    assert score(str(path)) == pytest.approx(100 * old["mean"])
    refused("no result in .* has the id 00000", f"{old['run_id']},00000", "other", results=runs)
    compare(old["run_id"], "m", results=runs)
    assert f"A: m ({old['run_id']})\nB: m\n" in capsys.readouterr().out

    trained = {"weights": result["weights"] | {"given": "runs/late.pth", "sha256": "9" * 64}}
    late = invented(runs, result, "m", random_hits(4, (1, 80), 0.4), created="2026-05-01T00:00:00", **trained)
    refused(r"several weights: .*--weights_a=", "m", "other", results=runs)
    assert score("m", weights_a="late.pth") == score("m", weights_a="9999") == pytest.approx(100 * late["mean"])
    refused("ran with", "m", "other", results=runs, weights_a="none.pth")
    assert other["mean"] > 0


def test_several_rows_of_one_model_must_be_told_apart(result, tmp_path):
    runs = tmp_path / "invented"
    invented(runs, result, "other", random_hits(0, (1, 80), 0.5))
    for depth in (1, 2):
        options = result["settings"] | {"model_options": {"depth": depth}}
        when = f"2026-01-0{depth}T00:00:00"
        invented(runs, result, "m", random_hits(depth, (1, 80), 0.6), settings=options, created=when)
    refused(r"several rows: m \(depth=1\); m \(depth=2\)", "m", "other", results=runs)
    compare("m (depth=1)", "m (depth=2)", results=runs, out=tmp_path / "out")


def test_real_results_are_compared_and_settings_that_differ_are_said(result, tmp_path, capsys):
    clips = fold_clips(tmp_path / "data", 40)
    settings = ProbeSettings(seeds=2, max_epochs=5, lr=0.01)
    louder = replace(counting_model(CountingAdapter(gain=3.0)), name="louder")
    evaluate_linear(louder, clips, settings, Machine(), tmp_path / "runs")
    compare("counting", "louder", results=tmp_path / "runs")
    shown = capsys.readouterr().out
    assert "lr: A 0.0003, B 0.01 (tiny)" in shown and "paired bootstrap over 40 clips" in shown


def multi_label(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Write and open a multi-label task of 60 clips, 20 to test, and let it be known by its name."""
    labels = ("a", "b", "a;b")
    parts = ("train", "valid", "test")
    rows = [
        {"file": f"audio/{n:03d}.wav", "label": labels[n % 3], "split": parts[n // 20], "group": n // 2}
        for n in range(60)
    ]
    counts = {"train": 20, "valid": 20, "test": 20}
    task = tiny_task(labels=("a", "b"), metric="mAP", counts=counts, group_is="speaker")
    tiny_folder(folder / "tiny", rows, 0.1)
    monkeypatch.setattr(pairing, "get_task", lambda name: task)
    monkeypatch.setattr("evar.comparison.get_task", lambda name: task)
    return open_task(task, folder)


def test_maps_are_paired_with_targets_from_the_data_or_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))
    clips = multi_label(tmp_path / "root", monkeypatch)
    runs, settings = tmp_path / "runs", ProbeSettings(seeds=2, max_epochs=3)
    louder = replace(counting_model(CountingAdapter(gain=30.0)), name="louder")
    found = [evaluate_linear(m, clips, settings, Machine(), runs)[0] for m in (counting_model(), louder)]
    for result in found:  # as an older version writes them: without targets and groups
        path = runs / result["files"]["scores"]
        with np.load(path) as stored:
            bare = {name: stored[name] for name in ("files", "labels", "scores")}
        np.savez(path, **bare)
    (line,) = lines_of(capsys, "counting", "louder", results=runs, root=tmp_path / "root")
    assert line["metric"] == "mAP" and line["p_mcnemar"] == "" and "influence functions" in line["interval"]
    assert float(line["difference"]) == pytest.approx(100 * (found[0]["mean"] - found[1]["mean"]), abs=1e-3)
    refused("is not at", "counting", "louder", results=runs, root=tmp_path / "elsewhere")

    targets = clips.targets[clips.parts()[0].test]
    for result in found:
        path = runs / result["files"]["scores"]
        with np.load(path) as file:
            stored = dict(file)
        assert mean_average_precision(stored["scores"][0], targets) == pytest.approx(result["scores"][0], abs=1e-4)
        groups = np.array([f"g{n // 2}" for n in range(20)])
        np.savez(path, **stored, targets=targets, groups=groups)
    (again,) = lines_of(capsys, "counting", "louder", results=runs, root=tmp_path / "elsewhere")
    assert again["low"] == line["low"] and again["p"] == line["p"]
    np.savez(path, **stored, targets=1 - targets)
    np.savez(runs / found[0]["files"]["scores"], **stored, targets=1 - targets)
    refused("of another run", "counting", "louder", results=runs)
    path.write_bytes(path.read_bytes()[:200])
    refused("cut off", "counting", "louder", results=runs)


def test_ranks_of_a_retrieval_are_paired_by_caption_and_clip(result, tmp_path, capsys):
    runs = tmp_path / "runs"
    stream = np.random.default_rng(5)
    for name, share in (("first", 0.6), ("second", 0.3)):
        ranks = np.where(stream.random(200) < share, 1, 4)
        path = result_path(runs, name, "clips", "retrieval", name[0] * 10)
        rows = [f"{n // 5}.wav,caption {n},{rank}" for n, rank in enumerate(ranks)]
        path.with_suffix(".ranks.csv").write_text("\n".join(["file,caption,clip_rank", *rows]) + "\n")
        facts = {"protocol": "retrieval", "metric": "R@1", "files": {"ranks": path.with_suffix(".ranks.csv").name}}
        mean = float((ranks == 1).mean())
        facts |= {"model": name, "task": "clips", "run_id": name[0] * 10, "mean": mean, "scores": [mean]}
        write_result(path, result | facts | {"fold_scores": [[mean]], "seeds": []})
    (line,) = lines_of(capsys, "first", "second", results=runs)
    assert line["interval"] == "paired bootstrap over 40 groups" and line["verdict"] == "A is better"


def test_the_command_knows_the_voices_of_the_pocket_suite(tmp_path, pocket_data, monkeypatch):
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path))
    clips = open_task(get_task("pocket_speech"), pocket_data)
    runs, settings = tmp_path / "results" / "runs", ProbeSettings(seeds=2, max_epochs=3)
    for name, gain in (("quiet", 0.1), ("loud", 10.0)):
        model = replace(counting_model(CountingAdapter(gain=gain)), name=name)
        evaluate_linear(model, clips, settings, Machine(), runs)
    done = evar("compare", "quiet", "loud", cache=tmp_path, data=pocket_data)
    assert done.returncode == 0, done.stderr
    voices = len({clips.groups[n] for n in clips.parts()[0].test})
    for words in ("Linear evaluation", "pocket_speech", f"over {voices} groups", "a group is a voice"):
        assert words in done.stdout
    wrong = evar("compare", "quiet", "lout", cache=tmp_path, data=pocket_data)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1) and "Did you mean 'loud'" in wrong.stderr
