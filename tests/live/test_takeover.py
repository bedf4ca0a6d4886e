"""docs/takeover.md, word for word, on hand-made objects under traffic."""

import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import httpx2
import pytest
import yaml

from demo.measurement import Cluster, check_share, measure, settle
from demo.stack import CHECKOUT, StackCopy, StackError
from sandbox.lifecycle import Sandbox
from sandbox.traffic import Traffic
from tests.live.application import eventually

pytestmark = pytest.mark.live

GUIDE = CHECKOUT / "docs/takeover.md"
HAND_MADE = Path(__file__).parent / "handmade"
PATHS = {
    "auth-service": "/api/auth",
    "meal-planner-service": "/api/meals",
    "nutrition-ai-service": "/api/nutrition",
}
RATE = 300.0
SENDERS = 4
DRAIN_SECONDS = 5
ROUND = 10
LEAST_RATE = 200.0
REQUESTS = 200
DIRECT = httpx2.Client(trust_env=False, timeout=10)
STABLE, CANARY = "1.0.0", "1.1.0"
BODY_SIZE = "nginx.ingress.kubernetes.io/proxy-body-size"
STEPS = ["Let the pods go", "Take over", "Let the old pods go"]


def commands(heading: str) -> str:
    """Return the commands that stand under a heading of the guide."""
    _, found, rest = GUIDE.read_text().partition(f" {heading}\n")
    assert found, f"the guide has no heading {heading!r}"
    section, _, _ = rest.partition("\n## ")
    blocks = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert blocks
    return "".join(blocks)


