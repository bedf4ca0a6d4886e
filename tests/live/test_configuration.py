"""Configuration that is rolled out and back with the code it belongs to."""

import json
import time
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from lightkube import Client
from lightkube.resources.apps_v1 import ReplicaSet
from lightkube.resources.core_v1 import Pod

from sandbox.lifecycle import Sandbox
from tests.live.application import eventually
from tests.live.scene import CANARY, CANARY_IMAGE, GOOD_CANARY, NAME, PATHS, STABLE_IMAGE, Scene

KINDS = {"configMapRef": "ConfigMap", "secretRef": "Secret"}
CANARY_BY_HEADER = GOOD_CANARY | {"header": {"name": "X-Canary", "value": "true"}}
SLOW_SECONDS = 0.5
SLOW = {"SANDBOX_LATENCY_SECONDS": str(SLOW_SECONDS)}
TRIES = 5
VALUE = "correct-horse"

_http = httpx2.Client(trust_env=False, timeout=30)


@pytest.fixture
def scene(sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path) -> Scene:
    return Scene.create(sandbox, cluster, namespace, tmp_path)


def revision(level: str, **variables: str) -> dict[str, Any]:
    """Return settings of a ConfigMap and a Secret with content of their own."""
    return {"configMap": {"data": {"LEVEL": level, **variables}}, "secret": {"data": {"TOKEN": level}}}


def contents(scene: Scene, track: str) -> dict[str, dict[str, Any]]:
    """Return the ConfigMaps and Secrets of a track by kind and name."""
    instance = f"app.kubernetes.io/instance={NAME if track == 'stable' else CANARY}"
    listed = json.loads(scene.kubectl("get", "configmaps,secrets", "--selector", instance, "--output", "json"))
    return {f"{found['kind']} {found['metadata']['name']}": found for found in listed["items"]}


def in_use(scene: Scene, track: str) -> dict[str, dict[str, Any]]:
    """Return those of them to which the track's Deployment refers."""
    template = scene.deployment(NAME if track == "stable" else CANARY)["spec"]["template"]
    (container,) = template["spec"]["containers"]
    used = {
        f"{KINDS[reference]} {named['name']}" for source in container["envFrom"] for reference, named in source.items()
    }
    found = {key: each for key, each in contents(scene, track).items() if key in used}
    assert found.keys() == used
    return found


