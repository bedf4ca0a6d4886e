"""The HTTP server that stands for the application in a container."""

import asyncio
import contextlib
import json
import random
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from sandbox.faults import FAULT_HEADER, Faults
from sandbox.histograms import DURATION_BUCKETS

PROBE_USER_AGENT = "kube-probe/"
"""How a kubelet's probes introduce themselves, followed by its version."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # a gauge beside each counter, which nobody asks for

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, no time


@dataclass(frozen=True)
class Identity:
    """Who answers: the pod's name, its labels `app` and `version`, the container's image."""

    pod: str
    app: str
    version: str
    image: str


class AnsweringServer:
    """Answers every path on an address's ports: 200 with its identity, or as the faults order.

    `/metrics` answers in Prometheus's text format. It and the kubelet's probes are neither counted nor subject to
    errors and latency: a health endpoint that is fine while requests fail is the case that a canary is there to
    find. `answered` counts the others. `log` takes a line for the start and for each error.
    """

    def __init__(
        self,
        address: str,
        ports: Sequence[int],
        identity: Identity,
        faults: Callable[[], Faults],
        log: Callable[[str], object],
    ) -> None:
        self._address = address
        self._ports = ports
        self._faults = faults
        self._log = log
        self._server = web.Server(self._handle, access_log=None)
        self._listeners: list[asyncio.Server] = []
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "http_requests", "Answered requests.", ("app", "version", "status"), registry=self._registry
        )
        self._duration = Histogram(
            "http_request_duration_seconds",
            "Time to answer.",
            ("app", "version"),
            registry=self._registry,
            buckets=DURATION_BUCKETS,
        )
        self.answered = 0
        self.introduce(identity)

    def introduce(self, identity: Identity) -> None:
        """Answer as this identity from now on."""
        self._identity = identity
        self._headers = {"X-Pod": identity.pod, "X-Service": identity.app, "X-Version": identity.version}
        labels = (identity.app, identity.version)
        self._count_answer = {status: self._requests.labels(*labels, str(status)).inc for status in (200, 500)}
        self._observe_duration = self._duration.labels(*labels).observe

    @property
    def listening(self) -> bool:
        """Whether connections are accepted."""
        return bool(self._listeners)

    async def listen(self) -> None:
        """Accept connections.

        Raises:
            OSError: an address is taken.

        """
        loop = asyncio.get_running_loop()
        try:
            for port in self._ports:
                self._listeners.append(await loop.create_server(self._server, self._address, port, backlog=1024))
        except OSError:
            self._stop_listening()
            raise
        ports = ", ".join(map(str, self._ports)) or "none"
        self._log(f"{self._identity.image} started; ports: {ports}")

    async def close(self, grace: float) -> None:
        """Refuse new connections, finish within `grace` seconds what is in flight, then reset what remains."""
        self._stop_listening()
        self._server.pre_shutdown()  # idle connections
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._server.shutdown(None)  # busy ones, after their answer
        self.reset()

    def reset(self) -> None:
        """Refuse new connections and reset the open ones, as the kernel does for a process that dies."""
        self._stop_listening()
        for connection in self._server.connections:
            transport = connection.transport
            if transport is not None:
                connected: socket.socket = transport.get_extra_info("socket")
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                transport.abort()

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/metrics":
            return web.Response(
                body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST, **self._headers}
            )
        if request.headers.get("User-Agent", "").startswith(PROBE_USER_AGENT):
            return web.Response(headers=self._headers)
        begin = time.perf_counter()
        if request.can_read_body:
            async for _ in request.content.iter_any():
                pass  # an application reads what it is sent
        faults = self._faults()
        if faults.latency_seconds:
            await asyncio.sleep(faults.latency_seconds)
        failed = faults.error_rate > 0 and random.random() < faults.error_rate  # noqa: S311  no secret depends on it
        status = 500 if failed else 200
        identity = self._identity
        answer = {
            "pod": identity.pod,
            "service": identity.app,
            "version": identity.version,
            "image": identity.image,
            "path": request.path,
        }
        self.answered += 1
        self._count_answer[status]()
        self._observe_duration(time.perf_counter() - begin)
        if failed:
            self._log(f"ERROR {request.method} {request.path}: status {status}, ordered by error-rate")
        headers = {**self._headers, FAULT_HEADER: "error-rate"} if failed else self._headers
        return web.Response(
            status=status, body=json.dumps(answer).encode(), headers=headers, content_type="application/json"
        )
