"""Bounds are those of the papers, hold at every look, and histograms are read as Prometheus reads them."""

import math
import random
from itertools import pairwise

import pytest

from canary_service.rollout.statistics import Proportion, deviations, difference, quantile, shared, up_to

TWO_SIDED_95 = 1.959964
SEED = 20261123


@pytest.mark.parametrize(
    ("hits", "cases", "lower", "upper"),
    # R. G. Newcombe, Two-sided confidence intervals for the single proportion, Statistics in Medicine 17 (1998)
    # 857-872, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_score_interval_is_that_of_the_published_table(hits: int, cases: int, lower: float, upper: float) -> None:
    found = Proportion(hits, cases).wilson(TWO_SIDED_95)

    assert (round(found.lower, 4), round(found.upper, 4)) == (lower, upper)


@pytest.mark.parametrize(
    ("first", "second", "lower", "upper"),
    # R. G. Newcombe, Interval estimation for the difference between independent proportions, Statistics in Medicine 17
    # (1998) 873-890, table II, method 10.
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_the_bounds_of_a_difference_are_those_of_the_published_table(
    first: tuple[int, int], second: tuple[int, int], lower: float, upper: float
) -> None:
    found = difference(Proportion(*first), Proportion(*second), TWO_SIDED_95)

    assert (round(found.lower, 4), round(found.upper, 4)) == (lower, upper)


def test_where_nothing_was_counted_everything_is_possible() -> None:
    found = Proportion(0, 0).wilson(TWO_SIDED_95)

    assert (found.lower, found.upper) == (0, 1)
    assert Proportion(0, 0).rate == 0


def crossings(boundary: str, runs: int = 1000, looks: int = 200) -> float:
    """Return the part of random walks without drift that pass an upper bound at any of their looks."""
    source, crossed = random.Random(SEED), 0  # noqa: S311 - a simulation, which has to be repeatable
    for _ in range(runs):
        walk, variance = 0.0, 0.0
        for _ in range(looks):
            walk += source.gauss(0, 10)
            variance += 100
            bound = deviations(0.95, variance, 100) if boundary == "mixture" else 1.645
            if walk > bound * math.sqrt(variance):
                crossed += 1
                break
    return crossed / runs


def test_looking_200_times_the_bound_is_passed_by_chance_in_no_more_than_5_of_100_steps() -> None:
    assert 0 < crossings("mixture") <= 0.05
    assert crossings("fixed") > 0.25  # what looking once only would give


@pytest.mark.parametrize(("confidence", "least", "most"), [(0.5, 1.6, 2.9), (0.95, 2.7, 3.6), (0.999, 4.0, 4.7)])
def test_the_price_of_looking_often_is_small_over_three_orders_of_magnitude(
    confidence: float, least: float, most: float
) -> None:
    for cases in (100, 300, 1000, 10_000, 50_000):
        assert least < deviations(confidence, cases, 100) < most


def test_a_bound_becomes_tighter_with_every_request() -> None:
    widths = [deviations(0.95, cases, 100) / math.sqrt(cases) for cases in (10, 100, 1000, 10_000)]

    assert all(wider > tighter for wider, tighter in pairwise(widths))


def test_two_groups_tell_less_than_the_smaller_of_them() -> None:
    assert shared(100, 100) == 50
    assert 99 < shared(100, 1e6) < 100
    assert shared(0, 0) == 0


BUCKETS = ((0.1, 50.0), (0.2, 90.0), (0.5, 100.0))


@pytest.mark.parametrize(("part", "value"), [(0.25, 0.05), (0.5, 0.1), (0.7, 0.15), (0.95, 0.35), (1, 0.5)])
def test_a_quantile_is_interpolated_within_its_bucket(part: float, value: float) -> None:
    assert quantile(BUCKETS, 100, part) == pytest.approx(value)
    assert up_to(BUCKETS, value) == pytest.approx(100 * part)


def test_above_the_last_bucket_and_of_nothing_there_is_no_quantile() -> None:
    assert quantile(BUCKETS, 110, 0.95) is None
    assert quantile((), 0, 0.95) is None
    assert quantile(((0.1, 0.0),), 0, 0.95) is None
    assert up_to(BUCKETS, 9) == 100
    assert up_to((), 1) == 0
