"""A canary beside a Deployment, Service and Ingress that something else owns, under traffic."""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from lightkube import Client
from lightkube.resources.networking_v1 import Ingress

from canary_service.routing.nginx import CANARY as IS_CANARY
from canary_service.routing.nginx import WEIGHT
from demo.measurement import check_share, measure, round_robin_bounds
from sandbox.lifecycle import Sandbox
from sandbox.routes_in_force import canary_weight
from sandbox.traffic import Traffic
from tests.live.application import eventually
from tests.live.scene import CANARY, CANARY_IMAGE, GOOD_CANARY, NAME, PATHS, STABLE_IMAGE, Scene

REQUESTS = 200
SHARED = "all-of-the-shop"
OTHER_PATH = "/other"

_http = httpx2.Client(trust_env=False, timeout=30)


@dataclass(frozen=True)
class Existing:
    """What somebody has made by hand. `paths` are those of the Ingress, each with its Service."""

    ingress: str = NAME
    paths: tuple[tuple[str, str], ...] = ((PATHS[NAME], NAME),)
    port: int | str = 8080
    ingress_class: str | None = "nginx"
    selector: tuple[tuple[str, str], ...] = (("app", NAME),)

    def manifests(self, host: str) -> list[dict[str, Any]]:
        probe = {"httpGet": {"path": "/healthz", "port": "web"}, "periodSeconds": 1}
        container = {
            "name": NAME,
            "image": STABLE_IMAGE,
            "ports": [{"name": "web", "containerPort": 9000}],
            "readinessProbe": probe,
            "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        }
        template = {"metadata": {"labels": {"app": NAME, "tier": "web"}}, "spec": {"containers": [container]}}
        service_port = {"name": "web", "port": 80 if isinstance(self.port, str) else self.port, "targetPort": "web"}
        port = {"name" if isinstance(self.port, str) else "number": self.port}
        rule = {
            "host": host,
            "http": {
                "paths": [
                    {"path": path, "pathType": "Prefix", "backend": {"service": {"name": service, "port": port}}}
                    for path, service in self.paths
                ]
            },
        }
        return [
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": NAME},
                "spec": {
                    "replicas": 2,
                    "strategy": {"rollingUpdate": {"maxUnavailable": 0}},
                    "selector": {"matchLabels": {"app": NAME}},
                    "template": template,
                },
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": NAME},
                "spec": {"selector": dict(self.selector), "ports": [service_port]},
            },
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "Ingress",
                "metadata": {"name": self.ingress},
                "spec": {"rules": [rule]} | ({"ingressClassName": self.ingress_class} if self.ingress_class else {}),
            },
        ]


SHARED_INGRESS = Existing(ingress=SHARED, paths=((PATHS[NAME], NAME), ("/meals", "meals")))
SAME_SERVICE = Existing(ingress=SHARED, paths=((PATHS[NAME], NAME), (OTHER_PATH, NAME)))

Make = Callable[[Existing], Scene]


@pytest.fixture
def make(sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path) -> Make:
    """Make the objects by hand, and a stack that attaches to them and has no canary yet."""

    def made(existing: Existing) -> Scene:
        scene = Scene.create(sandbox, cluster, namespace, tmp_path)
        scene.configure(stable="existing", image=None, replicas=None)
        apply(scene, *existing.manifests(f"{namespace}.example"))
        scene.kubectl("rollout", "status", f"deployment/{NAME}")
        return scene

    return made


def apply(scene: Scene, *manifests: dict[str, Any]) -> None:
    path = scene.stack.folder / "by-hand.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))
    scene.kubectl("apply", "--filename", str(path))


def theirs(scene: Scene) -> list[dict[str, Any]]:
    """Return everything of the hand-made objects but their status."""
    found = json.loads(scene.kubectl("get", "deployments,services,ingresses", "--show-managed-fields", "-o", "json"))
    kept = [each for each in found["items"] if each["metadata"]["name"] != CANARY]
    for each in kept:
        del each["status"]
        metadata = each["metadata"]
        metadata["managedFields"] = [entry for entry in metadata["managedFields"] if "subresource" not in entry]
        # A status is written with a new version of the whole object, as the generation is not.
        del metadata["resourceVersion"]
        # The number of the ReplicaSet, which the Deployment's controller writes down after it has made it.
        metadata.get("annotations", {}).pop("deployment.kubernetes.io/revision", None)
    return kept


def shift(scene: Scene, ingress: str, weight: int, **canary: object) -> str:
    """Take the canary to a weight (percent), wait until the proxy routes by it; return what `pulumi up` said."""
    scene.configure(weight=weight, canary=GOOD_CANARY | canary)
    said = scene.stack.run("up", "--yes", "--skip-preview")
    eventually(lambda: canary_weight(scene.observed.proxy_admin_url, scene.namespace, ingress) == weight)
    return said


