"""Autoscalers and disruption budgets of both tracks, on the real controllers and the real eviction API.

The sandbox has no metrics API, so an autoscaler acts on its least and its most number of pods only.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightkube import ApiError, Client
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.resources.core_v1 import Pod
from lightkube.resources.discovery_v1 import EndpointSlice
from lightkube.resources.networking_v1 import Ingress
from lightkube.resources.policy_v1 import PodDisruptionBudget

from canary_service.routing.nginx import WEIGHT
from sandbox.lifecycle import Sandbox
from tests.live.application import eventually
from tests.live.scene import CANARY, NAME, STABLE_IMAGE, Scene

NEXT_IMAGE = "registry.example/app:1.1"

SLOW_PROBE = {"path": "/healthz", "periodSeconds": 1, "initialDelaySeconds": 3}
"""A pod that takes the place of another cannot be ready before that one's eviction was followed by another request."""


@pytest.fixture
def scene(sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path) -> Scene:
    return Scene.create(sandbox, cluster, namespace, tmp_path)


def autoscaling(least: int, most: int = 8) -> dict[str, int]:
    return {"minReplicas": least, "maxReplicas": most}


def version(found: dict[str, Any]) -> int:
    """Return the revision of the whole cluster with which an object was written."""
    return int(found["metadata"]["resourceVersion"])


class History:
    """What one object goes through, from the moment at which this is made."""

    def __init__(self, scene: Scene, kind: Any, name: str) -> None:  # noqa: ANN401 - a class of lightkube
        self._scene, self._kind, self._name = scene, kind, name
        self._begin = self._now()

    def _now(self) -> dict[str, Any]:
        found = self._scene.get(self._kind, self._name)
        assert found, f"{self._name} is not there"
        return found

    def so_far(self) -> Iterator[dict[str, Any]]:
        """Yield each version from the first until the present one."""
        yield self._begin
        end = version(self._now())
        if end == version(self._begin):
            return
        watch = self._scene.cluster.watch(
            self._kind,
            namespace=self._scene.namespace,
            fields={"metadata.name": self._name},
            resource_version=self._begin["metadata"]["resourceVersion"],
        )
        for _, found in watch:
            each = found.to_dict()
            yield each
            if version(each) == end:
                return


class Replicas(History):
    """How many pods a Deployment asks for and has ready."""

    def __init__(self, scene: Scene, name: str = NAME) -> None:
        super().__init__(scene, Deployment, name)

    def least(self) -> tuple[int, int]:
        """Return the fewest that were asked for and the fewest that were ready."""
        versions = list(self.so_far())
        return (
            min(each["spec"]["replicas"] for each in versions),
            min(each["status"].get("readyReplicas", 0) for each in versions),
        )


def replicas(scene: Scene, name: str = NAME) -> int:
    number: int = scene.deployment(name)["spec"]["replicas"]
    return number


def image(scene: Scene, name: str = NAME) -> str:
    found: str = scene.deployment(name)["spec"]["template"]["spec"]["containers"][0]["image"]
    return found


def scale_out(scene: Scene, least: int) -> None:
    """Let the autoscaler raise stable to so many pods, and then allow it fewer again."""
    scene.configure(autoscaling=autoscaling(least), replicas=None)
    scene.up()
    assert replicas(scene) == least
    scene.configure(autoscaling=autoscaling(2))
    scene.up()


