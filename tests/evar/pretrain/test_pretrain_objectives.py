"""The registry, the second losses of M2D-AS, -X and -S, and MAM-CLAP and SupMAM, whose constants are ours."""

from dataclasses import replace

import pytest
import torch
from pretrain_small import FACTS, LABELLED, SMALL, random_batch, small

from evar.errors import UserError
from evar.pretrain import losses, objectives
from evar.pretrain.base import Objective
from evar.pretrain.objectives.m2d_x import time_steps
from evar.pretrain.trunk import in_grid_order

STORED = replace(FACTS, feature_dim=11)
LABELS = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]])


def features(steps=6, dim=11):
    return torch.randn(4, steps, dim, generator=torch.Generator().manual_seed(5))


def test_every_objective_is_found_by_its_files_name():
    ours = {"m2d", "msm_mae", "m2d_as", "m2d_x", "m2d_s", "mam_clap", "supmam"}
    assert ours <= set(objectives.names())
    for name in ours:
        found = objectives.objective_class(name)
        assert issubclass(found, Objective)
        assert found.takes_labels == (name in ("m2d_as", "supmam"))
        assert found.takes_features == (name in ("m2d_x", "m2d_s", "mam_clap", "supmam"))


def test_an_unknown_objective():
    with pytest.raises(UserError, match="Did you mean 'supmam'"):
        objectives.build(replace(SMALL, objective="sup_mam"), FACTS)


@pytest.mark.parametrize(
    ("objective", "facts", "said"),
    [
        ("m2d_as", FACTS, "no"),
        ("supmam", FACTS, "labels"),
        ("m2d_x", FACTS, "--teacher"),
        ("m2d_s", FACTS, "--features"),
        ("mam_clap", FACTS, "--teacher"),
    ],
)
def test_what_the_corpus_lacks_is_said(objective, facts, said):
    with pytest.raises(UserError, match=said):
        small(objective, facts)


@pytest.mark.parametrize(
    ("objective", "facts", "more"),
    [
        ("m2d", FACTS, {}),
        ("msm_mae", FACTS, {}),
        ("m2d_as", LABELLED, {"labels": LABELS}),
        ("m2d_x", STORED, {"features": features()}),
        ("m2d_s", STORED, {"features": features(13)}),
        ("mam_clap", STORED, {"features": features()}),
        ("supmam", LABELLED, {"labels": LABELS}),
        ("supmam", replace(LABELLED, feature_dim=11), {"labels": LABELS, "features": features()}),
    ],
)
def test_each_learns(objective, facts, more):
    """A few steps on one batch lower its loss, and every trained tensor gets a gradient."""
    model = small(objective, facts, w_other=0.5)
    batch, noise = random_batch(**more)
    trained = [p for p in model.parameters() if p.requires_grad]
    seen = []
    for _ in range(10):
        parts = model.losses(batch, noise)
        assert all(part.shape == (4,) for part in parts.values())
        gradients = torch.autograd.grad(parts["loss"].mean(), trained)
        length = torch.cat([g.flatten() for g in gradients]).norm()
        with torch.no_grad():
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter -= 0.3 / length * gradient
        seen.append(float(parts["loss"].detach().mean()))
    assert seen[-1] < 0.9 * seen[0]


def test_time_steps_are_the_whole_grid_frequency_after_frequency():
    model = small("m2d_s", STORED)
    batch, noise = random_batch()
    masked = model.masked_pass(batch.log_mel, noise)
    grid = in_grid_order(torch.cat([masked.visible, masked.prediction], 1), masked.order)
    steps = time_steps(masked, (5, 6))
    assert steps.shape == (4, 6, 240)
    for f, t in ((0, 0), (2, 5), (4, 1)):
        assert torch.equal(steps[:, t, 48 * f : 48 * (f + 1)], grid[:, 6 * f + t])


def test_labels_are_scored_by_the_mean_over_time():
    model = small("m2d_as", LABELLED, w_other=0.25)
    batch, noise = random_batch(labels=LABELS)
    parts = model.losses(batch, noise)
    masked = model.masked_pass(batch.log_mel, noise)
    logits = model.offline_predictor(time_steps(masked, (5, 6))).mean(1)
    torch.testing.assert_close(parts["labels"], losses.labels(logits, LABELS))
    torch.testing.assert_close(parts["loss"], parts["m2d"] + 0.25 * parts["labels"])


