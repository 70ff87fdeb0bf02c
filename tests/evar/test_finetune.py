"""Fine-tuning through its command: bad settings, killed and resumed, two processes, results that are not run twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import environment, evar, results_in
from safetensors.torch import load_file
from tuning import QUICK, SMALL, job, own_adapter, tones

from evar.clips import open_task
from evar.command import Request
from evar.errors import UserError
from evar.finetune import evaluate_finetune, plan, with_model_options
from evar.finetune_fit import Job
from evar.finetune_settings import FinetuneSettings
from evar.paths import cache_dir
from evar.plots import plot_curves
from evar.results import read_result
from evar.training import Machine
from model_adapters.registry import build_adapter
from tasks.base import get_task


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def clips(tmp_path: Path) -> Any:
    return tones(tmp_path / "data", train=18, valid=6, test=9)


def pocket_job(data: Path, results: Path, **settings: Any) -> Job:
    """Return what the commands below run: a small M2D, or a user's model, on pocket_pitch, in this process."""
    facts = {"model": "m2d", "weights": "random", "options": SMALL}
    facts |= {name: settings.pop(name) for name in list(settings) if name in facts}
    opened = open_task(get_task("pocket_pitch"), data)
    return Job(
        clips=opened, settings=replace(FinetuneSettings(), **settings), preset="default", machine=Machine(workers=1),
        folder=results, **facts,
    )  # fmt: skip


def flags(**settings: Any) -> list[str]:
    """Return settings as on the command line."""
    return [f"--{name}={value}" for name, value in settings.items()]


def model_of(results: Path, seed: int = 43) -> dict[str, torch.Tensor]:
    (path,) = results.glob(f"finetuned/*/seed{seed}-split/model/model.safetensors")
    return load_file(path)