@pytest.mark.parametrize("image_too", [False, True], ids=["nothing else", "the image too"])
def test_changing_between_a_fixed_number_and_an_autoscaler_takes_no_pod_away(
    scene: Scene,
    image_too: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    scene.configure(replicas=4)
    scene.up()
    seen = Replicas(scene)

    scene.configure(replicas=None, autoscaling=autoscaling(2), image=NEXT_IMAGE if image_too else STABLE_IMAGE)
    scene.up()
    assert scene.get(HorizontalPodAutoscaler, NAME)
    scene.configure(replicas=4, autoscaling=None, image=STABLE_IMAGE)
    scene.up()

    assert seen.least() == (4, 4)
    assert replicas(scene) == 4
    assert scene.get(HorizontalPodAutoscaler, NAME) is None


def test_declaring_the_number_that_the_autoscaler_has_set_takes_no_pod_away(scene: Scene) -> None:
    scale_out(scene, 5)
    seen = Replicas(scene)

    scene.configure(replicas=5, autoscaling=None)
    scene.up()
    scene.configure(image=NEXT_IMAGE)
    scene.up()

    assert image(scene) == NEXT_IMAGE
    assert seen.least() == (5, 5)


def test_declaring_fewer_pods_than_the_autoscaler_has_set_takes_them_away(scene: Scene) -> None:
    scale_out(scene, 5)
    scene.configure(replicas=3, autoscaling=None)
    scene.up()
    assert replicas(scene) == 3
    scene.configure(autoscaling=autoscaling(5), replicas=None)
    scene.up()
    scene.configure(replicas=3, autoscaling=None)
    scene.up()
    assert replicas(scene) == 3


def test_an_update_leaves_the_number_that_the_autoscaler_has_set(scene: Scene) -> None:
    scale_out(scene, 5)
    seen = Replicas(scene)

    scene.configure(image=NEXT_IMAGE)
    scene.up()

    assert image(scene) == NEXT_IMAGE
    assert seen.least() == (5, 5)


def test_what_was_changed_by_hand_is_put_right_and_the_autoscalers_number_left(scene: Scene) -> None:
    scale_out(scene, 5)
    seen = Replicas(scene)
    scene.kubectl("set", "image", f"deployment/{NAME}", f"{NAME}={NEXT_IMAGE}")

    scene.up()

    assert image(scene) == STABLE_IMAGE
    assert seen.least() == (5, 5)
    scene.stack.run("preview", "--expect-no-changes")


def test_a_larger_weight_waits_for_the_pods_that_the_canarys_autoscaler_asks_for(scene: Scene) -> None:
    scene.configure(replicas=None, autoscaling=autoscaling(6))
    scene.deploy(weight=10)
    assert scene.ready_pods("canary") == 1
    route = History(scene, Ingress, CANARY)
    (endpoints,) = scene.cluster.list(
        EndpointSlice, namespace=scene.namespace, labels={"kubernetes.io/service-name": CANARY}
    )
    assert endpoints.metadata is not None
    assert endpoints.metadata.name is not None
    pods = History(scene, EndpointSlice, endpoints.metadata.name)

    scene.configure(weight=50)
    scene.up()

    raised = next(version(each) for each in route.so_far() if each["metadata"]["annotations"][WEIGHT] == "50")
    before = [each for each in pods.so_far() if version(each) < raised]
    assert before
    assert sum(endpoint["conditions"]["ready"] for endpoint in before[-1]["endpoints"]) == 3


def test_stable_does_not_shrink_beside_a_canary_and_slowly_without_one(scene: Scene) -> None:
    scene.configure(replicas=None, autoscaling=autoscaling(2))
    scene.deploy()

    def scale_down() -> dict[str, Any]:
        found = scene.get(HorizontalPodAutoscaler, NAME)
        assert found
        behaviour: dict[str, Any] = found["spec"]["behavior"]["scaleDown"]
        return behaviour

    assert scale_down()["selectPolicy"] == "Disabled"
    found = scene.get(HorizontalPodAutoscaler, CANARY)
    assert found
    assert found["spec"]["maxReplicas"] == 8

    scene.configure(canary=None)
    scene.up()

    assert scale_down()["selectPolicy"] != "Disabled"
    assert scale_down()["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]
    assert scene.get(HorizontalPodAutoscaler, CANARY) is None


def evicted(scene: Scene, name: str) -> bool:
    """Ask for the eviction of a pod; tell whether it was granted."""
    try:
        scene.cluster.create(Pod.Eviction(metadata=ObjectMeta(name=name, namespace=scene.namespace)), name)
    except ApiError as error:
        assert error.status.code == 429  # noqa: PT017 - another code is another failure
        return False
    return True


def test_evictions_are_limited_for_each_track_on_its_own(scene: Scene) -> None:
    scene.configure(replicas=3, disruptionBudget={"maxUnavailable": 1}, probes={"readiness": SLOW_PROBE})
    scene.deploy(weight=50)
    assert eventually(lambda: allowed(scene, NAME) == allowed(scene, CANARY) == 1)
    first, second, _ = scene.pods("stable")
    of_canary, other_of_canary = scene.pods("canary")

    with scene.traffic():
        assert evicted(scene, first)
        assert not evicted(scene, second)
        assert evicted(scene, of_canary)
        assert not evicted(scene, other_of_canary)
        eventually(lambda: evicted(scene, second))
        assert scene.ready_pods("stable") >= 2


def allowed(scene: Scene, name: str) -> int:
    found = scene.get(PodDisruptionBudget, name)
    assert found
    number: int = (found.get("status") or {}).get("disruptionsAllowed", 0)
    return number
