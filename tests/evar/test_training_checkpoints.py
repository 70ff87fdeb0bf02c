"""A checkpoint is whole or not there, says plainly what is wrong with it, and runs no code when it is read."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from evar.checkpoints import (
    BEST,
    LAST,
    Checkpoint,
    load_checkpoint,
    load_last,
    same_settings,
    save_checkpoint,
    save_last_and_best,
)
from evar.errors import UserError
from evar.optimisers import make_optimiser
from evar.training import Trainer

HOME = Path(__file__).resolve().parents[2]


def engine(width=4, optimiser="adamw"):
    net = nn.Linear(width, 2)
    return Trainer(net, make_optimiser(optimiser, net), [0.1] * 10, seed=3)


def stepped(**options):
    made = engine(**options)
    made.step(lambda rows: made.model(rows).square().mean(1), [torch.ones(3, 4)], 3)
    return made


def checkpoint(step=1, size=10):
    return Checkpoint({"step": step, "weights": torch.full((size,), float(step))}, seed=3)


def test_what_is_saved_comes_back(tmp_path):
    made = stepped()
    facts = {"lr": 0.5, "history": [{"epoch": 0, "score": 0.25}], "name": "é"}
    extra = {"ema.weight": torch.randn(3)}
    save_checkpoint(tmp_path / "a" / "c.pt", Checkpoint(made.state(), 3, 2, 0.75, facts, extra))
    found = load_checkpoint(tmp_path / "a" / "c.pt")
    assert (found.seed, found.epoch, found.best, found.facts, found.step) == (3, 2, 0.75, facts, 1)
    assert torch.equal(found.extra["ema.weight"], extra["ema.weight"])
    fresh = engine()
    fresh.restore(found.state)
    assert torch.equal(fresh.model.weight, made.model.weight) and fresh.done == 1
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["c.pt"]


def test_last_and_best_are_kept(tmp_path):
    assert load_last(tmp_path) is None
    for step, is_best in [(1, True), (2, True), (3, False)]:
        save_last_and_best(tmp_path, checkpoint(step), is_best)
    assert load_last(tmp_path).step == 3
    assert load_checkpoint(tmp_path / BEST).step == 2


@pytest.mark.parametrize(
    "problem", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed\nat line 3")]
)
def test_a_full_disk_leaves_the_last_good_one(tmp_path, monkeypatch, problem):
    save_checkpoint(tmp_path / LAST, checkpoint(1))

    def full(content, file):
        file.write(b"half of it")
        raise problem

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError) as caught:
        save_checkpoint(tmp_path / LAST, checkpoint(2))
    assert "cannot save" in str(caught.value) and "is whole" in str(caught.value) and "\n" not in str(caught.value)
    assert load_last(tmp_path).step == 1
    assert [path.name for path in tmp_path.iterdir()] == [LAST]


KILLED = """
import os, resource, signal, sys, torch
from pathlib import Path
from evar import checkpoints
from evar.errors import UserError
path = Path(sys.argv[1]) / checkpoints.LAST
def state(step):
    return checkpoints.Checkpoint({"step": step, "weights": torch.randn(100_000)}, seed=0)
checkpoints.save_checkpoint(path, state(1))
# A disk that is full after 100 kB, as the system tells it.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    checkpoints.save_checkpoint(path, state(2))
except UserError as error:
    print(error, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)
checkpoints.save_checkpoint(path, state(3))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a system with limits on file size")
def test_a_kill_or_a_really_full_disk_leaves_the_last_good_one(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(HOME)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "cannot save" in done.stdout and "is whole" in done.stdout
    assert load_last(tmp_path).step == 1
    assert (tmp_path / (LAST + ".part")).is_file()  # what the kill left behind: never read ...
    save_checkpoint(tmp_path / LAST, checkpoint(4))
    assert [path.name for path in tmp_path.iterdir()] == [LAST]  # ... and swept away by the next save
    assert load_last(tmp_path).step == 4


class Wicked:
    def __reduce__(self):
        return (os.mkdir, ("pwned",))


def test_a_foreign_file_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "state": Wicked()}, "evil.pt")
    with pytest.raises(UserError, match="no readable checkpoint"):
        load_checkpoint(Path("evil.pt"))
    assert not Path("pwned").exists()


def test_unreadable_files_are_one_clear_line(tmp_path):
    save_checkpoint(tmp_path / "whole.pt", checkpoint(size=1000))
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:2000])
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty.pt").touch()
    torch.save({"model": {}}, tmp_path / "other.pt")
    for name in ("cut.pt", "text.pt", "empty.pt", "other.pt", "missing.pt"):
        with pytest.raises(UserError, match=name) as caught:
            load_checkpoint(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", [{"width": 5}, {"optimiser": "sgd"}])
def test_a_checkpoint_of_another_network_or_optimiser_is_refused(tmp_path, other):
    save_checkpoint(tmp_path / LAST, Checkpoint(stepped().state(), seed=3))
    with pytest.raises(UserError, match=r"the checkpoint is of .*(network|AdamW, not SGD)") as caught:
        engine(**other).restore(load_last(tmp_path).state)
    assert "\n" not in str(caught.value)


def test_resuming_under_other_settings_names_them():
    then = {"lr": 0.5, "batch": 64, "shape": [1, 2]}
    same_settings(then, {"lr": 0.5, "batch": 64, "shape": (1, 2)})
    with pytest.raises(UserError, match=r"lr was 0.5 and is 0.1, mixup was None and is 0.3$"):
        same_settings(then, then | {"lr": 0.1, "mixup": 0.3})
