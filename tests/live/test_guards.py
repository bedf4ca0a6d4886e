"""What an update must not do is refused by preview and `up`, and nothing has changed afterwards."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lightkube import Client

from canary_service.rollout.guards import IDENTIFIER, OF_THE_STACK
from sandbox.lifecycle import Sandbox
from tests.live import canary
from tests.live.application import eventually
from tests.live.scene import CANARY, CANARY_IMAGE, GOOD_CANARY, NAME, STABLE_IMAGE, Scene

pytestmark = pytest.mark.live

COMMANDS = (("preview",), ("up", "--yes", "--skip-preview"))
NEXT_IMAGE = "registry.example/app:3.0"


@pytest.fixture
def scene(sandbox: Sandbox, cluster: Client, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A service of which nothing is deployed yet."""
    return Scene.create(sandbox, cluster, namespace, tmp_path_factory.mktemp("guards"))


@pytest.fixture(scope="module")
def deployed(own_scene: Scene) -> Scene:
    own_scene.deploy(20)
    return own_scene


def objects(scene: Scene) -> dict[str, tuple[str, str]]:
    """Return uid and version of all that a user or this program can write."""
    found = json.loads(scene.kubectl("get", "deployments,services,ingresses", "--output", "json"))["items"]
    return {
        f"{each['kind']} {each['metadata']['name']}": (each["metadata"]["uid"], json.dumps(each["spec"]))
        for each in found
    }


def check_refused(scene: Scene, key: str, fix: str) -> None:
    """Check that each command names the key and what helps, in words, and leaves everything as it was."""
    before, weight = objects(scene), scene.weight()
    for command in COMMANDS:
        message = scene.refused(*command).message

        assert "1 change is refused; nothing was changed." in message
        assert f"{key} = " in message
        assert fix in message
        assert "Traceback" not in message
        assert (objects(scene), scene.weight()) == (before, weight)


@pytest.mark.parametrize(
    ("weight", "service", "key", "fix"),
    [
        (71, {}, "canaryWeight", "pulumi config set canaryWeight 70"),
        (
            20,
            {"canary": {"image": NEXT_IMAGE}},
            f"services.{NAME}.canary.image",
            f"pulumi config set --path services.{NAME}.canary.replaces {CANARY_IMAGE}",
        ),
        (20, {"replicas": 1}, f"services.{NAME}.replicas", f"pulumi config set --path services.{NAME}.replicas 2"),
    ],
    ids=["jump", "another image under traffic", "less stable"],
)
def test_what_would_surprise_users_is_refused(
    deployed: Scene, weight: int, service: dict[str, Any], key: str, fix: str
) -> None:
    deployed.configure(weight, **service)

    with deployed.traffic():
        check_refused(deployed, key, fix)

    deployed.configure(20, canary=GOOD_CANARY, replicas=2)
    deployed.stack.run("up", "--yes", "--skip-preview", "--expect-no-changes")


def test_a_canary_does_not_begin_with_more_than_one_step(scene: Scene) -> None:
    scene.configure(60, canary=GOOD_CANARY)

    check_refused(scene, "canaryWeight", "pulumi config set canaryWeight 50")

    assert objects(scene) == {}


def test_a_named_image_is_replaced_under_traffic(scene: Scene) -> None:
    scene.deploy(20)
    with scene.traffic() as traffic:
        scene.configure(canary={"image": NEXT_IMAGE, "replaces": CANARY_IMAGE})
        scene.up()
        eventually(lambda: traffic.total[NAME].by_image[NEXT_IMAGE])

        assert scene.weight() == 20


def test_an_image_that_comes_with_weight_0_is_met_by_nobody(scene: Scene) -> None:
    scene.deploy(20)
    with scene.traffic() as traffic:
        scene.configure(0, canary={"image": NEXT_IMAGE})
        scene.up()
        scene.settle()
        eventually(lambda: scene.deployment(CANARY)["status"].get("updatedReplicas") == 1)
        eventually(lambda: scene.ready_pods("canary") == len(scene.pods("canary")) == 1)

        assert traffic.total[NAME].by_image[CANARY_IMAGE]
        assert traffic.total[NAME].by_image[NEXT_IMAGE] == 0


def make_by_hand(scene: Scene, kind: str, specification: dict[str, Any]) -> None:
    path = scene.stack.folder / f"{kind}.json"
    api_version = "apps/v1" if kind == "Deployment" else "v1"
    path.write_text(
        json.dumps({"apiVersion": api_version, "kind": kind, "metadata": {"name": NAME}, "spec": specification})
    )
    scene.kubectl("apply", "--filename", str(path))


