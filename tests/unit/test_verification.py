"""Whether requests went where they should have, by what was counted."""

import math
from dataclasses import replace

import pytest

from canary_service.cli.verification_text import render
from canary_service.config.settings import Settings
from canary_service.rollout.counting import Count
from canary_service.rollout.verification import (
    Check,
    Evidence,
    Kind,
    Outcome,
    Sent,
    read_back,
    share_check,
    unsettled,
    verification,
)
from canary_service.workload.live import LiveService
from tests.unit.test_guards import CANARY, NAME, declared, mirrored, mirroring, running

HEADER = {"image": "example/auth:1.1", "header": {"name": "X-Canary", "value": "true"}}
STICKY = {"cookieName": "route"}


def check(  # noqa: PLR0913, PLR0917 - a row of numbers is easiest to read
    settings: Settings, kind: Kind, weight: int, canary: float, total: float, sent: int | None = None
) -> Check:
    evidence = Evidence(kind, weight, Count(total - canary, canary), None if sent is None else Sent(sent, {}, {}))
    return share_check(settings, NAME, evidence)


@pytest.mark.parametrize(
    ("weight", "canary", "requests", "outcome"),
    [
        (20, 40, 200, "agrees"),
        (20, 30, 200, "agrees"),
        (20, 20, 200, "disagrees"),
        (20, 62, 200, "disagrees"),
        (20, 0, 200, "disagrees"),
        (20, 10, 50, "unknown"),
        (20, 0, 50, "disagrees"),  # a sixth of 1 % of all drawn samples
        (20, 0, 3, "unknown"),
        (20, 0, 0, "unknown"),
        (0, 0, 200, "agrees"),
        (0, 1, 200, "disagrees"),
        (100, 200, 200, "agrees"),
        (100, 199, 200, "disagrees"),
        (20, 20_500, 100_000, "agrees"),  # routers take turns in several processes
        (20, 22_000, 100_000, "disagrees"),
    ],
)
def test_a_share_disagrees_when_chance_alone_does_not_explain_it(
    weight: int, canary: int, requests: int, outcome: Outcome
) -> None:
    assert check(declared(), "weight", weight, canary, requests, requests).outcome == outcome


def test_at_the_bounds_of_the_interval_chance_explains_what_was_counted_just_so() -> None:
    found = check(declared(), "weight", 20, 40, 200, 200)
    assert found.at_least is not None
    assert found.at_most is not None
    for bound in (found.at_least / 100, found.at_most / 100):
        deviations = abs(0.2 - bound) / math.sqrt(bound * (1 - bound) / 200)
        assert deviations == pytest.approx(2.5758, abs=1e-4)  # the quantile of 99.5 %
    assert found.text == "40 of 200 requests, 20.0 % (13.7 to 28.2); 20 % expected"


@pytest.mark.parametrize("canary", [None, HEADER])
def test_the_requests_of_others_may_be_off_by_the_configured_difference(canary: dict[str, object] | None) -> None:
    settings = declared(canary=canary or {"image": CANARY})
    assert check(settings, "weight", 20, 24_000, 100_000).outcome == "agrees"
    assert check(settings, "weight", 20, 26_000, 100_000).outcome == "disagrees"
    assert check(settings, "weight", 20, 24_000, 100_000, 100_000).outcome == "disagrees"


def test_at_weight_0_the_requests_of_others_reach_the_canary_by_its_header_alone() -> None:
    assert check(declared(0), "weight", 0, 1, 1000).outcome == "disagrees"
    assert check(declared(0, canary=HEADER), "weight", 0, 40, 1000).outcome == "agrees"
    assert check(declared(0, canary=HEADER), "weight", 0, 100, 1000).outcome == "disagrees"


def test_with_session_cookies_the_requests_of_others_tell_nothing_against_a_weight() -> None:
    found = check(declared(sessionAffinity=STICKY), "weight", 20, 0, 1000)
    assert found.outcome == "unknown"
    assert "session cookie" in found.text
    assert check(declared(sessionAffinity=STICKY), "weight", 20, 0, 1000, 1000).outcome == "disagrees"


@pytest.mark.parametrize(
    ("kind", "canary", "requests", "outcome"),
    [
        ("header", 200, 200, "agrees"),
        ("header", 199, 200, "disagrees"),
        ("header", 40, 200, "disagrees"),
        ("header", 220, 300, "agrees"),  # 100 are of others, 20 % of which go to the canary too
        ("header", 60, 300, "disagrees"),
        ("header", 196, 201, "disagrees"),
        ("header", 2120, 10_200, "unknown"),  # ours are too few among them
        ("other-header-value", 40, 200, "agrees"),
        ("other-header-value", 200, 200, "disagrees"),
    ],
)
def test_the_header_leads_to_the_canary_and_another_value_does_not(
    kind: Kind, canary: int, requests: int, outcome: Outcome
) -> None:
    assert check(declared(canary=HEADER), kind, 20, canary, requests, 200).outcome == outcome


def test_failures_are_told_and_are_no_disagreement() -> None:
    sent = Sent(200, {"ConnectError": 3, "status 502": 2}, {"status 404": 4})
    found = share_check(declared(), NAME, Evidence("weight", 20, Count(156, 39), sent))
    assert (found.outcome, found.sent, found.failed, found.requests) == ("agrees", 200, 5, 195)
    assert found.text.endswith(
        "; 5 of 200 failed: ConnectError: 3, status 502: 2; of 200 were answered with status 404: 4"
    )
    of_others = share_check(declared(), NAME, Evidence("weight", 20, Count(156, 39), failed=Count(1, 9)))
    assert of_others.failed == 10
    assert "10 of them failed, 9 of the canary's" in of_others.text


