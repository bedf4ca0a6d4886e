"""What somebody changes by hand, plain `pulumi up` puts back as declared."""

import json
from pathlib import Path
from typing import Any

import pytest
from lightkube import Client

from canary_service.routing.nginx import CANARY as CANARY_ANNOTATION
from canary_service.routing.nginx import WEIGHT
from demo.measurement import check_share, measure
from sandbox.lifecycle import Sandbox
from tests.live.application import eventually
from tests.live.scene import CANARY, GOOD_CANARY, NAME, Scene

pytestmark = pytest.mark.live

REQUESTS = 100
PROBE = "/spec/template/spec/containers/0/readinessProbe"
OTHER_IMAGE = f"{NAME}=registry.example/app:9.9"

# Removing a field and scaling leave no trace of the usual kind in managedFields.
BY_HAND: dict[str, list[tuple[str, ...]]] = {
    "weight raised": [("annotate", "--overwrite", "ingress", CANARY, f"{WEIGHT}=70")],
    "weight lowered": [("annotate", "--overwrite", "ingress", CANARY, f"{WEIGHT}=5")],
    "weight removed": [("annotate", "ingress", CANARY, f"{WEIGHT}-")],
    "no canary any more": [("annotate", "ingress", CANARY, f"{CANARY_ANNOTATION}-")],
    "labels edited and removed": [
        ("label", "--overwrite", "ingress,deployment", CANARY, "version=edited"),
        ("label", "deployment,service", NAME, "app.kubernetes.io/component-"),
    ],
    "Ingress deleted": [("delete", "ingress", CANARY)],
    "Service deleted": [("delete", "service", CANARY)],
    "all of the canary deleted": [("delete", "ingress,deployment,service", CANARY)],
    "scaled": [
        ("scale", "deployment", NAME, "--replicas", "1"),
        ("scale", "deployment", CANARY, "--replicas", "3"),
    ],
    "images": [
        ("set", "image", f"deployment/{NAME}", OTHER_IMAGE),
        ("set", "image", f"deployment/{CANARY}", OTHER_IMAGE),
    ],
    "probe removed": [("patch", "deployment", NAME, "--type=json", f'--patch=[{{"op": "remove", "path": "{PROBE}"}}]')],
}


@pytest.fixture(scope="module")
def deployed(own_scene: Scene) -> Scene:
    own_scene.deploy()
    return own_scene


def declared(scene: Scene) -> dict[str, Any]:
    """Return the parts of each object that a user declares, without what controllers and `rollout restart` add."""
    found = json.loads(scene.kubectl("get", "deployments,services,ingresses", "--output", "json"))["items"]
    for each in found:
        annotations = each["metadata"].get("annotations") or {}
        annotations.pop("deployment.kubernetes.io/revision", None)
        for field in ("clusterIP", "clusterIPs"):
            each["spec"].pop(field, None)
        each["spec"].get("template", {}).get("metadata", {}).pop("annotations", None)
    return {
        f"{each['kind']} {each['metadata']['name']}": (
            each["metadata"].get("labels"),
            each["metadata"].get("annotations"),
            each["spec"],
        )
        for each in found
    }


def warnings(scene: Scene) -> list[str]:
    """Return what a preview warns of, which changes nothing."""
    diagnostics = scene.stack.preview().get("diagnostics", [])
    assert {each["severity"] for each in diagnostics} <= {"warning"}
    return [each["message"] for each in diagnostics]


def put_back(scene: Scene, before: dict[str, Any]) -> None:
    """Check that a preview warns, `up` restores what was declared before, and then there is nothing left to say."""
    by_hand = declared(scene)
    assert by_hand != before
    assert any("`pulumi up` applies what is declared" in warning for warning in warnings(scene))
    assert declared(scene) == by_hand

    scene.up()

    assert declared(scene) == before
    assert warnings(scene) == []
    assert "warning" not in scene.stack.run("up", "--yes", "--skip-preview", "--expect-no-changes")


@pytest.mark.parametrize("commands", BY_HAND.values(), ids=BY_HAND.keys())
def test_a_change_by_hand_is_put_back_and_no_request_fails(deployed: Scene, commands: list[tuple[str, ...]]) -> None:
    before = declared(deployed)
    with deployed.traffic() as traffic:
        for command in commands:
            deployed.kubectl(*command)

        put_back(deployed, before)

        deployed.settle()
        check_share(NAME, 20, measure(deployed.observed, traffic, REQUESTS)[NAME])


