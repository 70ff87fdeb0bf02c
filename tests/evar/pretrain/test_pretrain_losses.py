"""The distances, against their formulas, and patches of pixels."""

import numpy as np
import pytest
import torch

from evar.errors import UserError
from evar.pretrain import losses


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 7, 5, generator=generator), torch.randn(3, 7, 5, generator=generator)


def test_formulas(pair):
    a, b = (x.numpy() for x in pair)
    cos = (a * b).sum(2) / np.linalg.norm(a, axis=2) / np.linalg.norm(b, axis=2)
    expected = {
        "norm_mse": (2 - 2 * cos).mean(1),
        "cosine": (1 - cos).mean(1),
        "mse": ((a - b) ** 2).mean((1, 2)),
        "l1": np.abs(a - b).mean((1, 2)),
    }
    assert expected.keys() == losses.DISTANCES.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(losses.distance(name)(*pair), value, rtol=1e-5)


@pytest.mark.parametrize("name", list(losses.DISTANCES))
def test_each_clip_has_its_own_and_equals_are_at_zero(pair, name):
    distance = losses.distance(name)
    whole = distance(*pair)
    assert whole.shape == (3,)
    torch.testing.assert_close(whole[1:2], distance(pair[0][1:2], pair[1][1:2]))
    torch.testing.assert_close(distance(pair[0], pair[0]), torch.zeros(3), atol=1e-6, rtol=0)


def test_half_precision_is_computed_in_float32(pair):
    a, b = (x.bfloat16() for x in pair)
    for name in losses.DISTANCES:
        found = losses.distance(name)(a, b)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, losses.distance(name)(a.float(), b.float()))


def test_standardise_has_unit_unbiased_variance(pair):
    found = losses.standardise(pair[0] * 30 + 4)
    torch.testing.assert_close(found.mean(2), torch.zeros(3, 7), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.var(2), torch.ones(3, 7), atol=1e-5, rtol=0)
    assert not losses.standardise(torch.full((1, 2, 4), 3.0)).any()


def test_labels_are_a_mean_over_classes():
    logits, hot = torch.tensor([[0.0, 2.0], [-1.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    p = torch.sigmoid(logits)
    expected = -(hot * p.log() + (1 - hot) * (1 - p).log()).mean(1)
    torch.testing.assert_close(losses.labels(logits, hot), expected)


def test_patchify_goes_row_after_row():
    image = torch.arange(4 * 7).float().view(1, 1, 4, 7)
    found = losses.patchify(image, (2, 3))
    assert found.shape == (1, 4, 6)
    assert found[0, 0].tolist() == [0, 1, 2, 7, 8, 9]
    assert found[0, 1].tolist() == [3, 4, 5, 10, 11, 12]
    assert found[0, 2].tolist() == [14, 15, 16, 21, 22, 23]


def test_an_unknown_distance_is_refused():
    with pytest.raises(UserError, match="Did you mean 'cosine'"):
        losses.distance("cosin")
