"""In which order one `up` changes things, told by the revisions that the API server gave them.

Each test is run a second time with the mechanism taken out of the program, and then must see the other order.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lightkube import Client
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Pod
from lightkube.resources.discovery_v1 import EndpointSlice
from lightkube.resources.networking_v1 import Ingress

from canary_service.routing.nginx import WEIGHT
from sandbox.lifecycle import Sandbox
from tests.live.scene import CANARY, CANARY_IMAGE, GOOD_CANARY, NAME, Scene

pytestmark = pytest.mark.live

COMPONENT = "canary_service/components/canary_service.py"
REPLAY_SECONDS = 1
SLOW_START = {"SANDBOX_START_SECONDS": "2"}


@dataclass(frozen=True)
class Mutation:
    """A piece of the program's text, and what stands for it in a copy without the mechanism."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class History:
    """What happens in a namespace from now on."""

    scene: Scene
    begin: str

    @staticmethod
    def of(scene: Scene) -> "History":
        listed = scene.cluster.list(Ingress, namespace=scene.namespace)
        assert list(listed)
        assert listed.resourceVersion
        return History(scene, listed.resourceVersion)

    def first(self, kind: Any, holds: Callable[[str, Mapping[str, Any]], bool]) -> int:  # noqa: ANN401 - a class of lightkube
        """Return the revision of the first change of a kind for which something holds; fail when there is none.

        The API server replays what has happened. All kinds are in one etcd, whose revisions order them.
        """
        events = self.scene.cluster.watch(
            kind, namespace=self.scene.namespace, resource_version=self.begin, server_timeout=REPLAY_SECONDS
        )
        for change, found in events:
            manifest = found.to_dict()
            if holds(change, manifest):
                return int(manifest["metadata"]["resourceVersion"])
        raise AssertionError(f"no such change of {kind.__name__}")


def has_weight(weight: int) -> Callable[[str, Mapping[str, Any]], bool]:
    return lambda _, ingress: (ingress["metadata"].get("annotations") or {}).get(WEIGHT) == str(weight)


def canary_route_goes(change: str, ingress: Mapping[str, Any]) -> bool:
    return change == "DELETED" and ingress["metadata"]["name"] == CANARY


def canary_pod_is_told_to_end(_: str, pod: Mapping[str, Any]) -> bool:
    return pod["metadata"]["labels"]["version"] == "canary" and "deletionTimestamp" in pod["metadata"]


def has_replicas(name: str, replicas: int) -> Callable[[str, Mapping[str, Any]], bool]:
    return lambda _, found: found["metadata"]["name"] == name and found["spec"]["replicas"] == replicas


def ready_pods(endpoint_slice: Mapping[str, Any], service: str) -> set[str]:
    """Return the names of the pods that a slice of this Service gives to routers."""
    if endpoint_slice["metadata"]["labels"]["kubernetes.io/service-name"] != service:
        return set()
    return {
        endpoint["targetRef"]["name"]
        for endpoint in endpoint_slice.get("endpoints") or ()
        if endpoint["conditions"].get("ready")
    }


@pytest.fixture
def scene(sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path) -> Scene:
    return Scene.create(sandbox, cluster, namespace, tmp_path)


def mutations(*mutation: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("mutation", [None, Mutation(*mutation)], ids=["as it is", "without the mechanism"])


def changed(scene: Scene, mutation: Mutation | None) -> History:
    """Let the program, or a copy of it without the mechanism, carry out the configuration under traffic."""
    history = History.of(scene)
    if mutation:
        scene.mutate(mutation.file, mutation.old, mutation.new)
        scene.up()
    else:
        with scene.traffic():
            scene.up()
            scene.settle()
    return history


@mutations(
    COMPONENT,
    "waits = [wait for _, wait in awaited]",
    "waits = [wait for _, wait in awaited if False]",
)
def test_the_weight_rises_when_new_canary_pods_are_among_the_endpoints(scene: Scene, mutation: Mutation | None) -> None:
    scene.configure(weight=20, canary=GOOD_CANARY | {"env": SLOW_START})
    scene.up()
    scene.configure(weight=60)

    history = changed(scene, mutation)

    ready = history.first(EndpointSlice, lambda _, found: len(ready_pods(found, CANARY)) == 2)
    assert (ready < history.first(Ingress, has_weight(60))) is (mutation is None)


@mutations("canary_service/components/declaration.py", "in update.lower():", "in ():")
def test_the_weight_falls_before_the_canary_shrinks(scene: Scene, mutation: Mutation | None) -> None:
    scene.deploy(50)
    scene.configure(replicas=4)
    scene.up()
    scene.configure(weight=10)

    history = changed(scene, mutation)

    lowered, shrunk = history.first(Ingress, has_weight(10)), history.first(Deployment, has_replicas(CANARY, 1))
    assert (lowered < shrunk) is (mutation is None)


@mutations(
    COMPONENT,
    "[*pods, *previous], waits=waits",
    "previous, waits=[]",
)
def test_an_aborted_canary_loses_its_route_before_its_pods(scene: Scene, mutation: Mutation | None) -> None:
    if mutation:  # the order of deletion is that of the dependencies when it was made
        scene.mutate(mutation.file, mutation.old, mutation.new)
    scene.deploy()
    scene.configure(canary=None)

    history = changed(scene, None)

    lowered = history.first(Ingress, has_weight(0))
    gone = history.first(Ingress, canary_route_goes)
    ended = history.first(Pod, canary_pod_is_told_to_end)
    assert lowered < gone
    assert (gone < ended) is (mutation is None)


@mutations(
    COMPONENT,
    "if not as_before or (track is Track.CANARY",
    "if (track is Track.CANARY",
)
def test_a_promoted_stable_is_ready_before_the_canary_loses_its_route(scene: Scene, mutation: Mutation | None) -> None:
    scene.deploy(50)
    old = set(scene.pods("stable"))
    scene.configure(image=CANARY_IMAGE, canary=None, env=SLOW_START)

    history = changed(scene, mutation)

    def only_new_pods(_: str, found: Mapping[str, Any]) -> bool:
        ready = ready_pods(found, NAME)
        return len(ready) == 2 and not ready & old

    ready = history.first(EndpointSlice, only_new_pods)
    gone = history.first(Ingress, canary_route_goes)
    assert (ready < gone) is (mutation is None)
    assert gone < history.first(Pod, canary_pod_is_told_to_end)
