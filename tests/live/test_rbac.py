"""The roles in rbac/ are enough for all that is done under them, and no right in them is left unused."""

import json
import subprocess
from collections.abc import Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube import Client

from canary_service.rollout.doctor import CHECKS
from canary_service.routing.registry import ROUTERS
from demo.stack import CHECKOUT
from sandbox.lifecycle import Sandbox
from tests.live import canary
from tests.live.account import DEPLOY, OBSERVE, PREVIEW, ROLES, Account, Right, install
from tests.live.application import eventually
from tests.live.scene import CANARY, CANARY_IMAGE, GOOD_CANARY, NAME, STABLE_IMAGE, Scene

DISPENSABLE: set[Right] = {
    ("", "events", "list"),  # the provider explains failures with these two, and does without
    ("", "persistentvolumeclaims", "list"),
    ("", "namespaces", "get"),  # who has a Role in a namespace has the namespace
}
"""What may be asked for in vain."""

EVERYTHING: dict[str, Any] = {
    "configMap": {"data": {"MODE": "a"}},
    "secret": {"data": {"TOKEN": "b"}},
    "autoscaling": {"minReplicas": 2, "maxReplicas": 3},
    "disruptionBudget": {"maxUnavailable": 1},
    "replicas": None,
}


def role(name: str) -> dict[str, Any]:
    """Return a Role as it is shipped."""
    shipped = [document for file in ROLES.rglob("*.yaml") for document in yaml.safe_load_all(file.read_text())]
    (found,) = (each for each in shipped if each["kind"] == "Role" and each["metadata"]["name"] == name)
    return dict(found)


def granted(name: str) -> set[Right]:
    return {
        right for rule in role(name)["rules"] for right in product(rule["apiGroups"], rule["resources"], rule["verbs"])
    }


def warnings(preview: dict[str, Any]) -> list[str]:
    return sorted(each["message"] for each in preview.get("diagnostics", []) if each["severity"] == "warning")


def of_other_routers(name: str) -> set[Right]:
    """Return the rights to list the routes of all routers but one."""
    kinds = {kind for router in ROUTERS.values() for kind in router.kinds} - set(ROUTERS[name].kinds)
    return {(kind.api_version.partition("/")[0], kind.plural, "list") for kind in kinds}


def rules_of(rights: Iterable[Right]) -> list[dict[str, list[str]]]:
    return [{"apiGroups": [group], "resources": [resource], "verbs": [verb]} for group, resource, verb in rights]


@pytest.fixture
def scene(sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path) -> Scene:
    made = Scene.create(sandbox, cluster, namespace, tmp_path)
    install(made, tmp_path)
    return made


def test_the_deploy_role_is_what_a_whole_life_asks_for(scene: Scene, tmp_path: Path) -> None:
    account = Account.of(scene, DEPLOY, tmp_path)
    stack, up = account.scene.stack, account.scene.up

    stack.preview()
    up()
    scene.configure(weight=20, canary=GOOD_CANARY, **EVERYTHING)
    up()
    scene.configure(weight=50)
    up()
    scene.kubectl("annotate", "--overwrite", "ingress", CANARY, "nginx.ingress.kubernetes.io/canary-weight=5")
    scene.kubectl("delete", "poddisruptionbudget,service", NAME)
    stack.preview()
    up()
    assert scene.weight() == 50
    scene.configure(weight=10, configMap={"data": {"MODE": "b"}})
    up()
    scene.configure(image=CANARY_IMAGE, canary=None)
    up()
    scene.configure(canary={"image": "registry.example/app:3.0"})
    up()
    scene.configure(canary=None)
    up()
    stack.run("refresh", "--yes", "--skip-preview")
    stack.run("destroy", "--yes", "--skip-preview")

    # The routes of other routers are listed too: the stack may be about to move from one.
    assert account.used(allowed=True) - of_other_routers("nginx") == granted(DEPLOY)
    assert account.used(allowed=False) <= DISPENSABLE


BEHIND: dict[str, dict[str, Any]] = {"gateway": {"gateway": {"namespace": "default"}}, "traefik": {}}


