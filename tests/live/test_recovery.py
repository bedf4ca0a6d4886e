"""A promotion that is broken off at any moment is finished by the next `up`, and no request fails.

The moments are conditions in the cluster: stable's new pods replace the old ones, the canary's route has gone, its pods
drain. The engine is killed so that it cannot clean up; its lock on the stack is then left, as `pulumi up` says itself.
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

from demo.stack import StackError
from sandbox.lifecycle import Sandbox
from tests.live.application import eventually
from tests.live.lifecycle import VICTIM, Life

pytestmark = pytest.mark.live

SECONDS = 180


def stable_rolls(life: Life) -> bool:
    deployment = life.objects("deployments")[VICTIM]
    status = deployment["status"]
    current = status["observedGeneration"] == deployment["metadata"]["generation"]
    return bool(current and 0 < status.get("updatedReplicas", 0) < status["replicas"])


def route_is_gone(life: Life) -> bool:
    return f"{VICTIM}-canary" not in life.objects("ingresses")


def canary_drains(life: Life) -> bool:
    return "deletionTimestamp" in life.objects("deployments").get(f"{VICTIM}-canary", {}).get("metadata", {})


MOMENTS = pytest.mark.parametrize("moment", [stable_rolls, route_is_gone, canary_drains])


@contextlib.contextmanager
def promotion(life: Life) -> Iterator[subprocess.Popen[bytes]]:
    """Begin a promotion from 50 percent in a process group of its own, as a terminal does; it has ended afterwards."""
    path = shutil.which("pulumi", path=life.stack.environment["PATH"])
    assert path
    life.declare_promotion()
    life.note("promote")
    with subprocess.Popen(
        [path, "--non-interactive", "up", "--yes", "--skip-preview"],
        cwd=life.stack.folder,
        env={**life.stack.environment, "PULUMI_STACK": life.stack.name},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as engine:
        try:
            yield engine
            engine.wait(SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(engine.pid, signal.SIGKILL)


def kill_api_server(sandbox: Sandbox) -> None:
    (server,) = (
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "kube-apiserver"
        and process.info["cmdline"][0].startswith(f"{sandbox.state}{os.sep}")
    )
    server.kill()


def assert_promoted(life: Life) -> None:
    """Hold the cluster, the state and the traffic to what is declared."""
    life.settled()
    image = life.stack.settings().services[VICTIM].image
    deployments = life.objects("deployments")
    assert deployments.keys() == life.objects("services").keys() == life.objects("ingresses").keys()
    assert not [name for name in deployments if name.endswith("-canary")]
    (container,) = deployments[VICTIM]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == image
    assert life.stack.preview()["changeSummary"].keys() == {"same"}


@pytest.fixture
def life(sandbox: Sandbox, tmp_path: Path) -> Iterator[Life]:
    """Stack dev at 50 percent, under traffic in which nothing has failed in the end."""
    with Life.of(sandbox, tmp_path, {"canaryWeight": "50"}) as life:
        life.up("first deploy")
        yield life
    assert life.traffic.failures == [], life.explained(life.traffic.failures)


@MOMENTS
def test_up_finishes_a_promotion_in_which_the_engine_was_killed(life: Life, moment: Callable[[Life], bool]) -> None:
    with promotion(life) as engine:
        eventually(lambda: moment(life), SECONDS)
        engine.kill()

    life.note("killed")
    with pytest.raises(StackError, match="pulumi cancel"):
        life.stack.up()
    life.stack.run("cancel", "--yes")
    life.up("again")

    assert_promoted(life)


@MOMENTS
def test_a_promotion_outlives_the_api_server(life: Life, sandbox: Sandbox, moment: Callable[[Life], bool]) -> None:
    with promotion(life) as engine:
        eventually(lambda: moment(life), SECONDS)
        kill_api_server(sandbox)

    life.note(f"the engine ended with {engine.returncode} after the API server was killed")
    if engine.returncode:
        life.up("again")

    assert_promoted(life)
