"""New pods that do not become ready: `up` says why and ends, stable and the split stay, and the way on is open."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lightkube import Client
from lightkube.resources.core_v1 import Node

from canary_service.cluster.workloads import STUCK_SECONDS
from sandbox.lifecycle import Sandbox
from tests.live.application import eventually
from tests.live.scene import CANARY, CANARY_IMAGE, GOOD_CANARY, NAME, STABLE_IMAGE, Refusal, Scene

pytestmark = pytest.mark.live

MISSING = {"image": "registry.example/app:missing"}
PATIENCE_SECONDS = 10
NEVER_LISTENS = {"SANDBOX_START_SECONDS": "600"}
LONGEST_SECONDS = 60.0


@pytest.fixture
def scene(sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path) -> Scene:
    """A service that runs stable only."""
    scene = Scene.create(sandbox, cluster, namespace, tmp_path)
    scene.up()
    return scene


@contextmanager
def quota(scene: Scene) -> Iterator[None]:
    scene.kubectl("create", "quota", "full", f"--hard=pods={len(scene.pods('stable'))}")
    # Until the controller has counted, nothing at all is let in.
    eventually(lambda: "used" in scene.kubectl("get", "quota", "full", "--output", "jsonpath={.status}"))
    yield
    scene.kubectl("delete", "quota", "full")


@contextmanager
def cordoned(scene: Scene) -> Iterator[None]:
    nodes = [node.metadata.name for node in scene.cluster.list(Node) if node.metadata and node.metadata.name]
    scene.kubectl("cordon", *nodes)
    try:
        yield
    finally:
        scene.kubectl("uncordon", *nodes)


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a new canary, and the words in which the pods or controllers say so."""

    reasons: tuple[str, ...]
    canary: Mapping[str, object] = field(default_factory=lambda: GOOD_CANARY)
    surroundings: Callable[[Scene], AbstractContextManager[None]] = lambda _: nullcontext()
    stuck: bool = False


TROUBLES = {
    "image missing": Trouble(("ImagePullBackOff: image", "app:missing"), MISSING, stuck=True),
    "crash loop": Trouble(
        ("CrashLoopBackOff: started again", "exit code"),
        GOOD_CANARY | {"env": NEVER_LISTENS | {"SANDBOX_CRASH_AFTER_SECONDS": "0.2"}},
        stuck=True,
    ),
    "never ready": Trouble(
        ("runs, but its readiness probe does not succeed",), GOOD_CANARY | {"env": {"SANDBOX_REFUSE": "true"}}
    ),
    "quota exceeded": Trouble(("exceeded quota: full",), surroundings=quota, stuck=True),
    "unschedulable": Trouble(("Unschedulable: 0/", "unschedulable"), surroundings=cordoned),
}


def check_message(refusal: Refusal, deployment: str, reasons: tuple[str, ...]) -> None:
    """Check that the program says one thing, readably, with the reasons of those who know."""
    message = refusal.message
    (line,) = [number for number, text in enumerate(message.splitlines()) if f"error: Deployment {deployment}" in text]
    block = message.splitlines()[line:]
    assert f"Deployment {deployment}: 0 of " in block[0]
    assert block[0].endswith(" s.")
    for reason in reasons:
        assert reason in block[1]
    assert "Correct the configuration and run `pulumi up` again." in message
    assert message.count("error: ") == 2, "besides that, there is only the line that the engine always adds"
    assert "Traceback" not in message


@pytest.mark.parametrize("weight", [0, 20])
@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
def test_a_canary_that_cannot_start_gets_no_route_and_a_good_one_recovers(
    scene: Scene, trouble: Trouble, weight: int
) -> None:
    stable = scene.pods("stable")
    patience = None if trouble.stuck else PATIENCE_SECONDS
    scene.configure(weight=weight, canary=dict(trouble.canary), readyTimeoutSeconds=patience)
    with scene.traffic() as traffic:
        with trouble.surroundings(scene):
            refusal = scene.up_refused()

        check_message(refusal, CANARY, trouble.reasons)
        assert refusal.seconds > (STUCK_SECONDS if trouble.stuck else PATIENCE_SECONDS)
        assert refusal.seconds < LONGEST_SECONDS
        assert scene.weight() is None
        assert scene.pods("stable") == stable
        assert traffic.total[NAME].by_version["canary"] == 0

        scene.configure(canary=GOOD_CANARY)
        scene.up()
        scene.settle()
        assert scene.weight() == weight
        assert scene.pods("stable") == stable


