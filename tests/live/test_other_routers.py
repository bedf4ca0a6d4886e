"""The whole life of a canary behind the Gateway API and Traefik's own resources, and the move from NGINX to them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from lightkube import Client
from lightkube.resources.networking_v1 import Ingress

from canary_service.routing.nginx import WEIGHT
from demo.measurement import check_share, measure
from sandbox.lifecycle import Sandbox
from sandbox.routes_in_force import mirrored_percent
from sandbox.traffic import Traffic
from tests.live import canary
from tests.live.application import eventually
from tests.live.scene import CANARY_IMAGE, GOOD_CANARY, NAME, Scene

ROUTERS: Mapping[str, Mapping[str, Any]] = {
    "gateway": {"gateway": {"namespace": "default"}},
    "traefik": {"traefik": {"entryPoints": ["web"]}},
}
ROUTES = {
    "gateway": "httproutes.gateway.networking.k8s.io",
    "traefik": "ingressroutes.traefik.io,traefikservices.traefik.io",
}
REQUESTS = 200


@pytest.fixture(params=ROUTERS)
def router(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def scene(sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path) -> Scene:
    return Scene.create(sandbox, cluster, namespace, tmp_path)


def measured(scene: Scene, traffic: Traffic) -> None:
    """Wait until the proxy routes by what is declared, and hold the shares against it."""
    scene.settle()
    weight = scene.stack.settings().split_of(NAME).weight
    check_share(NAME, weight, measure(scene.observed, traffic, REQUESTS)[NAME], drawn=True)


def test_no_request_is_lost_from_the_first_canary_to_promotion_and_abort(scene: Scene, router: str) -> None:
    scene.route_by(router, ROUTERS[router])
    scene.up()
    scene.settle()

    with scene.traffic() as traffic:
        for weight in (20, 50, 0, 50, 100):
            scene.configure(weight=weight, canary=GOOD_CANARY)
            scene.up()
            measured(scene, traffic)
        scene.configure(image=CANARY_IMAGE, canary=None)  # promotion
        scene.up()
        measured(scene, traffic)
        scene.configure(weight=30, canary={"image": "registry.example/app:3.0"})
        scene.up()
        measured(scene, traffic)
        scene.configure(canary=None)  # abort
        scene.up()
        measured(scene, traffic)
    assert scene.pods("canary") == {}
    scene.stack.run("preview", "--expect-no-changes")
    scene.stack.run("destroy", "--yes", "--skip-preview")
    assert "No resources found" in scene.said("get", ROUTES[router])


def test_a_canary_whose_pods_do_not_start_gets_nothing_in_a_route_that_is_there(scene: Scene, router: str) -> None:
    scene.route_by(router, ROUTERS[router])
    scene.up()
    scene.settle()

    with scene.traffic():
        scene.configure(weight=20, canary={"image": "registry.example/app:missing"})
        refusal = scene.up_refused()

        assert "ErrImagePull" in refusal.message or "ImagePullBackOff" in refusal.message
        assert "canary" not in scene.kubectl("get", ROUTES[router], "--output", "jsonpath={.items[*].spec}")


def test_a_weight_set_by_hand_is_put_back(scene: Scene, router: str) -> None:
    scene.route_by(router, ROUTERS[router])
    scene.deploy(20)
    path = "/spec/rules/0/backendRefs/1/weight" if router == "gateway" else "/spec/weighted/services/1/weight"
    kind = ROUTES[router].rpartition(",")[2]
    scene.kubectl("patch", kind, NAME, "--type=json", "--patch", f'[{{"op":"replace","path":"{path}","value":90}}]')

    shown = scene.stack.run("preview")
    scene.up()

    assert f"{NAME} was changed by kubectl-patch" in shown
    scene.settle()


@pytest.mark.parametrize("deleted", ["route", "weights"])
def test_a_route_that_somebody_deleted_is_made_again(scene: Scene, router: str, deleted: str) -> None:
    kinds = ROUTES[router].split(",")
    scene.route_by(router, ROUTERS[router])
    scene.deploy(20)
    scene.kubectl("delete", kinds[0] if deleted == "route" else kinds[-1], NAME)

    scene.up()

    scene.settle()


def test_a_stack_moves_from_nginx_and_back_without_losing_a_request(scene: Scene, router: str) -> None:
    scene.stack.set("rollout.maxStep", "60")
    scene.deploy(60)
    scene.stack.set("rollout.maxStep", "50")  # the weight in force is known before and after: it does not jump

    with scene.traffic() as traffic:
        for to, settings in ((router, ROUTERS[router]), ("nginx", {})):
            scene.route_by(to, settings)
            said = scene.stack.run("up", "--yes", "--skip-preview")
            measured(scene, traffic)
            assert f"to {to}: both are there until the new one is in force" in said
            assert "was missing" not in said
            assert bool(ingresses(scene)) is (to == "nginx")
        eventually(lambda: "No resources found" in scene.said("get", ROUTES[router]))


def test_a_gateway_that_does_not_take_the_route_leaves_the_former_one_in_force(scene: Scene) -> None:
    scene.configure(readyTimeoutSeconds=5)
    scene.deploy(20)
    present = {NAME, f"{NAME}-canary"}

    with scene.traffic() as traffic:
        scene.route_by("gateway", {"gateway": {"name": "nowhere"}})
        for _ in range(2):  # what a failed update has left is no reason to remove what serves
            refusal = scene.up_refused()
            assert f"HTTPRoute {NAME}: Gateway {scene.namespace}/nowhere is not there" in refusal.message
            assert {found.metadata.name for found in ingresses(scene) if found.metadata} == present
        told = "objects of router nginx take its requests too"
        assert told in canary.run(scene, "status", "--json")
        assert told in canary.run(scene, "watch", "--once")
        assert {"former-router", "route-accepted"} <= problems(scene, exit_code=6)
        weights = canary.run(scene, "abort", "--yes", exit_code=4)
        assert f"{NAME}: 0 %, read back" in weights
        assert scene.weight() == 0

        scene.route_by("gateway", ROUTERS["gateway"])
        scene.up()
        assert ingresses(scene) == []
        assert problems(scene) == set()

        scene.route_by("nginx", {})
        scene.up()
        measured(scene, traffic)
    assert "No resources found" in scene.said("get", ROUTES["gateway"])


def test_a_first_route_for_which_nobody_answers_is_a_warning_and_one_that_is_refused_ends_the_update(
    scene: Scene,
) -> None:
    scene.configure(readyTimeoutSeconds=5)
    scene.route_by("gateway", {"gateway": {"name": "later"}})

    said = scene.stack.run("up", "--yes", "--skip-preview")

    assert f"warning: HTTPRoute {NAME}: Gateway {scene.namespace}/later is not there" in said
    assert "the declared router does not route it" in canary.run(scene, "status", "--json")

    scene.route_by("gateway", {"gateway": {"namespace": "default", "listener": "none"}})
    for _ in range(2):  # it is no news, and wrong all the same
        refusal = scene.up_refused()
        assert f"HTTPRoute {NAME}: NoMatchingParent\n    No request is routed by it." in refusal.message

    scene.route_by("gateway", ROUTERS["gateway"])
    scene.up()
    assert problems(scene) == set()


def test_a_route_in_service_is_not_given_to_a_gateway_that_is_not_there(scene: Scene) -> None:
    scene.route_by("gateway", ROUTERS["gateway"])
    scene.deploy(20)

    with scene.traffic() as traffic:
        for key in ("name", "listener"):
            scene.route_by("gateway", {"gateway": {"namespace": "default", key: "typo"}})
            planned = canary.run(scene, "plan", exit_code=1)
            for said in (planned, scene.refused("preview").message, scene.up_refused().message):
                assert f"gateway.{key} = typo" in said
                assert "Traceback" not in said
        scene.route_by("gateway", ROUTERS["gateway"])
        measured(scene, traffic)


def problems(scene: Scene, exit_code: int = 0) -> set[str]:
    """Return the checks of `canary doctor` that find one."""
    told = json.loads(canary.run(scene, "doctor", "--json", exit_code=exit_code))
    return {each["check"] for each in told["diagnoses"] if each["state"] == "problem"}


def test_a_router_whose_kinds_the_cluster_does_not_know_is_refused(scene: Scene) -> None:
    scene.route_by("consul", {})

    planned = canary.run(scene, "plan", exit_code=1)
    for message in (planned, scene.refused("preview").message, scene.up_refused().message):
        assert "router consul needs ServiceDefaults (consul.hashicorp.com/v1alpha1)" in message
        assert "Traceback" not in message


def test_the_way_down_needs_no_router_that_the_cluster_knows(scene: Scene) -> None:
    scene.deploy(20)
    scene.route_by("consul", {})

    assert "router consul needs ServiceDefaults" in canary.run(scene, "status", "--json")
    assert f"{NAME}: 0 %, read back" in canary.run(scene, "abort", "--yes", exit_code=1)

    assert {WEIGHT: "0"}.items() <= (scene.get(Ingress, f"{NAME}-canary") or {})["metadata"]["annotations"].items()
    assert scene.stack.settings().split_of(NAME).weight == 0


def test_a_route_changed_by_hand_does_not_stand_in_the_way_down(scene: Scene) -> None:
    scene.route_by("traefik", ROUTERS["traefik"])
    scene.deploy(20)
    routes = json.loads(scene.kubectl("get", "ingressroutes.traefik.io", NAME, "--output", "jsonpath={.spec.routes}"))
    routes[-1]["match"] += " && Method(`GET`)"
    changed = json.dumps({"spec": {"routes": routes}})
    scene.kubectl("patch", "ingressroutes.traefik.io", NAME, "--type=merge", "--patch", changed)

    assert "so the weight is not known: IngressRoute" in canary.run(scene, "status", "--json")
    assert f"{NAME}: canary ? → 20 %" in canary.run(scene, "plan")
    told = canary.run(scene, "abort", "--yes")

    assert f"{NAME}: canary ? → 0 %" in told
    assert f"{NAME}: 0 %, read back\nWeight 0 was read back after " in told
    with scene.traffic() as traffic:
        measured(scene, traffic)


def test_a_route_whose_services_were_exchanged_is_put_back_although_the_update_is_refused(scene: Scene) -> None:
    scene.route_by("gateway", ROUTERS["gateway"])
    scene.deploy(20)
    rules = json.loads(scene.kubectl("get", "httproutes", NAME, "--output", "jsonpath={.spec.rules}"))
    for backend in rules[-1]["backendRefs"]:
        backend["name"] = {NAME: f"{NAME}-canary", f"{NAME}-canary": NAME}[backend["name"]]
    scene.kubectl("patch", "httproutes", NAME, "--type=merge", "--patch", json.dumps({"spec": {"rules": rules}}))
    scene.route_by("gateway", {"gateway": {"namespace": "default", "listener": "nowhere"}})

    assert "so the weight is not known: HTTPRoute" in canary.run(scene, "status", "--json")
    told = canary.run(scene, "abort", "--yes", exit_code=1)

    assert f"{NAME}: 0 %, read back\nWeight 0 was read back after " in told
    with scene.traffic() as traffic:
        measured(scene, traffic)


def ingresses(scene: Scene) -> list[Ingress]:
    return list(scene.cluster.list(Ingress, namespace=scene.namespace))


def mirrored(scene: Scene) -> int:
    """Return the percent of which the proxy sends copies to the canary."""
    return mirrored_percent(scene.observed.proxy_admin_url, scene.namespace, NAME, "traefik")


def test_a_mirror_goes_over_into_the_first_weight_and_no_request_is_lost(scene: Scene) -> None:
    scene.route_by("traefik", ROUTERS["traefik"])
    scene.up()
    scene.settle()

    with scene.traffic() as traffic:
        for weight, copies in ((0, 50), (20, 0), (0, 50)):
            scene.configure(weight=weight, canary=GOOD_CANARY | {"mirrorPercent": 50})
            assert "was missing" not in scene.stack.run("up", "--yes", "--skip-preview")
            measured(scene, traffic)
            assert eventually(lambda copies=copies: [mirrored(scene)] == [copies])  # type: ignore[misc]
        scene.configure(image=CANARY_IMAGE, canary=None)
        scene.up()
        measured(scene, traffic)
    assert scene.kubectl("get", "traefikservices.traefik.io", "--output", "name").split() == [
        f"traefikservice.traefik.io/{NAME}"
    ]
    scene.stack.run("preview", "--expect-no-changes")


def test_a_canary_whose_pods_do_not_start_gets_no_copies(scene: Scene) -> None:
    scene.route_by("traefik", ROUTERS["traefik"])
    scene.configure(weight=0, canary=GOOD_CANARY)
    scene.up()
    scene.settle()

    scene.configure(canary={"image": "registry.example/app:missing", "mirrorPercent": 100})
    refusal = scene.up_refused()

    assert "ErrImagePull" in refusal.message or "ImagePullBackOff" in refusal.message
    assert mirrored(scene) == 0


def test_a_mirror_is_refused_behind_a_gateway_that_would_fail_every_request(scene: Scene) -> None:
    scene.route_by("gateway", ROUTERS["gateway"])
    scene.configure(weight=0, canary=GOOD_CANARY | {"mirrorPercent": 20})

    refusal = scene.up_refused()

    assert "HTTPRouteRequestMirror, HTTPRouteRequestPercentageMirror" in refusal.message


def test_an_abort_ends_the_copies(scene: Scene) -> None:
    scene.route_by("traefik", ROUTERS["traefik"])
    scene.configure(0, canary=GOOD_CANARY | {"mirrorPercent": 20})
    scene.up()

    aborted = json.loads(canary.run(scene, "abort", "--yes", "--json"))

    assert (aborted["outcome"], aborted["services"][NAME]["readBack"]) == ("done", 0)
    assert "mirroring" not in scene.kubectl(
        "get", "traefikservices.traefik.io", "--output", "jsonpath={.items[*].spec}"
    )
    assert scene.stack.settings().mirror_of(NAME) == 0
