import pytest
from lightkube.models.core_v1 import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
)

from sandbox.pod import phase

RUNNING = ContainerState(running=ContainerStateRunning())
WAITING = ContainerState(waiting=ContainerStateWaiting())
TERMINATED = ContainerState(terminated=ContainerStateTerminated(exitCode=1))


def container(state: ContainerState, last: ContainerState | None = None) -> ContainerStatus:
    return ContainerStatus(
        name="app", image="app:1", imageID="", ready=False, restartCount=0, state=state, lastState=last
    )


@pytest.mark.parametrize(
    ("containers", "restart", "expected"),
    [
        ([container(RUNNING)], True, "Running"),
        ([container(RUNNING), container(WAITING)], True, "Pending"),
        ([container(WAITING, last=TERMINATED)], True, "Running"),
        ([container(TERMINATED)], True, "Running"),
        ([container(TERMINATED)], False, "Failed"),
        ([container(TERMINATED), container(RUNNING)], False, "Running"),
    ],
)
def test_the_phase_follows_from_the_containers(
    containers: list[ContainerStatus],
    restart: bool,  # noqa: FBT001  a parameter of the test
    expected: str,
) -> None:
    assert phase(containers, restart=restart) == expected
