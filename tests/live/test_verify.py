"""`canary verify` on a real stack: it agrees with what the router does, and notices when that is something else."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lightkube import Client
from lightkube.resources.core_v1 import Service
from lightkube.types import PatchType

from canary_service.rollout.verification import Verification
from canary_service.routing.nginx import WEIGHT
from sandbox.lifecycle import Sandbox
from sandbox.traffic import Traffic
from tests.live import canary
from tests.live.application import eventually
from tests.live.scene import CANARY, GOOD_CANARY, NAME, PATHS, RATE, Scene

pytestmark = pytest.mark.live

HEADER = {"header": {"name": "X-Canary", "value": "true"}}
BY_HEADER = "nginx.ingress.kubernetes.io/canary-by-header"
ANSWERS = ("--version-header", "X-Version")


@pytest.fixture(scope="module")
def deployed(own_scene: Scene) -> Scene:
    """A service with a canary at 20 % that has a header; Traefik counts, which is scraped every second."""
    own_scene.stack.set("monitoring.source", "traefik")
    own_scene.stack.set("rollout.prometheusUrl", own_scene.sandbox.prometheus_url)
    own_scene.configure(20, canary=GOOD_CANARY | HEADER)
    own_scene.up()
    return own_scene


@pytest.fixture
def scene(deployed: Scene) -> Iterator[Scene]:
    """Give each test what was deployed first."""
    deployed.settle()
    yield deployed
    deployed.configure(20)
    deployed.up()


def verify(scene: Scene, *options: str, exit_code: int) -> dict[str, dict[str, Any]]:
    """Return its checks by kind."""
    printed = canary.run(scene, "verify", "--json", *options, exit_code=exit_code)
    assert Verification.model_validate_json(printed).checks
    checks = json.loads(printed)["checks"]
    assert {check["service"] for check in checks} == {NAME}
    return {check["kind"]: check for check in checks}


def sent(scene: Scene, *options: str, exit_code: int = 0) -> dict[str, dict[str, Any]]:
    return verify(scene, "--url", scene.sandbox.proxy_url, *options, exit_code=exit_code)


@contextmanager
def annotated(scene: Scene, annotation: str) -> Iterator[None]:
    """Change the canary's route by hand, and let the router follow."""
    scene.kubectl("annotate", "--overwrite", "ingress", CANARY, annotation)
    yield
    scene.up()


@pytest.mark.parametrize("who", [(), ANSWERS], ids=["counters", "answers"])
def test_each_request_is_counted_and_the_header_leads_where_it_should(scene: Scene, who: tuple[str, ...]) -> None:
    checks = sent(scene, "--header", *who)
    counted = {kind: (check["sent"], check["requests"], check["failed"]) for kind, check in checks.items()}
    assert counted.pop("read-back") == (None, 0, 0)
    assert counted == dict.fromkeys(("weight", "header", "other-header-value"), (200, 200, 0))
    assert abs(checks["weight"]["canary"] - 40) <= 1
    assert checks["header"]["canary"] == 200
    assert abs(checks["other-header-value"]["canary"] - 40) <= 1


def test_at_weight_0_only_the_header_leads_to_the_canary(scene: Scene) -> None:
    scene.configure(0)
    scene.up()
    checks = sent(scene, "--header", *ANSWERS)
    assert [checks[kind]["canary"] for kind in ("weight", "header", "other-header-value")] == [0, 200, 0]


def test_a_weight_of_somebody_else_disagrees_with_the_declared_one_and_agrees_with_the_router(scene: Scene) -> None:
    with annotated(scene, f"{WEIGHT}=60"):
        checks = sent(scene, *ANSWERS, exit_code=6)
    assert (checks["read-back"]["outcome"], checks["weight"]["outcome"]) == ("disagrees", "agrees")
    assert abs(checks["weight"]["canary"] - 120) <= 1


def test_a_header_that_somebody_took_away_is_noticed(scene: Scene) -> None:
    with annotated(scene, f"{BY_HEADER}-"):
        checks = sent(scene, "--header", *ANSWERS, exit_code=6)
    outcomes = {kind: check["outcome"] for kind, check in checks.items()}
    assert outcomes == {
        "read-back": "agrees",
        "weight": "agrees",
        "header": "disagrees",
        "other-header-value": "agrees",
    }


