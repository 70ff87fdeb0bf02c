"""The engine: one process or two, in one part or several, interrupted or not, the same weights come out."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from two_ranks import launch

from evar import ranks
from evar.checkpoints import Checkpoint, load_last, save_last_and_best
from evar.errors import UserError
from evar.optimisers import make_optimiser
from evar.sampling import batches, batches_per_epoch, epoch_order
from evar.schedules import finetune_lr
from evar.training import CsvLog, Trainer, micro_slices, seed_step, step_line, step_log

STEPS, BATCH, CLASSES = 20, 8, 4
# 37 clips: the last batch of each epoch has 5 rows, uneven shares; 33: one row, and nothing for rank 1.
CASES = [("sgd", 37), ("sgd", 33), ("adamw", 37)]


def data(clips):
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(clips, 1, 12, generator=generator)
    return inputs, nn.functional.one_hot(inputs[:, 0, :CLASSES].argmax(1), CLASSES).float()


def network(dropout=0.0):
    torch.manual_seed(3)
    # No bias before the batch norm: it takes the mean away, so that the bias's gradient is nothing but rounding.
    body = [nn.Conv1d(1, 6, 3), nn.GELU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(60, 16, bias=False)]
    return nn.Sequential(*body, ranks.SyncBatchNorm1d(16), nn.Linear(16, CLASSES))


def trainer(clips, optimiser="sgd", dropout=0.0, **options):
    net = network(dropout).train()
    per_epoch = batches_per_epoch(clips, BATCH)
    peak = 0.5 if optimiser == "sgd" else 0.005
    rates = finetune_lr(peak, -(-STEPS // per_epoch), 1, per_epoch)
    return Trainer(net, make_optimiser(optimiser, net), rates, seed=42, **options)


def train(engine, clips, until=STEPS):
    """Train with mixup up to a step, beginning where ``engine`` stands; return what each step said."""
    inputs, targets = data(clips)
    per_epoch, said = batches_per_epoch(clips, BATCH), []
    while engine.done < until:
        epoch, first = divmod(engine.done, per_epoch)
        for batch in batches(epoch_order(clips, 42, epoch), BATCH, ranks.rank(), ranks.world(), first):
            if engine.done == until:
                break

            def mixed(batch=batch):
                """Draw for the global batch, once the step is seeded, and take this rank's rows of the draws."""
                factor = torch.rand(batch.rows)
                partner = torch.randperm(batch.rows)
                parts = []
                for rows in (inputs[batch.mine], targets[batch.mine]):
                    own = ranks.mine(factor).view(-1, *[1] * (rows.dim() - 1))
                    parts.append(own * rows + (1 - own) * ranks.mine(ranks.gathered(rows)[partner]))
                yield tuple(parts)

            def loss_of(part):
                x, y = part
                return -(y * engine.model(x).log_softmax(1)).mean(1)

            said.append(engine.step(loss_of, mixed(), rows=batch.rows))
    return said


def mean_loss(said):
    """Return the mean over steps; a step of a single row, normalised by young running statistics, is left out."""
    losses = [info.loss for info in said if info.rows > 1]
    return sum(losses) / len(losses)


def everything(engine):
    return {name: value.clone() for name, value in engine.model.state_dict().items()}