def test_a_deployment_of_another_owner_is_not_touched(scene: Scene) -> None:
    labels = {"app": "theirs"}
    container = {"name": NAME, "image": STABLE_IMAGE}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    make_by_hand(scene, "Deployment", {"selector": {"matchLabels": labels}, "template": template})

    check_refused(scene, f"services.{NAME}", "docs/takeover.md")


def test_a_service_is_not_led_away_from_the_only_pods_there_are(scene: Scene) -> None:
    scene.kubectl("run", "theirs", f"--image={STABLE_IMAGE}", f"--labels=app={NAME}")
    scene.kubectl("wait", "--for=condition=Ready", "pod/theirs", "--timeout=30s")
    make_by_hand(scene, "Service", {"selector": {"app": NAME}, "ports": [{"port": 8080}]})

    check_refused(scene, f"services.{NAME}", "docs/takeover.md")


def test_a_service_of_another_stack_is_not_touched(deployed: Scene, tmp_path: Path) -> None:
    other = Scene.create(deployed.sandbox, deployed.cluster, deployed.namespace, tmp_path)
    other.stack.run("stack", "init", "staging", "--secrets-provider", "passphrase")
    shutil.copyfile(deployed.stack.folder / "Pulumi.dev.yaml", other.stack.folder / "Pulumi.staging.yaml")
    staging = replace(other, stack=replace(other.stack, name="staging"))

    check_refused(staging, f"services.{NAME}", "pulumi config set namespace ")


def test_what_is_ours_is_not_given_away_because_somebody_scaled_it(scene: Scene) -> None:
    scene.configure(0)
    scene.up()
    scene.kubectl("scale", "deployment", NAME, "--replicas", "3")
    scene.configure(stable="existing")

    check_refused(scene, f"services.{NAME}.stable", f"pulumi config set --path services.{NAME}.stable managed")


def test_a_namespace_that_is_missing_is_named(scene: Scene) -> None:
    scene.stack.run("config", "set", "namespace", "nowhere")
    for command in COMMANDS:
        message = scene.refused(*command).message

        assert "namespace = nowhere" in message
        assert "kubectl create namespace nowhere" in message


def test_another_address_of_the_same_cluster_replaces_nothing_and_what_would_is_told(scene: Scene) -> None:
    project = scene.stack.folder / "Pulumi.yaml"
    shipped, key = project.read_text(), f"kubernetes:{IDENTIFIER}"
    identified = f"  {key}: {OF_THE_STACK}\n"
    assert identified in shipped
    project.write_text(shipped.replace(identified, ""))
    scene.deploy(20)
    before = objects(scene)
    address = "127.0.0.1"
    kubeconfig = scene.sandbox.kubeconfig.read_text()
    assert address in kubeconfig

    scene.stack.run("config", "set", "--secret", "kubernetes:kubeconfig", kubeconfig)
    check_refused(scene, key, f"pulumi config set {key} {OF_THE_STACK}")
    assert f"{key} = (none)" in canary.run(scene, "plan", exit_code=1)

    project.write_text(shipped)
    with scene.traffic():
        for configured in (kubeconfig, kubeconfig.replace(address, "localhost")):
            scene.stack.run("config", "set", "--secret", "kubernetes:kubeconfig", configured)
            assert "nothing changes" in canary.run(scene, "plan")
            scene.up()
            assert objects(scene) == before

    scene.stack.set(key, "another")
    plan = canary.run(scene, "plan", exit_code=1)
    assert f"Deployment {NAME}" in plan
    assert "is the same object" in plan
    assert "no traffic moves" not in plan

    scene.stack.remove(key)
    project.write_text(shipped.replace(identified, ""))
    said = canary.run(scene, "abort", "--yes", exit_code=1, errors=True)
    assert f"{key} = (none)" in said
    assert scene.weight() == 0  # the way down is not refused


def test_without_a_cluster_a_preview_goes_on_and_an_update_does_not_begin(scene: Scene) -> None:
    kubeconfig = scene.stack.folder / "unreachable"
    text = scene.kubectl("config", "view", "--raw", "--minify")
    address = next(line.split()[1] for line in text.splitlines() if line.split()[0] == "server:")
    kubeconfig.write_text(text.replace(address, "https://127.0.0.1:1"))
    scene.stack.run("config", "set", "kubernetes:kubeconfig", str(kubeconfig))
    said = "the API server https://127.0.0.1:1 cannot be asked: ConnectError: "

    preview = scene.stack.run("preview")
    message = scene.up_refused().message

    assert f"warning: {said}" in preview
    assert "what the update may not do is not checked" in preview
    assert f"error: {said}" in message
    assert "Traceback" not in message
    assert len([line for line in message.splitlines() if "error: " in line]) == 2
    assert "kubernetes:" not in scene.stack.run("stack", "--show-urns")
