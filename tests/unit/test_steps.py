"""Which weights follow the ones read back."""

import pytest

from canary_service.rollout.steps import next_weight, next_weights

STEPS = (5, 20, 50, 100)


@pytest.mark.parametrize(
    ("read_back", "following"),
    [(0, 5), (4, 5), (5, 20), (6, 20), (20, 50), (49, 50), (50, 100), (70, 100), (100, None)],
)
def test_the_first_step_above_the_weight_read_back_follows(read_back: int, following: int | None) -> None:
    assert next_weight(read_back, STEPS, 50) == following


@pytest.mark.parametrize(("read_back", "following"), [(0, 5), (5, 15), (15, 20), (20, 30), (50, 60), (95, 100)])
def test_no_weight_rises_by_more_than_max_step(read_back: int, following: int) -> None:
    assert next_weight(read_back, STEPS, 10) == following


def test_after_the_last_step_nothing_follows_although_it_is_below_100() -> None:
    assert next_weight(20, (5, 20), 50) is None


def test_a_group_goes_by_its_lowest_weight() -> None:
    assert next_weights({"a": 5, "b": 5}, STEPS, 50) == {"a": 20, "b": 20}
    assert next_weights({"a": 100, "b": 50}, STEPS, 50) == {"a": 100, "b": 100}
    assert next_weights({"a": 100, "b": 100}, STEPS, 50) is None


def test_who_is_behind_catches_up_and_nobody_falls() -> None:
    assert next_weights({"a": 20, "b": 0}, STEPS, 50) == {"a": 20, "b": 5}
    assert next_weights({"a": 20, "b": 5}, STEPS, 10) == {"a": 20, "b": 15}
