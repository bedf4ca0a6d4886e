"""One container of an answering pod: its life from start to crash to the next start."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import aiohttp
from lightkube.models.core_v1 import (
    Container,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    Probe,
)

from sandbox.answering import AnsweringServer, Identity
from sandbox.configuration import Configuration, ConfigurationError
from sandbox.container_log import ContainerLog
from sandbox.faults import Faults, read_faults
from sandbox.probes import Verdict, verdicts

MISSING_TAG = "missing"
"""An image whose tag ends so is played as one that no registry has."""

_FIRST_BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 60.0
"""KEP-4603 (ReduceDefaultCrashLoopBackOffDecay): from 1 s, doubled at each crash, to 60 s."""
_BACKOFF_RESET_SECONDS = 600.0
"""A container that ran this long starts again at once (Kubernetes docs, container restart policy)."""
_CONFIGURATION_RETRY_SECONDS = 1.0
_CRASH_EXIT_CODE, _KILLED_EXIT_CODE = 1, 137


@dataclass(frozen=True)
class Surroundings:
    """What a container knows of its pod."""

    address: str
    session: aiohttp.ClientSession
    configuration: Configuration
    restart: bool
    """Whether the pod's restartPolicy starts it again after a failure."""
    changed: Callable[[], None]
    """Says that the status is another one."""
    event: Callable[[str, str], None]
    """Reports a warning about the pod: reason and message."""


class _CrashError(Exception):
    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = exit_code


