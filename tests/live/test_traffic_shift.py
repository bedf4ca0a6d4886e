"""`pulumi config set canaryWeight N && pulumi up` on the real engine, provider, API server and proxy."""

import json
import shutil
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.measurement import Cluster, check_share, measure, settle, wait_for
from demo.stack import CHECKOUT, CONFIGURATION, StackCopy, StackError
from sandbox.lifecycle import Sandbox
from sandbox.traffic import Tally, Traffic

pytestmark = pytest.mark.live

SERVICES = {
    "auth-service": "/api/auth",
    "meal-planner-service": "/api/meals",
    "nutrition-ai-service": "/api/nutrition",
}
BOTH_TRACKS = {name for service in SERVICES for name in (service, f"{service}-canary")}
HOST = "macromind.local"
RATE = 100.0
REQUESTS = 200
SECONDS = 60.0
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="module")
def observed(sandbox: Sandbox) -> Cluster:
    return Cluster.of(sandbox)


@pytest.fixture(scope="module")
def deployed(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackCopy]:
    """Stack dev as it is shipped, deployed."""
    stack = StackCopy.create(tmp_path_factory.mktemp("stack") / "project", "dev", sandbox.environment)
    stack.up()
    yield stack
    stack.run("destroy", "--yes", "--skip-preview")


@pytest.fixture
def stack(deployed: StackCopy, observed: Cluster) -> StackCopy:
    """Stack dev with the configuration it is shipped with, whatever a test before did to it."""
    own = deployed.folder / "Pulumi.dev.yaml"
    shipped, changed = yaml.safe_load(CONFIGURATION.read_text()), yaml.safe_load(own.read_text())
    if changed["config"] != shipped["config"]:
        own.write_text(yaml.safe_dump(changed | shipped))
        deployed.up()
    for service in SERVICES:
        settle(observed, deployed.settings(), service)
    return deployed


def measured(sandbox: Sandbox, stack: StackCopy, observed: Cluster) -> dict[str, Tally]:
    """Count answers of every service after its split has settled."""
    for service in SERVICES:
        settle(observed, stack.settings(), service)
    with Traffic(sandbox.proxy_url, HOST, SERVICES, RATE) as traffic:
        return measure(observed, traffic, REQUESTS)


def answers(sandbox: Sandbox, path: str, requests: int, **headers: str) -> Counter[str]:
    versions: Counter[str] = Counter()
    for _ in range(requests):
        asked = urllib.request.Request(sandbox.proxy_url + path, headers={"Host": HOST, **headers})  # noqa: S310 - the sandbox's own loopback address
        with DIRECT.open(asked, timeout=10) as response:
            versions[json.load(response)["version"]] += 1
    return versions


def objects(sandbox: Sandbox, *arguments: str) -> list[dict[str, Any]]:
    """Return what `kubectl get` finds in the stack's namespace."""
    kubectl = shutil.which("kubectl", path=sandbox.environment["PATH"])
    assert kubectl
    command = [kubectl, "get", "--namespace", "macromind", "--output", "json", *arguments]
    found = subprocess.run(command, env=dict(sandbox.environment), capture_output=True, check=True).stdout
    items: list[dict[str, Any]] = json.loads(found)["items"]
    return items


def names(sandbox: Sandbox, kind: str) -> set[str]:
    return {found["metadata"]["name"] for found in objects(sandbox, kind)}


def specifications(sandbox: Sandbox) -> list[dict[str, Any]]:
    """Return what was asked of the API server for every object of the stack, without what controllers add."""
    kept = ("name", "labels", "annotations", "generation", "uid")
    return [
        {"spec": found["spec"], **{key: found["metadata"].get(key) for key in kept}}
        for found in objects(sandbox, "deployments,services,ingresses")
    ]


def resources(stack: StackCopy) -> list[dict[str, Any]]:
    """Return what the engine's state holds."""
    state: list[dict[str, Any]] = json.loads(stack.run("stack", "export"))["deployment"]["resources"]
    return state


def failures(traffic: Traffic) -> dict[str, dict[str, int]]:
    return {name: dict(tally.failures) for name, tally in traffic.total.items() if tally.failed}


@pytest.mark.usefixtures("stack")
@pytest.mark.parametrize("kind", ["deployments", "services", "ingresses"])
def test_each_service_has_one_object_of_each_kind_per_track(sandbox: Sandbox, kind: str) -> None:
    assert names(sandbox, kind) == BOTH_TRACKS


