"""Paired tests: closed forms, scipy, plain twins; by simulation what intervals cover and how often tests err."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from evar.metrics import mean_average_precision
from evar.paired import clustered_mcnemar, holm, mcnemar, paired_bootstrap, paired_map

COUNT = st.integers(0, 60)
P = st.one_of(st.none(), st.floats(0, 1))


@given(COUNT, COUNT)
@settings(max_examples=50, deadline=None)
def test_mcnemar_is_the_binomial_test_of_the_discordant_clips(b, c):
    if b + c:
        assert mcnemar(b, c, "exact") == pytest.approx(stats.binomtest(b, b + c).pvalue)
        tail = stats.binom.cdf(min(b, c) - 1, b + c, 0.5) + stats.binom.pmf(min(b, c), b + c, 0.5) / 2
        assert mcnemar(b, c) == pytest.approx(2 * tail)
        assert mcnemar(b, c, "chi2") == pytest.approx(stats.chi2.sf(max(abs(b - c) - 1, 0) ** 2 / (b + c), 1))
    for method in ("midp", "exact", "chi2"):
        assert mcnemar(b, c, method) == pytest.approx(mcnemar(c, b, method))
        assert 0 <= mcnemar(b, c, method) <= 1
    assert mcnemar(b, c) <= mcnemar(b, c, "exact") + 1e-12


def test_mcnemar_of_a_textbook_table():
    """3 against 9 discordant pairs: the binomial tail by hand."""
    ways = [sum(1 for _ in itertools.combinations(range(12), k)) for k in range(13)]
    assert mcnemar(3, 9, "exact") == pytest.approx(2 * sum(ways[:4]) / 2**12)
    assert mcnemar(3, 9, "midp") == pytest.approx((2 * sum(ways[:4]) - ways[3]) / 2**12)
    assert mcnemar(3, 9, "chi2") == pytest.approx(stats.chi2.sf(25 / 12, 1))


def test_the_clustered_test_of_single_clips_is_mcnemars():
    a, b = np.repeat([1, 0, 1, 0], [9, 3, 40, 8]), np.repeat([0, 1, 1, 0], [9, 3, 40, 8])
    assert clustered_mcnemar(a, b) == pytest.approx(stats.chi2.sf(6**2 / 12, 1))
    assert clustered_mcnemar(a, a) == 1.0
    ten = np.repeat(np.arange(60), 10)  # ten copies of a clip are no further evidence
    assert clustered_mcnemar(a[ten], b[ten], ten.tolist()) == pytest.approx(clustered_mcnemar(a, b))


@given(st.lists(P, max_size=8))
def test_holm_steps_down(values):
    adjusted = holm(values)
    there = sorted(v for v in values if v is not None)
    for value, found in zip(values, adjusted, strict=True):
        if value is None:
            assert found is None
            continue
        expected = max(min(1.0, (len(there) - k) * v) for k, v in enumerate(there) if v <= value)
        assert found == pytest.approx(expected)
        assert value <= found <= 1


def test_holm_of_the_usual_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def correlated_hits(stream, n, a, b, share=0.5, unit=None, common=0.0, own=0.0):
    """Return hits of two models of accuracies ``a`` and ``b``; ``share``: how far hard clips are hard for both.

    ``unit``: groups; ``common`` and ``own``: deviation of a group's difficulty for both, and for each model.
    """
    hard = np.sqrt(share) * stream.normal(size=n)
    total = np.sqrt(1 + common**2 + own**2) if unit is not None else 1.0
    groups = 0 if unit is None else unit.max() + 1
    both = 0 if unit is None else common * stream.normal(size=groups)[unit]
    out = []
    for accuracy in (a, b):
        latent = hard + both + np.sqrt(1 - share) * stream.normal(size=n)
        latent = latent if unit is None else latent + own * stream.normal(size=groups)[unit]
        out.append(latent / total < stats.norm.ppf(accuracy))
    return out


def plain_ends(a, b, unit, weight, draws, seed):
    """Return the bootstrap's quantiles written the obvious way: units drawn one by one, Hesterberg's percentiles."""
    stream = np.random.default_rng(seed)
    members = [np.flatnonzero(unit == u) for u in np.unique(unit)]
    n = len(members)
    values = []
    for _ in range(draws):
        rows = np.concatenate([members[k] for k in stream.integers(0, n, n)])
        values.append(np.average(a[rows] - b[rows], weights=weight[rows]))
    tail = stats.norm.cdf(stats.t.ppf(0.025, n - 1) * np.sqrt(n / (n - 1)))
    return np.quantile(values, [tail, 1 - tail])


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_paired_bootstrap_is_the_plain_one(clustered, weighted):
    stream = np.random.default_rng(1)
    a, b = correlated_hits(stream, 300, 0.8, 0.7)
    a, b = a.astype(float), b / 3 + correlated_hits(stream, 300, 0.8, 0.7)[1] * 2 / 3  # B: three seeds
    unit = stream.integers(0, 40, 300) if clustered else np.arange(300)
    weight = np.where(np.arange(300) < 100, 1.5, 0.75) if weighted else np.ones(300)
    found = paired_bootstrap(a, b, groups=unit.tolist() if clustered else None, weights=weight)
    assert found.interval.point == pytest.approx(np.average(a - b, weights=weight))
    expected = plain_ends(a, b, unit, weight, 3000, 2)
    np.testing.assert_allclose([found.interval.low, found.interval.high], expected, atol=0.012)
    assert (found.p < 0.05) == (found.interval.low > 0)
    turned = paired_bootstrap(b, a, groups=unit.tolist() if clustered else None, weights=weight)
    assert turned.interval.point == pytest.approx(-found.interval.point)
    assert turned.p == pytest.approx(found.p, abs=0.01)


def test_groups_of_clips_widen_the_paired_interval():
    stream = np.random.default_rng(2)
    unit = np.repeat(np.arange(30), 20)
    a, b = correlated_hits(stream, 600, 0.8, 0.7, unit=unit, own=1.0)
    plain, grouped = paired_bootstrap(a, b), paired_bootstrap(a, b, groups=unit.tolist())
    assert grouped.interval.half_width > 2 * plain.interval.half_width
    assert "30 groups" in grouped.interval.method and "600 clips" in plain.interval.method


def test_few_units_have_students_interval():
    stream = np.random.default_rng(3)
    unit = np.repeat(np.arange(6), 50)
    a, b = correlated_hits(stream, 300, 0.8, 0.6, unit=unit, own=0.5)
    found = paired_bootstrap(a, b, groups=unit.tolist())
    of_units = (a.astype(int) - b).reshape(6, 50).mean(axis=1)
    test = stats.ttest_1samp(of_units, 0)
    assert found.p == pytest.approx(test.pvalue)
    assert [found.interval.low, found.interval.high] == pytest.approx(list(test.confidence_interval(0.95)))
    assert found.interval.method == "paired Student t over 6 groups"


def test_models_that_no_clip_tells_apart_may_still_differ_a_little():
    same = np.ones(100)
    found = paired_bootstrap(same, same)
    assert (found.interval.point, found.p) == (0.0, 1.0)
    bound = stats.binomtest(0, 100).proportion_ci(0.95, "exact").high
    assert (found.interval.low, found.interval.high) == pytest.approx((-bound, bound))
    alone = paired_bootstrap(np.ones(5), np.zeros(5), groups=["one speaker"] * 5)
    assert alone.interval.half_width is None and alone.p is None
    all_of_five = paired_bootstrap(np.ones(5), np.zeros(5))
    assert all_of_five.p == pytest.approx(2 / 2**5) and all_of_five.interval.half_width is None


SIMULATED = {
    "100 clips, equal": (100, 0.8, 0.8, None),
    "300 clips, equal, high": (300, 0.95, 0.95, None),
    "400 clips, unequal": (400, 0.75, 0.7, None),
    "6 speakers, equal": (300, 0.8, 0.8, 6),
    "30 speakers, equal": (300, 0.8, 0.8, 30),
    "30 speakers, unequal": (300, 0.85, 0.75, 30),
}


@pytest.mark.parametrize("case", SIMULATED)
def test_the_paired_interval_covers_and_the_test_keeps_its_level(case):
    n, a, b, speakers = SIMULATED[case]
    unit = None if speakers is None else np.arange(n) * speakers // n
    stream = np.random.default_rng(4)
    covered, rejected, mcnemars = [], [], []
    for trial in range(600):
        hits = correlated_hits(stream, n, a, b, unit=unit, common=0.5, own=0.3)
        found = paired_bootstrap(*hits, groups=None if unit is None else unit.tolist(), draws=1000, seed=trial)
        covered.append(found.interval.low <= a - b <= found.interval.high)
        rejected.append(found.p < 0.05)
        only_a, only_b = int((hits[0] & ~hits[1]).sum()), int((hits[1] & ~hits[0]).sum())
        mcnemars.append(
            clustered_mcnemar(*hits, None if unit is None else unit.tolist()) < 0.05
            if unit is not None
            else mcnemar(only_a, only_b) < 0.05
        )
    # Six groups of binary clips: Student's interval is on the safe side.
    assert 0.93 <= np.mean(covered) <= (0.99 if speakers == 6 else 0.97)
    if a == b:
        assert np.mean(rejected) <= 0.06
        assert np.mean(mcnemars) <= 0.06
    else:
        assert np.mean(rejected) > 0.3


def test_ignoring_speakers_would_find_differences_that_are_not_there():
    unit = np.arange(600) // 20
    stream = np.random.default_rng(5)
    errors = {"speakers": 0, "clips": 0}
    for trial in range(200):
        a, b = correlated_hits(stream, 600, 0.8, 0.8, unit=unit, own=0.6)
        errors["speakers"] += paired_bootstrap(a, b, groups=unit.tolist(), draws=500, seed=trial).p < 0.05
        errors["clips"] += paired_bootstrap(a, b, draws=500, seed=trial).p < 0.05
    assert errors["speakers"] / 200 <= 0.08  # 0.05 and two standard errors
    assert errors["clips"] / 200 > 0.2


SEPARATION = np.linspace(0.5, 2.5, 20)


def draw_scores(stream, n, prevalence, a, b, share):
    """Return scores of two models and targets; how far positives lie above negatives differs by class and model."""
    targets = stream.random((n, len(a))) < prevalence
    both = np.sqrt(share) * stream.normal(size=targets.shape)
    one, other = (both + np.sqrt(1 - share) * stream.normal(size=targets.shape) + targets * s for s in (a, b))
    return one[None], other[None], targets


def true_map(prevalence, separation):
    """Return the mAP of infinitely many clips: the mean precision at a positive's score."""

    def precision(t, s):
        found = prevalence * stats.norm.sf(t - s)
        return stats.norm.pdf(t - s) * found / (found + (1 - prevalence) * stats.norm.sf(t))

    return np.mean([integrate.quad(precision, s - 9, s + 9, args=(s,), limit=200)[0] for s in separation])


