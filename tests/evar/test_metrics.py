"""The metrics against scikit-learn, ties included, and the rules where scikit-learn has none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from evar import metrics


def draw(seed, n=60, n_classes=5, levels=None):
    """Return scores (of few distinct values if ``levels``) and multi-hot targets, both kinds in every class."""
    stream = np.random.default_rng(seed)
    targets = (stream.random((n, n_classes)) < 0.3).astype(np.float32)
    targets[0], targets[1] = 1, 0
    scores = stream.normal(size=(n, n_classes)) + targets
    return (np.round(scores * levels) if levels else scores).astype(np.float32), targets


@given(st.integers(0, 10**6), st.sampled_from([None, 1, 3]))
@settings(max_examples=60, deadline=None)
def test_map_and_auc_are_scikit_learns(seed, levels):
    scores, targets = draw(seed, levels=levels)
    expected = sk.average_precision_score(targets, scores, average=None)
    np.testing.assert_allclose(metrics.average_precisions(scores, targets), expected, atol=1e-12)
    assert metrics.mean_average_precision(scores, targets) == pytest.approx(expected.mean(), abs=1e-12)
    assert metrics.roc_auc(scores, targets) == pytest.approx(sk.roc_auc_score(targets, scores), abs=1e-12)


def test_scores_that_are_all_equal_rank_nothing():
    _, targets = draw(0)
    equal = np.ones(targets.shape, dtype=np.float32)
    np.testing.assert_allclose(metrics.average_precisions(equal, targets), targets.mean(axis=0), rtol=1e-6)
    assert metrics.roc_auc(equal, targets) == 0.5


def test_a_class_without_positives_is_left_out():
    scores, targets = draw(1)
    without = targets.copy()
    without[:, 2] = 0
    others = [0, 1, 3, 4]
    assert metrics.mean_average_precision(scores, without) == metrics.mean_average_precision(
        scores[:, others], targets[:, others]
    )
    assert metrics.roc_auc(scores, without) == metrics.roc_auc(scores[:, others], targets[:, others])
    assert np.isnan(metrics.mean_average_precision(scores, np.zeros_like(targets)))
    table = metrics.per_class(scores, without, list("abcde"))
    assert table["c"] is None and table["a"] == metrics.average_precisions(scores, targets)[0]


def test_accuracy_takes_the_first_of_equal_columns():
    scores = np.array([[0.5, 0.5], [0.1, 0.9], [0.2, 0.1]])
    assert metrics.accuracy(scores, np.array([0, 1, 1])) == pytest.approx(2 / 3)


def test_confusion_and_recall_per_class():
    stream = np.random.default_rng(2)
    scores, labels = stream.random((50, 4)), stream.integers(0, 3, 50)  # class 3 has no clip
    table = metrics.confusion_matrix(scores, labels, 4)
    assert (table == sk.confusion_matrix(labels, scores.argmax(1), labels=range(4))).all()
    recall = metrics.per_class(scores, labels, ["a", "b", "c", "d"])
    expected = sk.recall_score(labels, scores.argmax(1), labels=[0, 1, 2], average=None)
    np.testing.assert_allclose([recall["a"], recall["b"], recall["c"]], expected)
    assert recall["d"] is None


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="3 rows of scores and 2"):
        metrics.accuracy(np.zeros((3, 2)), np.zeros(2))