@pytest.mark.parametrize(
    ("failures", "refusals", "outcome", "text"),
    [
        ({}, {"status 404": 120}, "disagrees", "no request reached the service: status 404: 120"),
        ({"status 503": 120}, {}, "disagrees", "no request reached the service: status 503: 120"),
        ({}, {"status 404": 119}, "unknown", "no requests were counted"),
        ({}, {"status 401": 120}, "unknown", "no requests were counted"),  # a service may have answered that
        ({"ConnectError": 120}, {}, "unknown", "no requests were counted"),  # the address is wrong, and no route
    ],
)
def test_a_proxy_that_answers_all_requests_itself_has_no_route_to_the_service(
    failures: dict[str, int], refusals: dict[str, int], outcome: Outcome, text: str
) -> None:
    sent = Sent(120, failures, refusals)
    found = share_check(declared(), NAME, Evidence("weight", 20, Count(), sent))
    assert found.outcome == outcome
    assert found.text.startswith(text)
    assert share_check(declared(), NAME, Evidence("weight", 20, Count(96, 24), sent)).outcome == "agrees"


@pytest.mark.parametrize(
    ("live", "outcome", "text"),
    [
        (running(20), "agrees", "20 % declared, and the cluster has 20 %"),
        (running(50), "disagrees", "20 % declared, and the cluster has 50 %: `canary plan` says"),
        (running(None), "disagrees", "20 % declared, and the cluster has no route of it"),
        (replace(running(20), split=None, unreadable="no weight"), "disagrees", "cannot be read: no weight"),
    ],
)
def test_the_declared_weight_is_held_against_the_one_read_back(live: LiveService, outcome: Outcome, text: str) -> None:
    found = read_back(declared(20), NAME, live)
    assert (found.outcome, found.sent, found.requests) == (outcome, None, 0)
    assert text in found.text


def test_where_no_canary_is_declared_there_is_to_be_none() -> None:
    assert read_back(declared(canary=None), NAME, running(None)).outcome == "agrees"
    assert read_back(declared(canary=None), NAME, running(0)).outcome == "disagrees"
    assert read_back(declared(0), NAME, running(None)).outcome == "disagrees"


def test_a_weight_that_changed_meanwhile_makes_counts_worth_nothing() -> None:
    found = check(declared(), "weight", 20, 40, 200, 200)
    assert unsettled(found, 20, 20) == found
    assert unsettled(found, 20, 50).outcome == "unknown"
    assert "from 20 to 50 % meanwhile" in unsettled(found, 20, 50).text


@pytest.mark.parametrize(
    ("outcomes", "worst"),
    [
        ((), "agrees"),
        (("agrees", "agrees"), "agrees"),
        (("agrees", "unknown"), "unknown"),
        (("unknown", "disagrees", "agrees"), "disagrees"),
    ],
)
def test_the_worst_of_all_checks_counts(outcomes: tuple[Outcome, ...], worst: Outcome) -> None:
    checks = [
        Check(service=NAME, kind="weight", outcome=outcome, expected=20, text="a line that is rather long " * 5)
        for outcome in outcomes
    ]
    found = verification("macromind/dev", "application", checks, ("a note",))
    assert found.outcome == worst
    lines = render(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line[2:4].strip() for line in lines if "by weight" in line] == [
        {"agrees": "ok", "unknown": "?", "disagrees": "!"}[outcome] for outcome in outcomes
    ]
    assert lines[-1] == "Note: a note"


def copied(percent: int, stable: int, canary: int) -> Check:
    evidence = Evidence("weight", 0, Count(stable, canary), Sent(stable, {}, {}), mirror=percent)
    return share_check(mirroring(percent), NAME, evidence)


@pytest.mark.parametrize(
    ("percent", "canary", "outcome"),
    [(100, 1000, "agrees"), (20, 200, "agrees"), (20, 0, "disagrees"), (20, 600, "disagrees"), (100, 0, "disagrees")],
)
def test_copies_are_held_against_the_part_that_is_mirrored(percent: int, canary: int, outcome: Outcome) -> None:
    found = copied(percent, 1000, canary)

    assert found.outcome == outcome
    assert f"copies of {percent} % of stable's" in found.text


def test_where_answers_say_who_gave_them_a_copy_shows_nowhere() -> None:
    evidence = Evidence("weight", 0, Count(200, 0), Sent(200, {}, {}))
    assert share_check(mirroring(20), NAME, evidence).outcome == "agrees"


def test_the_header_reaches_a_mirrored_canary_and_is_not_copied() -> None:
    evidence = Evidence("header", 0, Count(0, 200), Sent(200, {}, {}), mirror=20)
    assert share_check(mirroring(20), NAME, evidence).outcome == "agrees"


def test_the_declared_mirror_is_held_against_the_one_read_back() -> None:
    assert read_back(mirroring(20), NAME, mirrored(20)).outcome == "agrees"
    found = read_back(mirroring(20), NAME, mirrored(0))
    assert found.outcome == "disagrees"
    assert "copies of 20 % of the requests declared, and the cluster has 0 %" in found.text