@pytest.mark.parametrize("router", BEHIND)
def test_another_router_asks_for_its_own_objects_and_writes_no_other(scene: Scene, tmp_path: Path, router: str) -> None:
    writer, reader = (Account.of(scene, name, tmp_path) for name in (DEPLOY, PREVIEW))
    scene.route_by(router, BEHIND[router])
    stack, up = writer.scene.stack, writer.scene.up

    up()
    scene.configure(weight=50, canary=GOOD_CANARY)
    up()
    for kind in {kind.plural for kind in ROUTERS[router].kinds}:
        scene.kubectl("delete", kind, NAME)
    reader.scene.stack.preview()
    up()
    scene.configure(weight=10)
    up()
    scene.configure(canary=None)
    up()
    stack.run("refresh", "--yes", "--skip-preview")
    stack.run("destroy", "--yes", "--skip-preview")

    own = {(kind.api_version.partition("/")[0], kind.plural) for kind in ROUTERS[router].kinds}
    for account, role_of_routers in ((writer, "canary-deploy-routers"), (reader, "canary-preview-routers")):
        wanted = {right for right in granted(role_of_routers) if right[:2] in own}
        used = {right for right in account.used(allowed=True) if right[:2] in own}
        assert used == wanted if account is writer else used <= wanted
    routes = {right[:2] for right in of_other_routers(router)}
    assert {right for right in writer.used(allowed=True) if right[:2] in routes} <= of_other_routers(router)


@pytest.mark.parametrize("router", BEHIND)
def test_who_observes_another_router_needs_its_role(scene: Scene, tmp_path: Path, router: str) -> None:
    scene.route_by(router, BEHIND[router])
    scene.deploy()
    account = Account.of(scene, OBSERVE, tmp_path)
    ours = account.scene
    own = {(kind.api_version.partition("/")[0], kind.plural, "list") for kind in ROUTERS[router].kinds}

    assert not {state for state in examined(account).values() if state == "problem"}
    assert examined(account)["route-split", NAME] == "ok"
    assert json.loads(canary.run(ours, "status", "--json"))["services"][0]["problems"] == []
    assert "no weight is read back" not in canary.run(ours, "watch", "--once")
    url = ("--url", scene.sandbox.proxy_url, "--version-header", "X-Version")
    canary.run(ours, "verify", *url)
    assert own <= account.used(allowed=True)
    assert account.used(allowed=True) <= granted(OBSERVE) | granted("canary-observe-routers")

    scene.kubectl("delete", "rolebinding", "canary-observe-routers")
    eventually(lambda: all(map(account.lacks, own)))
    told = json.loads(canary.run(ours, "doctor", "--json"))["diagnoses"]
    (unread,) = (each for each in told if each["check"] == "route-split")
    assert (unread["state"], unread["fix"]) == (
        "unknown",
        "bind it to Role canary-observe-routers (rbac/routers, docs/rbac.md)",
    )
    for command in (("status",), ("verify", *url)):
        message = canary.run(ours, *command, exit_code=4, errors=True)
        assert " is forbidden: " in message
        assert message.rstrip().endswith(". rbac/routers has this right (docs/rbac.md)")
    assert "no weight is read back: the API server refused: " in canary.run(ours, "watch", "--once")


def test_a_preview_needs_no_right_to_write_and_shows_what_one_with_it_shows(scene: Scene, tmp_path: Path) -> None:
    reader, writer = (Account.of(scene, name, tmp_path) for name in (PREVIEW, DEPLOY))

    def previewed() -> dict[str, int]:
        read, written = (account.scene.stack.preview() for account in (reader, writer))
        assert read["changeSummary"] == written["changeSummary"]
        assert warnings(read) == warnings(written)
        return dict(read["changeSummary"])

    scene.configure(weight=20, canary=GOOD_CANARY, **EVERYTHING)
    assert previewed().keys() == {"create"}
    writer.scene.up()
    assert previewed().keys() == {"same"}
    scene.stack.set("monitoring.metricsPath", "/other")
    scene.configure(weight=50, canary=GOOD_CANARY | {"header": {"name": "X-Canary", "value": "yes"}})
    assert previewed().keys() == {"same", "update"}
    scene.stack.remove("monitoring.metricsPath")
    scene.configure(image=CANARY_IMAGE, canary=None)
    assert previewed()["delete"]
    scene.configure(weight=20, image=STABLE_IMAGE, canary=GOOD_CANARY)
    scene.kubectl("annotate", "--overwrite", "ingress", CANARY, "nginx.ingress.kubernetes.io/canary-weight=5")
    scene.kubectl("delete", "poddisruptionbudget", NAME)
    assert previewed().keys() == {"same"}
    told = "".join(warnings(reader.scene.stack.preview()))
    assert f"Ingress {CANARY} was changed by kubectl" in told
    assert f"PodDisruptionBudget {NAME} is missing" in told

    assert reader.used(allowed=True) - of_other_routers("nginx") == granted(PREVIEW)


