"""The published probe: equal to its slow twin, to the reference's recorded runs, and to itself however it is run."""

import json
from itertools import chain

import numpy as np
import pytest
import torch
from golden import arrays, golden, needs_shared
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from slow_probe import slow_probe

from evar.errors import UserError
from evar.probe_adam import draws_of
from evar.probe_data import fit_scaler
from evar.probe_heads import Adam, gradient, initial, split
from evar.probe_splits import grouped_part, random_part
from evar.probes import Fold, adam_probe
from evar.statistics import welch_interval


def make(n=240, width=12, n_classes=4, seed=0, multi_label=False):
    """Return features, labels, and two folds of unequal size."""
    stream = np.random.default_rng(seed)
    centres = stream.normal(size=(n_classes, width))
    if multi_label:
        labels = (stream.random((n, n_classes)) < 0.3).astype(np.float32)
        features = labels @ centres + stream.normal(size=(n, width))
    else:
        labels = np.arange(n) % n_classes
        features = centres[labels] + 1.5 * stream.normal(size=(n, width))
    rows = stream.permutation(n)
    cut = n // 3
    folds = [Fold("a", rows[cut:], None, rows[:cut]), Fold("b", rows[: n - 30], None, rows[n - 30 :])]
    return (features * 3 + 5).astype(np.float32), labels, folds


SHAPE = {"n_classes": 4, "multi_label": False, "lr": 1e-2, "batch_size": 50, "max_epochs": 40, "patience": 5}


@pytest.mark.parametrize("batched", [False, True], ids=["side by side", "batched"])
@pytest.mark.parametrize("multi_label", [False, True], ids=["single-label", "multi-label"])
def test_equals_the_slow_twin(batched, multi_label):
    features, labels, folds = make(multi_label=multi_label)
    shape = SHAPE | {"multi_label": multi_label}
    fits = adam_probe(features, labels, folds, [42, 43], batched=batched, **shape)
    for s, seed in enumerate([42, 43]):
        stream = np.random.RandomState(seed)
        for f, fold in enumerate(folds):
            parts = random_part(labels[fold.train], 4, 0.1, stream)
            score, scores, epochs, best = slow_probe(features, labels, fold, seed, fold_number=f, parts=parts, **shape)
            assert (fits[s][f].epochs, fits[s][f].best_epoch) == (epochs, best)
            assert fits[s][f].score == pytest.approx(score, abs=1e-12)
            np.testing.assert_allclose(fits[s][f].scores, scores, atol=1e-5)


@pytest.mark.parametrize("batched", [False, True], ids=["side by side", "batched"])
@pytest.mark.parametrize(("ties", "epochs", "best"), [("latest", 40, 40), ("first", 6, 1)])
def test_on_a_plateau_the_latest_or_the_first_epoch_is_kept(batched, ties, epochs, best):
    features, labels, folds = make()
    standing = SHAPE | {"lr": 1e-12}  # so every epoch has the same validation score
    for fit in adam_probe(features, labels, folds, [42], ties=ties, batched=batched, **standing)[0]:
        assert (fit.epochs, fit.best_epoch) == (epochs, best)


def test_batched_heads_stop_one_by_one_as_if_alone():
    features, labels, folds = make()
    alone = adam_probe(features, labels, folds, range(5), batched=False, **SHAPE)
    together = adam_probe(features, labels, folds, range(5), batched=True, **SHAPE)
    epochs = [[fit.epochs for fit in row] for row in together]
    assert epochs == [[fit.epochs for fit in row] for row in alone]
    assert len({n for row in epochs for n in row}) > 1  # else this shows nothing
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


def test_the_number_of_workers_does_not_change_a_bit():
    features, labels, folds = make()
    before = torch.get_num_threads()
    runs = [adam_probe(features, labels, folds, [1, 2, 3], workers=n, **SHAPE) for n in (1, 2, 5)]
    assert torch.get_num_threads() == before
    for other in runs[1:]:
        for a, b in zip(chain(*runs[0]), chain(*other), strict=True):
            assert a.scores.tobytes() == b.scores.tobytes() and a.info == b.info


def test_a_seed_gives_the_same_fit_whatever_other_seeds_run_beside_it():
    features, labels, folds = make()
    one = adam_probe(features, labels, folds, [43], **SHAPE)[0]
    two = adam_probe(features, labels, folds, [42, 43], **SHAPE)[1]
    assert [f.scores.tobytes() for f in one] == [f.scores.tobytes() for f in two]


def test_features_may_be_a_memory_map_and_progress_counts_fits(tmp_path):
    features, labels, folds = make()
    np.save(tmp_path / "x.npy", features)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    calls = []
    a = adam_probe(mapped, labels, folds, [1, 2], progress=lambda: calls.append(1), **SHAPE)
    b = adam_probe(features, labels, folds, [1, 2], **SHAPE)
    assert a[1][1].scores.tobytes() == b[1][1].scores.tobytes()
    assert len(calls) == 4