def main(folder):
    ranks.start("cpu")
    found = {}
    for optimiser, clips in CASES:
        engine = trainer(clips, optimiser)
        said = train(engine, clips)
        found[f"{optimiser}{clips}"] = {
            "weights": everything(engine),
            "losses": [info.loss for info in said],
            "norms": [info.grad_norm for info in said],
        }
    torch.save(found, folder / f"rank{ranks.rank()}.pt")
    ranks.barrier()
    ranks.stop()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return launch(__file__, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize(("optimiser", "clips"), CASES)
def test_two_processes_and_one_end_with_the_same_weights(two, optimiser, clips):
    engine = trainer(clips, optimiser)
    start = everything(engine)
    said = train(engine, clips)
    assert len(said) == STEPS and mean_loss(said[-5:]) < 0.9 * mean_loss(said[:5])
    for name, value in everything(engine).items():
        assert value.dtype == torch.long or (value - start[name]).abs().max() > 1e-3, f"{name} was not trained"
        one, other = (found[f"{optimiser}{clips}"]["weights"][name] for found in two)
        assert torch.equal(one, other), f"the two ranks differ in {name}"
        torch.testing.assert_close(one, value, rtol=0, atol=1e-5, msg=name)
    for found in two:
        assert found[f"{optimiser}{clips}"]["losses"] == pytest.approx([info.loss for info in said], abs=1e-5)
        assert found[f"{optimiser}{clips}"]["norms"] == pytest.approx([info.grad_norm for info in said], abs=1e-5)


def test_a_step_is_the_plain_loop_of_the_protocol():
    """Loss, backward, step, then the scheduler: the same as written with torch alone."""
    engine, plain = trainer(37), network().train()
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.0, momentum=0.9)
    inputs, targets = data(37)
    for step in range(6):
        x, y = inputs[step : step + 8], targets[step : step + 8]
        optimiser.param_groups[0]["lr"] = engine.lrs[step]
        loss = -(y * plain(x).log_softmax(1)).mean()
        optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(plain.parameters(), float("inf"))
        optimiser.step()
        info = engine.step(lambda part: -(part[1] * engine.model(part[0]).log_softmax(1)).mean(1), [(x, y)], 8)
        assert (info.step, info.lr, info.skipped) == (step, engine.lrs[step], False)
        assert (info.loss, info.grad_norm) == pytest.approx((loss.item(), norm.item()), rel=1e-5)
    for one, other in zip(engine.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("optimiser", "stop"), [("sgd", 7), ("adamw", 10), ("lamb", 1)])
def test_an_interrupted_run_ends_with_equal_weights_to_the_last_bit(tmp_path, optimiser, stop):
    whole = trainer(37, optimiser, dropout=0.3)
    train(whole, 37)
    before = trainer(37, optimiser, dropout=0.3)
    train(before, 37, until=stop)
    save_last_and_best(tmp_path, Checkpoint(before.state(), seed=42), is_best=False)
    torch.manual_seed(999)
    after = trainer(37, optimiser, dropout=0.3)
    after.restore(load_last(tmp_path).state)
    assert after.done == stop
    train(after, 37)
    expected = everything(whole)
    assert all(torch.equal(value, expected[name]) for name, value in everything(after).items())
    # The dropout did act, and differs from step to step.
    assert not torch.equal(everything(after)["0.weight"], everything(trained_without_dropout(optimiser))["0.weight"])


def trained_without_dropout(optimiser):
    engine = trainer(37, optimiser)
    train(engine, 37)
    return engine


def linear(rates=(0.1,) * 40, **options):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    return Trainer(net, make_optimiser("sgd", net), rates, seed=1, **options)


def squares(engine):
    return lambda rows: engine.model(rows).square()[:, 0]


@pytest.mark.parametrize("parts", [2, 3])
def test_accumulated_parts_equal_one_large_batch(parts):
    rows = torch.randn(8, 3, dtype=torch.float64)
    one, many = linear(), linear()
    for _ in range(5):
        first = one.step(squares(one), [rows], 8)
        second = many.step(squares(many), [rows[piece] for piece in micro_slices(8, parts)], 8)
        assert (first.loss, first.grad_norm) == pytest.approx((second.loss, second.grad_norm), rel=1e-12)
    for left, right in zip(one.model.parameters(), many.model.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-14)


def test_an_empty_part_adds_nothing():
    rows = torch.randn(4, 3, dtype=torch.float64)
    one, other = linear(), linear()
    one.step(squares(one), [rows], 4)
    other.step(squares(other), [rows, rows[:0]], 4)
    assert torch.equal(one.model[0].weight, other.model[0].weight)


