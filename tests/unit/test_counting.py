"""How many requests were answered, whatever comes and goes meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from canary_service.rollout.counting import Count, counted


@dataclass(frozen=True)
class Reading:
    labels: Mapping[str, str]
    value: float
    at: float


def readings(pod: str, track: str, **values: float) -> list[Reading]:
    """Return what a pod has counted, by the time, as t10=5."""
    labels = {"app": "cart", "version": track, "pod": pod, "instance": "x"}
    return [Reading(labels, value, float(at[1:])) for at, value in values.items()]


def test_what_was_counted_before_does_not_count_again() -> None:
    stable, canary = readings("a", "stable", t0=100, t10=180), readings("b", "canary", t0=7, t10=27)
    assert counted([*canary, *stable], None) == {"cart": Count(80, 20)}
    assert counted([*canary, *stable], None)["cart"].total == 100


def test_a_container_that_starts_again_begins_at_zero() -> None:
    assert counted(readings("a", "canary", t0=50, t5=70, t10=4, t15=9), None) == {"cart": Count(0, 29)}


def test_what_a_pod_answered_that_has_gone_counts() -> None:
    gone, stays = readings("a", "canary", t0=0, t5=30), readings("b", "stable", t0=0, t5=30, t10=60)
    assert counted([*gone, *stays], None) == {"cart": Count(60, 30)}


@pytest.mark.parametrize(("new_after", "canary"), [(0.0, 40.0), (5.0, 15.0), (None, 15.0)])
def test_a_new_pod_counts_from_zero_only_where_it_cannot_have_counted_unseen(
    new_after: float | None, canary: float
) -> None:
    assert counted(readings("a", "canary", t5=25, t10=40), new_after) == {"cart": Count(0, canary)}


def test_nobody_is_said_to_have_counted_what_has_no_readings() -> None:
    assert counted([], 0.0) == {}
    assert counted(readings("a", "stable", t0=3, t10=3), None) == {"cart": Count(0, 0)}
