"""A run: what it leaves behind, stopped and gone on with, on two processes, begun from a checkpoint, with bad input."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import environment, evar
from pretrain_runs import captions_of_tones, column, corpus_of_tones, plan, weights
from two_ranks import launch

from evar.errors import UserError
from evar.pretrain import run as running
from evar.pretrain.files import write_checkpoint
from evar.pretrain.objectives.m2d import M2D
from evar.pretrain.run import pretrain
from model_adapters.registry import load_model


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return corpus_of_tones(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def captions(corpus, tmp_path_factory):
    return captions_of_tones(tmp_path_factory.mktemp("captions"), corpus)


class Killed(Exception):
    pass


def kill_after(monkeypatch, losses):
    """Let the ``losses``-th loss of a run be its last."""
    whole, calls = M2D.losses, []

    def counted(self, batch, noise):
        calls.append(0)
        if len(calls) == losses:
            raise Killed
        return whole(self, batch, noise)

    monkeypatch.setattr(M2D, "losses", counted)


def test_a_run_leaves_a_published_checkpoint_that_adapters_load_and_tables(corpus, tmp_path):
    path = pretrain(plan(tmp_path, corpus))
    assert path == tmp_path / "m2d_vit_d48x2-80x96p16x16-test" / "checkpoint-2.pth"
    adapter = load_model("m2d", str(path), {"heads": "3"}).adapter
    assert str(adapter.geometry) == "80x96 in patches of 16x16"
    stored = weights(path)
    assert adapter.encoder.norm_stats.tolist() == stored["norm_stats"].tolist()
    assert torch.equal(adapter.encoder.vit.blocks[0].attn.qkv.weight, stored["blocks.0.attn.qkv.weight"])
    assert {"target_norm.weight", "decoder_pred.weight", "mask_token"} <= stored.keys()
    assert len(column(tmp_path, "loss")) == 6 == 2 * (24 // 8)
    assert float(column(tmp_path, "lr")[0]) == 0, "the warm-up begins at 0"
    assert column(tmp_path, "step", "figures.csv") == ["0"] and column(tmp_path, "target_variance", "figures.csv")
    facts = json.loads((path.parent / "evar.json").read_text())
    assert facts["settings"]["mask_ratio"] == 0.7 and facts["constants"] == "the paper's"


@pytest.mark.parametrize(
    ("at", "changes"),
    [
        (2, {}),
        (5, {"checkpoint_every": 1}),
        (6, {"checkpoint_every": 2}),
        (11, {"checkpoint_every": 1, "accumulate": 2}),
    ],
)
def test_a_run_killed_at_any_step_ends_with_the_losses_and_weights_of_one_that_was_not(
    corpus, tmp_path, monkeypatch, at, changes
):
    whole = pretrain(plan(tmp_path / "whole", corpus, **changes))
    with monkeypatch.context() as patch:
        kill_after(patch, at)
        with pytest.raises(Killed):
            pretrain(plan(tmp_path / "killed", corpus, **changes))
    resumed = pretrain(plan(tmp_path / "killed", corpus, **changes))
    assert column(tmp_path / "whole", "loss") == column(tmp_path / "killed", "loss")
    one, other = weights(whole), weights(resumed)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert column(tmp_path / "whole", "target_variance", "figures.csv") == column(
        tmp_path / "killed", "target_variance", "figures.csv"
    )


def test_a_finished_run_is_not_run_again(corpus, tmp_path, monkeypatch):
    first = pretrain(plan(tmp_path, corpus))
    monkeypatch.setattr(M2D, "losses", None)
    assert pretrain(plan(tmp_path, corpus)) == first


def test_a_run_does_not_go_on_under_other_settings(corpus, tmp_path):
    pretrain(plan(tmp_path, corpus))
    with pytest.raises(UserError, match=r"cannot resume under other settings: mask_ratio was 0.7 and is 0.6"):
        pretrain(plan(tmp_path, corpus, mask_ratio=0.6))


def test_captions_reach_the_loss_and_their_encoder_the_checkpoint(corpus, captions, tmp_path):
    path = pretrain(plan(tmp_path, corpus, captions=captions, objective="m2d_clap", w_other=1.0))
    line = {name: float(column(tmp_path, name, "figures.csv")[0]) for name in ("loss", "m2d", "clap", "temperature")}
    assert line["loss"] == pytest.approx(line["m2d"] + line["clap"], rel=1e-4)
    assert line["temperature"] == pytest.approx(0.07, rel=1e-3)
    facts = json.loads((path.parent / "evar.json").read_text())
    assert (facts["text_encoder"], facts["pooling"], facts["normalise"]) == ("tones", "mean", False)
    adapter = load_model("m2d_clap", str(path), {"heads": "3"}).adapter
    assert adapter.text_proj.weight.shape == (48, 24) and adapter.made_by["text_encoder"] == "tones"


def test_what_an_objective_takes_must_be_there(corpus, tmp_path):
    with pytest.raises(UserError, match="--captions"):
        pretrain(plan(tmp_path, corpus, objective="m2d_clap"))
    with pytest.raises(UserError, match=r"--noise_ratio=0\.2 needs --noise"):
        pretrain(plan(tmp_path, corpus, noise_ratio=0.2))
    with pytest.raises(UserError, match="a batch takes 100"):
        pretrain(plan(tmp_path, corpus, batch_size=100))
    assert not list(tmp_path.iterdir()), "nothing was begun"


def test_further_pre_training_begins_where_a_checkpoint_ends(corpus, captions, tmp_path, capsys):
    first = pretrain(plan(tmp_path / "first", corpus))
    second = pretrain(
        plan(tmp_path / "second", corpus, captions=captions, objective="m2d_clap", init=str(first), base_lr=1e-12)
    )
    assert "stay as they were: logit_scale, audio_proj, text_proj" in capsys.readouterr().err
    one, other = weights(first), weights(second)
    assert torch.allclose(one["blocks.1.mlp.fc1.weight"], other["blocks.1.mlp.fc1.weight"], atol=1e-6)
    longer = pretrain(plan(tmp_path / "longer", corpus, input_size=(80, 112), init=str(first)))
    assert weights(longer)["pos_embed"].shape == (1, 36, 48), "the table of positions was stretched"
    with pytest.raises(UserError, match=r"--init=.*cls_token is \[1, 1, 48\] there and \[1, 1, 64\] here"):
        pretrain(plan(tmp_path / "wider", corpus, dim=64, heads=4, init=str(first)))


def test_steps_that_are_not_finite_are_skipped_counted_and_end_the_run_when_there_are_many(
    corpus, tmp_path, monkeypatch
):
    whole, calls = M2D.losses, []

    def broken(self, batch, noise):
        calls.append(0)
        found = whole(self, batch, noise)
        return {name: loss * float("nan") for name, loss in found.items()} if 2 <= len(calls) <= limit else found

    monkeypatch.setattr(M2D, "losses", broken)
    limit = 2
    pretrain(plan(tmp_path / "one", corpus))
    assert column(tmp_path / "one", "skipped") == ["0", "1", "0", "0", "0", "0"]
    limit = 100
    with pytest.raises(UserError, match="10 steps in a row"):
        pretrain(plan(tmp_path / "many", corpus, epochs=8))


def test_a_full_disk_leaves_the_checkpoint_before(corpus, tmp_path, monkeypatch):
    state = {"blocks.0.weight": torch.ones(3)}
    path = write_checkpoint(tmp_path, state, 1, {}, "full")

    def full(content, file):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"cannot write .*No space left"):
        write_checkpoint(tmp_path, {"blocks.0.weight": torch.zeros(3)}, 1, {}, "full")
    assert weights_are(path, 1.0) and [p.name for p in tmp_path.glob(".*")] == []


def weights_are(path, value):
    return bool((weights(path)["blocks.0.weight"] == value).all())


def test_encoder_only_files_hold_what_inference_needs(corpus, tmp_path):
    path = pretrain(plan(tmp_path, corpus))
    state = weights(path)
    for form, suffix in (("encoder", ".pth"), ("safetensors", ".safetensors")):
        small = write_checkpoint(path.parent / form / path.parent.name, state, 2, {}, form)
        assert small.suffix == suffix and small.stat().st_size < path.stat().st_size / 2
        adapter = load_model("m2d", str(small), {"heads": "3"}).adapter
        assert torch.equal(adapter.encoder.vit.norm.weight, state["norm.weight"])


def test_two_processes_end_as_one_does_with_captions_too(corpus, captions, tmp_path):
    changes = {"objective": "m2d_clap", "w_other": 1.0, "epochs": 4}
    one = weights(pretrain(plan(tmp_path / "one", corpus, captions=captions, **changes)))
    (tmp_path / "job.json").write_text(json.dumps([str(corpus), str(captions), changes]))
    two = launch(__file__, tmp_path)[0]
    # AdamW divides a gradient by its own size: rounding in gradients that are zero in theory becomes steps of the
    # learning rate. The biases of keys (a softmax does not see them) are such; everything else agrees.
    worst = {name: float((one[name] - two[name]).abs().max()) for name in one}
    for name, distance in worst.items():
        assert distance < (1e-2 if name.endswith("qkv.bias") else 2e-4), (name, distance)
    losses = [list(map(float, column(tmp_path / place, "loss"))) for place in ("one", "two")]
    assert np.allclose(*losses, rtol=1e-5)


def test_the_command_killed_and_given_again_ends_as_if_it_had_not_been(corpus, tmp_path):
    words = [
        "--preset=m2d_base", f"--corpus={corpus}", "--input_size=80x96", "--dim=48", "--depth=1", "--decoder_dim=32",
        "--decoder_depth=1", "--decoder_heads=4", "--batch_size=8", "--epochs=40", "--warmup_epochs=1",
        "--min_clips=0", "--checkpoint_every=2", "--device=cpu",
    ]  # fmt: skip
    whole = evar("pretrain", *words, f"--out={tmp_path / 'whole'}", cache=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.strip().endswith("checkpoint-40.pth")
    killed = subprocess.Popen(
        [sys.executable, "-m", "evar.pretrain", *words, f"--out={tmp_path / 'killed'}"],
        env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    table = tmp_path / "killed" / "steps.csv"
    while killed.poll() is None and not (table.is_file() and len(table.read_text().splitlines()) > 7):
        pass
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(column(tmp_path / "killed", "loss")) < 120, "it was killed before its end"
    again = evar("pretrain", *words, f"--out={tmp_path / 'killed'}", cache=tmp_path)
    assert again.returncode == 0, again.stderr
    assert column(tmp_path / "whole", "loss") == column(tmp_path / "killed", "loss")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--preset=m2d_bass", "--corpus=x"], "no preset 'm2d_bass'"),
        (["--preset=m2d_base", "--corpus=x", "--mask_ratio=2"], "--mask_ratio=2.0: a share"),
        (["--preset=m2d_base", "--corpus=nowhere"], "nowhere: no corpus (python -m evar.pretrain.corpus"),
        (["--preset=m2d_base", "--corpus=x", "--eval_every=2"], "needs both --eval_every=EPOCHS and --eval_tasks"),
        (["--preset=m2d_base", "--corpus=x", "--ema=0.9"], "--ema=0.9: numbers such as"),
    ],
)
def test_a_mistake_is_one_line(words, says, tmp_path):
    done = evar("pretrain", *words, cache=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("evar.pretrain: error: ") and says in line


def main(folder):
    corpus, captions, changes = json.loads((folder / "job.json").read_text())
    one = plan(folder / "two", Path(corpus), captions=Path(captions), **changes)
    one = replace(one, machine=replace(one.machine, device=running.ranks.start("cpu")))
    path = pretrain(one)
    torch.save(weights(path), folder / f"rank{running.ranks.rank()}.pt")
    running.ranks.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
