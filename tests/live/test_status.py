"""`canary status` on a real stack: what it says is what there is."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from canary_service.rollout.events import AnyEvent
from canary_service.rollout.journal import Journal
from canary_service.rollout.status import WINDOW_SECONDS, Status
from canary_service.routing.nginx import WEIGHT
from sandbox.traffic import Traffic
from tests.live import canary
from tests.live.application import eventually
from tests.live.scene import CANARY, CANARY_IMAGE, GOOD_CANARY, NAME, PATHS, RATE, STABLE_IMAGE, Scene
from tests.unit import test_status

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def scene(own_scene: Scene) -> Scene:
    """A service with a canary at 20 %."""
    own_scene.deploy(20)
    return own_scene


def status(scene: Scene, *options: str) -> dict[str, Any]:
    """Return what it says of the service."""
    printed = canary.run(scene, "status", "--json", *options)
    (service,) = json.loads(printed)["services"]
    assert Status.model_validate_json(printed).services
    return dict(service)


def prometheus(scene: Scene) -> tuple[str, str]:
    return "--prometheus", scene.sandbox.prometheus_url


def test_what_is_deployed_is_told_without_a_problem(scene: Scene) -> None:
    found = status(scene)
    assert (found["declared"], found["declaredBy"], found["weight"]) == (20, "canaryWeight", 20)
    assert (found["stable"]["image"], found["stable"]["ready"], found["stable"]["wanted"]) == (STABLE_IMAGE, 2, 2)
    assert (found["canary"]["image"], found["canary"]["ready"], found["canary"]["wanted"]) == (CANARY_IMAGE, 1, 1)
    assert 0 < found["canary"]["ageSeconds"] < 600
    assert (found["measured"], found["verdict"], found["changedByOthers"], found["problems"]) == (None, None, {}, [])
    assert "rollout.prometheusUrl" in found["notMeasured"]
    assert canary.run(scene, "status").startswith("macromind/dev: 1 service, no problems\n")


def test_the_share_is_counted_from_what_both_tracks_answered(scene: Scene) -> None:
    # The sandbox's Traefik, which is scraped every second and counts from its start.
    scene.stack.set("monitoring.source", "traefik")
    with Traffic(scene.sandbox.proxy_url, f"{scene.namespace}.example", PATHS, RATE) as traffic:
        eventually(lambda: traffic.total[NAME].requests > 200)

        def counted() -> Any:  # noqa: ANN401 - as JSON has it
            found = status(scene, *prometheus(scene))["measured"]
            return found if found and found["requests"] > 100 else None

        measured = eventually(counted, 120)
    assert measured["seconds"] == WINDOW_SECONDS
    assert measured["requests"] <= traffic.total[NAME].requests
    assert measured["share"] == pytest.approx(20, abs=2)


def test_a_prometheus_that_does_not_answer_is_named_and_stops_nothing(scene: Scene) -> None:
    found = status(scene, "--prometheus", "http://user:word@127.0.0.1:1/")
    assert found["measured"] is None
    assert "http://127.0.0.1:1/ was asked" in found["notMeasured"]
    assert "word" not in json.dumps(found)
    assert found["weight"] == 20


def test_a_weight_of_somebody_else_and_a_canary_that_crashes_are_told_with_what_to_do(scene: Scene) -> None:
    scene.kubectl("annotate", "--overwrite", "ingress", CANARY, f"{WEIGHT}=90")
    (pod,) = scene.pods("canary")
    scene.kubectl("annotate", "pod", pod, "sandbox/refuse=true", f"sandbox/crash={time.time()}")
    eventually(lambda: scene.ready_pods("canary") == 0)
    found = eventually(lambda: _of_crashed(scene))
    assert (found["declared"], found["weight"], found["canary"]["restarts"]) == (20, 90, 1)
    assert found["changedByOthers"] == {f"Ingress {CANARY}": ["kubectl-annotate"]}
    weight, pods = found["problems"]
    assert weight == (
        f"20 % are declared, and 90 % in force; Ingress {CANARY} was changed by kubectl-annotate: "
        "`pulumi up` puts back what is declared"
    )
    assert pods.startswith("canary: 0 of 1 pods are ready: `canary doctor`, `canary logs")
    assert "\n!  app" in canary.run(scene, "status")

    scene.kubectl("annotate", "pod", pod, "sandbox/refuse-")
    eventually(lambda: scene.ready_pods("canary") == 1)
    scene.up()
    assert status(scene)["problems"] == []


def _of_crashed(scene: Scene) -> dict[str, Any]:
    found = status(scene)
    return found if found["canary"]["restarts"] and not found["canary"]["ready"] else {}


def record(scene: Scene, run: str, *events: AnyEvent) -> None:
    with Journal(scene.stack.folder, "dev", pytest.fail) as journal:
        journal.path.rename(journal.path.with_name(f"{run}.jsonl"))
        for event in events:
            journal(event)


def test_the_last_run_here_has_the_last_word(scene: Scene) -> None:
    started = test_status.started()
    record(scene, "first", started)
    record(scene, "second", started.model_copy(update={"run": "second"}), test_status.sampled("fail", 0, NAME))
    verdict = status(scene)["verdict"]
    assert (verdict["run"], verdict["outcome"], verdict["weight"]) == ("second", "fail", 20)
    assert "fail at 20 %, run second: errors fail" in canary.run(scene, "status")


def test_configuration_that_is_not_rolled_out_yet_is_told_from_drift(scene: Scene) -> None:
    scene.configure(50)
    (problem,) = status(scene)["problems"]
    assert problem == "50 % are declared, and 20 % in force: `pulumi up` carries out what is declared"
    scene.configure(20, canary=GOOD_CANARY)
    assert status(scene)["problems"] == []


def test_what_cannot_be_used_ends_it_with_one_clear_message(scene: Scene, tmp_path: Path) -> None:
    canary.run(scene, "status", "--service", "other", exit_code=1)
    scene.stack.set("kubernetes:kubeconfig", str(tmp_path / "none"))
    try:
        canary.run(scene, "status", exit_code=4)
    finally:
        scene.stack.remove("kubernetes:kubeconfig")
