"""One seed and fold: equal to a plain loop, best epochs, windows, folds, samplers, and what a kill may not change."""

import csv
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from audio.slow_augment import slow_mixup, slow_resize_crop, slow_spec_augment
from safetensors.torch import load_file
from torch import nn
from tuning import QUICK, RATE, SMALL, job, tones

from evar import finetune_fit
from evar.audio.augment import draw_mixup, draw_resize_crop, draw_spec_augment
from evar.audio.decode import decode
from evar.audio.windows import cut, random_position
from evar.clips import TaskTrainingClips
from evar.errors import UserError
from evar.feed import Feed
from evar.finetune_fit import adapter_of, fit_fold, fold_folder, scores_of
from evar.sampling import epoch_order
from evar.training import Machine, seed_step
from model_adapters.registry import build_adapter


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path_factory.getbasetemp() / "cache-of-tones"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Eighteen clips to train on, three batches of eight with a short last one; longer than the unit."""
    return tones(tmp_path_factory.mktemp("tones"), seconds=0.7, train=18, valid=6, test=9)


def weights_of(folder):
    return load_file(folder / "model" / "model.safetensors")


def fitted(one, seed=43, part=0, work=None):
    """Return the fit, its folder and its final weights."""
    where = one.clips.parts()[part]
    fit = fit_fold(one, seed, where, work or one.folder)
    folder = fold_folder(work or one.folder, seed, where)
    return fit, folder, weights_of(folder)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class PlainLoop:
    """The protocol written out: one clip after the other, torch.optim.SGD, no engine. RUNNERS 2.1 to 2.3."""

    def __init__(self, clips, seed, settings):
        self.clips, self.seed, self.settings = clips, seed, settings
        self.encoder = build_adapter("m2d", "random", SMALL).train()
        torch.manual_seed(seed)
        self.linear = nn.Linear(16, 3)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        self.norm = nn.BatchNorm1d(16, affine=False)
        trained = [*self.encoder.parameters(), *self.linear.parameters()]
        self.optimiser = torch.optim.SGD([p for p in trained if p.requires_grad], lr=0.0, momentum=0.9)
        self.losses = []

    def window(self, row, epoch):
        when = self.clips.identities[row].digest + epoch.to_bytes(8, "little")
        return torch.from_numpy(
            cut(decode(self.clips.paths[row], RATE), RATE // 2, random_position(when, self.seed))[0]
        )

    def inputs(self, rows, epoch):
        x = torch.stack([self.window(row, epoch) for row in rows])
        y = torch.eye(3)[torch.from_numpy(self.clips.targets[rows])]
        mix = draw_mixup(len(rows), self.settings.mixup)
        x, y = slow_mixup(x, y, mix.share, mix.partner)
        z = torch.cat([self.encoder.log_mel(clip[None]) for clip in x])
        spans = draw_spec_augment(80, 51, self.settings.freq_mask, self.settings.time_mask)
        z = slow_spec_augment(z, range(*spans.bands.tolist()), range(*spans.frames.tolist()))
        return slow_resize_crop(z, draw_resize_crop(len(rows), 80, 51).boxes.tolist()), y

    def rate(self, step, per_epoch):
        """The schedule is stepped after the optimiser: step k runs at the rate of the time of step k - 1."""
        time, s = max(step - 1, 0) / per_epoch, self.settings
        if time < s.warmup_epochs:
            return s.lr * time / s.warmup_epochs
        return 1e-7 + 0.5 * (s.lr - 1e-7) * (1 + math.cos(math.pi * time / s.epochs))

    def run(self):
        train, size = self.clips.parts()[0].train, self.settings.batch_size
        per_epoch, step = math.ceil(len(train) / size), 0
        for epoch in range(self.settings.epochs):
            order = train[epoch_order(len(train), self.seed, epoch)]
            for first in range(0, len(order), size):
                seed_step(self.seed, step)
                x, y = self.inputs(order[first : first + size], epoch)
                embedding = self.encoder.encode(x, self.settings.patchout)
                logits = self.linear(self.norm(embedding))
                loss = -(y * logits.log_softmax(1)).mean()
                self.optimiser.param_groups[0]["lr"] = self.rate(step, per_epoch)
                self.optimiser.zero_grad()
                loss.backward()
                self.optimiser.step()
                self.losses.append(loss.item())
                step += 1


def test_a_run_is_the_plain_loop_of_the_protocol(clips, tmp_path):
    one = job(clips, tmp_path, warmup_epochs=1, epochs=3, lr=0.5, patchout_mode="reference", select="last")
    _, folder, weights = fitted(one)
    plain = PlainLoop(clips, 43, one.settings)
    plain.run()
    steps = table(folder / "steps.csv")
    assert len(steps) == 9 and [float(s["lr"]) for s in steps[:4]] == pytest.approx([0, 0, 0.5 / 3, 1 / 3], rel=1e-5)
    assert [float(s["loss"]) for s in steps] == pytest.approx(plain.losses, rel=1e-4)
    begin = build_adapter("m2d", "random", SMALL).state_dict()
    for name, value in plain.encoder.state_dict().items():
        torch.testing.assert_close(weights[f"adapter.{name}"], value, rtol=0, atol=2e-5)
        # The last bias is taken away again by the head's batch norm.
        still = name.endswith(("pos_embed", "vit.norm.bias"))
        assert still or (value - begin[name]).abs().max() > 2e-4, f"{name} was trained"
    torch.testing.assert_close(weights["head.linear.weight"], plain.linear.weight.data, rtol=0, atol=2e-5)
    torch.testing.assert_close(weights["head.norm.running_var"], plain.norm.running_var, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("schedule", "first"), [("reference", [0, 0, 1 / 6]), ("textbook", [0, 1 / 6, 2 / 6])])
def test_the_learning_rate_follows_the_schedule_asked_for(clips, tmp_path, schedule, first):
    one = job(clips, tmp_path, warmup_epochs=1, epochs=1, lr=0.5, select="last", schedule=schedule)
    _, folder, _ = fitted(one)
    steps = table(folder / "steps.csv")
    assert [float(s["lr"]) for s in steps] == pytest.approx(first, rel=1e-5)


LEARNING = {
    "model": "byol_a", "options": {"feature_d": "16"}, "patchout": 0.0,
    "lr": 0.005, "optimizer": "adamw", "epochs": 6, "mixup": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("mode", ["reference", "intended"])
def test_the_mode_of_patchout_reaches_the_encoder(clips, tmp_path, mode):
    adapter = adapter_of(job(clips, tmp_path, patchout_mode=mode), clips.parts()[0])
    assert adapter.patchout_keeps == {"reference": "marked", "intended": "unmarked"}[mode]


def test_it_learns(tmp_path):
    clips = tones(tmp_path / "data", train=24, valid=6, test=18)
    fit, folder, _ = fitted(job(clips, tmp_path, **LEARNING))
    losses = [float(line["loss"]) for line in table(folder / "epochs.csv")]
    assert fit.score > 0.9, "chance is 0.33"
    assert np.mean(losses[-2:]) < 0.8 * losses[0], "mixed clips keep a part of it"
    assert fit.scores.shape == (18, 3) and fit.scores.sum(1) == pytest.approx(1, abs=1e-5)


@pytest.fixture
def watched(monkeypatch):
    """Scripted scores of the epochs; every evaluation's clips, epoch, window and weights."""
    calls, predict = [], finetune_fit.predict

    def watch(network, job, feed, rows, *, epoch, window):
        state = {name: value.clone() for name, value in network.state_dict().items()}
        calls.append({"rows": rows, "epoch": epoch, "window": window, "state": state, "training": network.training})
        return predict(network, job, feed, rows, epoch=epoch, window=window)

    def script(*scores):
        left = list(scores)
        monkeypatch.setattr(finetune_fit, "scores_of", lambda *_: {"accuracy": left.pop(0)})
        return calls

    monkeypatch.setattr(finetune_fit, "predict", watch)
    return script


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_with_validation_the_best_epoch_is_tested_once(clips, tmp_path, watched):
    calls = watched(0.5, 0.7, 0.7, 0.6, 0.125)
    fit, folder, weights = fitted(job(clips, tmp_path, epochs=4))
    part = clips.parts()[0]
    assert [call["rows"].tolist() for call in calls] == [part.valid.tolist()] * 4 + [part.test.tolist()]
    assert [call["window"] for call in calls] == ["random"] * 4 + ["front"], "validation windows are random too"
    assert [call["epoch"] for call in calls[:4]] == [0, 1, 2, 3], "and drawn anew for every epoch"
    assert [line["best"] for line in table(folder / "epochs.csv")] == ["1", "1", "0", "0"], "strictly greater"
    assert fit.score == 0.125 and fit.details["best_epoch"] == 1 and fit.details["best_valid"] == 0.7
    assert same(calls[4]["state"], calls[1]["state"]) and not same(calls[4]["state"], calls[3]["state"])
    assert same(weights, calls[1]["state"]), "and these are the weights that are kept"


