"""`canary plan` on a real preview: what it shows is what an update then does."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from lightkube import Client
from lightkube.resources.networking_v1 import Ingress

from canary_service.routing.nginx import WEIGHT
from demo.stack import CHECKOUT
from sandbox.lifecycle import Sandbox
from tests.live.scene import CANARY, CANARY_IMAGE, GOOD_CANARY, NAME, STABLE_IMAGE, Scene

pytestmark = pytest.mark.live

RATE = 40.0


class Metrics(HTTPServer):
    """Answers as Prometheus does that every service gets `RATE`; keeps the queries."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.queries: list[str] = []


class Answer(BaseHTTPRequestHandler):
    server: Metrics

    def do_GET(self) -> None:
        self.server.queries += parse_qs(urlsplit(self.path).query)["query"]
        series = [{"metric": {"app": NAME}, "value": [1, str(RATE)]}]
        body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": series}}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def metrics() -> Iterator[Metrics]:
    with Metrics() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@dataclass
class Planner:
    scene: Scene
    metrics: Metrics

    def run(self, *options: str, exit_code: int = 0, **environment: str) -> str:
        """Run `canary plan` as a user does; return what it printed."""
        done = subprocess.run(
            [CHECKOUT / "canary_service" / "cli" / "canary", "plan", "--stack", self.scene.stack.name, *options],
            cwd=self.scene.stack.folder,
            env={**self.scene.stack.environment, **environment},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == exit_code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout

    def plan(self, *, exit_code: int = 0, **environment: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.metrics.server_port}"
        plan: dict[str, Any] = json.loads(self.run("--json", "--prometheus", url, exit_code=exit_code, **environment))
        return plan

    def service(self) -> dict[str, Any]:
        (service,) = self.plan()["services"]
        return dict(service)


@pytest.fixture(scope="module")
def deployed(own_scene: Scene, metrics: Metrics) -> Planner:
    """A service with a canary at 20 %."""
    own_scene.deploy(20)
    return Planner(own_scene, metrics)


@pytest.fixture
def planner(sandbox: Sandbox, cluster: Client, namespace: str, metrics: Metrics, tmp_path: Path) -> Planner:
    """Nothing is deployed yet."""
    return Planner(Scene.create(sandbox, cluster, namespace, tmp_path), metrics)


@pytest.fixture(autouse=True)
def as_deployed(deployed: Planner) -> Iterator[None]:
    """Give each test the configuration of what runs."""
    yield
    deployed.scene.configure(20, canary=GOOD_CANARY, image=STABLE_IMAGE)


def test_a_first_deploy_shows_what_comes_and_makes_nothing(planner: Planner) -> None:
    planner.scene.configure(20, canary=GOOD_CANARY)
    plan = planner.plan()
    (service,) = plan["services"]

    assert (plan["outcome"], plan["weightsFrom"], service["change"]) == ("changes", "cluster", "first deploy")
    assert service["weight"] == {"before": None, "after": 20}
    assert (service["stable"]["podsAfter"], service["canary"]["podsAfter"]) == (2, 1)
    of_service = [(kind, name) for kind in ("Deployment", "Ingress", "Service") for name in (NAME, CANARY)]
    of_stack = [(kind, "macromind-dev") for kind in ("ConfigMap", "PodMonitor", "PrometheusRule")]
    assert sorted((each["operation"], each["kind"], each["name"]) for each in plan["objects"]) == sorted(
        ("create", *each) for each in (*of_service, *of_stack)
    )
    assert planner.scene.kubectl("get", "deployments,services,ingresses", "--output", "name") == ""


@pytest.mark.parametrize(
    ("router", "settings", "kinds"),
    [("gateway", {"gateway": {"namespace": "default"}}, {"HTTPRoute"}), ("traefik", {}, {"TraefikService"})],
)
def test_the_plan_reads_weights_behind_every_router(
    planner: Planner, router: str, settings: dict[str, Any], kinds: set[str]
) -> None:
    planner.scene.route_by(router, settings)
    planner.scene.deploy(20)

    planner.scene.configure(50)
    shift = planner.plan()
    planner.scene.configure(20)
    planner.scene.route_by("nginx", {})
    (moved,) = planner.plan()["services"]

    (service,) = shift["services"]
    assert (service["change"], service["weight"]) == ("shift", {"before": 20, "after": 50})
    assert {each["kind"] for each in shift["objects"] if each["service"] == NAME} == kinds
    assert (moved["change"], moved["weight"]) == ("route", {"before": 20, "after": 20})
    assert f"moves from router {router} to nginx" in "".join(moved["risks"])


def test_what_is_deployed_changes_nothing_in_one_line(deployed: Planner) -> None:
    assert deployed.run() == "dev: nothing changes\n"


def test_a_shift_shows_the_weight_in_force_and_how_many_requests_move(deployed: Planner) -> None:
    deployed.scene.configure(50)
    service = deployed.service()

    assert (service["change"], service["weight"]) == ("shift", {"before": 20, "after": 50})
    assert service["requestsPerSecond"] == {"total": RATE, "moved": 12.0}
    assert f'namespace="{deployed.scene.namespace}",app=~"{NAME}"' in deployed.metrics.queries[-1]
    assert deployed.scene.weight() == 20


def test_a_weight_that_somebody_annotated_is_the_one_before(deployed: Planner) -> None:
    scene = deployed.scene
    for weight, outcome, restored in ((70, "changes", [CANARY]), (20, "unchanged", [])):
        patch = {"metadata": {"annotations": {WEIGHT: str(weight)}}}
        scene.cluster.patch(Ingress, CANARY, patch, namespace=scene.namespace)
        plan = deployed.plan()

        assert plan["outcome"] == outcome
        assert plan["services"][0]["weight"] == {"before": weight, "after": 20}
        assert [found["name"] for found in plan["objects"] if found["operation"] == "restore"] == restored


def test_a_promotion_shows_who_has_not_met_the_image_yet(deployed: Planner) -> None:
    deployed.scene.configure(canary=None, image=CANARY_IMAGE)
    service = deployed.service()

    assert (service["change"], service["weight"]) == ("promotion", {"before": 20, "after": None})
    assert (service["stable"]["imageBefore"], service["stable"]["imageAfter"]) == (STABLE_IMAGE, CANARY_IMAGE)
    assert service["requestsPerSecond"]["moved"] == 32.0
    assert [risk for risk in service["risks"] if "80 % of the requests have never met" in risk]


def test_an_abort_shows_that_the_weight_falls_first(deployed: Planner) -> None:
    deployed.scene.configure(canary=None)
    service = deployed.service()

    assert (service["change"], service["weight"]) == ("abort", {"before": 20, "after": None})
    assert service["requestsPerSecond"]["moved"] == 8.0
    assert [risk for risk in service["risks"] if "falls to 0 % ahead of everything else" in risk]


def test_a_refused_shift_is_told_in_every_form_and_ends_with_1(deployed: Planner) -> None:
    deployed.scene.configure(90)

    for form in ((), ("--markdown",), ("--json",)):
        assert "pulumi config set canaryWeight 70" in deployed.run(*form, exit_code=1)


def test_without_a_cluster_the_state_says_what_was_before(deployed: Planner) -> None:
    deployed.scene.configure(50)
    plan = deployed.plan(KUBECONFIG="/nonexistent")

    assert (plan["outcome"], plan["weightsFrom"]) == ("changes", "state")
    assert plan["services"][0]["weight"] == {"before": 20, "after": 50}
    assert "there is no kubeconfig at /nonexistent" in plan["notes"][0]


def test_what_the_api_server_refuses_is_one_message_and_ends_with_4(deployed: Planner) -> None:
    deployed.scene.configure(podTemplatePatch={"spec": {"nosuch": 1}})
    try:
        plan = deployed.plan(exit_code=4)
    finally:
        deployed.scene.configure(podTemplatePatch=None)

    assert plan["outcome"] == "failed"
    assert all(".spec.template.spec.nosuch: field not declared in schema" in error for error in plan["errors"])
    assert plan["errors"]


RULES = {
    "all": "disabled",
    "max-weight": {"enforcementLevel": "mandatory", "maxWeight": 10},
    "image-digest": "advisory",
}


def test_a_mandatory_policy_is_told_beside_what_would_move_and_ends_with_6(deployed: Planner, tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps(RULES))
    deployed.scene.configure(50)
    pack = ("--policy-pack", str(CHECKOUT / "policies"), "--policy-pack-config", str(rules))
    plan = json.loads(deployed.run("--json", *pack, exit_code=6))

    assert plan["outcome"] == "violated"
    assert plan["services"][0]["weight"] == {"before": 20, "after": 50}
    assert [(found["severity"], found["object"], found["rule"]) for found in plan["policies"]] == [
        ("mandatory", f"Ingress {CANARY}", "max-weight"),
        ("advisory", f"Deployment {NAME}", "image-digest"),
        ("advisory", f"Deployment {CANARY}", "image-digest"),
    ]
    assert "50" in plan["policies"][0]["message"]


def test_secret_values_appear_nowhere(deployed: Planner) -> None:
    stack = deployed.scene.stack
    for path in ("secret.data.TOKEN", "env.KEY", "canary.header.value"):
        stack.run("config", "set", "--secret", "--path", f"services.{NAME}.{path}", f"{path.replace('.', '-')}-5ecret")
    stack.set(f"services.{NAME}.canary.header.name", "X-Canary")
    stack.set(f"services.{NAME}.canary.image", CANARY_IMAGE)
    stack.set(f"services.{NAME}.secret.data.PLAIN", "plain-5ecret")
    try:
        shown = [deployed.run(*form) for form in ((), ("--markdown",), ("--json",))]
    finally:
        deployed.scene.configure(secret=None, env=None)

    for printed in shown:
        assert "content of the Secret changes" in printed
        assert "5ecret" not in printed


def test_a_comment_begins_with_its_marker(deployed: Planner) -> None:
    deployed.scene.configure(50)

    assert deployed.run("--markdown").startswith("<!-- canary-plan:dev -->\n### ")
