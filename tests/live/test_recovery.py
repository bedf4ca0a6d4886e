"""An update that is broken off at any moment is finished by the next `up`, and no request fails.

The moments are conditions in the cluster, chosen so that the engine still has seconds of work before it. `kill -9`
hits the CLI alone: the program and the provider that it started live on for a while, as they do after a real one, and
its lock on the stack is left, as the next `up` says itself.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.networking_v1 import Ingress

from canary_service.routing.nginx import WEIGHT
from demo.stack import StackError
from sandbox.lifecycle import Sandbox
from tests.live.application import eventually
from tests.live.lifecycle import SERVICES, VICTIM, Life

pytestmark = pytest.mark.live

SECONDS = 180
CANARY = f"{VICTIM}-canary"
LATE = next(name for name in SERVICES if name != VICTIM)
"""Its canary starts so slowly that a first deploy has not ended when the victim's canary is there."""
LATE_START_SECONDS = 10

Moment = Callable[[Life], object]


def stable_rolls(life: Life) -> bool:
    deployment = life.objects(Deployment)[VICTIM]
    status = deployment["status"]
    current = status["observedGeneration"] == deployment["metadata"]["generation"]
    return bool(current and 0 < status.get("updatedReplicas", 0) < status["replicas"])


def weight_is_lowered(life: Life) -> bool:
    route = life.objects(Ingress).get(CANARY)
    return route is None or bool(route["metadata"]["annotations"][WEIGHT] == "0")


def route_is_gone(life: Life) -> bool:
    return CANARY not in life.objects(Ingress)


def canary_drains(life: Life) -> bool:
    return "deletionTimestamp" in life.objects(Deployment).get(CANARY, {}).get("metadata", {})


def canary_starts(life: Life) -> bool:
    return CANARY in life.objects(Deployment)


def canary_is_routed(life: Life) -> bool:
    return CANARY in life.objects(Ingress)


def first_canary(life: Life) -> None:
    """Declare canaries where there is only stable."""
    for service in SERVICES:
        life.stack.set(f"services.{service}.canary.image", f"macromind/{service}:2.0.0")
    life.stack.set(f"services.{LATE}.canary.env.SANDBOX_START_SECONDS", str(LATE_START_SECONDS))


def moments(*these: Moment) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("moment", these)


@pytest.fixture
def life(sandbox: Sandbox, tmp_path: Path) -> Iterator[Life]:
    """Stack dev with canaries at 50 percent, under traffic in which nothing has failed in the end."""
    drain = {f"services.{service}.drainSeconds": "5" for service in SERVICES}
    with Life.of(sandbox, tmp_path, {"canaryWeight": "50"} | drain) as life:
        life.up("first deploy")
        yield life
    print(life.summary())  # noqa: T201 - for `pytest -s`
    assert life.traffic.failures == [], life.explained(life.traffic.failures)


@pytest.fixture
def engine(life: Life) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Begin a `pulumi up`; what it leaves behind when it is killed ends with the test."""

    def begin() -> subprocess.Popen[bytes]:
        path = shutil.which("pulumi", path=life.stack.environment["PATH"])
        assert path
        return subprocess.Popen(
            [path, "--non-interactive", "up", "--yes", "--skip-preview"],
            cwd=life.stack.folder,
            env={**life.stack.environment, "PULUMI_STACK": life.stack.name},
            stdout=subprocess.DEVNULL,
        )

    yield begin
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("PULUMI_BACKEND_URL") == life.stack.environment["PULUMI_BACKEND_URL"]:
                process.kill()


Begin = Callable[[], subprocess.Popen[bytes]]


def kill_in_the_middle(life: Life, begin: Begin, moment: Moment) -> None:
    """Begin an update, kill the CLI at a moment, and let the next `up` finish what is declared."""
    with begin() as engine:
        eventually(lambda: moment(life), SECONDS)
        engine.kill()
    assert engine.returncode == -signal.SIGKILL, "the update had ended before it could be killed"
    life.note("killed")
    with pytest.raises(StackError, match="pulumi cancel"):
        life.stack.up()
    life.stack.run("cancel", "--yes")

    life.up("again")

    life.assert_as_declared()


@moments(stable_rolls, route_is_gone, canary_drains)
def test_up_finishes_a_promotion_in_which_the_engine_was_killed(life: Life, engine: Begin, moment: Moment) -> None:
    life.declare_promotion()
    life.note("promote")
    kill_in_the_middle(life, engine, moment)


@moments(weight_is_lowered, canary_drains)
def test_up_finishes_an_abort_in_which_the_engine_was_killed(life: Life, engine: Begin, moment: Moment) -> None:
    life.declare_abort()
    life.note("abort")
    kill_in_the_middle(life, engine, moment)


@moments(canary_starts, canary_is_routed)
def test_up_finishes_the_first_deploy_of_a_canary_in_which_the_engine_was_killed(
    life: Life, engine: Begin, moment: Moment
) -> None:
    life.abort()
    first_canary(life)
    life.note("first deploy of a canary")
    kill_in_the_middle(life, engine, moment)


def kill_api_server(sandbox: Sandbox) -> None:
    (server,) = (
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "kube-apiserver"
        and process.info["cmdline"][0].startswith(f"{sandbox.state}{os.sep}")
    )
    server.kill()


@moments(stable_rolls, canary_drains)
def test_a_promotion_outlives_the_api_server(life: Life, engine: Begin, sandbox: Sandbox, moment: Moment) -> None:
    life.declare_promotion()
    life.note("promote")
    with engine() as update:
        eventually(lambda: moment(life), SECONDS)
        kill_api_server(sandbox)
        life.note("the API server was killed")
        code = update.wait(SECONDS)

    life.note(f"the engine ended with {code}")
    if code:
        life.up("again")

    life.assert_as_declared()