def count(scene: Scene, traffic: Traffic, weight: int) -> None:
    check_share(NAME, weight, measure(scene.observed, traffic, REQUESTS)[NAME])


@pytest.mark.parametrize(
    "existing",
    [Existing(), SHARED_INGRESS, Existing(port="web")],
    ids=["an Ingress of its own", "one Ingress for all", "the Service's port by name"],
)
def test_a_canary_comes_goes_and_gets_its_share_and_nothing_of_theirs_is_changed(
    make: Make, existing: Existing
) -> None:
    scene = make(existing)
    with scene.traffic() as traffic:
        before = theirs(scene)
        assert len(before) == 3
        for weight in (20, 50, 0, 50):
            shift(scene, existing.ingress, weight)
            count(scene, traffic, weight)

        said = shift(scene, existing.ingress, 20)
        assert f"{NAME}: 50 → 20 %, set ahead of all else and read back" in said
        count(scene, traffic, 20)

        scene.configure(canary=None)
        scene.up()
        assert scene.get(Ingress, CANARY) is None
        assert theirs(scene) == before


def test_their_owner_promotes_and_the_canary_goes(make: Make) -> None:
    scene = make(Existing())
    with scene.traffic() as traffic:
        shift(scene, NAME, 50)
        scene.kubectl("set", "image", f"deployment/{NAME}", f"{NAME}={CANARY_IMAGE}")
        scene.kubectl("rollout", "status", f"deployment/{NAME}")
        promoted = theirs(scene)

        scene.configure(canary=None)
        scene.up()
        eventually(lambda: canary_weight(scene.observed.proxy_admin_url, scene.namespace, NAME) == 0)

        tally = measure(scene.observed, traffic, REQUESTS)[NAME]
        assert tally.by_image == {CANARY_IMAGE: REQUESTS}
        check_share(NAME, 0, tally)
        assert theirs(scene) == promoted


def test_another_path_to_the_same_service_is_told_and_gets_its_share(make: Make) -> None:
    scene = make(SAME_SERVICE)
    host = f"{scene.namespace}.example"
    told = f"the canary also gets its share of {host}{OTHER_PATH}: they go to the same Service"
    scene.configure(weight=20, canary=GOOD_CANARY)
    assert told in scene.stack.run("preview")

    assert told in shift(scene, SHARED, 20)

    def canarys_share() -> int:
        answers = (_http.get(f"{scene.sandbox.proxy_url}{OTHER_PATH}", headers={"Host": host}) for _ in range(100))
        return Counter(answer.headers.get("X-Version") for answer in answers)["canary"]

    least, most = round_robin_bounds(100, 20)
    assert eventually(lambda: least <= canarys_share() <= most)


def check_refused(scene: Scene, reason: str) -> None:
    """Preview and update are both refused, and nothing comes of it."""
    before = theirs(scene)
    scene.configure(weight=20, canary=GOOD_CANARY)
    for command in (["preview"], ["up", "--yes", "--skip-preview"]):
        assert re.search(reason, scene.refused(*command).message)
    assert scene.get(Ingress, CANARY) is None
    assert theirs(scene) == before


def test_without_a_route_to_attach_to_the_update_is_refused(make: Make) -> None:
    scene = make(Existing(paths=((OTHER_PATH, NAME),)))
    check_refused(scene, rf"a route of {scene.namespace}.example{PATHS[NAME]} \(Prefix\) to attach to: there is none")


def test_a_service_that_would_take_the_canarys_pods_for_its_own_is_refused(make: Make) -> None:
    scene = make(Existing(selector=(("tier", "web"),)))
    scene.configure(podTemplatePatch={"metadata": {"labels": {"tier": "web"}}})
    check_refused(scene, f"Service {NAME} selects tier=web, which canary pods match too")


def test_a_canary_of_somebody_else_on_the_same_path_is_refused(make: Make) -> None:
    scene = make(Existing())
    apply(scene, foreign_canary(scene))
    check_refused(scene, "a route without another canary: .* has one already, to Service somebody-elses")


def foreign_canary(scene: Scene) -> dict[str, Any]:
    *_, ingress = Existing(ingress="somebody-elses", paths=((PATHS[NAME], "somebody-elses"),)).manifests(
        f"{scene.namespace}.example"
    )
    ingress["metadata"]["annotations"] = {IS_CANARY: "true", WEIGHT: "10"}
    return ingress


@pytest.mark.parametrize("what", ["their Ingress is gone", "another canary was attached"])
def test_a_canary_can_be_removed_whatever_has_become_of_their_route(make: Make, what: str) -> None:
    scene = make(Existing())
    shift(scene, NAME, 20)
    if what == "their Ingress is gone":
        scene.kubectl("delete", "ingress", NAME)
    else:
        apply(scene, foreign_canary(scene))

    scene.configure(canary=None)
    scene.up()

    assert scene.get(Ingress, CANARY) is None
    assert not scene.pods("canary")
