"""Linear evaluation end to end: the real command on real and generated audio, and what it must survive."""

from __future__ import annotations

import signal
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import evar, results_in, start
from golden import needs_shared, shared
from helpers import CountingAdapter, counting_model, fold_clips

from evar.extract import embedder
from evar.lineareval import Machine, ProbeSettings, evaluate_linear, mark_probe_limited
from evar.results import read_result

QUICK = ProbeSettings(seeds=2, max_epochs=15)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))


def test_a_result_has_a_score_per_seed_and_fold_and_the_files_beside_it(tmp_path: Path) -> None:
    clips = fold_clips(tmp_path / "data", 40)
    result, there = evaluate_linear(counting_model(), clips, QUICK, Machine(), tmp_path / "runs")
    assert not there
    assert np.shape(result["fold_scores"]) == (2, 2)
    assert result["scores"] == pytest.approx(np.mean(result["fold_scores"], axis=1))
    assert result["mean"] == pytest.approx(np.mean(result["scores"]))
    assert result["seeds"] == [42, 43]
    predictions = (tmp_path / "runs" / result["files"]["predictions"]).read_text().splitlines()
    assert predictions[0] == "file,part,label,seed 42,seed 43"
    assert len(predictions) == 1 + 40
    confusion = np.genfromtxt(tmp_path / "runs" / result["files"]["confusion"], delimiter=",", skip_header=1)[:, 1:]
    assert confusion.sum() == 40 * 2
    assert np.trace(confusion) / confusion.sum() == pytest.approx(result["mean"])


def test_each_clip_is_embedded_once_whatever_the_folds_and_seeds(tmp_path: Path) -> None:
    clips = fold_clips(tmp_path / "data", 40)
    adapter = CountingAdapter()
    evaluate_linear(counting_model(adapter), clips, QUICK, Machine(), tmp_path / "runs")
    assert sum(adapter.calls) == 40
    again = CountingAdapter()
    evaluate_linear(counting_model(again), clips, ProbeSettings(seeds=1, max_epochs=5), Machine(), tmp_path / "runs")
    assert again.calls == []


def test_one_seed_gives_no_interval(tmp_path: Path) -> None:
    clips = fold_clips(tmp_path / "data", 40)
    result, _ = evaluate_linear(
        counting_model(), clips, ProbeSettings(seeds=1, max_epochs=5), Machine(), tmp_path / "runs"
    )
    assert result["ci95"] is None
    assert result["ci_method"] is None


def test_a_finished_run_is_not_run_again_unless_forced(tmp_path: Path) -> None:
    clips = fold_clips(tmp_path / "data", 40)
    first, _ = evaluate_linear(counting_model(), clips, QUICK, Machine(), tmp_path / "runs")
    second, there = evaluate_linear(counting_model(), clips, QUICK, Machine(), tmp_path / "runs")
    assert there
    assert second == first
    third, there = evaluate_linear(counting_model(), clips, QUICK, Machine(), tmp_path / "runs", force=True)
    assert not there
    assert third["fold_scores"] == first["fold_scores"]


def test_what_changes_scores_changes_the_run_and_what_changes_speed_does_not(tmp_path: Path) -> None:
    clips = fold_clips(tmp_path / "data", 40)

    def run_of(settings: ProbeSettings, machine: Machine) -> str:
        return evaluate_linear(counting_model(), clips, settings, machine, tmp_path / "runs")[0]["run_id"]

    base = run_of(QUICK, Machine())
    assert run_of(QUICK, Machine(batch_size=7, workers=1)) == base
    assert run_of(ProbeSettings(seeds=2, max_epochs=15, lr=1e-3), Machine()) != base
    assert run_of(ProbeSettings("logistic"), Machine()) != base
    # The logistic probe has no seeds and no learning rate: they make no other run.
    assert run_of(ProbeSettings("logistic", seeds=9, lr=1.0), Machine()) == run_of(ProbeSettings("logistic"), Machine())


def test_the_platforms_choices_have_switches_that_are_recorded_only_where_used(tmp_path: Path) -> None:
    clips = fold_clips(tmp_path / "data", 40, seconds=1.0, unit_seconds=0.5)

    def with_(**switch: str) -> tuple[dict, CountingAdapter]:
        adapter = CountingAdapter()
        settings = replace(QUICK, **switch)
        return evaluate_linear(counting_model(adapter), clips, settings, Machine(), tmp_path / "runs")[0], adapter

    base, first = with_()
    assert not {"ties", "train_window", "stored", "corrupt"} & base["settings"].keys()
    assert sum(first.calls) == 80, "clips longer than the unit: a window at the front and a random one of each"
    found = {}
    for name, value, computed in (("ties", "first", 0), ("train_window", "front", 0), ("stored", "int16", 80)):
        found[name], adapter = with_(**{name: value})
        assert found[name]["settings"][name] == value
        assert sum(adapter.calls) == computed, name
    assert len({r["run_id"] for r in (base, *found.values())}) == 4


