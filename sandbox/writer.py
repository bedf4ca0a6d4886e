"""What the sandbox's own components write to the API server, repeated until it arrives."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus

import httpx2
from lightkube import AsyncClient
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import EventSource, ObjectReference, PodStatus
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Event, Pod

_log = logging.getLogger(__name__)

_PARALLEL_REQUESTS = 16
_RETRY_SECONDS = 0.5


class Writer:
    """Writes events, and statuses and removals of pods; an API server that is away only delays them."""

    def __init__(self, client: AsyncClient, component: str) -> None:
        self._client = client
        self._component = component
        self._slots = asyncio.Semaphore(_PARALLEL_REQUESTS)
        self._events: set[asyncio.Task[None]] = set()

    async def status(self, pod: Pod, status: PodStatus) -> None:
        """Write a pod's status."""
        name, namespace = _name(pod)
        await self._write(lambda: self._client.patch(Pod.Status, name, {"status": status}, namespace=namespace))

    async def remove(self, pod: Pod) -> None:
        """Remove a pod whose containers have ended."""
        name, namespace = _name(pod)
        await self._write(lambda: self._client.delete(Pod, name, namespace=namespace, grace_period=0))

    def event(self, regarding: ObjectReference, reason: str, message: str) -> None:
        """Record a warning about an object, without waiting for it to be written."""
        now = datetime.now(UTC)
        event = Event(
            metadata=ObjectMeta(generateName=f"{regarding.name}.", namespace=regarding.namespace),
            involvedObject=regarding,
            reason=reason,
            message=message,
            type="Warning",
            source=EventSource(component=self._component),
            firstTimestamp=now,
            lastTimestamp=now,
            count=1,
        )
        task = asyncio.create_task(self._write(lambda: self._client.create(event)))
        self._events.add(task)
        task.add_done_callback(self._events.discard)

    async def _write(self, request: Callable[[], Awaitable[object]]) -> None:
        while True:
            async with self._slots:
                try:
                    await request()
                except ApiError as error:
                    code = error.status.code or 0
                    if code < HTTPStatus.INTERNAL_SERVER_ERROR and code != HTTPStatus.TOO_MANY_REQUESTS:
                        if code != HTTPStatus.NOT_FOUND:  # the pod is gone already, which is no news
                            _log.warning("refused by the API server: %s", error)
                        return
                except httpx2.HTTPError:
                    pass
                else:
                    return
            await asyncio.sleep(_RETRY_SECONDS)


def reference(pod: Pod) -> ObjectReference:
    """Return a reference to a pod."""
    assert pod.metadata is not None  # noqa: S101  the API server sets it
    name, namespace = _name(pod)
    return ObjectReference(apiVersion="v1", kind="Pod", name=name, namespace=namespace, uid=pod.metadata.uid)


def _name(pod: Pod) -> tuple[str, str]:
    assert pod.metadata is not None  # noqa: S101  the API server sets it
    return pod.metadata.name or "", pod.metadata.namespace or ""
