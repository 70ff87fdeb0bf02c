"""Two processes know together what one process knows: shares, gathered rows, summed gradients, batch statistics."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from two_ranks import launch

from evar import ranks
from evar.errors import UserError
from evar.ranks import SyncBatchNorm1d, synchronise_batch_norms


def batch_norm_run(norm, chosen=slice(None)):
    """Return outputs, input gradients and statistics of three training batches (9, 4 and 2 rows) and one in eval."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for step, rows in enumerate([9, 4, 2]):
        values = 1e3 + torch.randn(rows, 5, 3, generator=generator, dtype=torch.float64)
        slopes = torch.randn(rows, 5, 3, generator=generator, dtype=torch.float64)
        inputs = values[ranks.my_rows(rows)].clone().requires_grad_()
        outputs = norm(inputs)
        (outputs * slopes[ranks.my_rows(rows)]).sum().backward()
        found |= {f"y{step}": ranks.gathered(outputs), f"dx{step}": ranks.gathered(inputs.grad)}
    ranks.sum_gradients(list(norm.parameters()))
    found |= {f"d{name}": p.grad for name, p in norm.named_parameters()}
    found["eval"] = norm.eval()(values).detach()
    return found | {name: buffer.clone() for name, buffer in norm.named_buffers()}


def gradient_run():
    """Return the gradients of a sum over six rows of three parameters, one used by rank 1 alone, one by nobody."""
    used, rarely, _ = parameters = [
        nn.Parameter(torch.ones(4, 2)),
        nn.Parameter(torch.ones(3)),
        nn.Parameter(torch.ones(2)),
    ]
    rows = ranks.mine(torch.arange(6.0))
    (used.sum() * rows.sum()).backward()
    if ranks.rank() == ranks.world() - 1:
        (rarely.sum() * 2).backward()
    ranks.sum_gradients(parameters, bucket_bytes=16)
    return [p.grad for p in parameters]


def gathered_run():
    """Return gathered rows of several types and shares, and the gradient of a loss over all pairs of rows."""
    values = torch.arange(10.0).view(5, 2)
    own = ranks.mine(values).clone().requires_grad_()
    everyone = ranks.gathered(own, with_grad=True)
    (own @ everyone.T).square().sum().backward()
    first_only = values[: 3 if ranks.is_main() else 0]
    return {
        "all": everyone.detach(),
        "gradient": ranks.gathered(own.grad),
        "first_only": ranks.gathered(first_only),
        "bool": ranks.gathered(ranks.mine(values > 4)),
        "int64": ranks.gathered(ranks.mine(torch.arange(5))),
        "bfloat16": ranks.gathered(ranks.mine(values.bfloat16())),
    }


def main(folder):
    ranks.start("cpu")
    torch.manual_seed(ranks.rank())
    started_apart = nn.Linear(2, 2)
    ranks.same_start(started_apart)
    norm = SyncBatchNorm1d(5, affine=True).double()
    single = SyncBatchNorm1d(5)
    alone = single(ranks.mine(torch.ones(1, 5)))
    found = {
        "norm": batch_norm_run(norm),
        "gradients": gradient_run(),
        "gathered": gathered_run(),
        "weight": started_apart.weight.data,
        "mean": ranks.mean_over_ranks(torch.tensor([1.0 + ranks.rank()])),
        "alone": (ranks.gathered(alone), single.running_var, single.num_batches_tracked),
        "half": SyncBatchNorm1d(5)(ranks.mine(torch.randn(6, 5)).bfloat16()),
    }
    torch.save(found, folder / f"rank{ranks.rank()}.pt")
    ranks.barrier()
    ranks.stop()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return launch(__file__, tmp_path_factory.mktemp("two"))


def test_one_process_is_rank_0_of_1_and_everything_is_its_own():
    values = torch.arange(5)
    assert (ranks.rank(), ranks.world(), ranks.is_main()) == (0, 1, True)
    assert ranks.mine(values) is not None and ranks.mine(values).tolist() == [0, 1, 2, 3, 4]
    assert ranks.gathered(values) is values and ranks.sum_over_ranks(values) is values
    assert ranks.start("cpu") == torch.device("cpu")
    ranks.barrier()
    ranks.stop()


def test_shares_are_runs_of_rows_that_differ_by_at_most_one():
    assert [ranks.share(8, part, 2) for part in range(2)] == [slice(0, 4), slice(4, 8)]
    assert [ranks.share(5, part, 4) for part in range(4)] == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 5)]
    assert [ranks.share(1, part, 2) for part in range(2)] == [slice(0, 1), slice(1, 1)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_one_clear_line():
    with pytest.raises(UserError, match="no GPU number 3"):
        ranks.start("cuda:3")


def test_synchronised_batch_norm_equals_torchs_over_the_global_batch(two):
    expected = batch_norm_run(nn.BatchNorm1d(5).double())
    for name, value in expected.items():
        for found in two:
            # Values near 1000 with deviation 1: sums of squares would have lost six digits here.
            torch.testing.assert_close(found["norm"][name], value, rtol=1e-9, atol=1e-9, msg=name)


def test_one_process_uses_torchs_own_batch_norm_to_the_last_bit():
    expected, found = (
        batch_norm_run(nn.BatchNorm1d(5).double()),
        batch_norm_run(SyncBatchNorm1d(5, affine=True).double()),
    )
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_single_row_is_normalised_with_the_running_statistics_and_leaves_them(two):
    norm = SyncBatchNorm1d(5)
    alone = norm(torch.ones(1, 5))
    torch.testing.assert_close(alone, torch.ones(1, 5), atol=1e-5, rtol=0)
    for found in two:
        rows, variance, batches = found["alone"]
        torch.testing.assert_close(rows, alone)
        assert variance.tolist() == [1.0] * 5 and batches == norm.num_batches_tracked == 0


def test_half_precision_stays_half_precision(two):
    assert [found["half"].dtype for found in two] == [torch.bfloat16] * 2


def test_gradients_are_summed_and_unused_parameters_stay_without(two):
    used, rarely, never = gradient_run()
    for found in two:
        torch.testing.assert_close(found["gradients"][0], used)
        torch.testing.assert_close(found["gradients"][1], rarely)
        assert found["gradients"][2] is None and never is None


def test_gathered_rows_keep_order_type_and_gradient(two):
    expected = gathered_run()
    for found in two:
        for name, value in expected.items():
            assert found["gathered"][name].dtype == value.dtype
            torch.testing.assert_close(found["gathered"][name], value, msg=name)


def test_all_ranks_start_alike_and_agree_on_a_mean(two):
    assert torch.equal(two[0]["weight"], two[1]["weight"])
    assert [found["mean"].item() for found in two] == [1.5, 1.5]


def test_batch_norms_of_a_network_are_replaced_with_their_state():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm1d(4, affine=False)))
    images = torch.randn(6, 1, 8, 8)
    net[1](net[0](images))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    expected = nn.functional.batch_norm(net[0](images), None, None, net[1].weight, net[1].bias, training=True)
    synchronise_batch_norms(net)
    assert isinstance(net[1], SyncBatchNorm1d) and isinstance(net[2][0], SyncBatchNorm1d)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    torch.testing.assert_close(net[1](net[0](images)), expected)
    assert synchronise_batch_norms(net[1]) is net[1]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