def test_16_bits_are_what_the_model_hears() -> None:
    heard: list[torch.Tensor] = []
    adapter = CountingAdapter()
    adapter.embed = lambda waveforms, lengths: heard.append(waveforms) or waveforms[:, :4]  # type: ignore[method-assign]
    sound = torch.tensor([[0.1, -1.5, 1.0, 1e-6, 0.5, 0.25, 0.0, -1.0]])
    embedder(counting_model(adapter), "clip", "cpu", "fp32", "int16")(sound, torch.tensor([8]))
    steps = heard[0] * 32768
    assert torch.equal(steps, steps.round())
    assert steps.min() == -32768 and steps.max() == 32767
    assert (heard[0] - sound.clamp(-1, 32767 / 32768)).abs().max() <= 0.5 / 32768


def test_a_fault_that_mixes_batches_puts_the_batch_size_into_the_run(tmp_path: Path) -> None:
    clips = fold_clips(tmp_path / "data", 40)

    def run_of(batch_size: int, matters: bool) -> tuple[str, int]:
        adapter = CountingAdapter()
        adapter.batch_matters = matters
        machine = Machine(batch_size=batch_size)
        result, _ = evaluate_linear(counting_model(adapter), clips, QUICK, machine, tmp_path / "runs")
        return result["run_id"], sum(adapter.calls)

    plain = run_of(8, False)[0]
    runs = [run_of(size, True) for size in (8, 16)]
    assert len({plain, *(run for run, _ in runs)}) == 3
    assert [computed for _, computed in runs] == [40, 40]
    assert run_of(16, False) == (plain, 0)


def test_probes_that_disagree_beyond_their_intervals_are_flagged_on_both_sides(tmp_path: Path) -> None:
    clips = fold_clips(tmp_path / "data", 60)
    runs = tmp_path / "runs"
    adam, _ = evaluate_linear(counting_model(), clips, QUICK, Machine(), runs)
    logistic, _ = evaluate_linear(counting_model(), clips, ProbeSettings("logistic"), Machine(), runs)
    for result, mean in ((adam, 0.4), (logistic, 0.9)):
        result |= {"mean": mean, "ci95": 0.05, "ci_low": mean - 0.05, "ci_high": mean + 0.05}
        result |= {"flags": [], "notes": {}}
        path = next(runs.glob(f"*{result['run_id']}.json"))
        path.write_text(__import__("json").dumps(result))
    assert mark_probe_limited(logistic, runs)["flags"] == ["probe_limited"]
    assert "40.0 %" in logistic["notes"]["probe_limited"]
    assert all(read_result(path)["flags"] == ["probe_limited"] for path in runs.glob("*.json"))


SLOW_ADAPTER = """
    import time, torch
    from model_adapters.base import Adapter, ModelInfo

    class Slow(Adapter):
        info = ModelInfo("slow", "audio", "", "MIT", needs_weights=False)
        sample_rate, embedding_dim = 16000, 8

        def __init__(self, *, pause: float = 0.0) -> None:
            super().__init__()
            self.pause = 0.15

        def embed(self, waveforms, lengths):
            time.sleep(self.pause)
            return waveforms.unflatten(1, (8, -1)).abs().mean(2)
"""


def slow(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(SLOW_ADAPTER))
    return f"{path}:Slow"


def test_killed_in_the_middle_the_same_command_resumes_to_the_same_scores(tmp_path: Path, pocket_data: Path) -> None:
    command = ("lineareval", slow(tmp_path), "pocket_pitch", "--batch_size=16", "--seeds=2", "--max_epochs=20")
    whole = evar(*command, f"--results={tmp_path / 'a'}", cache=tmp_path, data=pocket_data)
    assert whole.returncode == 0, whole.stderr

    other = tmp_path / "other"
    other.mkdir()
    process = start(*command, f"--results={tmp_path / 'b'}", cache=other, data=pocket_data)
    deadline = time.time() + 120
    while time.time() < deadline and sum(p.stat().st_size for p in other.rglob("*.keys")) < 16 * 40:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    stored = sum(p.stat().st_size for p in other.rglob("*.keys")) // 16
    assert 40 <= stored < results_in(tmp_path / "a")[0]["data"]["clips"], "it was to be killed in the middle"
    assert not list((tmp_path / "b").glob("*.json"))

    resumed = evar(*command, f"--results={tmp_path / 'b'}", cache=other, data=pocket_data)
    assert resumed.returncode == 0, resumed.stderr
    (a,), (b,) = results_in(tmp_path / "a"), results_in(tmp_path / "b")
    assert b["timings"]["embedded_windows"] == a["timings"]["embedded_windows"] - stored
    for key in ("run_id", "mean", "ci95", "fold_scores", "per_class", "details", "data", "subject"):
        assert a[key] == b[key], key


