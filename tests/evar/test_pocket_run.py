"""The pocket chain: one command from nothing to a table and a plot."""

from __future__ import annotations

from pathlib import Path

from commands import evar, results_in

SHORT = ("--seeds=2", "--epochs=2", "--tune_epochs=1")


def test_the_chain_ends_with_a_table_and_a_plot(tmp_path: Path, pocket_data: Path) -> None:
    done = evar("pocket", *SHORT, cache=tmp_path, data=pocket_data)
    assert done.returncode == 0, done.stderr
    tables = ("Linear evaluation", "Fine-tuning", "Zero-shot")
    for name in ("pocket_pitch", "pocket_events", "pocket_speech", "log_mel_stats", *tables):
        assert name in done.stdout
    assert (tmp_path / "results" / "pocket.png").read_bytes()[:4] == b"\x89PNG"
    assert "| log_mel_stats |" in (tmp_path / "results" / "pocket.md").read_text()
    found = results_in(tmp_path / "results" / "runs")
    assert len(found) == 15
    # Random networks are an honest baseline, and the floor model is above chance everywhere.
    floor = [r["mean"] for r in found if r["model"] == "log_mel_stats"]
    assert min(floor) > 0.1
    (checkpoint,) = (tmp_path / "results" / "pretrained").glob("epochs2/*/checkpoint-2.pth")
    tuned = [r for r in found if r["protocol"] == "finetune"]
    assert {r["weights"]["given"] for r in tuned} == {str(checkpoint.relative_to(tmp_path))}
    again = evar("pocket", *SHORT, cache=tmp_path, data=pocket_data)
    assert again.stdout == done.stdout
    assert again.stderr.count("already there") == 15