def test_finer_features_are_averaged_to_the_patch_rate():
    model = small("m2d_s", STORED)
    fine = features(12)
    batch, noise = random_batch(features=fine)
    averaged = replace(batch, features=fine.unflatten(1, (6, 2)).mean(2))
    torch.testing.assert_close(model.losses(batch, noise)["distilled"], model.losses(averaged, noise)["distilled"])


@pytest.mark.parametrize("distance", list(losses.DISTANCES))
def test_mam_clap_pulls_both_kinds_of_patches_to_the_teachers(distance):
    model = small("mam_clap", STORED, distance=distance, w_m2d=2.0, w_other=3.0, standardise_targets=False)
    told = features()
    batch, noise = random_batch(features=told)
    parts = model.losses(batch, noise)
    masked = model.masked_pass(batch.log_mel, noise)
    everywhere = told.repeat(1, 5, 1)  # frequency row after row: all patches of a time step learn the same
    for name, patches, tokens in (
        ("visible", masked.order[:, :9], masked.visible),
        ("masked", masked.hidden, masked.prediction),
    ):
        target = torch.stack([clip[which] for clip, which in zip(everywhere, patches, strict=True)])
        torch.testing.assert_close(parts[name], losses.distance(distance)(model.distil_head(tokens), target))
    torch.testing.assert_close(parts["loss"], 2 * parts["masked"] + 3 * parts["visible"])


def test_supmam_adds_labels_to_msm_mae():
    labelled = small("supmam", LABELLED, loss="mse", w_other=0.1)
    plain = small("msm_mae", loss="mse")
    missing = plain.load_state_dict(labelled.state_dict(), strict=False)
    assert set(missing.unexpected_keys) == {"sup_head.weight", "sup_head.bias"} and not missing.missing_keys
    batch, noise = random_batch(labels=LABELS)
    parts = labelled.losses(batch, noise)
    torch.testing.assert_close(parts["pixels"], plain.losses(batch, noise)["loss"])
    torch.testing.assert_close(parts["loss"], parts["pixels"] + 0.1 * parts["labels"])


def test_supmam_labels_see_visible_patches_only():
    model = small("supmam", LABELLED)
    batch, noise = random_batch(labels=LABELS)
    order, keep = model.order(noise, noise.device)
    changed = losses.patchify(batch.log_mel, (16, 16)).clone()
    changed.scatter_(1, order[:, keep:, None].expand(-1, -1, 256), 9.0)
    image = changed.unflatten(1, (5, 6)).unflatten(3, (16, 16)).permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)
    other = model.losses(replace(batch, log_mel=image[:, None]), noise)
    torch.testing.assert_close(other["labels"], model.losses(batch, noise)["labels"])
    assert not torch.allclose(other["pixels"], model.losses(batch, noise)["pixels"])


def test_supmam_with_features_is_the_sum_of_both():
    facts = replace(LABELLED, feature_dim=11)
    model = small("supmam", facts, w_other=0.1)
    batch, noise = random_batch(labels=LABELS, features=features())
    parts = model.losses(batch, noise)
    assert "pixels" not in parts
    torch.testing.assert_close(parts["loss"], parts["masked"] + parts["visible"] + 0.1 * parts["labels"])


def test_the_network_hears_the_noise_and_the_clean_sound_is_painted():
    model = small("msm_mae", loss="mse")
    batch, noise = random_batch()
    noisy = replace(batch, noisy=random_batch(seed=1)[0].log_mel)
    masked = model.masked_pass(noisy.noisy, noise)
    clean = torch.stack(
        [clip[which] for clip, which in zip(losses.patchify(batch.log_mel, (16, 16)), masked.hidden, strict=True)]
    )
    expected = losses.mse(masked.prediction, losses.standardise(clean))
    torch.testing.assert_close(model.losses(noisy, noise)["loss"], expected)