def test_two_identical_commands_at_once_end_well_with_one_result(tmp_path: Path, pocket_data: Path) -> None:
    command = ("lineareval", slow(tmp_path), "pocket_pitch", "--seeds=2", "--max_epochs=20", f"--results={tmp_path}/r")
    processes = [start(*command, cache=tmp_path, data=pocket_data) for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len(results_in(tmp_path / "r")) == 1
    assert outputs[0][0] == outputs[1][0], "both print the same table"


def test_a_users_own_file_runs_and_its_mistakes_are_one_line(tmp_path: Path, pocket_data: Path) -> None:
    done = evar(
        "lineareval", slow(tmp_path), "pocket_pitch", "--seeds=1", "--max_epochs=5", cache=tmp_path, data=pocket_data
    )
    assert done.returncode == 0, done.stderr
    assert "mine:Slow" in done.stdout
    assert (tmp_path / "results" / "runs").is_dir()
    wrong = evar("lineareval", slow(tmp_path)[:-1], "pocket_pitch", cache=tmp_path, data=pocket_data)
    assert wrong.returncode == 2
    assert len(wrong.stderr.strip().splitlines()) == 1
    assert "Did you mean 'Slow'?" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("log_mel_stat", "pocket_pitch"), "Did you mean 'log_mel_stats'?"),
        (("log_mel_stats", "pocket_pich"), "Did you mean 'pocket_pitch'?"),
        (("log_mel_stats", "pocket_pitch", "--lr=fast"), "expected a number"),
        (("log_mel_stats", "pocket_pitch", "--lr=-1"), "must be above 0"),
        (("log_mel_stats", "pocket_pitch", "--seeds=0"), "at least 1"),
        (("log_mel_stats,byol_a", "pocket_pitch", "--weights=random"), "--weights belongs to one model"),
        (("log_mel_stats", "pocket_pitch", "--weights=x.pth"), "has no weights"),
        (("m2d", "pocket_pitch"), "needs --weights=PATH"),
        (("m2d", "pocket_pitch", "--weights=nowhere.pth"), "nowhere.pth"),
        (("log_mel_stats", "esc50"), "python -m evar.prepare esc50"),
        (("log_mel_stats", "pocket_pitch", "--device=cuda:99"), "--device"),
        (("log_mel_stats", "pocket_pitch,pocket_events", "--data=x"), "--data names one task"),
    ],
)
def test_a_users_mistake_is_one_line_with_the_remedy(
    words: tuple[str, ...], says: str, tmp_path: Path, pocket_data: Path
) -> None:
    done = evar("lineareval", *words, cache=tmp_path, data=pocket_data)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert says in done.stderr
    assert not (tmp_path / "results").exists() or not results_in(tmp_path / "results" / "runs")


def test_both_probes_in_one_command_carry_the_same_flags_in_the_table(tmp_path: Path, pocket_data: Path) -> None:
    words = ("log_mel_stats", "pocket_speech", "--probe=both", "--seeds=2", "--max_epochs=1", "--lr=1e-9")
    done = evar("lineareval", *words, cache=tmp_path, data=pocket_data)
    assert done.returncode == 0, done.stderr
    found = {r["settings"]["probe"]: r for r in results_in(tmp_path / "results" / "runs")}
    assert found["adam"]["mean"] < found["logistic"]["mean"] - 0.2, "one step of 1e-9 learns nothing"
    assert found["adam"]["flags"] == found["logistic"]["flags"] == ["probe_limited"]
    rows = [line for line in done.stdout.splitlines() if line.startswith("log_mel_stats")]
    assert len(rows) == 2 and all("probe limited" in row for row in rows)


@needs_shared
def test_fsdd_from_its_flac_copies_with_the_floor_model(tmp_path: Path) -> None:
    folder = shared()
    assert folder is not None
    done = evar(
        "lineareval", "log_mel_stats", "fsdd", f"--data={folder / 'data' / 'fsdd'}", "--probe=logistic", cache=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (result,) = results_in(tmp_path / "results" / "runs")
    assert 0.5 < result["mean"] < 0.99, "far above chance (0.1): speakers are in all parts"
    assert result["ci95"] > 0
    assert set(result["per_class"]) == {str(digit) for digit in range(10)}
