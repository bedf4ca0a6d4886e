"""What the gates say of samples: one that fails is enough, all have to pass, and what is not known holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from canary_service.config.settings import GateSettings
from canary_service.rollout.samples import AlignedSample, PodsSample, Sample, TrackSample
from canary_service.rollout.verdict import GateResult, Outcome, judge

READY = PodsSample(wanted=2, ready=2, limited=("memory",), memory_percent=40.0)


def track(requests: float, failed: float = 0, slow: float = 0.02) -> TrackSample:
    """Make a track whose requests take 50 to 100 ms, but for a part that takes 200 ms to 1 s."""
    quick = requests * (1 - slow)
    buckets = ((0.05, 0.0), (0.1, quick), (0.2, quick), (1.0, requests))
    return TrackSample(requests=requests, failed=failed, timed=requests, buckets=buckets)


def sample(**known: Any) -> Sample:  # noqa: ANN401 - values of any field
    good = {"stable": track(9500, 9), "canary": track(500), "pods": READY, "weight": 5}
    made = Sample(**{"service": "app", "at": 0.0, "seconds": 60.0, **good, **known})
    if "aligned" in known or not (made.stable and made.canary):
        return made
    return made.model_copy(update={"aligned": AlignedSample(stable=made.stable.requests, canary=made.canary.requests)})


def gates(**settings: Any) -> GateSettings:  # noqa: ANN401 - values of any key
    return GateSettings.model_validate(settings)


def result(gate: str, samples: Sequence[Sample], **settings: Any) -> GateResult:  # noqa: ANN401 - values of any key
    found = {each.gate: each for each in judge(samples, gates(**settings), complete=True).gates}
    return found[gate]


def outcome(samples: Sequence[Sample], *, complete: bool = True, **settings: Any) -> Outcome:  # noqa: ANN401 - values of any key
    return judge(samples, gates(**settings), complete=complete).outcome


def test_a_canary_like_stable_passes_once_its_step_had_its_time() -> None:
    assert outcome([sample()]) == "pass"
    assert outcome([sample()], complete=False) == "inconclusive"
    assert {each.outcome for each in judge([sample()], gates(), complete=False).gates} == {"pass"}


def test_a_canary_that_fails_clearly_is_told_before_its_step_had_its_time() -> None:
    assert outcome([sample(canary=track(100, 100))], complete=False) == "fail"


class TestErrorRate:
    @pytest.mark.parametrize(
        ("requests", "failed", "expected"),
        [
            (99, 99, "inconclusive"),  # fewer than minRequests
            (100, 5, "inconclusive"),  # neither sure to be above 5 points nor below
            (100, 30, "fail"),
            (1000, 100, "fail"),
            (1000, 55, "inconclusive"),
            (1000, 10, "pass"),
            (100_000, 4_500, "pass"),
            (100_000, 5_500, "fail"),
        ],
    )
    def test_the_difference_has_to_be_certain(self, requests: int, failed: int, expected: Outcome) -> None:
        assert result("error-rate", [sample(canary=track(requests, failed))]).outcome == expected

    def test_what_stable_fails_too_is_not_the_canarys_fault(self) -> None:
        both = sample(stable=track(9500, 950), canary=track(5000, 500))

        assert result("error-rate", [both]).outcome == "pass"

    def test_samples_of_a_step_count_together(self) -> None:
        few = sample(canary=track(60, 12))

        assert result("error-rate", [few]).outcome == "inconclusive"
        assert result("error-rate", [few] * 10).outcome == "fail"

    def test_the_limit_and_how_sure_it_has_to_be_are_the_users(self) -> None:
        samples = [sample(canary=track(1000, 40))]

        assert result("error-rate", samples, errorRateDifference=1).outcome == "fail"
        assert result("error-rate", [sample(canary=track(1000, 75))], confidence=50).outcome == "fail"
        assert result("error-rate", [sample(canary=track(1000, 75))], confidence=99.9).outcome == "inconclusive"

    def test_numbers_and_limit_are_in_the_text(self) -> None:
        found = result("error-rate", [sample(canary=track(1000, 100))])

        assert found.measured == pytest.approx(9.905, abs=0.01)
        assert (found.limit, found.unit) == (5, "points")
        assert found.text.startswith(
            "10 % of the canary's 1,000 requests failed, stable 0.0947 % of 9,500: +9.91 points"
        )

    def test_where_stable_answers_nothing_what_it_did_before_counts(self) -> None:
        alone = sample(weight=100, stable=track(0), canary=track(5000, 500), baseline=track(9500, 950))

        assert result("error-rate", [alone]).outcome == "pass"
        assert result("error-rate", [alone.model_copy(update={"baseline": None})]).outcome == "fail"

    def test_a_baseline_is_of_no_use_while_stable_answers(self) -> None:
        busy = sample(canary=track(5000, 500), baseline=track(9500, 950))

        assert result("error-rate", [busy]).outcome == "fail"


class TestLatency:
    def test_slower_than_the_limit_for_three_looks_fails(self) -> None:
        slow = sample(canary=track(500, slow=0.5))

        assert result("latency", [slow] * 2).outcome == "inconclusive"
        assert result("latency", [slow] * 3).outcome == "fail"

    def test_a_slow_minute_holds_and_does_not_roll_back(self) -> None:
        slow, quick = sample(canary=track(500, slow=0.3)), sample()

        assert result("latency", [slow, slow, quick]).outcome == "inconclusive"
        assert result("latency", [slow, *[quick] * 15]).outcome == "pass"

    def test_few_requests_do_not_make_it_certain(self) -> None:
        assert result("latency", [sample(canary=track(34, slow=0.06))] * 3).outcome == "inconclusive"

    def test_times_within_the_ratio_or_the_least_difference_pass(self) -> None:
        stable = track(9500)

        found = result("latency", [sample(stable=stable)] * 3)
        assert found.outcome == "pass"
        assert found.limit == pytest.approx(1.5 * (found.measured or 0), rel=0.05)
        slower = [sample(canary=track(5000, slow=0.5))] * 3
        assert result("latency", slower, latencyDifferenceMilliseconds=2000).outcome == "pass"
        assert result("latency", slower, latencyRatio=9.9).outcome == "pass"

    def test_beyond_the_last_bucket_nothing_is_known(self) -> None:
        beyond = TrackSample(requests=500, failed=0, timed=500, buckets=((0.1, 100.0),))

        assert result("latency", [sample(canary=beyond, stable=beyond)] * 3).outcome == "inconclusive"
        assert result("latency", [sample(canary=beyond)] * 3).outcome == "inconclusive"

    def test_without_durations_it_holds(self) -> None:
        counted = TrackSample(requests=500, failed=0)

        found = result("latency", [sample(canary=counted)])
        assert (found.outcome, found.text) == (
            "inconclusive",
            "the durations of 0 of the canary's requests are known; 100 are needed",
        )


class TestPods:
    @pytest.mark.parametrize(
        ("looks", "expected"),
        [
            ([1, 1], "inconclusive"),
            ([1, 1, 1], "fail"),
            ([1, 1, 2], "pass"),
            ([2, 1], "inconclusive"),
        ],
    )
    def test_pods_may_be_unready_for_a_moment(self, looks: list[int], expected: Outcome) -> None:
        samples = [sample(pods=READY.model_copy(update={"ready": ready})) for ready in looks]

        assert result("availability", samples).outcome == expected

    def test_a_crash_loop_fails_at_once_with_its_reason(self) -> None:
        pods = READY.model_copy(update={"ready": 1, "crashing": True, "reasons": ("app-1: CrashLoopBackOff",)})

        found = result("availability", [sample(pods=pods)])

        assert (found.outcome, found.text) == ("fail", "1 of 2 pods are ready: app-1: CrashLoopBackOff")

    def test_restarts_count_even_after_their_pod_is_gone(self) -> None:
        restarted = [sample(pods=READY.model_copy(update={"restarts": 1})), sample()]

        assert result("restarts", restarted).outcome == "fail"
        assert result("restarts", restarted, maxRestarts=1).outcome == "pass"

    def test_memory_near_its_limit_for_three_looks_fails(self) -> None:
        near = sample(pods=READY.model_copy(update={"memory_percent": 93.0}))

        assert result("memory", [near] * 2).outcome == "inconclusive"
        assert result("memory", [near] * 3).outcome == "fail"
        assert result("memory", [near] * 3, maxMemoryPercent=95).outcome == "pass"

    def test_where_no_limit_is_set_there_is_nothing_to_exceed(self) -> None:
        assert result("memory", [sample(pods=PodsSample(wanted=1, ready=1))]).outcome == "pass"

    def test_memory_that_nothing_measures_holds_and_says_the_way_out(self) -> None:
        found = result("memory", [sample(pods=READY.model_copy(update={"memory_percent": None}))])

        assert found.outcome == "inconclusive"
        assert "rollout.gates.maxMemoryPercent null" in found.text
        verdict = judge([sample()], gates(maxMemoryPercent=None), complete=True)
        assert "memory" not in {each.gate for each in verdict.gates}

    def test_processors_are_judged_only_when_asked_for(self) -> None:
        busy = sample(pods=READY.model_copy(update={"limited": ("cpu", "memory"), "cpu_percent": 99.0}))

        assert outcome([busy] * 3) == "pass"
        assert outcome([busy] * 3, maxCpuPercent=90) == "fail"


class TestShare:
    def test_a_router_that_ignores_the_weight_holds(self) -> None:
        found = result("share", [sample(stable=track(5000), canary=track(5000))])

        assert (found.outcome, found.measured, found.limit) == ("inconclusive", 50, 5)
        assert "the router does not follow the weight" in found.text
        assert outcome([sample(weight=50, stable=track(9500), canary=track(500))]) == "inconclusive"

    def test_counts_of_different_times_are_not_held_against_the_router(self) -> None:
        unscraped = [sample(weight=20, stable=track(300), canary=track(0), aligned=None)]

        found = result("share", unscraped)
        assert (found.outcome, found.measured) == ("inconclusive", None)
        assert found.text == "0 requests were counted in a time for which all pods have been scraped; 100 are needed"
        known = sample(weight=20, aligned=AlignedSample(stable=80, canary=20))
        assert result("share", [*unscraped, known]).outcome == "pass"

    def test_a_draw_of_lots_is_no_deviation(self) -> None:
        assert result("share", [sample(weight=50, stable=track(70), canary=track(110))]).outcome == "pass"

    def test_clients_that_are_kept_by_a_cookie_are_no_deviation(self) -> None:
        kept = judge([sample(sticky=True, canary=track(5000))], gates(), complete=True)

        assert "share" not in {each.gate for each in kept.gates}


class TestQueries:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([3], "pass"),
            ([1], "fail"),
            ([6], "fail"),
            ([1, 3], "fail"),
            ([None], "inconclusive"),
            ([3, None], "inconclusive"),
        ],
    )
    def test_each_value_has_to_be_within_bounds(self, values: list[float | None], expected: Outcome) -> None:
        samples = [sample(values={"logins": value}) for value in values]

        assert (
            result("query logins", samples, queries={"logins": {"query": "x", "min": 2, "max": 5}}).outcome == expected
        )

    def test_one_bound_is_enough(self) -> None:
        settings = {"queries": {"logins": {"query": "x", "min": 2}}}

        found = result("query logins", [sample(values={"logins": 1.0})], **settings)

        assert (found.outcome, found.measured, found.limit) == ("fail", 1, 2)


@pytest.mark.parametrize(("answer", "expected"), [(True, "pass"), (False, "fail"), (None, "inconclusive")])
def test_the_users_webhook_decides(answer: bool | None, expected: Outcome) -> None:  # noqa: FBT001 - its answer
    assert outcome([sample(webhook=answer)], webhookUrl="https://gate.example") == expected
    assert outcome([sample(webhook=answer)]) == "pass"


class TestNotKnown:
    def test_what_could_not_be_asked_and_what_was_not_there_are_told_apart_and_counted(self) -> None:
        down = sample(canary=None, stable=None, problems={"requests": "Prometheus: it answered 503"})
        nothing = sample(canary=None, stable=None)

        found = result("error-rate", [sample(), nothing, down, down])

        assert (found.outcome, found.looks, found.unasked, found.empty) == ("inconclusive", 4, 2, 1)
        assert found.text.endswith(
            "; the newest look could not be made: Prometheus: it answered 503"
            " (of 4 looks 2 could not be made, 1 found no data)"
        )
        found = result("error-rate", [sample(), nothing])
        assert (found.outcome, found.unasked, found.empty) == ("inconclusive", 0, 1)
        assert found.text.endswith("; the newest look found no data (of 2 looks 1 found no data)")
        assert "of 2 looks" not in result("error-rate", [nothing, sample()]).text, "which passes"

    @pytest.mark.parametrize(
        ("known", "gate"),
        [
            ({"canary": None}, "requests"),
            ({"canary": None, "problems": {"requests": "x"}}, "error-rate"),
            ({"pods": None, "problems": {"pods": "x"}}, "availability"),
            ({"pods": None, "problems": {"pods": "x"}}, "restarts"),
            ({"pods": None, "problems": {"pods": "x"}}, "memory"),
            ({"problems": {"memory": "x"}}, "memory"),
        ],
    )
    def test_what_the_newest_look_does_not_know_does_not_pass(self, known: dict[str, Any], gate: str) -> None:
        samples = [sample(), sample(**known)]

        assert result(gate, samples).outcome == "inconclusive"
        assert outcome(samples) == "inconclusive"
        assert outcome([*samples, sample()]) == "pass"

    def test_what_was_certain_before_stays_certain(self) -> None:
        samples = [sample(canary=track(500, 400)), sample(canary=None, problems={"requests": "x"})]

        assert outcome(samples) == "fail"

    def test_nothing_at_all_holds(self) -> None:
        unknown = sample(weight=None, stable=None, canary=None, pods=None, problems={"requests": "x", "pods": "y"})

        verdict = judge([unknown], gates(maxCpuPercent=90), complete=True)

        assert verdict.outcome == "inconclusive"
        assert {each.outcome for each in verdict.gates} == {"inconclusive"}


def test_a_canary_without_enough_requests_holds_however_good_it_is() -> None:
    assert outcome([sample(stable=track(1900), canary=track(99))]) == "inconclusive"
    assert result("requests", [sample(canary=track(99))]).text == "the canary answered 99 requests; 100 are needed"


def test_samples_at_another_weight_are_left_aside() -> None:
    bad = sample(weight=5, canary=track(500, 400))

    assert outcome([bad, sample(weight=20, stable=track(8000), canary=track(2000))]) == "pass"
    assert outcome([bad, sample(weight=None)]) == "fail"


def test_the_documentation_has_each_gate_and_each_key() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "gates.md").read_text()
    queries = {"logins": {"query": "x", "max": 5}}
    every = judge([sample()], gates(maxCpuPercent=90, webhookUrl="http://x", queries=queries), complete=True).gates

    assert [name for each in every if f"`{(name := each.gate.replace('logins', 'NAME'))}`" not in documented] == []
    keys = {field.alias or "" for field in GateSettings.model_fields.values()}
    assert [key for key in sorted(keys) if f"`{key}" not in documented] == []


def test_one_gate_that_fails_is_enough() -> None:
    bad = sample(canary=track(500, 400), pods=None, problems={"pods": "x"})

    assert outcome([bad]) == "fail"