def test_without_validation_the_best_test_epoch_is_the_score(tmp_path, watched):
    clips = tones(tmp_path / "data", fold1=9, fold2=9)
    calls = watched(0.5, 0.75, 0.75, 0.75)
    fit, _, _ = fitted(job(clips, tmp_path, epochs=3))
    assert [call["rows"].tolist() for call in calls] == [clips.parts()[0].test.tolist()] * 4
    assert {call["window"] for call in calls} == {"front"}
    assert same(calls[3]["state"], calls[1]["state"])
    assert fit.details["best_epoch"] == 1 and fit.details["best_valid"] is None


def test_of_select_last_the_last_epoch_is_kept(clips, tmp_path, watched):
    calls = watched(0.5, 0.9, 0.2, 0.3)
    fit, _, weights = fitted(job(clips, tmp_path, epochs=3, select="last"))
    assert fit.details["best_epoch"] == 2
    assert same(weights, calls[2]["state"])


def test_training_windows_are_random_by_epoch_and_a_short_batch_is_not_dropped(clips, tmp_path, monkeypatch):
    seen, epoch_of = [], Feed.epoch

    def watch(self, batches, epoch, window="random"):
        for batch in epoch_of(self, batches, epoch, window):
            seen.append((self.seed, epoch, window, batch.rows.tolist()))
            yield batch

    monkeypatch.setattr(Feed, "epoch", watch)
    fitted(job(clips, tmp_path, epochs=2), seed=44)
    train = [s for s in seen if set(s[3]) <= set(clips.parts()[0].train.tolist())]
    assert [(seed, epoch, window, len(rows)) for seed, epoch, window, rows in train] == [
        (44, epoch, "random", n) for epoch in (0, 1) for n in (8, 8, 2)
    ]
    first, second = ([n for s in train if s[1] == epoch for n in s[3]] for epoch in (0, 1))
    assert sorted(first) == sorted(second) and first != second