def test_a_canary_that_cannot_be_replaced_keeps_its_share_and_can_be_aborted(scene: Scene) -> None:
    scene.deploy(20)
    stable, canary = scene.pods("stable"), scene.pods("canary")
    with scene.traffic():
        scene.configure(weight=40, canary=MISSING | {"replaces": CANARY_IMAGE})
        check_message(scene.up_refused(), CANARY, TROUBLES["image missing"].reasons)

        assert scene.weight() == 20
        assert canary.items() <= scene.pods("canary").items()

        scene.configure(canary=None)
        scene.up()
        scene.settle()

    assert scene.weight() is None
    assert scene.pods("stable") == stable
    assert scene.pods("canary") == {}


def test_a_canary_that_cannot_be_replaced_goes_back_to_the_image_that_serves(scene: Scene) -> None:
    scene.deploy(20)
    canary = scene.pods("canary")
    with scene.traffic():
        scene.configure(canary=MISSING | {"replaces": CANARY_IMAGE})
        scene.up_refused()

        scene.configure(canary=GOOD_CANARY)
        scene.up()

    assert scene.weight() == 20
    assert scene.pods("canary") == canary


def test_nothing_waits_for_a_broken_canary_on_the_way_to_weight_0(scene: Scene) -> None:
    scene.deploy(20)
    with scene.traffic():
        scene.configure(weight=0, canary=GOOD_CANARY | {"env": NEVER_LISTENS})

        assert scene.stack.up() < STUCK_SECONDS

        scene.settle()
        scene.configure(weight=0, canary=None)
        assert scene.stack.up() < LONGEST_SECONDS


def test_a_secret_does_not_get_into_the_message(scene: Scene) -> None:
    scene.stack.run("config", "set", "--secret", "--path", f"services.{NAME}.env.TOKEN", "hunter2")
    scene.up()
    scene.stack.set(f"services.{NAME}.canary.image", MISSING["image"])

    message = scene.up_refused().message

    assert TROUBLES["image missing"].reasons[0] in message
    assert "hunter2" not in message


def test_a_promotion_that_fails_leaves_the_canary_its_share_and_can_be_finished(scene: Scene) -> None:
    scene.deploy(50)
    stable, canary = scene.pods("stable"), scene.pods("canary")
    with scene.traffic():
        broken: dict[str, Any] = {"image": CANARY_IMAGE, "env": NEVER_LISTENS, "readyTimeoutSeconds": PATIENCE_SECONDS}
        scene.configure(None, canary=None, **broken)
        refusal = scene.up_refused()

        check_message(refusal, NAME, ("runs, but its readiness probe does not succeed",))
        assert scene.weight() == 50
        assert scene.pods("canary") == canary
        assert stable.items() <= scene.pods("stable").items()

        scene.configure(env=None)
        scene.up()
        scene.settle()

    assert scene.weight() is None
    assert not stable.keys() & scene.pods("stable").keys()
    assert scene.deployment(NAME)["spec"]["template"]["spec"]["containers"][0]["image"] == CANARY_IMAGE


def test_a_stable_that_crashes_right_after_it_was_ready_does_not_take_over(scene: Scene) -> None:
    scene.deploy(50)
    stable, canary = scene.pods("stable"), scene.pods("canary")
    with scene.traffic():
        crashes = {"SANDBOX_CRASH_AFTER_SECONDS": "2"}
        scene.configure(None, canary=None, image=CANARY_IMAGE, env=crashes, minReadySeconds=5)
        refusal = scene.up_refused()

        assert f"error: Deployment {NAME}: " in refusal.message
        assert "CrashLoopBackOff" in refusal.message
        assert scene.weight() == 50
        assert scene.pods("canary") == canary
        assert stable.items() <= scene.pods("stable").items()


def test_a_canary_removed_together_with_a_broken_stable_is_aborted_first(scene: Scene) -> None:
    scene.deploy(50)
    stable = scene.pods("stable")
    with scene.traffic():
        scene.configure(None, canary=None, **MISSING)
        check_message(scene.up_refused(), NAME, TROUBLES["image missing"].reasons)

        assert scene.weight() == 0
        assert stable.items() <= scene.pods("stable").items()

        scene.configure(image=STABLE_IMAGE)
        scene.up()
        scene.settle()

    assert scene.weight() is None
    assert scene.pods("stable") == stable