def test_long_gradients_are_clipped_as_torch_does():
    rows = 10 * torch.randn(8, 3, dtype=torch.float64)
    engine, plain = linear(clip_norm=0.05), linear().model
    plain(rows).square().mean().backward()
    norm = nn.utils.clip_grad_norm_(plain.parameters(), 0.05)
    info = engine.step(squares(engine), [rows], 8)
    assert info.grad_norm == pytest.approx(norm.item()) and info.grad_norm > 0.05
    for moved, start in zip(engine.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(moved, start - 0.1 * start.grad)


def test_every_step_is_seeded_from_its_number():
    def draws(engine, before):
        seen = []
        torch.manual_seed(before)

        def parts():
            seen.append(torch.rand(3))
            yield torch.ones(2, 3, dtype=torch.float64)

        for _ in range(2):
            engine.step(squares(engine), parts(), 2)
        return seen

    one, other = draws(linear(), 5), draws(linear(), 6)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(*one)
    seed_step(1, 0)
    assert torch.equal(torch.rand(3), one[0])
    seed_step(2, 0)
    assert not torch.equal(torch.rand(3), one[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_is_skipped_and_leaves_no_trace(bad):
    engine = trainer(37)
    train(engine, 37, until=4)
    kept = everything(engine)
    poison = torch.full((8, 1, 12), bad)
    info = engine.step(lambda x: engine.model(x).mean(1), [poison], 8)
    assert info.skipped and engine.skipped == 1 and engine.done == 5
    assert all(torch.equal(value, kept[name]) for name, value in everything(engine).items())
    assert not train(engine, 37, until=6)[0].skipped and engine.skipped_in_a_row == 0


def test_a_finite_loss_with_an_infinite_gradient_is_skipped_too():
    engine = linear()
    kept = engine.model[2].bias.detach().clone()
    info = engine.step(lambda rows: (engine.model(rows)[:, 0] * 0).sqrt(), [torch.ones(2, 3, dtype=torch.float64)], 2)
    assert np.isfinite(info.loss) and info.skipped
    assert torch.equal(engine.model[2].bias, kept)


def test_many_bad_steps_in_a_row_are_an_error():
    engine = linear(max_bad_steps=3)
    nothing = torch.full((2, 3), torch.nan, dtype=torch.float64)
    for _ in range(2):
        assert engine.step(squares(engine), [nothing], 2).skipped
    with pytest.raises(UserError, match=r"3 steps in a row up to step 2 .* learning rate"):
        engine.step(squares(engine), [nothing], 2)


def test_bf16_trains_in_bfloat16_and_keeps_float32_weights():
    engine = trainer(37, precision="bf16")
    seen = []
    engine.model[4].register_forward_hook(lambda module, given, result: seen.append(result.dtype))
    said = train(engine, 37)
    assert set(seen) == {torch.bfloat16} and mean_loss(said[-5:]) < 0.9 * mean_loss(said[:5])
    assert {value.dtype for value in engine.model.parameters()} == {torch.float32}


def test_compile_keeps_names_and_result(monkeypatch):
    compiled, real = [], nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: (compiled.append(self), real(self, backend="eager")))
    engine, plain = linear(compile=True), linear()
    rows = torch.randn(4, 3, dtype=torch.float64)
    for one in (engine, plain):
        one.step(squares(one), [rows], 4)
    assert compiled == [engine.model]
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(engine.model.state_dict()[name], value)


def test_misuse_is_told():
    engine = linear(rates=[0.1])
    rows = torch.ones(4, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="one per row"):
        engine.step(lambda x: engine.model(x).mean(), [rows], 4)
    with pytest.raises(ValueError, match="hold 4 rows, the global batch 5"):
        engine.step(squares(engine), [rows], 5)
    engine.step(squares(engine), [rows], 4)
    with pytest.raises(ValueError, match="schedule ends after 1"):
        engine.step(squares(engine), [rows], 4)
    with pytest.raises(UserError, match="at least one micro"):
        micro_slices(4, 0)
    for options in ({"precision": "fp8"}, {"clip_norm": 0.0}):
        with pytest.raises(UserError):
            linear(**options)


def test_the_log_has_a_line_per_step_and_a_resumed_run_writes_on(tmp_path):
    path = tmp_path / "run" / "steps.csv"
    log, engine = step_log(path), trainer(37)
    for info in train(engine, 37, until=8):
        log.write(**step_line(info, epoch=info.step // 5))
    with path.open("a") as file:
        file.write("8,1,0.3")  # killed while writing
    log = step_log(path, resume_at=6)
    assert [line["step"] for line in csv.DictReader(path.open())] == list("012345")
    log.write(**step_line(info, epoch=1))
    lines = list(csv.DictReader(path.open()))
    assert [line["step"] for line in lines] == list("0123457")
    assert float(lines[4]["lr"]) == pytest.approx(engine.lrs[4]) and float(lines[4]["clips_per_s"]) > 0
    with pytest.raises(ValueError, match="no such column: wer"):
        log.write(wer=1)
    assert CsvLog(path, ["epoch", "score"]).columns == ["epoch", "score"]
    assert path.read_text() == "epoch,score\n"  # a fresh run begins a fresh table


if __name__ == "__main__":
    main(Path(sys.argv[1]))