class AnsweringContainer:
    """Plays one container; `status` is what the API server is to be told, `faults` is what it is ordered to do.

    `log` is that of its last run, None before the first one, and `previous_log` that of the one before.
    """

    def __init__(self, spec: Container, identity: Identity, surroundings: Surroundings, restart_count: int) -> None:
        self._spec = spec
        self._identity = identity
        self._surroundings = surroundings
        self._variables: Mapping[str, str] = {}
        self._annotations: Mapping[str, str] = {}
        self.faults = Faults()
        self._problems: set[str] = set()
        self._updated = asyncio.Event()
        self._obeyed_crash = ""
        self.log: ContainerLog | None = None
        self.previous_log: ContainerLog | None = None
        self._server = self._new_server()
        self.status = ContainerStatus(
            name=spec.name,
            image=identity.image,
            imageID="",
            ready=False,
            started=False,
            restartCount=restart_count,
            state=ContainerState(waiting=ContainerStateWaiting(reason="ContainerCreating")),
        )

    def update(self, identity: Identity, annotations: Mapping[str, str]) -> None:
        """Take over what can change in a running pod: its labels, its annotations, this container's image."""
        self._identity = identity
        self._server.introduce(identity)
        self.status.image = identity.image
        self._annotations = annotations
        self._read_orders()

    def _read_orders(self) -> None:
        self.faults, problems = read_faults(self._annotations, self._variables)
        for problem in set(problems) - self._problems:
            self._warn("OrderNotObeyed", problem)
        self._problems = set(problems)
        self._updated.set()

    async def run(self) -> None:
        """Live until cancelled, or until the container has ended for good."""
        await self._pull()
        await self._configure()
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            begin = _now()
            self.previous_log, self.log = self.log, ContainerLog()
            crash = await self._live(begin)
            self._server.reset()
            self._write(str(crash))
            self.log.end()
            end = _now()
            self.status.lastState = ContainerState(
                terminated=ContainerStateTerminated(
                    exitCode=crash.exit_code, reason="Error", message=crash.reason, startedAt=begin, finishedAt=end
                )
            )
            self._show(self.status.lastState)
            if not self._surroundings.restart:
                return
            if (end - begin).total_seconds() >= _BACKOFF_RESET_SECONDS:
                backoff = _FIRST_BACKOFF_SECONDS
            message = f"back-off {backoff:g}s restarting failed container={self._spec.name}: {crash.reason}"
            self._warn("BackOff", message)
            self._show(_waiting("CrashLoopBackOff", message))
            await asyncio.sleep(backoff)
            await self._configure()
            backoff = min(backoff * 2, _LONGEST_BACKOFF_SECONDS)
            self.status.restartCount += 1
            self._server = self._new_server()

    @property
    def running(self) -> bool:
        """Whether it has started and not ended."""
        return bool(self.status.state and self.status.state.running)

    @property
    def answered(self) -> int:
        """How many requests it has answered since it started, without probes and scrapes."""
        return self._server.answered

    async def pre_stop(self) -> None:
        """Keep serving for the time of the preStop hook."""
        hook = self._spec.lifecycle and self._spec.lifecycle.preStop
        if not hook or not self._server.listening:
            return
        if hook.sleep is None:
            self._warn("FailedPreStopHook", "without a container only the preStop action sleep can be played")
        else:
            await asyncio.sleep(hook.sleep.seconds)

    async def close(self, grace: float) -> None:
        """Refuse new connections, finish within `grace` seconds what is in flight, end."""
        self._write("told to end: closing")
        await self._server.close(grace)

    def kill(self) -> None:
        """End at once, resetting what is in flight."""
        self._server.reset()
        if self.log:
            self.log.end()

    def _new_server(self) -> AnsweringServer:
        ports = [port.containerPort for port in self._spec.ports or () if port.protocol in (None, "TCP")]
        return AnsweringServer(self._surroundings.address, ports, self._identity, lambda: self.faults, self._write)

    def _write(self, text: str) -> None:
        if self.log:
            self.log.write(text)

    async def _pull(self) -> None:
        tag = self.status.image.rpartition("/")[2].partition(":")[2]
        if not tag.endswith(MISSING_TAG):
            return
        message = f'image "{self.status.image}" is missing by the sandbox\'s rule: its tag ends in "{MISSING_TAG}"'
        self._warn("Failed", message)
        self._show(_waiting("ErrImagePull", message))
        await asyncio.sleep(_FIRST_BACKOFF_SECONDS)
        self._show(_waiting("ImagePullBackOff", message))
        image = self.status.image
        while self.status.image == image:
            self._updated.clear()
            await self._updated.wait()
        await self._pull()

    async def _configure(self) -> None:
        """Take the environment as it is now; the container is held until all of it is there."""
        problem = ""
        while True:
            try:
                self._variables = await self._surroundings.configuration.variables(self._spec)
            except ConfigurationError as error:
                if str(error) != problem:
                    problem = str(error)
                    self._warn("Failed", f"Error: {problem}")
                    self._show(_waiting("CreateContainerConfigError", problem))
                await asyncio.sleep(_CONFIGURATION_RETRY_SECONDS)
            else:
                self._read_orders()
                return

    async def _live(self, begin: datetime) -> _CrashError:
        """Run from a start to the next crash."""
        crash = _CrashError("", 0)
        self.status.started = self._spec.startupProbe is None
        try:
            pause = await self._obey(begin)
            running = ContainerState(running=ContainerStateRunning(startedAt=begin))
            self._show(running, ready=self._spec.readinessProbe is None and self.status.started)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._probe(tasks))
                while True:
                    self._updated.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._updated.wait(), pause)
                    pause = await self._obey(begin)
        except* _CrashError as crashes:
            crash = cast("_CrashError", crashes.exceptions[0])
        return crash

    async def _obey(self, begin: datetime) -> float | None:
        """Do what the faults order at this moment; return the seconds until they order something else.

        Raises:
            _CrashError: that is what they order, or a port is taken.

        """
        faults, age = self.faults, (_now() - begin).total_seconds()
        if faults.crash and faults.crash != self._obeyed_crash:
            self._obeyed_crash = faults.crash
            raise _CrashError(f"crash ordered ({faults.crash})", _CRASH_EXIT_CODE)
        if age >= faults.crash_after_seconds:
            raise _CrashError(f"crash ordered after {faults.crash_after_seconds:g} s", _CRASH_EXIT_CODE)
        started = age >= faults.start_seconds
        if faults.refuse or not started:
            if self._server.listening:
                self._write("refusing connections, as ordered")
            self._server.reset()
        elif not self._server.listening:
            try:
                await self._server.listen()
            except OSError as error:
                raise _CrashError(str(error), _CRASH_EXIT_CODE) from error
        pending = [seconds - age for seconds in (faults.start_seconds, faults.crash_after_seconds) if seconds > age]
        soonest = min(pending, default=math.inf)
        return None if soonest == math.inf else soonest

    async def _probe(self, tasks: asyncio.TaskGroup) -> None:
        """Run the probes and show what they say; a failing startup or liveness probe is a crash."""
        if self._spec.startupProbe is not None:
            async for verdict in self._verdicts("Startup", self._spec.startupProbe):
                if not verdict.success:
                    raise _CrashError(f"startup probe failed: {verdict.failure}", _KILLED_EXIT_CODE)
                break
            self.status.started = True
            self._show(self.status.state, ready=self._spec.readinessProbe is None)
        if self._spec.readinessProbe is not None:
            tasks.create_task(self._probe_readiness(self._spec.readinessProbe))
        if self._spec.livenessProbe is not None:
            tasks.create_task(self._probe_liveness(self._spec.livenessProbe))

    async def _probe_readiness(self, probe: Probe) -> None:
        async for verdict in self._verdicts("Readiness", probe):
            self._show(self.status.state, ready=verdict.success)

    async def _probe_liveness(self, probe: Probe) -> None:
        async for verdict in self._verdicts("Liveness", probe):
            if not verdict.success:
                raise _CrashError(f"liveness probe failed: {verdict.failure}", _KILLED_EXIT_CODE)

    async def _verdicts(self, kind: str, probe: Probe) -> AsyncIterator[Verdict]:
        async for verdict in verdicts(probe, self._spec, self._surroundings.address, self._surroundings.session):
            if not verdict.success:
                self._warn("Unhealthy", f"{kind} probe failed: {verdict.failure}")
            yield verdict

    def _show(self, state: ContainerState | None, *, ready: bool = False) -> None:
        self.status.state = state
        self.status.ready = ready
        self._surroundings.changed()

    def _warn(self, reason: str, message: str) -> None:
        self._surroundings.event(reason, f"Container {self._spec.name}: {message}")


def _waiting(reason: str, message: str) -> ContainerState:
    return ContainerState(waiting=ContainerStateWaiting(reason=reason, message=message))


def _now() -> datetime:
    return datetime.now(UTC)
