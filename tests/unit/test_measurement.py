"""Which counts a declared weight allows."""

from collections import Counter
from math import comb

import pytest

from demo.measurement import MeasurementError, check_share, drawn_bounds, round_robin_bounds
from sandbox.traffic import Tally


@pytest.mark.parametrize(
    ("answers", "weight", "bounds"),
    [(200, 0, (0, 0)), (200, 100, (200, 200)), (200, 20, (39, 41)), (200, 1, (1, 3)), (10, 5, (0, 1))],
)
def test_a_round_robin_is_exact_but_for_one(answers: int, weight: int, bounds: tuple[int, int]) -> None:
    assert round_robin_bounds(answers, weight) == bounds


@pytest.mark.parametrize("weight", [1, 20, 50, 99])
@pytest.mark.parametrize("answers", [20, 200, 900])
def test_a_draw_stays_within_its_bounds_in_999_of_1000_cases_and_they_are_tight(answers: int, weight: int) -> None:
    least, most = drawn_bounds(answers, weight)
    p = weight / 100

    def outside(low: int, high: int) -> float:
        return 1 - sum(comb(answers, k) * p**k * (1 - p) ** (answers - k) for k in range(low, high + 1))

    assert outside(least, most) <= 0.001 + 1e-9
    assert outside(least + 1, most) > 0.0005 or least == 0
    assert outside(least, most - 1) > 0.0005 or most == answers


@pytest.mark.parametrize(("weight", "bounds"), [(0, (0, 0)), (100, (200, 200))])
def test_a_draw_admits_no_exception_at_0_and_100(weight: int, bounds: tuple[int, int]) -> None:
    assert drawn_bounds(200, weight) == bounds


def tally(canary: int, stable: int) -> Tally:
    return Tally(by_version=Counter(canary=canary, stable=stable))


def test_a_share_that_is_off_names_service_weight_and_counts() -> None:
    check_share("auth-service", 20, tally(40, 160))

    with pytest.raises(MeasurementError, match=r"auth-service: 20 % of 200 answers is 39 to 41, the canary gave 44"):
        check_share("auth-service", 20, tally(44, 156))


def test_one_answer_of_a_canary_at_weight_0_is_off() -> None:
    with pytest.raises(MeasurementError):
        check_share("auth-service", 0, tally(1, 199))


def test_without_answers_there_is_no_share() -> None:
    with pytest.raises(MeasurementError, match="no request was answered"):
        check_share("auth-service", 0, Tally())
