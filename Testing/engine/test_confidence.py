"""Bootstrap and sign flips: against enumeration by hand, scipy, and the coverage that an interval promises."""

import itertools

import numpy as np
import pytest
from scipy import stats
from segmamba.errors import InputError
from segmamba.evaluation import confidence
from segmamba.evaluation.confidence import bootstrap_means, mean_interval, paired_lower_bound, sign_flip_test


def rng(seed=0):
    return np.random.default_rng(seed)


# ---- Bootstrap


def test_bootstrap_of_three_cases_has_the_means_of_every_draw_as_often_as_chance_has_it():
    values = [0.0, 0.4, 1.0]
    chance = {}
    for draw in itertools.product(values, repeat=3):
        mean = round(sum(draw) / 3, 9)
        chance[mean] = chance.get(mean, 0) + 1 / 27
    means = bootstrap_means(values, rng=rng(), resamples=20_000)
    found, counts = np.unique(means.round(9), return_counts=True)
    assert found.tolist() == sorted(chance)
    # a share p of 20,000 draws has a deviation of at most 0.0035; five of them
    assert counts / 20_000 == pytest.approx([chance[mean] for mean in found.tolist()], abs=0.018)


def test_interval_of_many_cases_is_that_of_the_normal_law():
    values = rng(1).normal(0.8, 0.1, 400)
    low, high = mean_interval(values, rng=rng())
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 10)


def test_interval_agrees_with_scipy():
    values = rng(2).beta(8, 2, 25)
    theirs = stats.bootstrap([values], np.mean, method="percentile", n_resamples=20_000, rng=rng(3)).confidence_interval
    assert mean_interval(values, rng=rng(), resamples=20_000) == pytest.approx((theirs.low, theirs.high), abs=2e-3)


def test_columns_do_not_depend_on_each_other_nor_on_the_size_of_the_chunks(monkeypatch):
    values = rng(4).random((30, 3))
    together = bootstrap_means(values, rng=rng(), resamples=501)
    assert together.shape == (501, 3)
    assert bootstrap_means(values[:, 1], rng=rng(), resamples=501) == pytest.approx(together[:, 1], rel=1e-12)
    monkeypatch.setattr(confidence, "_CHUNK", 100)
    assert bootstrap_means(values, rng=rng(), resamples=501) == pytest.approx(together, rel=1e-12)


def test_a_generator_of_the_same_seed_gives_the_same_interval():
    values = rng(5).random(12)
    assert mean_interval(values, rng=rng(7)) == mean_interval(values, rng=rng(7))
    assert mean_interval(values, rng=rng(7)) != mean_interval(values, rng=rng(8))


def test_a_level_is_the_share_between_the_ends():
    values = rng(6).random(40)
    means = bootstrap_means(values, rng=rng())
    for level in (0.5, 0.9, 0.99):
        low, high = mean_interval(values, rng=rng(), level=level)
        assert np.mean((means >= low) & (means <= high)) == pytest.approx(level, abs=0.002)


# ---- The lower bound of a change


def test_lower_bound_is_one_sided_and_paired():
    champion = rng(8).uniform(0.2, 0.95, 100)
    change = rng(9).normal(-0.004, 0.04, 100)
    bound = paired_lower_bound(champion + change, champion, rng=rng())
    assert bound == pytest.approx(change.mean() - 1.645 * change.std() / 10, abs=5e-4)
    # the cases vary five times as much as the change: unpaired, the bound would lie near -0.05
    assert bound > -0.015
    assert paired_lower_bound(champion, champion, rng=rng()) == 0.0


def test_lower_bound_of_several_regions():
    champion, change = rng(8).random((20, 3)), np.array([0.1, 0.0, -0.1])
    assert paired_lower_bound(champion + change, champion, rng=rng()) == pytest.approx(change, abs=1e-12)


def test_lower_bound_is_below_the_truth_as_often_as_it_says():
    generator = rng(10)
    below = [
        paired_lower_bound(generator.normal(0.02, 0.05, 60), np.zeros(60), rng=generator, resamples=400) <= 0.02
        for _ in range(400)
    ]
    assert 0.91 <= np.mean(below) <= 0.98  # 0.95, with three deviations of 400 trials and a little for n = 60


# ---- Sign flips


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_few_cases_are_counted_out(n):
    values = rng(n).normal(0.3, 1, n)
    sums = [abs(sum(s * v for s, v in zip(signs, values))) for signs in itertools.product((1, -1), repeat=n)]
    expected = sum(total >= abs(values.sum()) - 1e-9 for total in sums) / 2**n
    assert sign_flip_test(values, rng=rng()) == (pytest.approx(expected), True)


def test_exact_agrees_with_scipy_and_ties_count():
    values = np.array([0.1, 0.2, 0.3, -0.1, 0.0, 0.2, 0.4])  # many sums are equal but for their last bits
    theirs = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flip_test(values, rng=rng()).p == pytest.approx(theirs)


def test_the_least_p_and_the_greatest():
    assert sign_flip_test(np.full(6, 0.01), rng=rng()).p == pytest.approx(2**-5)
    assert sign_flip_test(np.zeros(6), rng=rng()).p == 1.0
    assert sign_flip_test([0.5], rng=rng()) == (1.0, True)
    assert sign_flip_test(np.full(100, 0.01), rng=rng()) == (pytest.approx(1 / 10_001), False)


def test_drawn_signs_come_near_the_count_of_all(monkeypatch):
    values = rng(11).normal(0.25, 1, (13, 2))
    exact = sign_flip_test(values, rng=rng())
    monkeypatch.setattr(confidence, "_CHUNK", 1000)
    drawn = sign_flip_test(values, rng=rng(), resamples=4000)
    assert (exact.exact, drawn.exact) == (True, False)
    assert drawn.p == pytest.approx(exact.p, abs=0.04)
    assert np.array_equal(drawn.p, sign_flip_test(values, rng=rng(), resamples=4000).p)


def test_without_a_difference_small_p_are_as_rare_as_they_say():
    p = sign_flip_test(rng(12).standard_t(2, (12, 3000)), rng=rng()).p
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.015)


# ---- What is refused


@pytest.mark.parametrize("values", [[], [0.5], [0.5, np.nan], [0.5, np.inf], np.zeros((2, 2, 2)), 0.5])
def test_wrong_scores_are_refused(values):
    with pytest.raises(InputError, match="scores"):
        mean_interval(values, rng=rng())


def test_wrong_options_are_refused():
    with pytest.raises(InputError, match="level is 95"):
        mean_interval([0.1, 0.2], rng=rng(), level=95)
    with pytest.raises(InputError, match="resamples is 0"):
        sign_flip_test([0.1, 0.2], rng=rng(), resamples=0)
    with pytest.raises(InputError, match="same cases"):
        paired_lower_bound([0.1, 0.2, 0.3], [0.1, 0.2], rng=rng())
    with pytest.raises(InputError, match="nan"):
        sign_flip_test([np.nan], rng=rng())
