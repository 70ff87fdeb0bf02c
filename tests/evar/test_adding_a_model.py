"""The document's example, tried as a new user would: saved, run, given weights, given wrong ones."""

import re
from pathlib import Path

import torch
from commands import evar, results_in

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "adding_a_model.md"
MOST_LINES = 40


def example():
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    return code


def test_the_example_is_short():
    assert len(example().splitlines()) < MOST_LINES


def test_the_example_runs(tmp_path, pocket_data):
    (tmp_path / "mine.py").write_text(example())
    words = ("mine.py:Mine", "pocket_pitch", "--seeds=1", "--max_epochs=5", "--results=runs")
    assert "lineareval mine.py:Mine pocket_pitch --weights=random" in DOCUMENT.read_text()
    done = evar("lineareval", *words, "--weights=random", cache=tmp_path, data=pocket_data)
    assert done.returncode == 0, done.stderr
    assert "mine:Mine" in done.stdout
    torch.save(torch.nn.Conv1d(1, 128, 400).state_dict(), tmp_path / "my.pt")
    done = evar("lineareval", *words, "--weights=my.pt", "--hop=160", cache=tmp_path, data=pocket_data)
    assert done.returncode == 0, done.stderr
    untrained, given = sorted(results_in(tmp_path / "runs"), key=lambda result: result["created"])
    assert "untrained" in untrained["flags"]
    assert given["settings"]["model_options"] == {"hop": 160} and len(given["weights"]["sha256"]) == 64
    assert given["input"]["long_audio"] == "whole clip"
    torch.save(torch.nn.Conv1d(1, 64, 400).state_dict(), tmp_path / "other.pt")
    wrong = evar("lineareval", *words, "--weights=other.pt", cache=tmp_path, data=pocket_data)
    assert wrong.returncode == 2
    (line,) = wrong.stderr.splitlines()
    assert "do not fit Conv1d" in line and "Another size (64 and not 128 wide)" in line
