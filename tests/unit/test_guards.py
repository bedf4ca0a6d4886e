"""What an update may do to running traffic, decided from configuration and cluster alone."""

import json
from dataclasses import replace
from typing import Any

import pytest

from canary_service.config.loader import load
from canary_service.config.settings import Settings
from canary_service.rollout.guards import RefusedError, Transition, transitions
from canary_service.routing.split import Backend, CanaryBackend, Entry, Match, Split, Track
from canary_service.workload.labels import selector
from canary_service.workload.live import LiveDeployment, LivePort, LiveService

NAME = "auth-service"
STABLE, CANARY, NEXT = "example/auth:1.0", "example/auth:1.1", "example/auth:1.2"
STACK = "macromind/dev"


def declared(weight: int = 20, *, top: dict[str, Any] | None = None, **service: Any) -> Settings:  # noqa: ANN401 - values of any key of a service
    """Return the configuration of one service with a canary; `canary=None` leaves it out."""
    settings = {
        "path": "/api/auth",
        "port": 8080,
        "image": STABLE,
        "replicas": 4,
        "canary": {"image": CANARY},
    } | service
    services = {NAME: {key: value for key, value in settings.items() if value is not None}}
    raw = {"namespace": "macromind", "host": "macromind.local", "canaryWeight": str(weight)} | (top or {})
    return load(raw | {"services": json.dumps(services)})


def deployment(image: str, replicas: int, track: Track) -> LiveDeployment:
    return LiveDeployment(image, (image,), replicas, replicas, selector(NAME, track), 1, rolled_out=True)


def running(weight: int | None = 20) -> LiveService:
    """Return what a cluster has of the service: with a canary at this weight (percent), or without one."""
    stable = Backend(NAME, 8080)
    canary = None if weight is None else CanaryBackend(Backend(f"{NAME}-canary", 8080), weight)
    return LiveService(
        stable=deployment(STABLE, 4, Track.STABLE),
        canary=None if weight is None else deployment(CANARY, 1, Track.CANARY),
        split=Split(
            NAME, "macromind", Match("macromind.local", "/api/auth"), stable, canary, entries=(Entry("nginx"),)
        ),
        selector=selector(NAME, Track.STABLE),
        port=LivePort(8080, "", 8080),
    )


def transition(settings: Settings, live: LiveService) -> Transition:
    return transitions(settings, {NAME: live}, STACK)[NAME]


