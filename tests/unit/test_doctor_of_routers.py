"""What `canary doctor` says of stacks whose router is not nginx."""

import json
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from canary_service.routing.registry import ROUTERS
from canary_service.routing.router import Manifest
from canary_service.routing.split import Track
from canary_service.workload.facts import Share
from canary_service.workload.live import FIELD_MANAGER
from canary_service.workload.manifests import labels_of
from tests.unit.recorded_cluster import STACK, World, settings

OTHERS = sorted(ROUTERS.keys() - {"nginx"})
KEYS = {"gateway": {"gateway": json.dumps({"namespace": "gateways"})}}
ALL_OURS = {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": {}}
OF_NGINX = {"ingress", "ingress-class", "route-match", "weight", "canary-annotations"}


def answered(condition: dict[str, str], route: Manifest) -> Manifest:
    """Return the status of a route for whose only parent a controller has answered."""
    (parent,) = route["spec"]["parentRefs"]
    return {"parents": [{"parentRef": parent, "conditions": [condition]}]}


def config(router: str) -> dict[str, str]:
    return {"router": router} | KEYS.get(router, {})


@pytest.fixture(params=OTHERS)
def world(request: pytest.FixtureRequest) -> World:
    """Return the recorded cluster with the objects of another router."""
    header = {"name": "x-canary", "value": "true"}
    canary = {"image": "registry.example/app:2.0", "header": header}
    made = World(settings=settings(config=config(request.param), canary=canary))
    del made.objects["Ingress"], made.objects["IngressClass"]
    for kind in ROUTERS[request.param].kinds:
        made.objects[kind.kind] = []
    for deployment in made.objects["Deployment"]:  # recorded without what Consul adds to pods
        deployment["metadata"]["managedFields"] = [ALL_OURS]
    put(made, 20)
    return made


def put(world: World, weight: int) -> None:
    """Put the objects of the router there, as the engine applies them, with a weight for `app`."""
    router = world.settings.router_of_stack()
    for kind in router.kinds:
        world.objects[kind.kind].clear()
    for name in world.settings.services:
        split = world.settings.split_of(name)
        if split.canary:
            split = replace(split, canary=replace(split.canary, weight=weight))
        for route in router.render(split):
            manifest = deepcopy(route.manifest)
            metadata: dict[str, Any] = manifest["metadata"]
            metadata["labels"] = labels_of(world.settings, name, Track.STABLE, STACK.partition("/")[0])
            metadata["managedFields"] = [ALL_OURS]
            if manifest["kind"] == "HTTPRoute":
                manifest["status"] = answered({"type": "Accepted", "status": "True"}, manifest)
            world.objects[manifest["kind"]].append(manifest)


def routes(world: World) -> list[Manifest]:
    return [found for kind in world.settings.router_of_stack().kinds for found in world.objects[kind.kind]]


def test_a_sound_route_is_no_problem_and_the_checks_of_nginx_are_not_asked(world: World) -> None:
    asked = {each.check for each in world.diagnoses()}
    assert world.having() == set()
    assert asked >= {"route-kinds", "route-split", "route-accepted", "drift", "share"}
    assert not asked & OF_NGINX


def test_another_weight_than_declared_is_told_with_the_key(world: World) -> None:
    put(world, 60)
    assert world.only("route-split").cause == "60 % are in force, and canaryWeight declares 20 %"


def test_a_measured_share_is_compared_with_the_weight_in_force(world: World) -> None:
    put(world, 60)
    world.shares["app"] = Share(60.0, 20, 20)
    assert ("share", "app") not in world.having()
    world.shares["app"] = Share(90.0, 20, 20)
    assert ("share", "app") in world.having()


def test_a_route_that_is_not_there_is_told(world: World) -> None:
    for kind in world.settings.router_of_stack().kinds:
        world.objects[kind.kind] = []
    assert {("route-split", "app"), ("route-split", "web")} <= world.having()


def test_a_route_that_leads_elsewhere_is_told_by_its_parts(world: World) -> None:
    world.settings = settings(config=config(world.settings.router), servicePort=9090, canary={"image": "a/b:2.0"})
    told = world.only("route-split")
    assert told.cause.endswith("another split than declared: header, stable's Service, the canary's Service")
    assert {(each.field, each.value) for each in told.evidence} == {
        ("header", "x-canary true instead of none"),
        ("stable's Service", "app 8080 instead of app 9090"),
        ("the canary's Service", "app-canary 8080 instead of app-canary 9090"),
    }


def test_kinds_that_the_cluster_does_not_know_are_told_first(world: World) -> None:
    kinds = [kind.kind for kind in world.settings.router_of_stack().kinds]
    world.unserved = frozenset(kinds)
    told = [each for each in world.diagnoses() if each.state == "problem"]
    assert [each.check for each in told[: len(kinds)]] == ["route-kinds"] * len(kinds)


def test_routes_that_may_not_be_read_are_unknown_with_the_right_that_is_missing(world: World) -> None:
    for kind in world.settings.router_of_stack().kinds:
        del world.objects[kind.kind]
        world.unread[kind.kind] = "forbidden"
    unknown = {check for check, _ in world.having("unknown")}
    assert unknown >= {"route-split", "route-accepted", "drift", "owner"}
    assert not {"route-split", "route-accepted", "drift"} & {check for check, _ in world.having()}
    plural = world.settings.router_of_stack().kinds[0].plural
    causes = [each.cause for each in world.diagnoses() if each.check == "route-kinds"]
    assert f"list {plural} in " in causes[0]


def test_a_gateway_that_refuses_the_route_is_told_in_its_words() -> None:
    made = World(settings=settings(config=config("gateway")))
    made.objects["HTTPRoute"] = []
    put(made, 20)
    refusal = {"type": "Accepted", "status": "False", "reason": "NotAllowedByListeners", "message": "no such namespace"}
    made.named("HTTPRoute", "app")["status"] = answered(refusal, made.named("HTTPRoute", "app"))
    assert "NotAllowedByListeners: no such namespace" in made.only("route-accepted").cause


def test_a_gateway_that_is_gone_is_told_although_the_status_says_accepted() -> None:
    made = World(settings=settings(config=config("gateway")))
    made.objects["HTTPRoute"] = []
    put(made, 20)
    assert ("route-accepted", "app") not in made.having()
    (entry,) = made.settings.split_of("app").entries
    made.lacking = {entry: "Gateway gateways/gateway is not there"}
    told = next(each for each in made.diagnoses() if (each.check, each.service) == ("route-accepted", "app"))
    assert told.cause == "HTTPRoute app: Gateway gateways/gateway is not there"
    assert told.evidence[0].value == "Accepted=True"
    assert told.fix.startswith("correct gateway in the configuration")


def test_a_route_of_a_router_without_keys_of_its_own_names_no_key() -> None:
    made = World(settings=settings(config=config("linkerd")))
    made.objects["HTTPRoute"] = []
    put(made, 20)
    refusal = {"type": "Accepted", "status": "False", "reason": "NoMatchingParent", "message": "none"}
    made.named("HTTPRoute", "app")["status"] = answered(refusal, made.named("HTTPRoute", "app"))
    told = made.only("route-accepted")
    assert told.fix == "correct what it names: kubectl --namespace shop get httproutes app --output yaml"
    assert told.evidence[0].value == "Accepted=False NoMatchingParent none"
