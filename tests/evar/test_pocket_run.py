"""The pocket chain: one command from nothing to a table and a plot."""

from __future__ import annotations

from pathlib import Path

from commands import evar, results_in


def test_the_chain_ends_with_a_table_and_a_plot(tmp_path: Path, pocket_data: Path) -> None:
    done = evar("pocket", "--seeds=2", cache=tmp_path, data=pocket_data)
    assert done.returncode == 0, done.stderr
    for name in ("pocket_pitch", "pocket_events", "pocket_speech", "log_mel_stats", "Linear evaluation", "Zero-shot"):
        assert name in done.stdout
    assert (tmp_path / "results" / "pocket.png").read_bytes()[:4] == b"\x89PNG"
    assert "| log_mel_stats |" in (tmp_path / "results" / "pocket.md").read_text()
    found = results_in(tmp_path / "results" / "runs")
    assert len(found) == 12
    # Random networks are an honest baseline, and the floor model is above chance everywhere.
    floor = [r["mean"] for r in found if r["model"] == "log_mel_stats"]
    assert min(floor) > 0.1
    again = evar("pocket", "--seeds=2", cache=tmp_path, data=pocket_data)
    assert again.stdout == done.stdout
    assert again.stderr.count("already there") == 12
