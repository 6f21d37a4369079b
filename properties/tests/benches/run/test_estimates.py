"""Estimates on distributions with known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benches.run.estimates import growth, log_ratios, median_estimate, ratio, small_sample_stretch, student_975

# Printed in every table of Student's t.
T_TABLE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 7: 2.3646, 15: 2.1314, 30: 2.0423, 120: 1.9799, 1000: 1.9623}

seeds = st.integers(0, 2**32 - 1)
samples = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=40)


@pytest.mark.parametrize(("freedom", "quantile"), T_TABLE.items(), ids=str)
def test_quantile_of_students_t(freedom: int, quantile: float) -> None:
    assert student_975(freedom) == pytest.approx(quantile, abs=2e-4)


def test_a_few_clusters_widen_the_interval_and_many_do_not() -> None:
    stretches = [small_sample_stretch(count) for count in (2, 3, 5, 8, 30, 400)]
    assert stretches == sorted(stretches, reverse=True)
    assert stretches[-1] == pytest.approx(1, abs=5e-3)
    assert small_sample_stretch(1) == 1


@settings(deadline=None, max_examples=50)
@given(samples, st.integers(1, 5), seeds)
def test_the_estimate_is_the_median_and_lies_in_its_interval(values: list[float], clusters: int, seed: int) -> None:
    labels = np.arange(len(values)) % clusters
    estimate = median_estimate(values, labels, seed=seed)
    assert estimate.value == np.median(values)
    assert estimate.lo95 <= estimate.value <= estimate.hi95
    assert (estimate.samples, estimate.clusters) == (len(values), len(set(labels.tolist())))


@settings(deadline=None, max_examples=50)
@given(samples, st.floats(1.01, 50), st.integers(2, 4))
def test_equal_contenders_and_constant_factors(values: list[float], factor: float, clusters: int) -> None:
    labels = np.arange(len(values)) % clusters
    scaled = ratio(np.asarray(values) * factor, values, labels)
    assert (scaled.value, scaled.lo95, scaled.hi95) == pytest.approx((factor, factor, factor), rel=1e-9)


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_numerator_and_denominator_swapped_give_the_inverse(seed: int) -> None:
    rng = np.random.default_rng(seed)
    (first, second), labels = rng.lognormal(size=(2, 30)), np.repeat(np.arange(5), 6)
    there, back = ratio(first, second, labels, seed=1), ratio(second, first, labels, seed=1)
    assert back.value == pytest.approx(1 / there.value)
    # The stretch applies to the distance from the median, so that the ends swap up to how the quantiles of the draws are cut.
    assert math.log(back.hi95) == pytest.approx(-math.log(there.lo95), abs=0.05)


@pytest.mark.parametrize(
    ("clusters", "each", "between", "within"), [(3, 12, 0.03, 0.05), (5, 10, 0.03, 0.02), (8, 20, 0.02, 0.1), (16, 5, 0.05, 0.05)]
)
def test_intervals_cover_the_truth_as_often_as_they_say(clusters: int, each: int, between: float, within: float) -> None:
    rng = np.random.default_rng([clusters, each])
    labels, trials, covered = np.repeat(np.arange(clusters), each), 400, 0
    for trial in range(trials):
        values = 0.3 + (rng.normal(0, between, (clusters, 1)) + rng.normal(0, within, (clusters, each))).ravel()
        estimate = median_estimate(values, labels, seed=trial)
        covered += estimate.lo95 <= 0.3 <= estimate.hi95
    # Three standard deviations of a binomial share about 95 %, and two points for the bootstrap's own approximation.
    assert 0.95 - 0.033 - 0.02 <= covered / trials <= 0.95 + 0.033 + 0.01


def test_samples_that_share_a_process_do_not_count_as_independent() -> None:
    rng = np.random.default_rng(7)
    bias = rng.normal(0, 0.1, 6)
    values = np.repeat(bias, 50) + rng.normal(0, 0.001, 300)
    clustered = median_estimate(values, np.repeat(np.arange(6), 50))
    believed = median_estimate(values, np.arange(300))
    assert clustered.hi95 - clustered.lo95 > 3 * (believed.hi95 - believed.lo95)


def test_a_drift_that_both_contenders_see_cancels() -> None:
    drift = np.exp(np.linspace(0, 2, 60))
    noise = np.random.default_rng(0).normal(0, 0.01, 60)
    estimate = ratio(drift * 3 * np.exp(noise), drift, np.repeat(np.arange(6), 10))
    assert estimate.value == pytest.approx(3, rel=0.01)
    assert estimate.hi95 / estimate.lo95 < 1.05


def test_outliers_of_a_busy_machine_do_not_move_the_median() -> None:
    rng = np.random.default_rng(3)
    slow = np.where(rng.uniform(size=80) < 0.2, 20.0, 1.0)
    assert ratio(2 * slow, np.ones(80), np.repeat(np.arange(8), 10)).value == 2


def test_the_same_seed_gives_the_same_interval() -> None:
    values, labels = np.random.default_rng(5).normal(size=40), np.repeat(np.arange(4), 10)
    assert median_estimate(values, labels, seed=9) == median_estimate(values, labels, seed=9)


@pytest.mark.parametrize("sample", [0.0, -1.0, math.nan, math.inf])
def test_a_sample_that_is_no_duration_is_named(sample: float) -> None:
    with pytest.raises(ValueError, match=r"sample 1 is"):
        log_ratios([1.0, sample], [1.0, 1.0])


def test_samples_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="there are 2 and 3"):
        log_ratios([1.0, 1.0], [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="at least one value"):
        median_estimate([], [])


@settings(deadline=None, max_examples=30)
@given(st.floats(0.3, 2.5), st.floats(0, 20), st.floats(0.05, 2), seeds)
def test_a_power_law_above_a_floor_is_found_again(exponent: float, floor: float, slope: float, seed: int) -> None:
    sizes = np.repeat([1.0, 4.0, 16.0, 64.0, 256.0, 1024.0], 5)
    noise = np.exp(np.random.default_rng(seed).normal(0, 0.01, sizes.size))
    fit = growth(sizes, (floor + slope * sizes**exponent) * noise, np.tile(np.arange(5), 6))
    assert fit.floor + fit.slope * 1024.0**fit.exponent.value == pytest.approx(floor + slope * 1024**exponent, rel=0.05)
    if slope * 64**exponent > 2 * floor:  # with less of it above the floor, the exponent is anybody's guess
        assert fit.exponent.value == pytest.approx(exponent, abs=0.08)
        assert fit.exponent.lo95 - 0.05 <= exponent <= fit.exponent.hi95 + 0.05


def test_a_cost_that_does_not_grow_has_no_slope() -> None:
    fit = growth([1, 2, 4, 8, 16], [5.0, 5.0, 5.0, 5.0, 5.0], range(5))
    np.testing.assert_allclose(fit.floor + fit.slope * np.array([1, 16, 1000]) ** fit.exponent.value, 5, rtol=1e-6)


def test_a_growth_needs_three_sizes() -> None:
    with pytest.raises(ValueError, match="three or more positive sizes"):
        growth([1, 1, 2], [1.0, 1.0, 1.0], [0, 1, 2])
