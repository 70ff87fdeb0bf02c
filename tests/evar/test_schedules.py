"""The learning rate in force at every step equals what the reference platform used, step by step."""

import numpy as np
import pytest
from golden import arrays, needs_shared

from evar.errors import UserError
from evar.schedules import ema_decay, finetune_lr, pretrain_lr


@needs_shared
@pytest.mark.parametrize(("epochs", "lr"), [(10, 2.0), (200, 0.5)])
def test_fine_tuning_rate_equals_the_recorded_one(epochs, lr):
    recorded = arrays("augment.npz")[f"ft_lr_used_E{epochs}_lr{lr}_it4"]
    np.testing.assert_allclose(finetune_lr(lr, epochs, 5, 4), recorded, rtol=0, atol=1e-12)


@needs_shared
def test_pretraining_rate_and_decay_equal_the_recorded_ones():
    recorded = arrays("schedules.npz")
    rates = pretrain_lr(float(recorded["base_lr"]), 300, 20, int(recorded["iters_per_epoch"]))
    np.testing.assert_allclose(rates, recorded["lr_per_iter"], rtol=0, atol=1e-15)
    np.testing.assert_allclose(rates[::100], recorded["lr_epoch_start"], rtol=0, atol=1e-15)
    np.testing.assert_allclose(ema_decay(30000), recorded["ema_per_iter"], rtol=0, atol=1e-15)


def test_the_reference_spends_two_steps_at_zero_and_drops_after_the_warm_up():
    rates = finetune_lr(0.5, epochs=200, warmup_epochs=5, per_epoch=100)
    assert (rates[:2] == 0).all() and rates[2] > 0
    end = 5 * 100
    assert rates[end] == pytest.approx(0.499)
    assert rates[end + 1] == pytest.approx(0.499229, abs=1e-6)
    assert (np.diff(rates[end + 1 :]) < 0).all()


def test_as2m_falls_from_the_peak_to_nine_tenths_of_it():
    rates = finetune_lr(2.0, epochs=70, warmup_epochs=15, per_epoch=10)
    assert rates[15 * 10 + 1] == pytest.approx(1.78, abs=0.01)


def test_without_warm_up_the_first_two_steps_run_at_the_full_rate():
    assert finetune_lr(0.1, epochs=3, warmup_epochs=0, per_epoch=4)[:3].tolist()[:2] == [0.1, 0.1]


def test_the_textbook_variant_neither_lags_nor_drops():
    rates = finetune_lr(1.0, epochs=10, warmup_epochs=2, per_epoch=8, reference=False)
    assert rates[1] == pytest.approx(1 / 16) and rates[16] == 1.0
    assert (np.diff(rates[:17]) > 0).all() and (np.diff(rates[16:]) < 0).all()
    # At half of the cosine's span stands half of the peak.
    assert rates[16 + 32] == pytest.approx(0.5, abs=1e-6)


def test_a_warm_up_longer_than_the_training_is_all_warm_up():
    for reference in (True, False):
        rates = finetune_lr(1.0, epochs=2, warmup_epochs=5, per_epoch=4, reference=reference)
        assert len(rates) == 8 and rates.max() < 0.4


@pytest.mark.parametrize(
    "settings", [(-1.0, 5, 1, 4), (float("nan"), 5, 1, 4), (1.0, 0, 1, 4), (1.0, 5, -1, 4), (1.0, 5, 1, 0)]
)
def test_impossible_settings_are_one_clear_line(settings):
    for schedule in (finetune_lr, pretrain_lr):
        with pytest.raises(UserError) as caught:
            schedule(*settings)
        assert "\n" not in str(caught.value)


def test_a_decay_beyond_one_is_refused():
    assert ema_decay(1).tolist() == [0.99995]
    for arguments in [(0,), (5, 0.9, 1.1)]:
        with pytest.raises(UserError):
            ema_decay(*arguments)
