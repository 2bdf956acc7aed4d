"""Means, intervals by patient, and correlation."""

import math

import numpy as np
import pytest

from wsisam_qupath_training.evaluate.measures import correlation, estimate


def test_an_interval_holds_the_mean_and_is_the_same_each_time() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(0.8, 0.1, 60).tolist()
    groups = [f"p{index % 7}" for index in range(60)]

    found, again = (estimate(values, groups, seed=3) for _ in range(2))

    assert found == again
    assert found.mean == pytest.approx(np.mean(values))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.mean < found.high
    assert (found.objects, found.groups) == (60, 7)


def test_whole_patients_are_drawn() -> None:
    """Of two patients, a sample has one twice, or both: three possible means."""
    found = estimate([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"])

    assert (found.mean, found.low, found.high) == (0.75, 0.0, 1.0)


def test_equal_values_of_equal_patients_have_a_narrow_interval() -> None:
    found = estimate([0.5] * 8, list("aabbccdd"))

    assert (found.low, found.high) == (0.5, 0.5)


def test_objects_of_one_patient_say_less_than_those_of_many() -> None:
    values = [0.9] * 20 + [0.5] * 20
    of_many = estimate(values, list(range(40)))
    of_few = estimate(values, ["a"] * 20 + ["b"] * 20)

    assert of_many.low is not None
    assert of_few.low is not None
    assert of_few.low < of_many.low


def test_one_patient_says_nothing_about_others() -> None:
    found = estimate([0.1, 0.9], ["a", "a"])

    assert (found.mean, found.low, found.high) == (0.5, None, None)


def test_the_interval_of_a_mean_of_normal_numbers_is_what_statistics_say() -> None:
    """One object a patient: ± 1.96 standard errors."""
    values = np.random.default_rng(1).normal(0.0, 1.0, 400)

    found = estimate(values.tolist(), list(range(400)))

    half = 1.96 * values.std() / math.sqrt(400)
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)


def test_correlation_is_pearsons() -> None:
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1.0)
    assert correlation([1, 2, 3], [1, 0, -1]) == pytest.approx(-1.0)
    # Deviations (-1, 0, 1) and (-1, 1, 0): 1 / 2.
    assert correlation([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)


def test_pairs_with_what_is_no_number_are_left_out() -> None:
    assert correlation([1, math.nan, 2, 3], [1, 50, 3, 2]) == pytest.approx(0.5)


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0]), ([1, 1, 1], [1, 2, 3])])
def test_without_variation_there_is_no_correlation(first: list[float], second: list[float]) -> None:
    assert correlation(first, second) is None