def test_the_observe_role_is_what_the_doctor_asks_for(scene: Scene, tmp_path: Path) -> None:
    crashing = {"SANDBOX_CRASH_AFTER_SECONDS": "0.2", "SANDBOX_START_SECONDS": "600"}
    scene.configure(canary=GOOD_CANARY | {"env": crashing})
    scene.up_refused()
    account = Account.of(scene, OBSERVE, tmp_path)

    found = examined(account)

    assert found["crashes", NAME] == "problem"
    assert found["namespace", None] == "ok"  # who may list in it has it
    in_vain: set[Right] = {("", "namespaces", "get"), ("networking.k8s.io", "ingressclasses", "list")}
    unknown = {check for (check, _), state in found.items() if state == "unknown"}
    assert unknown == {"ingress-class", "retired-controller", "share"}
    assert account.used(allowed=True) - of_other_routers("nginx") == granted(OBSERVE)
    assert account.used(allowed=False) == in_vain

    scene.kubectl("create", "clusterrole", f"{scene.namespace}-classes", "--verb=list", "--resource=ingressclasses")
    scene.kubectl(
        "create",
        "clusterrolebinding",
        f"{scene.namespace}-classes",
        f"--clusterrole={scene.namespace}-classes",
        f"--serviceaccount={scene.namespace}:{OBSERVE}",
    )
    eventually(lambda: examined(account)["ingress-class", None] == "ok")


def test_what_an_account_may_not_read_is_unknown_to_the_doctor_and_never_ok(scene: Scene, tmp_path: Path) -> None:
    scene.deploy()
    found = examined(Account.of(scene, PREVIEW, tmp_path))

    unread = {"Pod", "ReplicaSet", "EndpointSlice", "IngressClass"}
    needing = {each.id for each in CHECKS if unread & set(each.needs) and "nginx" in each.routers}
    assert {check for (check, _), state in found.items() if state == "unknown"} == needing | {"share"}
    assert "problem" not in found.values()


def examined(account: Account) -> dict[tuple[str, str | None], str]:
    """Return the state of each check by its id and the service, as `canary doctor` tells them under an account."""
    stack = account.scene.stack
    done = subprocess.run(
        [CHECKOUT / "canary_service" / "cli" / "canary", "doctor", "--stack", stack.name, "--json"],
        cwd=stack.folder,
        env=dict(stack.environment),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode in {0, 6}, done.stderr
    return {(each["check"], each["service"]): each["state"] for each in json.loads(done.stdout)["diagnoses"]}


IN_THE_ORDER_OF_THEIR_USE: list[Right] = [
    ("apps", "deployments", "list"),
    ("", "services", "create"),
    ("", "pods", "list"),
    ("networking.k8s.io", "ingresses", "patch"),
]


def test_a_missing_right_is_named_by_verb_and_resource(scene: Scene, tmp_path: Path) -> None:
    account = Account.of(scene, DEPLOY, tmp_path)
    for right in IN_THE_ORDER_OF_THEIR_USE:
        group, resource, verb = right
        file = tmp_path / "role.yaml"
        file.write_text(yaml.safe_dump(role(DEPLOY) | {"rules": rules_of(granted(DEPLOY) - {right})}))
        scene.kubectl("apply", "--filename", str(file))
        eventually(partial(account.lacks, right))

        refusal = account.scene.up_refused()

        assert refusal.message.count(f'cannot {verb} resource "{resource}" in API group "{group}"') == 1
        assert refusal.message.count("error:") == 2  # the engine adds that the program or the update failed
        assert refusal.seconds < 30
