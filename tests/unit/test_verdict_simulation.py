"""The simulation behind docs/gates.md draws what it says, and its runs end as the gates say."""

import random

import pytest

from benchmarks.verdicts import Scenario, binomial, run
from canary_service.config.settings import RolloutSettings

SEED = 11


@pytest.mark.parametrize(("cases", "probability"), [(500, 0.01), (500, 0.3), (500, 0.95), (20_000, 0.2)])
def test_drawn_numbers_have_mean_and_variance_of_a_binomial_distribution(cases: int, probability: float) -> None:
    source = random.Random(SEED)  # noqa: S311 - a simulation, which has to be repeatable
    drawn = [binomial(cases, probability, source) for _ in range(4000)]
    mean, variance = cases * probability, cases * probability * (1 - probability)

    found = sum(drawn) / len(drawn)
    assert abs(found - mean) < 4 * (variance / len(drawn)) ** 0.5
    assert sum((each - found) ** 2 for each in drawn) / len(drawn) == pytest.approx(variance, rel=0.1)
    assert all(0 <= each <= cases for each in drawn)


def test_nothing_and_everything_are_certain() -> None:
    source = random.Random(SEED)  # noqa: S311 - a simulation, which has to be repeatable

    assert [binomial(9, 0, source), binomial(9, 1, source), binomial(0, 0.5, source)] == [0, 9, 0]


@pytest.mark.parametrize(
    ("scenario", "end", "at_most"),
    [
        (Scenario(10_000, 0.01), "promoted", 60),
        (Scenario(10_000, 0.01, more_errors=0.10), "rolled back", 3),
        (Scenario(10_000, 0.01, slower=2.0), "rolled back", 10),
        (Scenario(10, 0.0), "held", 75),
    ],
)
def test_a_run_ends_as_the_gates_say(scenario: Scenario, end: str, at_most: float) -> None:
    ended = run(scenario, RolloutSettings(), random.Random(SEED))  # noqa: S311 - a simulation

    assert ended.end == end
    assert ended.minutes <= at_most