def test_the_first_weights_are_those_of_a_linear_layer():
    torch.manual_seed(7)
    layer = torch.nn.Linear(5, 3)
    flat = initial(torch.Generator().manual_seed(7), 3, 5)
    assert torch.equal(flat, torch.cat([layer.weight.flatten(), layer.bias]).detach())


@needs_shared
def test_ten_steps_give_the_references_weights():
    data = {name: torch.from_numpy(value) for name, value in arrays("lineareval_step_vector.npz").items()}
    adam = Adam(1e-3, 1e-8)
    p = torch.cat([data["W0"].flatten(), data["b0"]])[None]
    g, m, v, scratch = (torch.zeros_like(p) for _ in range(4))
    for step in range(10):
        gradient(split(p, 10), data["X"][None], data["Y"].argmax(1)[None], 1 / 2000, split(g, 10), False)
        factors = torch.from_numpy(adam.factors(np.array([[step + 1]]), np.array([[True]])))
        adam.update(p, g, m, v, factors, scratch)
    np.testing.assert_allclose(p[0], torch.cat([data["W10"].flatten(), data["b10"]]), atol=1e-6)


SEEDS = range(100, 120)


def digits(tag):
    """Return the digits as the reference saw them: the fold of sample i is i mod 5."""
    x, y = load_digits(return_X_y=True)
    number = np.arange(len(y)) % 5
    if "5fold" in tag:
        k = int(tag[-1])
        fold = Fold(tag, np.flatnonzero(number != k), None, np.flatnonzero(number == k))
    else:
        fold = Fold(tag, np.flatnonzero(number > 1), np.flatnonzero(number == 1), np.flatnonzero(number == 0))
    return x.astype(np.float32), y, fold


def reference(tag):
    runs = [run for run in json.loads(golden("lineareval_digits.json").read_text()) if run["tag"] == tag]
    return [run["score"] for run in runs], [run["epochs"] for run in runs]


def assert_like(ours, theirs):
    """Assert that Welch's 99 % interval of the difference holds 0.

    Where the reference's few runs are all equal they say nothing of its spread; ours is then taken for theirs.
    """
    if np.std(theirs) == 0:
        spread = np.std(ours, ddof=1)
        assert abs(np.mean(ours) - np.mean(theirs)) <= 2.86 * spread * np.sqrt(1 / len(ours) + 1 / len(theirs))
        return
    interval = welch_interval(ours, theirs, 0.99)
    assert interval.low <= 0 <= interval.high


DIGITS = ["digits_trainvalidtest", "digits_trainvalidtest_lr3e-4", "digits_trainvalidtest_lr3e-5"]


@needs_shared
@pytest.mark.parametrize("tag", [*DIGITS, *(f"digits_5fold_noval_f{k}" for k in range(5))])
def test_digits_agree_with_the_reference(tag):
    x, y, fold = digits(tag)
    lr = float(tag.split("_lr")[1]) if "_lr" in tag else 1e-3
    fits = adam_probe(x, y, [fold], SEEDS, n_classes=10, multi_label=False, lr=lr, batched=True)
    scores, epochs = reference(tag)
    assert_like([fit.score for (fit,) in fits], scores)
    assert_like([fit.epochs for (fit,) in fits], epochs)


@needs_shared
@pytest.mark.parametrize(("tag", "option"), [("noscaler", {"standardize": False}), ("noES", {"patience": None})])
def test_options_agree_with_the_references_single_run(tag, option):
    x, y, fold = digits(tag)
    fits = adam_probe(x, y, [fold], range(100, 108), n_classes=10, multi_label=False, lr=1e-3, batched=True, **option)
    (score,), (epochs,) = reference(f"digits_{tag}")
    scores = np.array([fit.score for (fit,) in fits])
    assert abs(score - scores.mean()) < 3 * scores.std(ddof=1) * np.sqrt(1 + 1 / 8)
    assert epochs == 200 and (tag != "noES" or {fit.epochs for (fit,) in fits} == {200})


@needs_shared
def test_real_embeddings_agree_with_the_reference():
    data = arrays("fsdd_byola_embeddings.npz")
    parts = ("train", "valid", "test")
    x, y = (np.concatenate([data[part + end] for part in parts]) for end in ("", "_label"))
    rows = np.split(np.arange(len(y)), [2400, 2700])
    fits = adam_probe(x, y, [Fold("official", *rows)], SEEDS, n_classes=10, multi_label=False, lr=3e-4)
    theirs = json.loads(golden("fsdd_byola_scores.json").read_text())["scores"]
    assert_like([fit.score for (fit,) in fits], list(theirs.values()))
    assert np.mean([fit.epochs for (fit,) in fits]) > 170  # the reference: 198, 200, 200, recorded end to end


def test_two_classes_are_two_columns_and_accuracy_is_accuracy():
    features, labels, folds = make(n_classes=2)
    (fit, _) = adam_probe(features, labels, folds, [0], **SHAPE | {"n_classes": 2})[0]
    assert fit.scores.shape == (len(folds[0].test), 2)
    assert fit.score == (fit.scores.argmax(1) == labels[folds[0].test]).mean() > 0.8


