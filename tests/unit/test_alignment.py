"""Tracks are counted over one and the same time, whenever each of their targets is scraped."""

import random
from collections.abc import Callable

import pytest

from canary_service.rollout.alignment import Alignment, Reading

INTERVAL = 15.0
RATES = {"stable": 24.0, "canary": 6.0}


def scrape(at: float, offset: float) -> float:
    """Return when a target was scraped last."""
    return offset + INTERVAL * ((at - offset) // INTERVAL)


def steady(track: str, share: float) -> Callable[[float], float]:
    return lambda moment: RATES[track] * share * moment


def looked(
    targets: dict[tuple[str, str], Callable[[float], float]], offsets: dict[tuple[str, str], float], seconds: float
) -> dict[str, float]:
    """Return what a step counts in which one looks every 5 s and each target is scraped at its own moments."""
    alignment, total = Alignment(), dict.fromkeys(RATES, 0.0)
    for number in range(1, int(seconds / 5) + 1):
        found: dict[tuple[str, ...], Reading] = {}
        for (track, pod), count in targets.items():
            moment = scrape(number * 5.0, offsets[track, pod])
            if moment > 0:
                found[pod,] = Reading(moment, {track: count(moment)})
        pods = {track: sum(each == track for each, _ in targets) for track in RATES}
        for track, answered in (alignment.add(found, pods) or {}).items():
            total[track] += answered
    return total


@pytest.mark.parametrize("seconds", [30.0, 45.0, 60.0])
def test_shares_of_short_steps_are_steady_whenever_targets_are_scraped(seconds: float) -> None:
    source = random.Random(7)  # noqa: S311 - a simulation, which has to be repeatable
    pods = {("stable", "s-0"): 0.5, ("stable", "s-1"): 0.5, ("canary", "c-0"): 1.0}
    targets = {key: steady(key[0], share) for key, share in pods.items()}
    for _ in range(200):
        found = looked(targets, {key: source.uniform(0.1, INTERVAL) for key in pods}, seconds)
        answered = sum(found.values())

        assert answered == 0 or found["canary"] / answered == pytest.approx(0.2)
        assert answered >= 30 * (seconds - 2 * INTERVAL - 5)


def test_requests_that_begin_within_the_step_move_the_share_by_little() -> None:
    source = random.Random(7)  # noqa: S311 - a simulation, which has to be repeatable

    def counting(track: str) -> Callable[[float], float]:
        return lambda moment: RATES[track] * max(0.0, moment - 25.0)

    for _ in range(200):
        offsets = {("stable", "s-0"): source.uniform(0.1, 15), ("canary", "c-0"): source.uniform(0.1, 15)}
        found = looked({key: counting(key[0]) for key in offsets}, offsets, 90.0)

        assert found["canary"] / sum(found.values()) == pytest.approx(0.2, abs=0.02)


def readings(at: float, **counts: float) -> dict[tuple[str, ...], Reading]:
    return {(pod,): Reading(at, {"canary" if pod[0] == "c" else "stable": count}) for pod, count in counts.items()}


PODS = {"stable": 1, "canary": 1}


def test_nothing_is_told_of_a_time_in_which_a_target_was_not_scraped_yet() -> None:
    alignment = Alignment()

    assert alignment.add(readings(0, s0=0), PODS) is None
    assert alignment.add(readings(15, s0=300), PODS) is None
    assert alignment.add(readings(30, s0=600, c0=75), PODS) is None
    assert alignment.add(readings(45, s0=900, c0=150), PODS) == {"stable": 300, "canary": 75}


def test_a_target_that_goes_or_begins_again_leaves_out_the_time_since_the_last_look() -> None:
    alignment = Alignment()
    alignment.add(readings(0, s0=0, c0=0, c1=0), PODS)
    assert alignment.add(readings(15, s0=80, c0=10, c1=10), PODS) == {"stable": 80, "canary": 20}
    assert alignment.add(readings(30, s0=160, c0=15), PODS) is None
    assert alignment.add(readings(45, s0=240, c0=3), PODS) is None

    assert alignment.add(readings(60, s0=320, c0=23), PODS) == {"stable": 80, "canary": 20}


def test_one_of_many_targets_may_come_and_go() -> None:
    alignment = Alignment()
    many = {f"s{number}": 0.0 for number in range(20)}
    alignment.add(readings(0, c0=0, **many), {"stable": 20, "canary": 1})
    later = dict.fromkeys(list(many)[1:], 4.0) | {"s20": 3.0}

    assert alignment.add(readings(15, c0=20, **later), {"stable": 20, "canary": 1}) == {"stable": 76, "canary": 20}


def test_a_router_counts_both_tracks_at_once_and_one_that_was_never_asked_for_has_0() -> None:
    alignment = Alignment()
    counts = [{"stable": 10.0}, {"stable": 90.0, "canary": 20.0}, {"stable": 170.0, "canary": 40.0}]
    found = [alignment.add({("router",): Reading(15.0 * at, each)}, {}) for at, each in enumerate(counts)]

    assert found == [None, {"stable": 80, "canary": 20}, {"stable": 80, "canary": 20}]


def test_targets_with_intervals_of_their_own_lose_nothing() -> None:
    alignment, total = Alignment(), 0.0
    for at in range(0, 120, 5):
        found = readings(at, s0=2.0 * at) | {("c0",): Reading(at - at % 30, {"canary": at - at % 30})}
        total += (alignment.add(found, PODS) or {"stable": 0.0})["stable"]

    assert total == 2.0 * 90