# Refusals


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("m2d", "esc50", "--weights=random", "--patchout=1"), "--patchout=1.0: a share of the patches"),
        (("byol_a", "pocket_pitch", "--weights=random", "--preset=paper"), "no settings for pocket_pitch"),
    ],
)
def test_a_bad_setting_is_one_line_before_any_data_is_there(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    done = evar("finetune", *words, cache=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("evar.finetune: error: ") and says in line
    assert not (tmp_path / "data").exists() and not (tmp_path / "results").exists()


def asked(models: str, *tasks: str, weights: str | None = "random", **options: str) -> Request:
    return Request(
        tuple(models.split(",")), tuple(map(get_task, tasks)), weights, options, Path("/nowhere"), None, False
    )


@pytest.mark.parametrize(
    ("request_", "given", "says"),
    [
        (asked("m2d", "esc50", "clotho"), {}, "clotho has captions and no classes"),
        (asked("m2d", "esc50", weights=None), {}, "m2d needs --weights=PATH"),
        (asked("m2d", "esc50"), {"dur_frames": 5}, "--dur_frames=5 is less than one patch"),
        (asked("m2d", "pocket_pitch"), {"batch_size": 241}, "only 240 training clips"),
        (asked("m2d", "esc50", features="stacked"), {}, "--features=stacked"),
        (asked("m2d", "esc50", patchout_keeps="marked"), {}, "--patchout_mode=reference"),
        (asked("byol_a", "pocket_pitch"), {"freeze_patch_embed": True}, "byol_a has no patch embedding"),
    ],
)
def test_what_cannot_be_is_refused_before_the_data_are_opened(
    request_: Request, given: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        plan(request_, None, given)


def test_a_plan_gives_each_model_its_options_and_says_once_what_it_cannot_do(capsys: Any) -> None:
    runs = plan(asked("byol_a", "esc50", "vc1", "pocket_pitch", feature_d="16"), None, {})
    assert [(run.task, run.preset, run.settings.dur_frames, run.settings.patchout) for run in runs] == [
        ("esc50", "paper", 0, 0.0), ("vc1", "paper", 0, 0.0), ("pocket_pitch", "default", 0, 0.0),
    ]  # fmt: skip
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("byol_a: ") and line.count("no structured patchout") == 1
    assert "no patch embedding to freeze" in line
    plan(asked("log_mel_stats", "pocket_pitch", weights=None), None, {})
    assert "waveform in, embedding out, and Mixup of waveforms alone" in capsys.readouterr().err


def test_the_settings_choose_the_models_input_and_pooling() -> None:
    esc50 = {"dur_frames": "501", "features": "flat"}
    settings = replace(QUICK, dur_frames=501, patchout=0.5)
    assert with_model_options("m2d", settings, {}) == esc50
    assert with_model_options("m2d", settings, {"depth": "1"}) == {**esc50, "depth": "1"}
    assert with_model_options("m2d", replace(settings, patchout=0.0), {}) == {"dur_frames": "501"}, "VC1: stacked"
    assert with_model_options("byol_a", settings, {}) == {}
    for other in ("wav2vec2", "vggish"):
        assert with_model_options(other, settings, {}) == {}, "its features are of another kind"


# Results


def test_a_result_has_every_setting_flag_and_file(clips: Any, tmp_path: Path) -> None:
    one = job(clips, tmp_path / "runs")
    result, there = evaluate_finetune(one, 2)
    assert not there
    path = next((tmp_path / "runs").glob("*.json"))
    assert read_result(path) == result, "it fits the schema"
    assert result["seeds"] == [43, 44] and np.shape(result["fold_scores"]) == (2, 1)
    assert result["mean"] == pytest.approx(np.mean(result["scores"])) and "2 seeds" in result["ci_method"]
    used = result["settings"]
    named = {name: value for name, value in asdict(one.settings).items() if name != "schedule"}
    assert "schedule" not in used, "named only where it is not the published one"
    assert named.items() <= used.items()
    assert {
        "preset": "default",
        "precision": "fp32",
        "accumulate": 1,
        "seeds": 2,
        "unit_seconds": 0.5,
    }.items() <= used.items()
    assert used["model_options"] == SMALL
    assert used["changed"]["lr"] == 0.05 and "rrc" not in used["changed"], "what differs from the usual settings"
    assert result["flags"] == ["from_random"], "there is a validation part, and it is no longer untrained"
    assert "random weights" in result["notes"]["from_random"] and "untrained" not in result["notes"]
    assert result["details"][0][0]["steps"] == 6 and result["details"][1][0]["best_valid"] is not None
    wanted = {"predictions", "confusion"} | ({"curves"} if find_spec("matplotlib") else set())
    assert set(result["files"]) == wanted
    assert all((tmp_path / "runs" / name).is_file() for name in result["files"].values())
    confusion = np.genfromtxt(tmp_path / "runs" / result["files"]["confusion"], delimiter=",", skip_header=1)[:, 1:]
    assert np.trace(confusion) / confusion.sum() == pytest.approx(result["mean"]) and confusion.sum() == 2 * 9


def test_curves_are_drawn_where_matplotlib_is_and_never_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "seed43-split" / "epochs.csv"
    log.parent.mkdir()
    log.write_text("epoch,loss,lr,score,best,seconds\n0,1.5,0.1,0.25,1,2\n1,nan,0.2,0.5,1,2\n")
    if find_spec("matplotlib"):
        assert plot_curves([log, log], tmp_path / "x.png") == {"curves": "x.png"}
        assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert plot_curves([log], tmp_path / "y.png") == {} and not (tmp_path / "y.png").exists()


def test_folds_without_validation_are_flagged_and_their_mean_is_a_seeds_score(tmp_path: Path) -> None:
    folds = tones(tmp_path / "data", fold1=12, fold2=9)
    result, _ = evaluate_finetune(job(folds, tmp_path / "runs", epochs=3), 1)
    assert result["flags"] == ["best_test_epoch", "from_random"] and "test part" in result["notes"]["best_test_epoch"]
    assert result["scores"] == [pytest.approx(np.mean(result["fold_scores"][0]))]
    assert result["ci95"] is None and result["ci_method"] is None
    assert [max(fold["epoch_scores"]) for fold in result["details"][0]] == pytest.approx(
        result["fold_scores"][0], abs=1e-6
    )
    last, _ = evaluate_finetune(job(folds, tmp_path / "runs", epochs=3, select="last"), 1)
    assert last["flags"] == ["from_random"], "nothing was chosen on the test part"


def test_multi_label_and_own_scores_reach_the_result(tmp_path: Path) -> None:
    both = tones(tmp_path / "a", train=18, test=9, both=True)
    result, _ = evaluate_finetune(job(both, tmp_path / "runs", epochs=1), 1)
    assert result["metric"] == "mAP" and "auc" in result["also"]
    assert np.load(tmp_path / "runs" / result["files"]["scores"])["scores"].shape == (1, 9, 3)
    plain = tones(tmp_path / "b", train=18, test=9)
    task = replace(
        plain.task, metric="weighted_accuracy", score=lambda rows, out: {"weighted_accuracy": 0.25, "uar": 0.5}
    )
    result, _ = evaluate_finetune(job(replace(plain, task=task), tmp_path / "runs", epochs=1), 1)
    assert (result["mean"], result["also"]["uar"]) == (0.25, 0.5)


def test_a_finished_run_is_not_run_twice_but_forced_from_the_beginning(
    clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = job(clips, tmp_path / "runs", epochs=1)
    first, _ = evaluate_finetune(one, 1)
    second, there = evaluate_finetune(one, 1)
    assert there and second == first
    steps, step = [], torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, *a: (steps.append(1), step(self, *a))[1])
    third, there = evaluate_finetune(one, 1, force=True)
    assert not there and len(steps) == 3, "the old run's finished folds are not taken for the new one's"
    assert third["fold_scores"] == first["fold_scores"]
    with pytest.raises(UserError, match="--eval_only: there is no finished run in"):
        evaluate_finetune(job(clips, tmp_path / "runs", epochs=2), 1, eval_only=True)
    again, there = evaluate_finetune(one, 1, eval_only=True)
    assert len(steps) == 3 and again["fold_scores"] == first["fold_scores"]


def test_what_changes_scores_changes_the_run_and_what_changes_speed_does_not(clips: Any, tmp_path: Path) -> None:
    def run_of(machine: Machine | None = None, **settings: Any) -> str:
        return evaluate_finetune(job(clips, tmp_path / "runs", machine=machine, epochs=1, **settings), 1)[0]["run_id"]

    base = run_of()
    assert run_of(Machine(workers=2, checkpoint_every=1)) == base
    assert run_of(Machine(workers=1, accumulate=2)) != base, "the head's batch norm sees half a batch"
    assert run_of(lr=0.06) != base
    stats = {"model": "log_mel_stats", "weights": None, "options": {}}
    assert run_of(rrc=True, **stats) == run_of(rrc=False, patchout=0.5, **stats), "settings it cannot follow"


def test_a_users_model_of_two_stages_is_fine_tuned_and_named_as_elsewhere(clips: Any, tmp_path: Path) -> None:
    one = job(clips, tmp_path / "runs", model=own_adapter(tmp_path), weights=None, options={}, epochs=1)
    result, _ = evaluate_finetune(one, 1)
    assert result["model"] == "mine:Mine"
    assert result["settings"]["rrc"] and result["settings"]["patchout"] == 0


# Killed, and in two processes


SETTINGS = {
    "epochs": 2, "warmup_epochs": 1, "batch_size": 59, "lr": 0.02, "optimizer": "sgd", "weight_decay": 0.0,
    "mixup": 0.3, "freq_mask": 8, "time_mask": 8,
}  # fmt: skip
"""240 clips in batches of 59: five steps an epoch, the last one of four clips."""


def test_killed_in_mid_epoch_the_same_command_ends_as_if_it_had_not_been(tmp_path: Path, pocket_data: Path) -> None:
    mine, before = own_adapter(tmp_path), torch.get_num_threads()
    words = ["finetune", mine, "pocket_pitch", *flags(**SETTINGS), "--seeds=1", "--checkpoint_every=1", "--workers=1"]
    command = [sys.executable, "-m", f"evar.{words[0]}", *words[1:], f"--results={tmp_path / 'killed'}"]
    environ = environment(cache_dir(), pocket_data) | {"KILL_AT": "8"}
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not list((tmp_path / "killed").glob("*.json"))
    (log,) = (tmp_path / "killed").rglob("steps.csv")
    assert len(log.read_text().splitlines()) == 1 + 7, "in the second epoch"
    try:
        torch.set_num_threads(1)
        one = pocket_job(pocket_data, tmp_path / "killed", model=mine, weights=None, options={}, **SETTINGS)
        resumed, _ = evaluate_finetune(one, 1)
        whole, _ = evaluate_finetune(replace(one, folder=tmp_path / "whole"), 1)
    finally:
        torch.set_num_threads(before)
    for key in ("run_id", "mean", "fold_scores", "per_class", "details", "subject", "settings"):
        assert resumed[key] == whole[key], key
    ours, theirs = model_of(tmp_path / "killed"), model_of(tmp_path / "whole")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_two_processes_end_as_one_does(tmp_path: Path, pocket_data: Path) -> None:
    """Twenty steps; every second batch is of one clip, so that rank 1 has none."""
    settings = {**SETTINGS, "epochs": 10, "batch_size": 239, "lr": 0.2, "patchout": 0.3, "select": "last"}
    small = [f"--{name}={text}" for name, text in SMALL.items()]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "evar.finetune",
        "m2d", "pocket_pitch", "--weights=random", *small, *flags(**settings), "--seeds=1", "--device=cpu",
        "--workers=1", f"--results={tmp_path / 'two'}",
    ]  # fmt: skip
    environ = environment(cache_dir(), pocket_data) | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    (two,) = results_in(tmp_path / "two")
    assert done.stdout.count("pocket_pitch") == 1 and done.stderr.count("finetune: ") == 1, "rank 0 alone prints"
    one, _ = evaluate_finetune(pocket_job(pocket_data, tmp_path / "one", **settings), 1)
    assert two["details"][0][0]["steps"] == one["details"][0][0]["steps"] == 20
    assert two["run_id"] == one["run_id"] and two["versions"]["processes"] == 2
    assert two["mean"] == pytest.approx(one["mean"], abs=1e-4)
    ours, theirs = model_of(tmp_path / "one"), model_of(tmp_path / "two")
    begin = build_adapter("m2d", "random", SMALL).encoder.vit.patch_embed.proj.weight
    assert (ours["adapter.encoder.vit.patch_embed.proj.weight"] - begin).abs().max() > 1e-3, "it was trained"
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=0, atol=1e-5, msg=name)