def simulated_maps(trials, n, prevalence, a, b, share, seed):
    """Return ``(coverage of the true difference, share of p below 0.05)``."""
    truth = true_map(prevalence, a) - true_map(prevalence, b)
    stream = np.random.default_rng(seed)
    found = [paired_map(*draw_scores(stream, n, prevalence, a, b, share), draws=10, seed=k) for k in range(trials)]
    covered = np.mean([f.interval.low <= truth <= f.interval.high for f in found])
    return covered, np.mean([f.p < 0.05 for f in found])


def test_the_paired_map_interval_covers():
    covered, rejected = simulated_maps(120, 400, 0.05, SEPARATION[::2], SEPARATION[::-2] - 0.131578947, 0.5, 6)
    assert covered >= 0.92 and rejected <= 0.08  # two standard errors of 120 trials


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "prevalence", "better", "share"),
    [(1000, 0.02, 0, 0.5), (300, 0.05, 0, 0.8), (1000, 0.02, 0.3, 0.5), (1000, 0.02, 1, 0.5), (1000, 0.05, 1, 0.8)],
)
def test_the_paired_map_interval_covers_in_many_cases(n, prevalence, better, share):
    """The percentile bootstrap of the difference covers 80 to 85 times in 100 where one model is better by 1 σ."""
    covered, rejected = simulated_maps(400, n, prevalence, SEPARATION + better, SEPARATION, share, 7)
    assert 0.93 <= covered <= 0.985
    if not better:
        assert rejected <= 0.06


