"""One answering pod: from its binding to a node to its removal, as a kubelet's pod worker leads it."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import aiohttp
from lightkube.models.core_v1 import Container, ContainerStatus, HostIP, PodCondition, PodIP, PodStatus
from lightkube.resources.core_v1 import Pod

from sandbox.answering import Identity
from sandbox.configuration import Configuration, ConfigurationError
from sandbox.container import AnsweringContainer, Surroundings
from sandbox.container_log import ContainerLog
from sandbox.network import NODE_ADDRESS
from sandbox.writer import Writer, reference

_LEAST_CLOSE_SECONDS = 2.0
"""What remains for closing when the preStop hook has used up the grace period (Kubernetes docs, pod termination)."""

_MOUNT_RETRY_SECONDS = 1.0


class AnsweringPod:
    """Plays a pod. `address` is its IP, `latest` the object as it was seen last."""

    def __init__(
        self, pod: Pod, address: str, session: aiohttp.ClientSession, configuration: Configuration, writer: Writer
    ) -> None:
        assert pod.metadata is not None and pod.spec is not None  # noqa: PT018, S101  the API server sets both
        self.name, self.namespace = pod.metadata.name or "", pod.metadata.namespace or ""
        self.address = address
        self._writer = writer
        self._configuration = configuration
        self._conditions: dict[str, PodCondition] = {}
        self._start_time = datetime.now(UTC)
        self._status_changed = asyncio.Event()
        self._deleted = asyncio.Event()
        self._restart = pod.spec.restartPolicy != "Never"
        surroundings = Surroundings(
            address=address,
            session=session,
            configuration=configuration,
            restart=self._restart,
            changed=self._status_changed.set,
            event=lambda reason, message: writer.event(reference(self.latest), reason, message),
        )
        known = {status.name: status.restartCount for status in (pod.status and pod.status.containerStatuses) or ()}
        self.containers = [
            AnsweringContainer(spec, _identity(pod, spec), surroundings, known.get(spec.name, 0))
            for spec in pod.spec.containers
        ]
        self.update(pod)

    def update(self, pod: Pod) -> None:
        """Take over a newer version of the object."""
        assert pod.metadata is not None and pod.spec is not None  # noqa: PT018, S101  the API server sets both
        self.latest = pod
        for container, spec in zip(self.containers, pod.spec.containers, strict=True):
            container.update(_identity(pod, spec), pod.metadata.annotations or {})
        if pod.metadata.deletionTimestamp is not None:
            self._deleted.set()

    def log(self, container: str, *, previous: bool) -> ContainerLog:
        """Return the log of a container's present run, or of its last one; `previous` is the one before.

        Raises:
            LookupError: there is none; the message is a kubelet's (validateContainerLogStatus in pkg/kubelet).
        """
        found = next((each for each in self.containers if each.status.name == container), None)
        if found is None:
            raise LookupError(f'container "{container}" in pod "{self.name}" is not available')
        # While it waits to be started again, the last run is both.
        log = found.previous_log if previous and found.running else found.log
        if log and not (previous and not found.status.lastState):
            return log
        if previous:
            raise LookupError(f'previous terminated container "{container}" in pod "{self.name}" not found')
        waiting = found.status.state and found.status.state.waiting
        reason = f": {waiting.reason}" if waiting else ""
        raise LookupError(f'container "{container}" in pod "{self.name}" is waiting to start{reason}')

    async def run(self) -> None:
        """Live until the object is deleted, then shut down as asked and remove it. Cancelling kills."""
        try:
            async with asyncio.TaskGroup() as tasks:
                living = [tasks.create_task(self._live()), tasks.create_task(self._report())]
                await self._deleted.wait()
                await self._shut_down(lambda: [task.cancel() for task in living])
            await self._writer.remove(self.latest)
        finally:
            for container in self.containers:
                container.kill()

    async def _live(self) -> None:
        await self._mount()
        async with asyncio.TaskGroup() as tasks:
            for container in self.containers:
                tasks.create_task(container.run())

    async def _mount(self) -> None:
        """Wait until there is what the volumes are made of; it is looked at once, before the first container starts."""
        problem = ""
        while True:
            try:
                await self._configuration.look_for((self.latest.spec and self.latest.spec.volumes) or ())
            except ConfigurationError as error:
                if str(error) != problem:
                    problem = str(error)
                    self._writer.event(reference(self.latest), "FailedMount", problem)
                    self._status_changed.set()  # that the containers wait is news
                await asyncio.sleep(_MOUNT_RETRY_SECONDS)
            else:
                return

    async def _shut_down(self, stop: Callable[[], object]) -> None:
        """Serve through the preStop hooks, then close, within the grace period."""
        grace = (self.latest.metadata and self.latest.metadata.deletionGracePeriodSeconds) or 0
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        hooks = [asyncio.create_task(container.pre_stop()) for container in self.containers]
        _, late = await asyncio.wait(hooks, timeout=grace)
        for hook in late:
            hook.cancel()
        stop()
        remaining = max(deadline - loop.time(), _LEAST_CLOSE_SECONDS) if grace else 0
        await asyncio.gather(*(container.close(remaining) for container in self.containers))

    async def _report(self) -> None:
        """Tell the API server every new status; changes in quick succession become one."""
        while True:
            await self._status_changed.wait()
            self._status_changed.clear()
            await self._writer.status(self.latest, self._status())

    def _status(self) -> PodStatus:
        statuses = [container.status for container in self.containers]
        ready = all(status.ready for status in statuses)
        for kind, value in {
            "PodReadyToStartContainers": True,
            "Initialized": True,
            "ContainersReady": ready,
            "Ready": ready,
        }.items():
            self._set_condition(kind, value=value)
        return PodStatus(
            phase=phase(statuses, restart=self._restart),
            conditions=list(self._conditions.values()),
            containerStatuses=statuses,
            podIP=self.address,
            podIPs=[PodIP(self.address)],
            hostIP=NODE_ADDRESS,
            hostIPs=[HostIP(NODE_ADDRESS)],
            startTime=self._start_time,
        )

    def _set_condition(self, kind: str, *, value: bool) -> None:
        status = str(value)
        if kind not in self._conditions or self._conditions[kind].status != status:
            reason = None if value else "ContainersNotReady"
            now = datetime.now(UTC)
            self._conditions[kind] = PodCondition(type=kind, status=status, reason=reason, lastTransitionTime=now)


def _identity(pod: Pod, container: Container) -> Identity:
    assert pod.metadata is not None  # noqa: S101  the API server sets it
    labels = pod.metadata.labels or {}
    return Identity(
        pod=pod.metadata.name or "",
        app=labels.get("app", ""),
        version=labels.get("version", ""),
        image=container.image or "",
    )


def phase(statuses: Iterable[ContainerStatus], *, restart: bool) -> str:
    """Return a pod's phase for the statuses of its containers (Kubernetes docs, pod lifecycle)."""
    states = [(status.state, status.lastState) for status in statuses]
    if any(state and state.waiting and not last for state, last in states):
        return "Pending"
    if not restart and all(state and state.terminated for state, _ in states):
        return "Failed"
    return "Running"
