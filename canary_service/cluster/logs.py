"""The logs of a stack's pods, several at once, also of pods that come later."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import httpx2
from lightkube import ApiError, AsyncClient
from lightkube.core.exceptions import ConfigError
from lightkube.operators import in_
from lightkube.resources.core_v1 import Pod

from canary_service.cluster.errors import ClusterError, ForbiddenError
from canary_service.config.settings import Settings
from canary_service.routing.split import Track

_RETRY_SECONDS: Final = 1.0
_FORBIDDEN: Final = 403


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which logs.

    Args:
        services: of these services.
        tracks: of these tracks.
        follow: go on with what is written later, also by pods that come later.
        since_seconds: what was written that long ago at most; None for all.
        tail: so many of the last lines of each pod; None for all.
    """

    services: Sequence[str]
    tracks: Sequence[Track]
    follow: bool = False
    since_seconds: int | None = None
    tail: int | None = None


@dataclass(frozen=True, slots=True, order=True)
class Container:
    """The container of a service in a pod; `run` counts how often it was started again, `began` says that it was."""

    service: str
    track: Track
    pod: str
    name: str
    uid: str
    run: int
    began: bool


class _RefusedError(ClusterError):
    """The API server or a kubelet has no such log."""


class Logs:
    """Reads logs.

    Args:
        client: asks the API server. All is asked in one thread: msgspec, which decodes the answers, ended the process
            when several did so at once.
        settings: whose pods these are.
        wanted: which.
        write: takes each line, with who wrote it.
        note: takes what is no log but has to be said.
    """

    def __init__(
        self,
        client: AsyncClient,
        settings: Settings,
        wanted: Wanted,
        write: Callable[[Container, str], object],
        note: Callable[[str], object],
    ) -> None:
        self._client = client
        self._settings = settings
        self._wanted = wanted
        self._write = write
        self._note = note
        self._runs: dict[str, int] = {}

    async def read(self) -> None:
        """Read what is asked for; following has no end.

        Raises:
            ClusterError: the API server cannot be asked.
        """
        try:
            await (self._follow() if self._wanted.follow else self._read_once())
        except ExceptionGroup as errors:  # of the pods, each of which says the same
            raise errors.exceptions[0] from None
        finally:
            await self._client.close()

    async def _read_once(self) -> None:
        pods, _ = await self._listed()
        containers = sorted(self._containers(pods))
        for container in containers:
            try:
                await self._stream(container, self._wanted)
            except _RefusedError as error:
                self._note(f"{container.pod}: {error}")
        if not containers:
            self._note("there are no such pods")

    async def _follow(self) -> None:
        wanted = self._wanted
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    pods, version = await self._listed()
                    for container in sorted(self._containers(pods)):
                        self._begin(tasks, container, wanted)
                    # Whatever begins from now on is shown from its first line.
                    wanted = replace(wanted, since_seconds=None, tail=None)
                    async for pod in self._changed(version):
                        for container in self._containers([pod]):
                            self._begin(tasks, container, wanted)
                except ForbiddenError:
                    raise
                except ClusterError as error:
                    if wanted is self._wanted:
                        raise
                    self._note(f"{error}. Asking again")
                    await asyncio.sleep(_RETRY_SECONDS)

    def _begin(self, tasks: asyncio.TaskGroup, container: Container, wanted: Wanted) -> None:
        known = self._runs.get(container.uid)
        if not container.began or known == container.run:
            return
        if known is not None:
            self._note(f"{container.pod}: the container was started again, restart {container.run}")
        self._runs[container.uid] = container.run
        tasks.create_task(self._keep_reading(container, wanted))

    async def _keep_reading(self, container: Container, wanted: Wanted) -> None:
        """Read until the container ends, also when the connection does not last so long."""
        while True:
            begin = time.monotonic()
            try:
                await self._stream(container, wanted)
            except _RefusedError as error:
                self._note(f"{container.pod}: {error}")
                return
            except ForbiddenError:
                raise
            except ClusterError as error:
                self._note(f"{container.pod}: {error}. Reading on; a line may come twice")
                begin = time.monotonic()
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return
            wanted = replace(wanted, since_seconds=math.ceil(time.monotonic() - begin) + 1, tail=None)

    async def _stream(self, container: Container, wanted: Wanted) -> None:
        # What `write` raises is not the API server's failure.
        async with aclosing(self._lines(container, wanted)) as lines:
            async for line in lines:
                self._write(container, line)

    async def _lines(self, container: Container, wanted: Wanted) -> AsyncGenerator[str, None]:
        path = f"/api/v1/namespaces/{self._settings.namespace}/pods/{container.pod}/log"
        query = {"container": container.name, "follow": str(wanted.follow).lower()}
        if wanted.since_seconds is not None:
            query["sinceSeconds"] = str(wanted.since_seconds)
        if wanted.tail is not None:
            query["tailLines"] = str(wanted.tail)
        async with _asked():
            # Not lightkube's own call, which fails in another way when the API server refuses to stream.
            http = self._client._client._client  # noqa: SLF001 - see above
            timeout = http.timeout.as_dict() | ({"read": None} if wanted.follow else {})
            async with http.stream("GET", path, params=query, timeout=httpx2.Timeout(**timeout)) as answer:
                if answer.is_error:
                    await answer.aread()
                    raise ApiError(answer.request, answer)
                async for line in answer.aiter_lines():
                    yield line

    async def _listed(self) -> tuple[list[Pod], str]:
        async with _asked():
            listing = self._client.list(Pod, namespace=self._settings.namespace, labels=self._labels)
            return [pod async for pod in listing], listing.resourceVersion

    async def _changed(self, version: str) -> AsyncIterator[Pod]:
        async with _asked():
            watch = self._client.watch(
                Pod, namespace=self._settings.namespace, labels=self._labels, resource_version=version
            )
            async for change, pod in watch:
                if change != "DELETED":
                    yield pod

    @property
    def _labels(self) -> dict[str, Any]:
        return {"app": in_(sorted({app for app, _ in self._tracks()}))}

    def _tracks(self) -> Iterator[tuple[str, tuple[str, Track]]]:
        for name in self._wanted.services:
            for track in self._wanted.tracks:
                yield self._settings.app_label_of(name, track), (name, track)

    def _containers(self, pods: Sequence[Pod]) -> Iterator[Container]:
        for pod in pods:
            assert pod.metadata is not None and pod.spec is not None  # noqa: PT018, S101  the API server sets both
            labels = pod.metadata.labels or {}
            for app, (service, track) in self._tracks():
                if labels.get("app") == app and self._is_of(service, track, labels.get("version")):
                    yield _container(pod, service, track)

    def _is_of(self, service: str, track: Track, version: str | None) -> bool:
        # Pods of a stable that something else owns have any version, or none; a canary beside it has another `app`.
        return version == track or (track is Track.STABLE and self._settings.services[service].stable == "existing")


def _container(pod: Pod, service: str, track: Track) -> Container:
    assert pod.metadata is not None and pod.spec is not None  # noqa: PT018, S101  the API server sets both
    names = [container.name for container in pod.spec.containers]
    name = service if service in names else names[0]
    statuses = (pod.status and pod.status.containerStatuses) or ()
    status = next((each for each in statuses if each.name == name), None)
    states = [state for state in (status.state, status.lastState) if state] if status else []
    return Container(
        service=service,
        track=track,
        pod=pod.metadata.name or "",
        name=name,
        uid=pod.metadata.uid or "",
        run=status.restartCount if status else 0,
        began=any(state.running or state.terminated for state in states),
    )


@asynccontextmanager
async def _asked() -> AsyncIterator[None]:
    try:
        yield
    except ApiError as error:
        refused = ForbiddenError if error.status.code == _FORBIDDEN else _RefusedError
        raise refused(f"the API server refused: {error.status.message or error}") from error
    except (httpx2.HTTPError, ConfigError, OSError) as error:
        raise ClusterError(f"the API server cannot be asked: {type(error).__name__}: {error}") from error