def test_the_paired_map_is_the_difference_and_turns_with_its_sides():
    a, b, targets = draw_scores(np.random.default_rng(8), 300, 0.1, SEPARATION + 0.5, SEPARATION, 0.5)
    found, turned = paired_map(a, b, targets), paired_map(b, a, targets)
    expected = mean_average_precision(a[0], targets) - mean_average_precision(b[0], targets)
    assert found.interval.point == pytest.approx(expected)
    assert turned.interval.low == pytest.approx(-found.interval.high) and turned.p == pytest.approx(found.p)
    assert found.p < 0.05 and found.interval.low > 0
    assert paired_map(a, a, targets).p == 1.0
    twice = paired_map(np.concatenate([a, a]), b, targets)  # the same seed twice is no more evidence
    assert twice.interval.half_width == pytest.approx(found.interval.half_width, rel=1e-6)


def test_repeated_clips_in_groups_do_not_narrow_the_paired_map():
    a, b, targets = draw_scores(np.random.default_rng(9), 300, 0.1, SEPARATION + 0.2, SEPARATION, 0.5)
    four = np.repeat(np.arange(300), 4)
    plain = paired_map(a, b, targets).interval.half_width
    grouped = paired_map(a[:, four], b[:, four], targets[four], groups=four.tolist()).interval.half_width
    assert grouped == pytest.approx(plain, rel=0.1)
    assert paired_map(a[:, four], b[:, four], targets[four]).interval.half_width < 0.7 * plain


def test_too_few_positives_give_no_paired_map():
    scores, targets = np.random.default_rng(0).normal(size=(2, 50, 2)), np.zeros((50, 2))
    targets[0, 0] = targets[1, 1] = 1
    found = paired_map(scores[:1], scores[1:], targets)
    assert found.p is None and found.interval.half_width is None and "too few" in found.interval.method