@pytest.mark.usefixtures("stack")
def test_services_select_ready_pods_of_their_own_track_only(sandbox: Sandbox) -> None:
    for service in objects(sandbox, "services"):
        selector = ",".join(f"{key}={value}" for key, value in service["spec"]["selector"].items())
        track = "canary" if service["metadata"]["name"].endswith("-canary") else "stable"
        pods = objects(sandbox, "pods", "--selector", selector)
        assert pods
        for pod in pods:
            assert pod["metadata"]["labels"]["version"] == track
            assert {c["type"]: c["status"] for c in pod["status"]["conditions"]}["Ready"] == "True"


def test_nothing_changes_when_nothing_was_changed(stack: StackCopy) -> None:
    for _ in range(2):
        stack.run("preview", "--expect-no-changes")
        stack.run("up", "--yes", "--skip-preview", "--expect-no-changes")


def test_outputs_say_what_is_declared(stack: StackCopy) -> None:
    assert stack.outputs()["services"]["auth-service"] == {
        "url": "http://macromind.local/api/auth",
        "stable": {"image": "macromind/auth-service:1.4.2", "replicas": 2, "weight": 80},
        "canary": {
            "image": "macromind/auth-service:1.5.0",
            "replicas": 1,
            "weight": 20,
            "alsoReachedBy": ["header X-Canary: true"],
        },
        "weightSource": "canaryWeight",
    }


@pytest.mark.parametrize("weight", [0, 1, 20, 50, 99, 100])
def test_the_measured_share_is_the_declared_weight(
    sandbox: Sandbox, stack: StackCopy, observed: Cluster, weight: int
) -> None:
    stack.set("rollout.maxStep", "100")
    stack.set("canaryWeight", str(weight))
    stack.up()

    for service, tally in measured(sandbox, stack, observed).items():
        assert tally.failures == {}
        check_share(service, weight, tally)


def test_a_shift_loses_no_request(sandbox: Sandbox, stack: StackCopy, observed: Cluster) -> None:
    stack.set("rollout.maxStep", "100")
    with Traffic(sandbox.proxy_url, HOST, SERVICES, RATE) as traffic:
        for weight in (50, 0, 100, 20):
            stack.set("canaryWeight", str(weight))
            stack.up()
            for service in SERVICES:
                settle(observed, stack.settings(), service)

    assert failures(traffic) == {}
    assert sum(tally.requests for tally in traffic.total.values()) > REQUESTS


def test_at_weight_0_only_the_header_reaches_the_canary(sandbox: Sandbox, stack: StackCopy, observed: Cluster) -> None:
    stack.set("canaryWeight", "0")
    stack.up()
    for service, path in SERVICES.items():
        settle(observed, stack.settings(), service)

        assert answers(sandbox, path, 20, **{"X-Canary": "true"}) == {"canary": 20}
        assert answers(sandbox, path, 20, **{"X-Canary": "false"}) == {"stable": 20}
        assert answers(sandbox, path, 20) == {"stable": 20}


def test_a_canary_that_is_not_ready_does_not_stand_in_the_way_of_weight_0(
    sandbox: Sandbox, stack: StackCopy, observed: Cluster
) -> None:
    stack.set("rollout.maxStep", "100")
    stack.set("canaryWeight", "100")
    stack.up()
    kubectl = shutil.which("kubectl", path=sandbox.environment["PATH"])
    assert kubectl
    canaries = ["--namespace", "macromind", "--selector", "app=auth-service,version=canary"]

    def order(annotation: str) -> None:
        command = [kubectl, "annotate", "pods", *canaries, annotation]
        subprocess.run(command, env=dict(sandbox.environment), check=True, stdout=subprocess.DEVNULL)

    def ready() -> set[str]:
        pods = objects(sandbox, "pods", *canaries[2:])
        return {c["status"] for pod in pods for c in pod["status"]["conditions"] if c["type"] == "Ready"}

    order("sandbox/refuse=true")
    try:
        assert wait_for(ready, lambda states: states == {"False"}, SECONDS) == {"False"}

        stack.set("canaryWeight", "0")
        seconds = stack.up()

        assert seconds < SECONDS
        settle(observed, stack.settings(), "auth-service")
        assert answers(sandbox, SERVICES["auth-service"], 20) == {"stable": 20}
    finally:
        order("sandbox/refuse-")


@pytest.mark.parametrize("command", [["up", "--yes", "--refresh"], ["up", "--yes"]], ids=["refresh", "next shift"])
def test_a_weight_annotated_by_hand_is_put_right_without_a_conflict(
    sandbox: Sandbox, stack: StackCopy, observed: Cluster, command: list[str]
) -> None:
    kubectl = shutil.which("kubectl", path=sandbox.environment["PATH"])
    assert kubectl
    annotation = "nginx.ingress.kubernetes.io/canary-weight=70"
    order = [
        kubectl,
        "annotate",
        "ingress",
        "auth-service-canary",
        "--namespace",
        "macromind",
        "--overwrite",
        annotation,
    ]
    subprocess.run(order, env=dict(sandbox.environment), check=True, stdout=subprocess.DEVNULL)
    if "--refresh" not in command:
        stack.set("canaryWeight", "33")

    stack.run(*command)

    settle(observed, stack.settings(), "auth-service")