def test_a_deployment_deleted_by_hand_is_made_again_and_waited_for(deployed: Scene) -> None:
    before = declared(deployed)
    # Meanwhile the route leads to a canary without pods: no promise holds for that.
    deployed.kubectl("delete", "deployment", CANARY)

    put_back(deployed, before)

    assert deployed.ready_pods("canary") == 1


@pytest.mark.parametrize("field", ["port", "targetPort"])
def test_a_port_changed_by_hand_is_put_back(deployed: Scene, field: str) -> None:
    before = declared(deployed)
    # Until then no request arrives there.
    change = [{"op": "replace", "path": f"/spec/ports/0/{field}", "value": 9090}]
    deployed.kubectl("patch", "service", NAME, "--type=json", f"--patch={json.dumps(change)}")

    put_back(deployed, before)


def test_a_restart_by_hand_is_left_alone(deployed: Scene) -> None:
    with deployed.traffic():
        deployed.kubectl("rollout", "restart", f"deployment/{NAME}")
        template = deployed.deployment(NAME)["spec"]["template"]

        assert warnings(deployed) == []
        deployed.stack.run("up", "--yes", "--skip-preview", "--expect-no-changes")

        assert deployed.deployment(NAME)["spec"]["template"] == template


def test_what_others_add_stays(deployed: Scene) -> None:
    everything = "deployment,service,ingress"
    # The provider itself drops what field managers named kubectl… have added, with the next change of the object
    # (https://github.com/pulumi/pulumi-kubernetes/pull/2640); this is another tool.
    deployed.kubectl("label", "--field-manager=payments", everything, CANARY, "team=payments")
    deployed.kubectl("annotate", "--field-manager=payments", everything, CANARY, "example.org/owner=payments")
    before = declared(deployed)
    assert warnings(deployed) == []
    deployed.kubectl(*BY_HAND["weight raised"][0])

    put_back(deployed, before)

    deployed.configure(weight=30)
    deployed.up()
    after = declared(deployed)[f"Ingress {CANARY}"]
    assert after[0]["team"] == after[1]["example.org/owner"] == "payments"
    assert deployed.weight() == 30
    deployed.configure(weight=20)
    deployed.up()


def test_what_this_program_is_about_to_change_is_no_drift(
    sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path
) -> None:
    scene = Scene.create(sandbox, cluster, namespace, tmp_path / "new")
    assert warnings(scene) == []
    scene.deploy()
    more = {"env": {"A": "b"}, "annotations": {"example.org/a": "b"}, "disruptionBudget": {"maxUnavailable": "50%"}}
    for changes in (more, dict.fromkeys(more)):
        scene.configure(None, **changes)
        assert warnings(scene) == []
        assert "warning" not in scene.stack.run("up", "--yes", "--skip-preview")


@pytest.mark.parametrize("kind", ["ingress", "deployment", "service"])
def test_what_was_deleted_by_hand_comes_back_with_another_weight(deployed: Scene, kind: str) -> None:
    deployed.kubectl("delete", kind, CANARY)
    deployed.configure(weight=33)

    deployed.stack.run("up", "--yes")

    assert deployed.weight() == 33
    deployed.settle()
    deployed.configure(weight=20)
    deployed.up()


def test_a_change_by_hand_and_a_shift_meet_without_a_conflict(deployed: Scene) -> None:
    deployed.kubectl(*BY_HAND["weight raised"][0])
    deployed.configure(weight=33)

    deployed.stack.run("up", "--yes")

    assert deployed.weight() == 33
    deployed.configure(weight=20)
    deployed.up()


@pytest.mark.parametrize("canary", [None, GOOD_CANARY], ids=["abort", "weight 0"])
def test_the_way_back_waits_for_a_stable_that_was_scaled_away(
    sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path, canary: dict[str, str] | None
) -> None:
    scene = Scene.create(sandbox, cluster, namespace, tmp_path)
    scene.deploy(50)
    scene.deploy(100)
    with scene.traffic():
        scene.kubectl("scale", "deployment", NAME, "--replicas", "0")
        eventually(lambda: scene.ready_pods("stable") == 0)
        scene.configure(0, canary=canary)

        scene.up()
        scene.settle()

        assert scene.ready_pods("stable") == 2


def test_an_update_that_refreshes_first_puts_it_back_too(deployed: Scene) -> None:
    before = declared(deployed)
    deployed.kubectl(*BY_HAND["weight raised"][0])

    deployed.stack.run("up", "--yes", "--refresh")

    assert declared(deployed) == before