def test_ties_count_as_better_so_a_plateau_runs_to_the_end():
    features, labels, folds = make(n=400)
    features[:, 0] = labels * 100  # a perfect feature: validation accuracy soon stays at 1
    features[:, 1] = labels == 2
    easy = np.eye(4, dtype=np.float32)[labels]
    (fit, _) = adam_probe(easy, labels, folds, [0], **SHAPE)[0]
    assert (fit.epochs, fit.best_epoch, fit.best_valid, fit.score) == (40, 40, 1.0, 1.0)


def test_an_unseen_class_is_named():
    features, labels, folds = make()
    train = folds[0].train[labels[folds[0].train] != 3]
    with pytest.raises(UserError, match=r"fold 'a'.*'dog'"):
        adam_probe(
            features, labels, [Fold("a", train, None, folds[0].test)], [0], class_names=["a", "b", "c", "dog"], **SHAPE
        )


def test_values_that_are_not_finite_are_refused_by_row():
    features, labels, folds = make()
    features[folds[0].train[3], 2] = np.nan
    with pytest.raises(UserError, match=f"row {folds[0].train[3]} "):
        adam_probe(features, labels, folds, [0], **SHAPE)


def test_the_random_tenth_is_the_one_scikit_learn_draws():
    labels = np.arange(300) % 3
    np.random.seed(42)
    expected = train_test_split(np.arange(300), test_size=0.1)
    kept, held = random_part(labels, 3, 0.1, np.random.RandomState(42))
    assert (kept == expected[0]).all() and (held == expected[1]).all()


def test_the_random_tenth_is_drawn_again_until_it_has_every_class():
    labels = np.repeat(np.arange(20), 25)  # one draw in four has all twenty
    for seed in range(5):
        _, held = random_part(labels, 20, 0.1, np.random.RandomState(seed))
        assert len(held) == 50 and len(np.unique(labels[held])) == 20


def test_too_small_for_a_random_tenth_says_what_to_do():
    features, labels, _ = make(n=30)
    with pytest.raises(UserError, match="--valid_rule=grouped"):
        adam_probe(features, labels, [Fold("a", np.arange(20), None, np.arange(20, 30))], [0], **SHAPE)
    fold = Fold("a", np.arange(20), None, np.arange(20, 30))
    assert adam_probe(features, labels, [fold], [0], valid_rule="grouped", **SHAPE)[0][0].info["n_valid"] == 2


@given(st.integers(0, 2**32 - 1), st.integers(4, 40), st.sampled_from([0.1, 0.2]))
@settings(max_examples=40, deadline=None)
def test_the_grouped_part_splits_no_group_and_starves_no_class(seed, n_groups, fraction):
    stream = np.random.default_rng(seed)
    group = stream.integers(0, n_groups, 200)
    labels = stream.integers(0, 3, 200)
    names = [f"speaker {g}" for g in group]
    kept, held = grouped_part(labels, 3, fraction, names)
    assert sorted([*kept, *held]) == list(range(200)) and len(held)
    assert not set(group[kept]) & set(group[held])
    assert set(labels[kept]) == set(labels)
    order = stream.permutation(200)
    _, again = grouped_part(labels[order], 3, fraction, [names[n] for n in order])
    assert sorted(order[again]) == held.tolist()


def test_the_grouped_part_is_stratified():
    labels = np.repeat(np.arange(50), 32)
    _, held = grouped_part(labels, 50, 0.1, [f"source {n // 2}" for n in range(1600)])
    assert set(np.bincount(labels[held], minlength=50)) == {4}  # of 32; two would be further from a tenth


def test_the_scaler_is_scikit_learns_also_for_constant_features():
    stream = np.random.default_rng(0)
    features = (stream.normal(size=(9000, 6)) * [1, 1e-3, 100, 1, 1, 1] + [0, 50, 1e4, 0, 0, 0]).astype(np.float32)
    features[:, 4] = 3.1
    rows = stream.permutation(9000)[:8000]
    ours, theirs = fit_scaler(features, rows), StandardScaler().fit(features[rows].astype(np.float64))
    np.testing.assert_allclose(ours.mean, theirs.mean_, rtol=1e-10)
    np.testing.assert_allclose(ours.scale, theirs.scale_, rtol=1e-10)
    np.testing.assert_allclose(
        ours.apply(features, rows)[:, [0, 3, 5]], theirs.transform(features[rows])[:, [0, 3, 5]], atol=1e-5
    )


def test_draws_differ_by_seed_and_fold():
    firsts = {torch.rand(1, generator=draws_of(s, f)).item() for s in range(3) for f in range(3)}
    assert len(firsts) == 9


def test_a_feature_whose_spread_float32_cannot_hold_counts_as_constant():
    features = np.zeros((6, 2), dtype=np.float32)
    features[:, 0] = np.arange(6)
    features[3:, 1] = 1e-45
    scaler = fit_scaler(features, np.arange(6))
    scaled = scaler.apply(features, np.arange(6))
    assert np.isfinite(scaled).all() and scaled[:, 0].std() == pytest.approx(1)