def refused(settings: Settings, live: LiveService) -> dict[str, str]:
    """Return the fix of each key that is refused."""
    with pytest.raises(RefusedError, match="nothing was changed") as caught:
        transitions(settings, {NAME: live}, STACK)
    return {problem.key: problem.fix for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("live", "weight", "lowers_to", "raises"),
    [
        (20, 50, None, True),
        (20, 20, None, False),
        (50, 20, 20, False),
        (50, 0, 0, False),
        (None, 0, None, True),  # a new route, although it gets nothing
        (None, 50, None, True),
        (0, 0, None, False),
    ],
)
def test_a_weight_that_falls_comes_first_and_one_that_rises_waits(
    live: int | None,
    weight: int,
    lowers_to: int | None,
    raises: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    found = transition(declared(weight), running(live))

    assert (found.lowers_to, found.raises) == (lowers_to, raises)


@pytest.mark.parametrize(
    ("settings", "canary", "lowers_to", "raises"),
    [
        (declared(0), True, 0, False),
        (declared(0), False, None, True),  # a canary that is not there yet
        (declared(20), True, None, True),
        (declared(canary=None), True, 0, False),
        (declared(canary=None, image=CANARY), True, None, False),
    ],
)
def test_whatever_the_weight_of_an_unreadable_route_is_0_is_no_rise(
    settings: Settings, lowers_to: int | None, *, canary: bool, raises: bool
) -> None:
    live = replace(running(50), split=None, unreadable="two weights")

    found = transition(settings, live if canary else replace(live, canary=None))

    assert (found.lowers_to, found.raises) == (lowers_to, raises)


def test_an_abort_lowers_first_and_a_promotion_keeps_the_share_until_stable_is_ready() -> None:
    assert transition(declared(canary=None), running(50)).lowers_to == 0
    assert transition(declared(canary=None, image=CANARY), running(50)).lowers_to is None


@pytest.mark.parametrize("change", [{"canary": None}, {}], ids=["abort", "lower weight"])
def test_nothing_is_lowered_ahead_onto_a_stable_without_ready_pods(change: dict[str, Any]) -> None:
    live = running(50)
    assert live.stable
    settings = declared(20, **change)

    assert transition(settings, live).lowers_to is not None
    assert transition(settings, replace(live, stable=replace(live.stable, ready=0))).lowers_to is None
    assert transition(settings, replace(live, stable=None)).lowers_to is None


def test_a_service_of_another_stack_is_left_alone() -> None:
    theirs = replace(running(20), owner="macromind/prod")

    with pytest.raises(RefusedError, match="belong to stack macromind/prod"):
        transitions(declared(20), {NAME: theirs}, STACK)
    transition(declared(20), replace(theirs, owner=STACK))


def test_a_service_that_a_component_declares_is_not_taken_over_by_the_configuration() -> None:
    former = replace(running(20), owner=STACK, declared_as=frozenset({"canary:index:CanaryStack::shop"}))

    with pytest.raises(RefusedError, match="as it was, as canary:index:CanaryStack::shop"):
        transitions(declared(20), {NAME: former}, STACK)
    transitions(declared(20), {NAME: former}, STACK, ["canary:index:CanaryStack::shop"])


@pytest.mark.parametrize(
    ("change", "top", "said"),
    [
        ({"path": "/api/v2"}, {}, "from macromind.local/api/auth (Prefix) to macromind.local/api/v2 (Prefix)"),
        ({"pathType": "Exact"}, {}, "to macromind.local/api/auth (Exact)"),
        ({}, {"host": "example.org"}, "to example.org/api/auth (Prefix)"),
        ({}, {"ingressClassName": "ngnix"}, "from nginx to ngnix"),
    ],
)
def test_a_route_that_moves_is_said(change: dict[str, Any], top: dict[str, str], said: str) -> None:
    (warning,) = transition(declared(20, top=top, **change), running(20)).warnings

    assert said in warning
    assert "will fail" in warning


@pytest.mark.parametrize(("weight", "lowers_to", "raises"), [(60, None, False), (20, 20, False), (100, None, True)])
def test_a_stack_that_moves_to_another_router_goes_on_from_the_weight_in_force(
    weight: int, lowers_to: int | None, *, raises: bool
) -> None:
    moving = replace(running(60), former_routers=("nginx",))

    found = transition(declared(weight, top={"router": "gateway"}), moving)

    assert (found.lowers_to, found.raises) == (lowers_to, raises)
    (warning,) = found.warnings
    assert "moves from router nginx to gateway" in warning


@pytest.mark.parametrize(
    ("weight", "lowers_to", "raises"), [(40, 40, False), (50, 50, True), (60, None, True), (95, None, True)]
)
def test_a_weight_rises_from_the_least_and_falls_from_the_most_that_a_router_gives(
    weight: int, lowers_to: int | None, *, raises: bool
) -> None:
    moving = replace(running(45), former_routers=("nginx",), least=45, most=60)

    found = transition(declared(weight, top={"router": "gateway"}), moving)

    assert (found.lowers_to, found.raises) == (lowers_to, raises)
    fix = "pulumi config set canaryWeight 95"
    assert refused(declared(96, top={"router": "gateway"}), moving) == {"canaryWeight": fix}


@pytest.mark.parametrize(
    ("router", "top", "former", "said"),
    [
        ("traefik", {}, (), False),
        ("traefik", {"tlsSecretName": "shop-tls"}, (), True),
        ("traefik", {"tlsSecretName": "shop-tls", "traefik": '{"entryPoints": ["web"]}'}, (), True),
        ("traefik", {"tlsSecretName": "shop-tls"}, ("nginx",), True),  # which takes plain HTTP too
        ("nginx", {"tlsSecretName": "shop-tls"}, (), False),
    ],
)
def test_of_a_certificate_with_which_plain_http_is_routed_no_more_a_reviewer_learns(
    router: str, top: dict[str, str], former: tuple[str, ...], *, said: bool
) -> None:
    settings = declared(20, top={"router": router, **top})
    warnings = transition(settings, replace(running(20), former_routers=former)).warnings
    assert any("plain HTTP get status 404" in each for each in warnings) is said
    assert ("entryPoints (web)" in str(warnings)) is ("traefik" in top)
    assert not any("plain HTTP" in each for each in transition(settings, LiveService()).warnings)


def test_that_a_certificate_stays_is_no_news() -> None:
    settings = declared(20, top={"router": "traefik", "tlsSecretName": "shop-tls"})
    live = replace(running(20), split=settings.split_of(NAME))
    assert not any("plain HTTP" in each for each in transition(settings, live).warnings)


def test_a_promotion_below_100_percent_is_said() -> None:
    (warning,) = transition(declared(canary=None, image=CANARY), running(40)).warnings

    assert "60 % of the requests have never met" in warning
    assert transition(declared(canary=None, image=CANARY), running(100)).warnings == ()


@pytest.mark.parametrize(("live", "weight", "most"), [(None, 51, 50), (0, 100, 50), (20, 71, 70)])
def test_a_jump_is_refused_with_the_largest_step_there_is(live: int | None, weight: int, most: int) -> None:
    assert refused(declared(weight), running(live)) == {"canaryWeight": f"pulumi config set canaryWeight {most}"}
    assert transition(declared(most), running(live)).raises


def test_a_jump_of_a_weight_of_its_own_names_its_key() -> None:
    settings = declared(0, canary={"image": CANARY, "weight": 90})

    key = f"services.{NAME}.canary.weight"
    assert refused(settings, running(20)) == {key: f"pulumi config set --path {key} 70"}


def test_the_largest_step_is_configuration_and_going_down_has_no_limit() -> None:
    assert transition(declared(100, top={"rollout": json.dumps({"maxStep": 100})}), running(0)).raises
    assert refused(declared(31, top={"rollout": json.dumps({"maxStep": 10})}), running(20)).keys() == {"canaryWeight"}
    assert transition(declared(0), running(100)).lowers_to == 0


def test_one_key_for_many_services_is_one_problem_with_what_all_of_them_allow() -> None:
    one = declared(90).services[NAME]
    settings = declared(90).model_copy(update={"services": {NAME: one, "other": one}})

    with pytest.raises(RefusedError) as caught:
        transitions(settings, {NAME: running(30), "other": LiveService(split=running(20).split)}, STACK)

    (problem,) = caught.value.problems
    assert problem.fix == "pulumi config set canaryWeight 70"


class TestAnotherImage:
    key = f"services.{NAME}.canary.replaces"

    def test_it_is_refused_while_the_running_one_gets_requests(self) -> None:
        fixes = refused(declared(20, canary={"image": NEXT}), running(20))

        assert fixes == {f"services.{NAME}.canary.image": f"pulumi config set --path {self.key} {CANARY}"}

    def test_what_else_can_be_done_is_a_command(self) -> None:
        with pytest.raises(RefusedError) as caught:
            transitions(declared(20, canary={"image": NEXT}), {NAME: running(20)}, STACK)

        (problem,) = caught.value.problems
        assert f"`canary abort --service {NAME}`" in problem.allowed

    def test_it_may_replace_the_one_that_was_named_and_no_other(self) -> None:
        assert transition(declared(20, canary={"image": NEXT, "replaces": CANARY}), running(20)).replaces
        assert refused(declared(20, canary={"image": NEXT, "replaces": STABLE}), running(20))

    def test_one_that_still_serves_may_come_back_from_a_rollout_that_did_not_succeed(self) -> None:
        live = running(20)
        assert live.canary
        stuck = replace(live.canary, image=NEXT, serving=(CANARY,), rolled_out=False)

        transition(declared(20), replace(live, canary=stuck))
        assert refused(declared(20, canary={"image": "example/auth:3"}), replace(live, canary=stuck))

    def test_it_may_come_when_the_running_one_gets_nothing_or_is_to_get_nothing(self) -> None:
        assert not transition(declared(20, canary={"image": NEXT}), running(0)).replaces
        lowered = transition(declared(0, canary={"image": NEXT}), running(20))
        assert (lowered.lowers_to, lowered.replaces) == (0, True)

    def test_the_declared_one_may_come_back_when_something_else_has_set_the_running_one(self) -> None:
        live = running(20)
        by_hand = replace(deployment("example/auth:9.9", 1, Track.CANARY), overridden_version="1.1")

        transition(declared(20), replace(live, canary=by_hand))
        assert refused(declared(20, canary={"image": NEXT}), replace(live, canary=by_hand))


class TestFewerStablePods:
    def test_they_are_refused_while_the_canary_gets_requests(self) -> None:
        key = f"services.{NAME}.replicas"

        assert refused(declared(20, replicas=3), running(20)) == {key: f"pulumi config set --path {key} 4"}

    def test_they_are_allowed_without_a_share_and_more_always(self) -> None:
        transition(declared(0, replicas=3), running(0))
        transition(declared(20, replicas=5), running(20))

    def test_a_number_that_somebody_else_set_binds_nobody(self) -> None:
        live = running(20)
        scaled = replace(live, stable=replace(deployment(STABLE, 9, Track.STABLE), declared_replicas=None))

        transition(declared(20), scaled)


@pytest.mark.parametrize("track", list(Track))
def test_a_deployment_with_another_selector_is_refused_and_the_guide_named(track: Track) -> None:
    foreign = replace(deployment(STABLE, 4, track), selector={"app": NAME})
    live = running(20)
    live = replace(live, stable=foreign) if track is Track.STABLE else replace(live, canary=foreign)

    assert "docs/takeover.md" in refused(declared(20), live)[f"services.{NAME}"]


def test_a_service_that_would_lead_to_no_ready_pod_is_refused() -> None:
    live = replace(running(20), stable=None, selector={"app": NAME}, strands=True)

    assert "docs/takeover.md" in refused(declared(20), live)[f"services.{NAME}"]


def test_another_port_or_port_name_is_refused() -> None:
    live = running(20)

    assert refused(declared(20, port=9090), live).keys() == {f"services.{NAME}.port"}
    assert refused(declared(20, servicePort=80), live) == {
        f"services.{NAME}.servicePort": f"pulumi config set --path services.{NAME}.servicePort 8080"
    }
    web = replace(live, port=LivePort(80, "", 8080))
    transition(declared(20, servicePort=80), web)
    assert refused(declared(20, port=80), web).keys() == {f"services.{NAME}.port"}
    key = f"services.{NAME}.portName"
    assert refused(declared(20, portName="web"), live) == {key: f"pulumi config rm --path {key}"}
    named = replace(live, port=LivePort(8080, "web", "web"))
    assert refused(declared(20), named) == {key: f"pulumi config set --path {key} web"}
    transition(declared(20, portName="web"), named)


class TestAttaching:
    key = f"services.{NAME}.stable"

    def attached(self, **live: Any) -> LiveService:  # noqa: ANN401 - values of any field
        found = replace(running(None), stable=None, selector={"app": NAME})
        return replace(found, **live)

    def test_there_has_to_be_a_route(self) -> None:
        assert refused(declared(stable="existing"), LiveService()).keys() == {self.key}

    def test_a_selector_that_takes_canary_pods_in_is_refused(self) -> None:
        assert refused(declared(stable="existing"), self.attached(selector={})).keys() == {self.key}
        assert transition(declared(stable="existing"), self.attached()).raises

    def test_what_this_stack_made_is_not_given_away(self) -> None:
        own = self.attached(ours=True)

        assert refused(declared(stable="existing"), own).keys() == {self.key}

    def test_requests_that_a_canary_takes_along_are_said(self) -> None:
        live = self.attached(taken_along=("macromind.local/admin",))

        assert any("macromind.local/admin" in text for text in transition(declared(stable="existing"), live).warnings)


def test_who_stays_at_weight_0_is_said() -> None:
    canary = {"image": CANARY, "header": {"name": "X-Canary", "value": "true"}, "cookie": "canary"}

    (warning,) = transition(declared(0, canary=canary), running(20)).warnings

    assert "header X-Canary: true" in warning
    assert "cookie canary=always" in warning


def test_a_drain_below_the_routers_sync_and_equal_images_are_said() -> None:
    warnings = transition(declared(20, drainSeconds=2, canary={"image": STABLE}), running(None)).warnings

    assert ["drainSeconds is 2" in text for text in warnings] == [True, False]
    assert "the same image" in warnings[1]


def test_all_problems_are_told_at_once() -> None:
    settings = declared(90, replicas=1, canary={"image": NEXT})

    assert len(refused(settings, running(20))) == 3


def mirroring(percent: int, weight: int = 0) -> Settings:
    canary = {"image": CANARY, "mirrorPercent": percent}
    return declared(weight, top={"router": "traefik"}, canary=canary)


def mirrored(percent: int) -> LiveService:
    found = running(0)
    assert found.split
    assert found.split.canary
    return replace(found, split=replace(found.split, canary=replace(found.split.canary, mirror=percent), entries=()))


@pytest.mark.parametrize(
    ("before", "after", "raises"), [(0, 20, True), (20, 100, True), (20, 20, False), (100, 20, False), (20, 0, False)]
)
def test_a_mirror_that_grows_waits_for_the_canarys_pods(before: int, after: int, raises: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    assert transition(mirroring(after), mirrored(before)).raises is raises


def test_a_weight_that_falls_to_a_mirror_waits_for_no_canary() -> None:
    found = transition(mirroring(20), running(50))

    assert (found.lowers_to, found.raises) == (0, False)


def test_what_a_mirror_does_twice_is_said() -> None:
    assert "copies of 20 % of the requests go to the canary: what they write is written twice" in (
        transition(mirroring(20), mirrored(0)).warnings
    )
    assert not any("copies" in warning for warning in transition(mirroring(20, weight=5), mirrored(20)).warnings)
