"""Every loss, prediction and target that the reference recorded for M2D, its variants and MSM-MAE."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from golden import arrays, needs_shared
from pretrain_small import FACTS, recorded, recorded_batch

from evar.pretrain.losses import patchify
from evar.pretrain.trunk import in_grid_order

pytestmark = needs_shared


@pytest.fixture
def stored():
    return arrays("pretrain_forward.npz")


def close(found, expected):
    """Check a prediction or target; they are of the order of 1, and so is their rounding."""
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=2e-5, rtol=1e-5)


def mean_loss(model, batch, noise, part="loss"):
    return float(model.losses(batch, noise)[part].detach().mean())


@pytest.mark.parametrize("standardised", [True, False])
@pytest.mark.parametrize("loss", ["norm_mse", "mse"])
def test_m2d_loss(stored, loss, standardised):
    model = recorded(31, loss=loss, standardise_targets=standardised)
    expected = float(stored[f"m2d.loss.{loss}.norm_pix_{standardised}"])
    assert mean_loss(model, *recorded_batch()) == pytest.approx(expected, rel=1e-5)
    if loss == "norm_mse" and standardised:
        assert expected == pytest.approx(float(stored["m2d.forward_loss"]), rel=1e-6)


def test_m2d_masks_encodes_and_predicts_as_recorded(stored):
    model, (batch, noise) = recorded(31), recorded_batch()
    masked = model.masked_pass(batch.log_mel, noise)
    assert masked.keep == int(stored["len_keep"])
    mask = torch.ones(6, 30).scatter(1, masked.order[:, : masked.keep], 0)
    np.testing.assert_array_equal(mask, stored["m2d.mask"])
    np.testing.assert_array_equal(masked.order.argsort(1), stored["m2d.ids_restore"])
    close(masked.latent, stored["m2d.latent"])
    close(masked.prediction, stored["m2d.pred"])


@pytest.mark.parametrize(
    ("layers", "name"), [((), ""), ((0,), "_layers_0"), ((0, 1), "_layers_01"), ((-1, 0), "_layers_01")]
)
def test_targets(stored, layers, name):
    model, (batch, noise) = recorded(31, target_layers=layers), recorded_batch()
    order, keep = model.order(noise, noise.device)
    close(model.targets(model.tokens(batch.log_mel), order, keep), stored[f"m2d.target{name}"])


def test_data2vec_variant(stored):
    loss = mean_loss(recorded(31, target_sees="all"), *recorded_batch())
    assert loss == pytest.approx(float(stored["d2v.loss"]), rel=1e-5)


def test_positions(stored):
    state = recorded(31).state_dict()
    np.testing.assert_array_equal(state["pos_embed"], stored["pos_embed"])
    np.testing.assert_array_equal(state["decoder_pos_embed"], stored["decoder_pos_embed"])


def test_msm_mae(stored):
    model, (batch, noise) = recorded(31, "msm_mae", mask_ratio=0.75, loss="mse"), recorded_batch()
    np.testing.assert_array_equal(patchify(batch.log_mel, (16, 16)), stored["mae.patchify"])
    assert mean_loss(model, batch, noise) == pytest.approx(float(stored["mae.loss"]), rel=1e-5)
    masked = model.masked_pass(batch.log_mel, noise)
    everything = model.decoder_pred(model.decoder_norm(model.decode(masked.latent, masked.order)))[:, 1:]
    close(in_grid_order(everything, masked.order), stored["mae.pred"])


def test_m2d_x(stored):
    model = recorded(33, "m2d_x", replace(FACTS, feature_dim=240), w_other=0.5)
    batch, noise = recorded_batch(features=torch.from_numpy(stored["x.target_offline"]))
    for part, name in (("loss", "loss"), ("m2d", "loss_online"), ("distilled", "loss_offline")):
        assert mean_loss(model, batch, noise, part) == pytest.approx(float(stored[f"x.{name}"]), rel=1e-5)


def test_m2d_as(stored):
    labels = torch.from_numpy(stored["as.labels"])
    model = recorded(34, "m2d_as", replace(FACTS, classes=tuple("abcdefghijk")), w_other=1.0)
    batch, noise = recorded_batch(labels=labels)
    for part, name in (("loss", "loss"), ("m2d", "loss_online"), ("labels", "loss_offline")):
        assert mean_loss(model, batch, noise, part) == pytest.approx(float(stored[f"as.{name}"]), rel=1e-5)