def test_a_service_with_a_weight_of_its_own_keeps_it(sandbox: Sandbox, stack: StackCopy, observed: Cluster) -> None:
    stack.set("services.auth-service.canary.weight", "10")
    stack.set("canaryWeight", "50")
    stack.up()

    tallies = measured(sandbox, stack, observed)

    check_share("auth-service", 10, tallies["auth-service"])
    check_share("meal-planner-service", 50, tallies["meal-planner-service"])
    services = stack.outputs()["services"]
    assert services["auth-service"]["weightSource"] == "services.auth-service.canary.weight"
    assert services["meal-planner-service"]["weightSource"] == "canaryWeight"


def test_removing_one_canary_loses_no_request_and_leaves_the_others(
    sandbox: Sandbox, stack: StackCopy, observed: Cluster
) -> None:
    with Traffic(sandbox.proxy_url, HOST, SERVICES, RATE) as traffic:
        stack.remove("services.auth-service.canary")
        stack.up()
        settle(observed, stack.settings(), "auth-service")
        tallies = measure(observed, traffic, REQUESTS)

    assert failures(traffic) == {}
    check_share("auth-service", 0, tallies["auth-service"])
    check_share("meal-planner-service", 20, tallies["meal-planner-service"])
    for kind in ("deployments", "services", "ingresses"):
        assert names(sandbox, kind) == BOTH_TRACKS - {"auth-service-canary"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("canaryWeight", "101"),
        ("canaryWeight", "fifty"),
        ("services.auth-service.canary.weight", "101"),
        ("services.auth-service.canary.wieght", "10"),
        ("services.auth-service.replicas", "0"),
        ("services.meal-planner-service.path", "/api/auth"),
        ("router", "haproxy"),
    ],
)
def test_a_bad_configuration_changes_nothing_and_says_why(
    sandbox: Sandbox, stack: StackCopy, key: str, value: str
) -> None:
    before, state = specifications(sandbox), resources(stack)
    stack.set(key, value)

    for command in (["preview"], ["up", "--yes", "--skip-preview"]):
        with pytest.raises(StackError) as caught:
            stack.run(*command)

        message = str(caught.value)
        assert "1 problem in the stack configuration; nothing was changed" in message
        assert f"{key} = {value}" in message
        assert "fix:     pulumi config set " in message
        assert "Traceback" not in message
    assert specifications(sandbox) == before
    assert resources(stack) == state


def test_a_secret_reaches_the_pods_but_neither_output_nor_state(sandbox: Sandbox, stack: StackCopy) -> None:
    stack.run("config", "set", "--secret", "--path", "services.auth-service.env.TOKEN", "hunter2")
    shown = stack.run("preview", "--diff") + stack.run("up", "--yes", "--diff", "--skip-preview")

    (deployment,) = objects(sandbox, "deployments", "--field-selector", "metadata.name=auth-service")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "TOKEN", "value": "hunter2"}]
    assert "hunter2" not in shown
    assert "hunter2" not in stack.run("stack", "export")
    assert "hunter2" not in stack.run("stack", "output", "--json")
    kept = [path for path in stack.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in kept if b"hunter2" in path.read_bytes()]


def test_the_sentence_itself_moves_traffic_from_20_to_50(sandbox: Sandbox, stack: StackCopy, observed: Cluster) -> None:
    before = measured(sandbox, stack, observed)

    subprocess.run(
        ["/bin/sh", "-c", "pulumi config set canaryWeight 50 && pulumi up --yes"],
        cwd=stack.folder,
        env={**stack.environment, "PULUMI_STACK": stack.name},
        check=True,
        stdout=subprocess.DEVNULL,
    )

    after = measured(sandbox, stack, observed)
    for service in SERVICES:
        check_share(service, 20, before[service])
        check_share(service, 50, after[service])


def test_the_checkout_stays_as_it_is(tmp_path: Path, sandbox: Sandbox) -> None:
    shipped = {path.name: path.read_bytes() for path in CHECKOUT.glob("Pulumi*.yaml")}

    stack = StackCopy.create(tmp_path / "project", "dev", sandbox.environment)
    stack.set("canaryWeight", "1")
    stack.run("preview")

    assert {path.name: path.read_bytes() for path in CHECKOUT.glob("Pulumi*.yaml")} == shipped
