"""Products by the faster library are those of torch's own linear layer, whatever the number of rows and threads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from model_adapters.networks.dense import Linear, linear, take_faster


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("rows", [1, 255, 256, 257, 499, 509, 1024, 1214])
def test_it_is_the_same_product(rows, threads):
    stream = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 48, generator=stream, requires_grad=True)
    weight, bias = torch.randn(96, 48, generator=stream, requires_grad=True), torch.randn(96, generator=stream)
    ours, theirs = linear(x, weight, bias), F.linear(x, weight, bias)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(out.square().sum(), (x, weight)) for out in (ours, theirs)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-2, rtol=1e-4)


@given(batch=st.integers(1, 9), tokens=st.integers(1, 300))
@settings(max_examples=30, deadline=None)
def test_any_shape(batch, tokens):
    x = torch.randn(batch, tokens, 16)
    weight = torch.randn(8, 16)
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight), atol=1e-5, rtol=1e-5)


def test_another_packages_network_takes_it():
    class Own(nn.Linear):
        pass

    network = take_faster(nn.Sequential(nn.Linear(4, 4), Own(4, 4), nn.Conv1d(4, 4, 1)))
    assert [type(module) for module in network] == [Linear, Own, nn.Conv1d]