class Killed(Exception):
    pass


def kill(monkeypatch, name, call):
    """Let the function of the loop's module fail at its call of that number."""
    function, calls = getattr(finetune_fit, name), []

    def failing(*args, **options):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return function(*args, **options)

    monkeypatch.setattr(finetune_fit, name, failing)


@pytest.mark.parametrize(
    ("name", "call", "machine"),
    [
        ("losses", 2, {}),  # before the first checkpoint
        ("losses", 6, {"checkpoint_every": 1}),  # in the middle of the second epoch
        ("losses", 6, {"checkpoint_every": 2}),  # with a step to repeat
        ("losses", 11, {"checkpoint_every": 1, "accumulate": 2}),
        ("predict", 2, {"checkpoint_every": 1}),  # in the second epoch's evaluation
        ("predict", 4, {}),  # in the test
        ("save_model", 1, {}),
        ("_write_fit", 1, {}),
    ],
)
def test_a_killed_run_goes_on_to_equal_weights_to_the_last_bit(clips, tmp_path, monkeypatch, name, call, machine):
    settings = {"epochs": 3, "warmup_epochs": 1, "optimizer": "adamw", "lr": 0.01, "weight_decay": 1e-4}
    one = job(clips, tmp_path, machine=Machine(workers=1, **machine), **settings)
    whole, folder, weights = fitted(one, work=tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill(patch, name, call)
        with pytest.raises(Killed):
            fitted(one, work=tmp_path / "killed")
    assert not (fold_folder(tmp_path / "killed", 43, clips.parts()[0]) / "done.json").exists()
    resumed, other, again = fitted(one, work=tmp_path / "killed")
    assert weights.keys() == again.keys() and all(torch.equal(weights[n], again[n]) for n in weights)
    assert (resumed.score, resumed.details) == (whole.score, whole.details)
    assert np.array_equal(resumed.scores, whole.scores)
    for log, changing in (("epochs.csv", {"seconds"}), ("steps.csv", {"clips_per_s", "waited_share"})):
        lines = [
            [{k: v for k, v in line.items() if k not in changing} for line in table(f / log)] for f in (folder, other)
        ]
        assert lines[0] == lines[1], log
    assert not list(other.glob("*.pt")), "the checkpoints of a finished run are removed"


def test_activations_computed_again_save_memory_and_change_nothing(clips, tmp_path):
    def saved(recompute):
        """Return the weights at the end, and the numbers that one step keeps for its way back."""
        one = job(
            clips, tmp_path, machine=Machine(workers=1, recompute=recompute), epochs=1, options=SMALL | {"depth": "4"}
        )
        _, _, weights = fitted(one, work=tmp_path / str(recompute))
        network, kept = finetune_fit.adapter_of(one, clips.parts()[0]), []
        pack = lambda t: (kept.append(t.numel()), t)[1]  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            network.encode(torch.randn(4, 1, 80, 64))
        return weights, sum(kept)

    (plain, many), (again, few) = saved(False), saved(True)
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert few < many / 2


def test_a_run_does_not_go_on_under_other_settings(clips, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill(patch, "losses", 5)
        with pytest.raises(Killed):
            fitted(job(clips, tmp_path))
    with pytest.raises(UserError, match=r"lr was 0.05 and is 0.06"):
        fitted(job(clips, tmp_path, lr=0.06))


def test_a_finished_fold_is_read_and_can_be_tested_again(clips, tmp_path, monkeypatch):
    one, part = job(clips, tmp_path), clips.parts()[0]
    with pytest.raises(UserError, match="--eval_only: there is no finished run"):
        finetune_fit.tested_again(one, 43, part, tmp_path)
    fit, _, _ = fitted(one)
    monkeypatch.setattr(finetune_fit, "_Loop", None)
    again = fit_fold(one, 43, part, tmp_path)
    assert asdict(again).keys() == asdict(fit).keys() and again.details == fit.details
    assert np.array_equal(again.scores, fit.scores)
    tested = finetune_fit.tested_again(one, 43, part, tmp_path)
    assert tested.score == fit.score and np.allclose(tested.scores, fit.scores, atol=1e-6)


def test_every_fold_has_a_fresh_encoder_and_statistics_of_its_own_training_clips(tmp_path):
    clips = tones(tmp_path / "data", fold1=9, fold2=9)
    one = job(clips, tmp_path, model="byol_a", options={"feature_d": "8"}, patchout=0.0, epochs=1)
    found = []
    for number, part in enumerate(clips.parts()):
        fit, _, _ = fitted(one, part=number)
        fresh = build_adapter("byol_a", "random", {"feature_d": "8"})
        fresh.prepare(0.5, TaskTrainingClips(clips, part.train, clips.task.batch_size))
        assert fit.details["model_state"] == fresh.state()
        begun = adapter_of(one, part)
        assert all(torch.equal(a, b) for a, b in zip(begun.parameters(), fresh.parameters(), strict=True))
        found.append(fit.details["model_state"])
    assert found[0] != found[1]


def test_seeds_differ_and_one_seed_is_reproducible(clips, tmp_path):
    one = job(clips, tmp_path, epochs=1)
    (_, _, a), (_, _, b) = fitted(one, work=tmp_path / "a"), fitted(one, work=tmp_path / "b")
    _, _, c = fitted(one, seed=44, work=tmp_path / "c")
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert not torch.equal(a["head.linear.weight"], c["head.linear.weight"])


@pytest.mark.parametrize(("sampler", "draws", "epoch"), [("weighted", 0, 9), ("weighted", 8, 8), ("balanced", 24, 24)])
def test_samplers_draw_what_the_settings_say(tmp_path, monkeypatch, sampler, draws, epoch):
    clips = tones(tmp_path / "data", train=18, test=3, weights=True)
    seen, step = [], finetune_fit.Trainer.step

    def watch(self, loss_of, micro_batches, rows):
        seen.append(rows)
        return step(self, loss_of, micro_batches, rows)

    monkeypatch.setattr(finetune_fit.Trainer, "step", watch)
    drawn, epoch_of = [], Feed.epoch

    def watch_rows(self, batches, number, window="random"):
        for batch in epoch_of(self, batches, number, window):
            drawn.extend(batch.rows.tolist() if window == "random" else [])
            yield batch

    monkeypatch.setattr(Feed, "epoch", watch_rows)
    fitted(job(clips, tmp_path, epochs=1, sampler=sampler, draws=draws, batch_size=8))
    assert sum(seen) == len(drawn) == epoch, "clips of weight 0 are never drawn"
    if sampler == "weighted":
        assert len(set(drawn)) == epoch, "without replacement"
        assert set(clips.table["weight"].to_numpy()[drawn]) == {1.0}
    else:
        assert np.bincount(clips.targets[drawn]).tolist() == [8, 8, 8]


def test_a_multi_label_task_has_multi_hot_targets_its_own_loss_and_map_of_logits(tmp_path):
    clips = tones(tmp_path / "data", train=24, test=12, both=True)
    fit, folder, _ = fitted(job(clips, tmp_path, **LEARNING))
    assert fit.score > 0.8 and (fit.scores.sum(1) > 1.05).any(), "sigmoids and not a softmax"
    first = float(table(folder / "epochs.csv")[0]["loss"])
    assert first == pytest.approx(math.log(2), rel=0.3), "binary cross-entropy, mean over classes"
    rows = np.array([0, 1, 3])  # 0 and 3 have the first class
    logits = np.zeros((3, 3), np.float32)
    logits[:, 0] = 30, 40, 50
    found = scores_of(clips, rows, logits)["mAP"]
    assert clips.targets[rows][:, 0].tolist() == [1, 0, 1]
    assert found == scores_of(clips, rows, logits / 10)["mAP"], "float32 sigmoids of these would tie"


def test_a_task_with_a_score_of_its_own_is_scored_by_it(tmp_path):
    clips = tones(tmp_path / "data", train=18, test=9)

    def score(rows, outputs):
        return {"weighted_accuracy": len(rows) / 100, "uar": float((outputs.argmax(1) >= 0).mean())}

    own = replace(clips, task=replace(clips.task, metric="weighted_accuracy", score=score))
    fit, _, _ = fitted(job(own, tmp_path, epochs=1))
    assert fit.score == 0.09 and fit.every == {"weighted_accuracy": 0.09, "uar": 1.0}


def test_steps_that_gave_nothing_finite_are_counted_and_left_out_of_the_loss(clips, tmp_path, monkeypatch):
    real, calls = finetune_fit.losses, []

    def sometimes(logits, targets, *, multi_label):
        calls.append(1)
        return real(logits, targets, multi_label=multi_label) * (float("nan") if len(calls) == 2 else 1)

    monkeypatch.setattr(finetune_fit, "losses", sometimes)
    fit, folder, weights = fitted(job(clips, tmp_path, epochs=1))
    assert fit.details["skipped_steps"] == 1 and fit.details["steps"] == 3
    assert all(value.isfinite().all() for value in weights.values())
    assert math.isfinite(float(table(folder / "epochs.csv")[0]["loss"]))


def test_bf16_layer_decay_and_a_frozen_encoder_go_together_with_the_rest(clips, tmp_path):
    _, _, start = fitted(job(clips, tmp_path, epochs=1, lr=1e-9), work=tmp_path / "start")
    for number, (machine, settings) in enumerate(
        [({"precision": "bf16"}, {}), ({}, {"layer_decay": 0.5}), ({}, {"freeze_encoder": True})]
    ):
        one = job(clips, tmp_path, machine=Machine(workers=1, **machine), epochs=1, **settings)
        fit, _, weights = fitted(one, work=tmp_path / str(number))
        assert fit.scores.dtype == np.float32 and fit.details["skipped_steps"] == 0
        assert {value.dtype for value in weights.values()} <= {torch.float32, torch.int64}
        name = "adapter.encoder.vit.blocks.0.attn.qkv.weight"
        assert torch.allclose(weights[name], start[name], rtol=0, atol=1e-6) == ("freeze_encoder" in settings)


def test_quick_settings_are_what_the_tests_above_believe():
    assert (QUICK.batch_size, QUICK.epochs, QUICK.select) == (8, 2, "best")