def data(found: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    return [each["data"] for each in found.values()]


def uids(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {key: each["metadata"]["uid"] for key, each in found.items()}


def encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def slow(scene: Scene, **headers: str) -> bool:
    """Tell whether answers take the time that SANDBOX_LATENCY_SECONDS adds."""
    seconds = []
    sent = {"Host": f"{scene.namespace}.example", **headers}
    for _ in range(TRIES):
        begin = time.monotonic()
        assert _http.get(f"{scene.sandbox.proxy_url}{PATHS[NAME]}", headers=sent).status_code == 200
        seconds.append(time.monotonic() - begin)
    return min(seconds) >= SLOW_SECONDS


def container(scene: Scene, pod: str) -> dict[str, Any]:
    """Return the status of a pod's container."""
    found = scene.get(Pod, pod)
    assert found
    (status,) = found["status"]["containerStatuses"]
    assert isinstance(status, dict)
    return status


def back_after_a_crash(scene: Scene, pod: str) -> Callable[[], bool]:
    def back() -> bool:
        status = container(scene, pod)
        return (status["ready"], status["restartCount"]) == (True, 1)

    return back


def crash(scene: Scene, *pods: str) -> None:
    """Crash pods that have not crashed before, and wait until they are back."""
    for pod in pods:
        scene.kubectl("annotate", "pod", pod, "sandbox/crash=1")
    for pod in pods:
        eventually(back_after_a_crash(scene, pod))


def test_the_canary_tries_another_configuration_while_stable_keeps_its_own(scene: Scene) -> None:
    scene.configure(**revision("info"))
    scene.up()
    before = scene.pods("stable")
    difference = {"configMap": {"data": {"EXTRA": "yes", **SLOW}}, "secret": {"data": {"TOKEN": "canary"}}}
    scene.configure(canary=CANARY_BY_HEADER | difference)
    scene.up()
    scene.settle()

    assert data(in_use(scene, "stable")) == [{"LEVEL": "info"}, {"TOKEN": encoded("info")}]
    assert data(in_use(scene, "canary")) == [{"LEVEL": "info", "EXTRA": "yes", **SLOW}, {"TOKEN": encoded("canary")}]
    assert scene.pods("stable") == before
    eventually(lambda: slow(scene, **{"X-Canary": "true"}))  # at weight 0 a canary's route shows by its header alone
    assert not slow(scene)


def test_promotion_takes_the_canarys_content_over_and_setting_it_back_brings_the_old_one_back(scene: Scene) -> None:
    old, new = revision("old"), revision("new")
    scene.configure(**old)
    scene.up()
    first = in_use(scene, "stable")
    with scene.traffic():
        scene.configure(weight=50, canary=GOOD_CANARY | new)
        scene.up()
        scene.settle()
        tried = in_use(scene, "canary")
        assert data(tried) != data(first)

        scene.configure(image=CANARY_IMAGE, canary=None, **new)
        scene.up()
        assert data(in_use(scene, "stable")) == data(tried)

        scene.configure(image=STABLE_IMAGE, **old)
        scene.up()
        # Not only the same names and content: they were there all the time.
        assert uids(in_use(scene, "stable")) == uids(first)
        assert data(in_use(scene, "stable")) == data(first)


def test_pods_that_are_restarted_find_their_own_revision(scene: Scene) -> None:
    scene.configure(**revision("1"))
    scene.deploy(weight=0)
    for level in ("2", "3"):
        scene.configure(canary=GOOD_CANARY | revision(f"canary {level}"), **revision(level))
        scene.up()
        crash(scene, *scene.pods("stable"), *scene.pods("canary"))


def test_old_pods_that_are_restarted_during_a_rollout_find_their_own_revision(scene: Scene) -> None:
    scene.configure(**revision("1"))
    scene.up()
    old = scene.pods("stable")
    # The new pods need so long that the rollout cannot be over before the old ones are back.
    probe = {"path": "/healthz", "periodSeconds": 1, "initialDelaySeconds": 15}
    scene.configure(probes={"readiness": probe}, **revision("2"))
    with ThreadPoolExecutor() as background:
        update = background.submit(scene.up)
        eventually(lambda: scene.pods("stable").keys() - old.keys())
        crash(scene, *old)
        assert not update.done()
        update.result()
    assert not scene.pods("stable").keys() & old.keys()


def test_a_container_is_held_as_long_as_its_configuration_is_missing(scene: Scene) -> None:
    scene.configure(**revision("1"))
    scene.up()
    pod, _ = scene.pods("stable")
    name = next(key.split()[1] for key in contents(scene, "stable") if key.startswith("ConfigMap"))
    scene.kubectl("delete", "configmap", name)
    scene.kubectl("annotate", "pod", pod, "sandbox/crash=1")
    held = {"reason": "CreateContainerConfigError", "message": f'configmap "{name}" not found'}
    eventually(lambda: container(scene, pod)["state"].get("waiting") == held)

    scene.stack.run("up", "--yes", "--skip-preview", "--refresh")

    eventually(back_after_a_crash(scene, pod))


@pytest.mark.parametrize("folder", [{}, {"mountPath": "/etc/app"}], ids=["variables", "files"])
def test_a_revision_goes_with_the_last_replica_set_that_uses_it(scene: Scene, folder: dict[str, str]) -> None:
    limit = 2
    for level in range(limit + 3):
        scene.configure(configMap={"data": {"LEVEL": str(level)}, **folder})
        scene.up()
        patch = {"spec": {"revisionHistoryLimit": limit}}
        scene.kubectl("patch", "deployment", NAME, "--patch", json.dumps(patch))

    def levels() -> set[str]:
        return {found["LEVEL"] for found in data(contents(scene, "stable"))}

    eventually(lambda: levels() == {"2", "3", "4"})
    assert len(list(scene.cluster.list(ReplicaSet, namespace=scene.namespace))) == limit + 1


def test_restarts_by_hand_take_no_configuration_away(scene: Scene) -> None:
    scene.configure(**revision("1"))
    scene.up()
    before = uids(contents(scene, "stable"))
    scene.kubectl("patch", "deployment", NAME, "--patch", '{"spec": {"revisionHistoryLimit": 0}}')
    (first,) = replica_sets(scene)
    scene.kubectl("rollout", "restart", f"deployment/{NAME}")
    scene.kubectl("rollout", "status", f"deployment/{NAME}")
    eventually(lambda: first not in replica_sets(scene))

    # The garbage collector acts on what it is told in turn: when it has taken this, it has looked at ours.
    crash(scene, *scene.pods("stable"))
    assert uids(contents(scene, "stable")) == before


def replica_sets(scene: Scene) -> set[str]:
    found = scene.cluster.list(ReplicaSet, namespace=scene.namespace)
    return {each.metadata.name for each in found if each.metadata and each.metadata.name}


def test_what_is_removed_leaves_no_configuration_behind(scene: Scene) -> None:
    scene.configure(**revision("1"))
    scene.deploy()
    assert len(contents(scene, "canary")) == 2

    scene.configure(canary=None)
    scene.up()
    eventually(lambda: not contents(scene, "canary"))
    assert len(contents(scene, "stable")) == 2

    scene.stack.run("destroy", "--yes", "--skip-preview")
    eventually(lambda: not contents(scene, "stable"))


@pytest.mark.parametrize("option", [["--secret"], []], ids=["encrypted", "plain in the stack file"])
def test_the_value_of_a_secret_is_shown_nowhere(scene: Scene, option: list[str]) -> None:
    shown = []
    for value in (VALUE, f"{VALUE}-2"):
        scene.stack.run("config", "set", "--path", *option, f"services.{NAME}.secret.data.TOKEN", value)
        preview = scene.stack.preview()
        if not option:
            del preview["config"]  # repeats the stack file
        shown += [
            json.dumps(preview),
            scene.stack.run("preview", "--diff"),
            scene.stack.run("up", "--yes", "--diff", "--skip-preview"),
            scene.stack.run("stack", "output", "--json"),
            scene.stack.run("stack", "export"),
        ]
    (found,) = in_use(scene, "stable").values()
    assert found["data"] == {"TOKEN": encoded(f"{VALUE}-2")}
    scene.stack.run("config", "set", "--path", *option, f"services.{NAME}.secret.data.NO~NAME", VALUE)
    shown.append(scene.up_refused().message)
    if option:
        kept = [path for path in scene.stack.folder.rglob("*") if path.is_file() and not path.is_symlink()]
        shown += [path.read_bytes().decode(errors="replace") for path in kept]

    forms = {VALUE, encoded(VALUE).rstrip("="), encoded(f"{VALUE}-2").rstrip("=")}
    assert not [text for text in shown if any(form in text for form in forms)]