def test_a_stable_service_that_selects_canaries_too_is_noticed_by_who_answers(scene: Scene, cluster: Client) -> None:
    patch = [{"op": "remove", "path": "/spec/selector/version"}]
    cluster.patch(Service, NAME, patch, namespace=scene.namespace, patch_type=PatchType.JSON)
    eventually(lambda: sent_more_than_declared(scene))
    scene.up()


def sent_more_than_declared(scene: Scene) -> bool:
    """Tell whether a canary of one pod beside two also gets a third of what is stable's: 20 % + 80 % / 3."""
    printed = json.loads(canary.run(scene, "verify", "--json", "--url", scene.sandbox.proxy_url, *ANSWERS, exit_code=6))
    (check,) = (check for check in printed["checks"] if check["kind"] == "weight")
    return bool(40 < check["share"] < 54)


def test_failing_answers_are_told_and_count_for_who_gave_them(scene: Scene) -> None:
    (pod,) = scene.pods("canary")
    scene.kubectl("annotate", "pod", pod, "sandbox/error-rate=1")
    checks = sent(scene, *ANSWERS)
    scene.kubectl("annotate", "pod", pod, "sandbox/error-rate-")
    assert checks["weight"]["failed"] == checks["weight"]["canary"]
    assert "failed: status 500: " in checks["weight"]["text"]


def test_where_nothing_answers_nothing_is_known(scene: Scene) -> None:
    checks = verify(scene, "--url", "http://127.0.0.1:1", *ANSWERS, exit_code=3)
    assert (checks["weight"]["failed"], checks["weight"]["requests"]) == (200, 0)
    assert "ConnectError: 200" in checks["weight"]["text"]


def test_a_host_that_the_router_does_not_know_is_told_by_its_status(scene: Scene) -> None:
    other = verify(scene, "--url", f"{scene.sandbox.proxy_url}/elsewhere", *ANSWERS, exit_code=6)
    assert "no request reached the service: status 404: 200" in other["weight"]["text"]


def test_live_traffic_alone_tells_when_it_is_enough(scene: Scene) -> None:
    with Traffic(scene.sandbox.proxy_url, f"{scene.namespace}.example", PATHS, RATE) as traffic:
        eventually(lambda: traffic.total[NAME].requests > 500)
        checks = verify(scene, "--passive", "--seconds", "5", exit_code=0)
    assert checks["weight"]["sent"] is None
    assert checks["weight"]["requests"] > 300
    assert checks["weight"]["share"] == pytest.approx(20, abs=1)


def test_without_traffic_it_does_not_agree(scene: Scene) -> None:
    checks = verify(scene, "--passive", "--seconds", "1", exit_code=3)
    assert checks["weight"]["outcome"] == "unknown"


def test_who_counts_and_where_to_send_have_to_be_said(scene: Scene) -> None:
    canary.run(scene, "verify", exit_code=1)
    canary.run(scene, "verify", "--passive", "--url", scene.sandbox.proxy_url, exit_code=1)
    scene.stack.remove("rollout.prometheusUrl")
    canary.run(scene, "verify", "--url", scene.sandbox.proxy_url, exit_code=1)
    scene.stack.set("rollout.prometheusUrl", scene.sandbox.prometheus_url)
    unknown = verify(scene, "--passive", "--prometheus", "http://127.0.0.1:1", exit_code=3)
    assert unknown["weight"]["requests"] == 0


@pytest.mark.parametrize("source", ["traefik", "application"])
def test_copies_of_requests_are_counted_beside_them_and_agree_with_the_mirror(
    sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path, source: str
) -> None:
    scene = Scene.create(sandbox, cluster, namespace, tmp_path)
    scene.route_by("traefik", {})
    scene.stack.set("rollout.prometheusUrl", sandbox.prometheus_url)
    scene.stack.set("monitoring.source", source)
    scene.configure(0, canary=GOOD_CANARY | HEADER | {"mirrorPercent": 20})
    scene.up()
    scene.settle()

    checks = sent(scene, "--header")

    assert {check["outcome"] for check in checks.values()} == {"agrees"}
    assert (checks["weight"]["requests"], checks["weight"]["canary"]) == (240, 40)
    assert (checks["header"]["requests"], checks["header"]["canary"]) == (200, 200)
    assert sent(scene, *ANSWERS)["weight"]["canary"] == 0
