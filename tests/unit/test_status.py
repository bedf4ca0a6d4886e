"""How a stack is: what is declared, in force and measured, and what is said where that disagrees."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from canary_service.cli.status_text import duration, render
from canary_service.config.settings import Settings
from canary_service.rollout.counting import Count
from canary_service.rollout.events import AnyEvent, RolledBack, RunStarted, Sampled
from canary_service.rollout.samples import Sample
from canary_service.rollout.status import Seen, ServiceStatus, Status, status
from canary_service.rollout.verdict import GateResult, Verdict
from canary_service.routing.router import Manifest, Pending
from canary_service.workload.live import LiveService
from tests.unit.test_guards import CANARY, NAME, NEXT, STABLE, declared, mirrored, mirroring, running

STACK = "macromind/dev"
NOW = datetime(2026, 1, 2, 12, tzinfo=UTC).timestamp()


def deployed(name: str, image: str, replicas: int) -> Manifest:
    spec = {"replicas": replicas, "template": {"spec": {"containers": [{"name": NAME, "image": image}]}}}
    return {"metadata": {"name": name, "uid": name}, "spec": spec}


def revision(number: int, image: str, hour: int, owner: str = f"{NAME}-canary") -> Manifest:
    metadata = {
        "annotations": {"deployment.kubernetes.io/revision": str(number)},
        "creationTimestamp": datetime(2026, 1, 2, hour, tzinfo=UTC),
        "ownerReferences": [{"uid": owner}],
    }
    return {"metadata": metadata, "spec": deployed(owner, image, 1)["spec"]}


def pod(track: str, *restarts: int) -> Manifest:
    statuses = [{"restartCount": each} for each in restarts]
    return {"metadata": {"labels": {"app": NAME, "version": track}}, "status": {"containerStatuses": statuses}}


def seen(live: LiveService, **changes: Any) -> Seen:  # noqa: ANN401 - values of any field
    deployments = [deployed(NAME, STABLE, 4)]
    if live.canary:
        deployments.append(deployed(f"{NAME}-canary", CANARY, 1))
    found = Seen(NOW, {NAME: live}, deployments, pods=(), counts={NAME: Count(160, 40)})
    return replace(found, **changes)


def of(settings: Settings, look: Seen, *journal: AnyEvent) -> ServiceStatus:
    (service,) = status(settings, STACK, [NAME], look, journal).services
    return service


def test_what_is_as_declared_has_no_problem() -> None:
    found = of(declared(20), seen(running(20)))
    assert (found.declared, found.declared_by, found.weight, found.problems) == (20, "canaryWeight", 20, ())
    assert found.stable
    assert found.canary
    assert (found.stable.image, found.stable.ready, found.stable.wanted) == (STABLE, 4, 4)
    assert (found.canary.image, found.canary.ready, found.canary.wanted) == (CANARY, 1, 1)
    assert found.measured
    assert (found.measured.requests, found.measured.canary, found.measured.share) == (200, 40, 20.0)
    assert (found.not_measured, found.verdict) == (None, None)


def test_a_service_without_a_canary_has_no_weight() -> None:
    found = of(declared(20, canary=None), seen(running(None)))
    assert (found.declared, found.declared_by, found.weight, found.canary, found.problems) == (
        None,
        None,
        None,
        None,
        (),
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"former_routers": ("nginx",)}, "objects of router nginx take its requests too: `pulumi up` ends the move"),
        (
            {"pending": Pending("HTTPRoute app: NotAllowedByListeners", refused=True)},
            "the declared router does not route it: HTTPRoute app: NotAllowedByListeners: `canary doctor`",
        ),
    ],
)
def test_requests_that_do_not_come_in_by_the_declared_router_alone_are_told(change: dict[str, Any], told: str) -> None:
    assert of(declared(20), seen(replace(running(20), **change))).problems == (told,)


def test_a_move_that_no_update_can_end_is_not_said_to_end_by_one() -> None:
    moving = replace(running(20), former_routers=("nginx",), pending=Pending("its kinds are not known", refused=True))
    told = of(declared(20), seen(moving)).problems
    assert told[0] == "objects of router nginx take its requests too"
    assert "its kinds are not known" in told[1]


CHANGED = {NAME: {f"Ingress {NAME}-canary": ("kubectl-annotate",)}}


@pytest.mark.parametrize(
    ("settings", "look", "problem"),
    [
        (declared(50), seen(running(20)), "50 % are declared, and 20 % in force: `pulumi up` carries out"),
        (
            declared(20),
            seen(running(70), changes=CHANGED, counts={}),
            "changed by kubectl-annotate: `pulumi up` puts back",
        ),
        (declared(20), seen(running(20), changes=CHANGED), f"Ingress {NAME}-canary was changed by kubectl-annotate"),
        (declared(20), seen(running(None)), "20 % are declared, and the cluster has no route of the canary"),
        (declared(20, canary=None), seen(running(20)), "no canary is declared, and the cluster has one with 20 %"),
        (declared(20), seen(LiveService()), "it is not deployed"),
        (declared(20), seen(replace(running(20), owner="macromind/prod")), "belong to stack macromind/prod"),
        (declared(20, image=NEXT), seen(running(20)), f"stable: {NEXT} is declared, and {STABLE} deployed"),
        (declared(20, canary={"image": NEXT}), seen(running(20)), f"canary: {NEXT} is declared, and {CANARY} deployed"),
        (
            declared(20),
            seen(running(20), counts={NAME: Count(100, 100)}),
            "its share is off the weight in force: 100 of 200",
        ),
    ],
)
def test_each_disagreement_is_told_with_what_to_do(settings: Settings, look: Seen, problem: str) -> None:
    (found,) = of(settings, look).problems
    assert problem in found


def test_a_route_that_cannot_be_read_is_told_once() -> None:
    live = replace(running(20), split=None, unreadable="two weights")
    (problem,) = of(declared(20), seen(live)).problems
    assert problem.endswith("the weight is not known: two weights")


def test_pods_that_are_not_ready_are_told_with_where_to_look() -> None:
    live = running(20)
    assert live.canary
    found = of(declared(20), seen(replace(live, canary=replace(live.canary, ready=0))))
    (problem,) = found.problems
    assert problem == f"canary: 0 of 1 pods are ready: `canary doctor`, `canary logs --service {NAME} --track canary`"


def test_a_share_is_not_held_against_a_weight_that_has_just_come() -> None:
    off = {NAME: Count(100, 100)}
    assert of(declared(20), seen(running(20), counts=off, routed_at={NAME: NOW - 30})).problems == ()
    assert of(declared(20), seen(running(20), counts=off, routed_at={NAME: NOW - 300})).problems


def test_why_nothing_was_measured_is_said() -> None:
    assert of(declared(20), seen(running(20), counts={})).not_measured == "nothing has counted requests of it"
    found = of(declared(20), seen(running(20), counts={}, not_counted="no Prometheus is named"))
    assert (found.measured, found.not_measured) == (None, "no Prometheus is named")


def test_a_canary_is_as_old_as_its_image_whatever_else_changed() -> None:
    sets = [
        revision(1, STABLE, 6),
        revision(2, CANARY, 8),
        revision(3, CANARY, 11),
        revision(9, NEXT, 5, owner="other"),
    ]
    found = of(declared(20), seen(running(20), replica_sets=sets)).canary
    assert found
    assert found.age_seconds == 4 * 3600
    unknown = of(declared(20), seen(running(20))).canary
    assert unknown
    assert unknown.age_seconds is None


def test_restarts_are_those_of_the_tracks_own_pods() -> None:
    pods = [pod("canary", 2, 1), pod("canary", 1), pod("stable", 0)]
    found = of(declared(20), seen(running(20), pods=pods))
    assert found.canary
    assert found.stable
    assert (found.canary.restarts, found.stable.restarts) == (4, 0)
    unlisted = of(declared(20), seen(running(20), pods=None)).canary
    assert unlisted
    assert unlisted.restarts is None


def started() -> RunStarted:
    return RunStarted(
        at=NOW, stack=STACK, run="run-1", command="run", steps=(20,), step_seconds=60, sample_seconds=5, services={}
    )


def sampled(outcome: str, at: float, service: str = NAME) -> Sampled:
    gates = [
        GateResult(gate="error-rate", outcome=outcome, text=f"errors {outcome}"),
        GateResult(gate="pods", outcome="pass", text="1 of 1 ready"),
    ]
    verdict = Verdict.model_validate({"service": service, "outcome": outcome, "gates": gates})
    sample = Sample(service=service, at=at, seconds=5, weight=20)
    return Sampled(at=at, stack=STACK, sample=sample, verdict=verdict, remaining_seconds=5)


def test_the_last_verdict_of_the_last_run_is_told_with_what_became_of_it() -> None:
    rolled_back = RolledBack(at=NOW, stack=STACK, services=(NAME,), reason="errors", seconds=1)
    journal: list[AnyEvent] = [
        started(),
        sampled("pass", NOW - 9),
        sampled("fail", NOW - 5),
        sampled("pass", NOW, "other"),
        rolled_back,
    ]
    found = of(declared(20), seen(running(20)), *journal).verdict
    assert found
    assert (found.run, found.at, found.weight, found.outcome) == ("run-1", NOW - 5, 20, "fail")
    assert found.text == "errors fail; rolled back"
    assert of(declared(20), seen(running(20)), started()).verdict is None


def test_a_service_that_the_last_run_has_no_verdict_of_is_told_from_one_without_a_run() -> None:
    assert "verdict  no run here" in render(status(declared(20), STACK, [NAME], seen(running(20)), []))
    text = render(status(declared(20), STACK, [NAME], seen(running(20)), [started()]))
    assert "verdict  none in run run-1, the last one here" in text


def test_text_fits_80_columns_and_marks_what_disagrees() -> None:
    text = render(status(declared(50), STACK, [NAME], seen(running(20), counts={}, not_counted="x " * 90), []))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "macromind/dev: 1 service, 1 with problems"
    assert lines[3].split() == ["!", NAME, "50", "%", "20", "%", "-", "4/4", "1/1", "-"]
    fine = render(status(declared(20), STACK, [NAME], seen(running(20)), []))
    assert "!" not in fine
    assert "the canary answered 40 of 200 requests in 60 s" in fine


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (119, "119s"), (125, "2m"), (7199, "119m"), (7200, "2h"), (172800, "2d")]
)
def test_ages_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_mirrored_canary_has_counts_but_no_share_and_no_problem() -> None:
    found = of(mirroring(20), seen(mirrored(20), counts={NAME: Count(1000, 200)}))

    assert (found.mirror, found.problems) == (20, ())
    assert found.measured
    assert (found.measured.requests, found.measured.canary, found.measured.share) == (1200, 200, None)
    shown = render(Status(stack=STACK, at=NOW, run=None, services=(found,)))
    assert "copies of 20 % of stable's requests go to the canary" in shown


def test_a_mirror_that_is_not_in_force_is_told() -> None:
    (problem,) = of(mirroring(20), seen(mirrored(0), counts={})).problems
    assert problem.startswith("copies of 20 % of the requests are declared, and of 0 % in force")