@dataclass(frozen=True)
class Scene:
    """Services made by hand, and a stack that describes them and owns nothing yet."""

    sandbox: Sandbox
    stack: StackCopy
    namespace: str
    host: str
    paths: Mapping[str, str]
    environment: Mapping[str, str]

    def run(self, script: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-euc", script],
            cwd=self.stack.folder,
            env=dict(self.environment),
            check=False,
            capture_output=True,
            text=True,
        )
        assert not done.returncode, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def objects(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        command = f"kubectl -n {self.namespace} get {kind} -o json {' '.join(arguments)}"
        items: list[dict[str, Any]] = json.loads(self.run(command))["items"]
        return items

    def identities(self, kind: str, *arguments: str) -> dict[str, str]:
        """Return the uid of each object by its name."""
        return {found["metadata"]["name"]: found["metadata"]["uid"] for found in self.objects(kind, *arguments)}

    def written(self) -> dict[tuple[str, str], Any]:
        """Return what was asked of the API server for every object, by kind and name."""
        return {
            (found["kind"], found["metadata"]["name"]): [
                found["spec"],
                *(found["metadata"].get(key) for key in ("uid", "labels", "annotations")),
            ]
            for found in self.objects("deployments,services,ingresses")
        }

    @contextmanager
    def traffic(self) -> Iterator[Traffic]:
        """Send requests meanwhile; none of them may fail."""
        with self.unheld_traffic() as traffic:
            started = time.time()
            yield traffic
            seconds = time.time() - started
        assert [(failed.service, failed.reason, round(failed.sent - started, 1)) for failed in traffic.failures] == []
        assert sum(tally.requests for tally in traffic.total.values()) > LEAST_RATE * seconds

    @contextmanager
    def unheld_traffic(self) -> Iterator[Traffic]:
        """Send requests meanwhile, and have first answers when it begins."""
        rate = RATE / len(self.paths)
        with Traffic(self.sandbox.proxy_url, self.host, self.paths, rate, senders=SENDERS) as traffic:
            eventually(lambda: all(tally.requests for tally in traffic.total.values()))
            yield traffic

    def served(self) -> bool:
        """Tell whether the proxy leads to all pods of a round at the canaries' weight."""
        urls = [self.sandbox.proxy_url + path for path in self.paths.values() for _ in range(ROUND)]
        return all(DIRECT.get(url, headers={"Host": self.host}).is_success for url in urls)

    def check_shares(self, observed: Cluster, traffic: Traffic) -> None:
        settings = self.stack.settings()
        weights = {name: settle(observed, settings, name) for name in self.paths}
        tallies = measure(observed, traffic, REQUESTS)
        for name, weight in weights.items():
            check_share(name, weight, tallies[name])


def make(  # noqa: PLR0913 - what users may have, in one place
    sandbox: Sandbox,
    namespace: str,
    folder: Path,
    *,
    services: int = 1,
    canaries: bool = False,
    shared: bool = False,
    port_name: str = "",
) -> Scene:
    """Make the objects, wait until the proxy leads to them, and describe them in a stack."""
    host = f"{namespace}.example"
    paths = dict(list(PATHS.items())[:services])
    ports = {
        "service_port": f"{{name: {port_name}, port: 80, targetPort: {port_name}}}",
        "container_port": f"{{name: {port_name}, containerPort: 8080}}",
    }
    if not port_name:
        ports = {"service_port": "{port: 80, targetPort: 8080}", "container_port": "{containerPort: 8080}"}
    manifests = folder / "manifests"
    manifests.mkdir()
    files = ["service.yaml", *([] if shared else ["ingress.yaml"]), *(["canary.yaml"] if canaries else [])]
    for name, path in paths.items():
        for file in files:
            text = Template((HAND_MADE / file).read_text())
            (manifests / f"{name}-{file}").write_text(text.substitute(ports, name=name, path=path, host=host))
    if shared:
        text = Template((HAND_MADE / "shared-ingress.yaml").read_text())
        (manifests / "shared-ingress.yaml").write_text(text.substitute(host=host))

    stack = StackCopy.create(folder / "project", "dev", sandbox.environment)
    configuration = stack.folder / "Pulumi.dev.yaml"
    config = yaml.safe_load(configuration.read_text())["config"]
    described = {name: config["macromind:services"][name] for name in paths}
    for name, service in described.items():
        service["image"] = f"macromind/{name}:{STABLE}"
        service["canary"]["image"] = f"macromind/{name}:{CANARY}"
        service["servicePort"] = 80
        if port_name:
            service["portName"] = port_name
        service["drainSeconds"] = DRAIN_SECONDS
        if not shared:
            service["annotations"] = {BODY_SIZE: "8m"}
    config |= {
        "macromind:namespace": namespace,
        "macromind:createNamespace": "false",
        "macromind:host": host,
        "macromind:canaryWeight": "20" if canaries else "0",
        "macromind:services": described,
    }
    configuration.write_text(yaml.safe_dump({"config": config}))
    environment = {
        **stack.environment,
        "NAMESPACE": namespace,
        "SERVICES": " ".join(paths),
        "MANIFESTS": str(manifests),
        "SHARED_INGRESS": "macromind",
        "PULUMI_STACK": stack.name,
        "PULUMI_SKIP_CONFIRMATIONS": "true",
    }
    scene = Scene(sandbox, stack, namespace, host, paths, environment)
    scene.run(f"kubectl -n {namespace} apply -f {manifests}")
    scene.run(f"kubectl -n {namespace} wait deployments --all --for condition=Available --timeout 60s")
    eventually(scene.served)
    return scene


@pytest.fixture(scope="module")
def observed(sandbox: Sandbox) -> Cluster:
    return Cluster.of(sandbox)


@pytest.mark.parametrize(
    "made",
    [
        {"services": 1},
        {"services": 3, "canaries": True, "port_name": "web"},
        {"services": 3, "canaries": True, "shared": True},
    ],
    ids=["one service", "three services and their canaries", "one Ingress for all"],
)
def test_the_guide_takes_over_without_a_lost_request(
    sandbox: Sandbox, observed: Cluster, namespace: str, tmp_path: Path, made: dict[str, Any]
) -> None:
    scene = make(sandbox, namespace, tmp_path, **made)
    services, replica_sets = scene.identities("services"), scene.identities("replicasets")
    with scene.traffic() as traffic:
        scene.run(commands(STEPS[0]))
        annotate, delete = commands("One Ingress for all services").splitlines()
        if made.get("shared"):
            scene.run(annotate)
        for step in STEPS[1:]:
            scene.run(commands(step))
        scene.run(commands("Check"))
        if made.get("shared"):
            scene.run(delete)
        scene.check_shares(observed, traffic)

        assert services.items() <= scene.identities("services").items()
        assert not replica_sets.keys() & scene.identities("replicasets").keys()
        assert scene.identities("pods", "--selector", "handmade") == {}

        scene.run("pulumi config set canaryWeight 50 && pulumi up")
        scene.check_shares(observed, traffic)

        for name in scene.paths:
            scene.stack.set(f"services.{name}.image", f"macromind/{name}:{CANARY}")
            scene.stack.remove(f"services.{name}.canary")
        scene.run("pulumi up")
        scene.check_shares(observed, traffic)

    scene.run("pulumi preview --refresh --expect-no-changes")
    assert scene.identities("ingresses").keys() == scene.paths.keys()
    if not made.get("shared"):
        assert {found["metadata"]["annotations"].get(BODY_SIZE) for found in scene.objects("ingresses")} == {"8m"}


@pytest.mark.parametrize("steps", [1, 2, 3], ids=["after step 1", "after step 2", "after step 3"])
def test_the_way_back_loses_no_request(sandbox: Sandbox, namespace: str, tmp_path: Path, steps: int) -> None:
    scene = make(sandbox, namespace, tmp_path, canaries=True)
    replica_sets, pods = scene.identities("replicasets"), scene.identities("pods")
    with scene.traffic():
        for step in STEPS[:steps]:
            scene.run(commands(step))

        scene.run(commands("The way back"))

        assert scene.identities("replicasets").keys() == replica_sets.keys()
        if steps < 3:
            assert scene.identities("pods") == pods
    (service,) = scene.objects("services", "--field-selector", "metadata.name=auth-service")
    assert service["spec"]["selector"] == {"app": "auth-service"}


def test_an_update_before_the_guide_is_refused_and_loses_no_request(
    sandbox: Sandbox, namespace: str, tmp_path: Path
) -> None:
    scene = make(sandbox, namespace, tmp_path)
    with scene.traffic(), pytest.raises(StackError, match=re.escape("docs/takeover.md")):
        scene.stack.up()
    (service,) = scene.objects("services")
    assert service["spec"]["selector"] == {"app": "auth-service"}


def test_changing_the_selector_first_would_lose_requests(sandbox: Sandbox, namespace: str, tmp_path: Path) -> None:
    scene = make(sandbox, namespace, tmp_path)
    with scene.unheld_traffic() as traffic:
        selector = '{"spec": {"selector": {"version": "stable"}}}'
        scene.run(f"kubectl -n {namespace} patch service auth-service --patch '{selector}'")
        eventually(lambda: traffic.total["auth-service"].failed)


def test_a_canary_beside_objects_that_stay_theirs_changes_none_of_them(
    sandbox: Sandbox, observed: Cluster, namespace: str, tmp_path: Path
) -> None:
    scene = make(sandbox, namespace, tmp_path)
    scene.stack.remove("services.auth-service.annotations")
    hand_made = scene.written()
    with scene.traffic() as traffic:
        scene.run(commands("Only a canary"))
        for weight in (20, 50):
            scene.run(f"pulumi config set canaryWeight {weight} && pulumi up")
            scene.check_shares(observed, traffic)
        assert hand_made.items() <= scene.written().items()

        scene.run("pulumi config rm --path services.auth-service.canary && pulumi up")

    assert scene.written() == hand_made
