"""Everything that runs in a sandbox, as PID 1 of its PID namespace starts it and keeps it running."""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path

from sandbox.control_plane import ControlPlane
from sandbox.envoy_gateway import EnvoyGateway
from sandbox.errors import SandboxError
from sandbox.forwarder import forward
from sandbox.processes import Processes, log_tail
from sandbox.prometheus import Prometheus
from sandbox.prometheus_operator import PrometheusOperator
from sandbox.proxy import Proxy
from sandbox.state import StateFolder

_log = logging.getLogger(__name__)

_FORWARDED = ("api", "proxy-admin", "prometheus")
_ENVOY_FORWARDED = ("envoy", "envoy-admin")
_START_TIMEOUT_SECONDS = 90
_RESTART_DELAY_SECONDS = 1.0


class Components:
    """The control plane, the kubelet, the proxies, Prometheus, and the forwarders that lead to them.

    `listeners` are sockets of the host's: `proxy` is handed to the proxy, the others are forwarded.
    """

    def __init__(
        self, state: StateFolder, toolchain: Mapping[str, str], listeners: Mapping[str, socket.socket]
    ) -> None:
        self._state = state
        self._listeners = listeners
        self._processes = Processes()
        api_port, admin_port, prometheus_port = (listeners[name].getsockname()[1] for name in _FORWARDED)
        web_port = listeners["proxy"].getsockname()[1]
        proxies = {"traefik": (admin_port, "/metrics")}
        self._envoy_gateway = None
        if "envoy_gateway" in toolchain:
            port, envoy_admin_port = (listeners[name].getsockname()[1] for name in _ENVOY_FORWARDED)
            proxies["envoy"] = envoy_admin_port, "/stats/prometheus"
            self._envoy_gateway = EnvoyGateway(state, toolchain, port, envoy_admin_port, self._processes)
        self._control_plane = ControlPlane(state, toolchain, api_port, web_port, self._processes)
        self._proxy = Proxy(state, toolchain["traefik"], listeners["proxy"], admin_port, self._processes)
        self._prometheus = Prometheus(state, toolchain["prometheus"], prometheus_port, proxies, self._processes)
        self._operator = PrometheusOperator(state, toolchain["promtool"], self._prometheus, self._processes)
        self._awaited = {"traefik", "prometheus"}
        self._running: dict[str, int] = {}

    async def start(self, report: Callable[[str], None]) -> None:
        """Start everything and return once each component has shown by its work that it is up.

        Raises:
            SandboxError: a component failed; the message names it and has the end of its log.

        """
        report("starting etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok")
        for name in (*_FORWARDED, *(_ENVOY_FORWARDED if self._envoy_gateway else ())):
            await forward(self._listeners[name])
        code = await self._control_plane.create()
        if code != 0:
            raise self._failure(f"kwokctl could not start the control plane (exit code {code})", "kwokctl")
        report("starting the kubelet, the proxy and Prometheus")
        self._running = {name: self._control_plane.process(name) for name in ControlPlane.COMPONENTS}
        self._running |= {
            "kubelet": self._start_kubelet(),
            "prometheus": self._prometheus.start(),
        }
        await self._wait_until_ready(self._control_plane.wait_until_ready())
        # Asks only once in a while again for kinds that are not there yet.
        self._running["traefik"] = self._proxy.start()
        if self._envoy_gateway:
            await self._envoy_gateway.prepare()
            self._running["envoy-gateway"] = self._envoy_gateway.start()
            self._awaited.add("envoy-gateway")
        await self._wait_until_ready(self._ready())

    async def keep(self) -> None:
        """Start each component again whenever it ends, as a kubelet does with a control plane's static pods."""
        await asyncio.gather(
            self._operator.run(), *(self._keep(name, process) for name, process in self._running.items())
        )

    async def _keep(self, name: str, process: int) -> None:
        while True:
            code = await self._processes.ended(process)
            _log.warning("%s ended with %s; starting it again", name, code)
            await asyncio.sleep(_RESTART_DELAY_SECONDS)
            if name == "kubelet":
                process = self._start_kubelet()
            elif name == "traefik":
                process = self._proxy.start()
            elif name == "envoy-gateway" and self._envoy_gateway:
                process = self._envoy_gateway.start()
            elif name == "prometheus":
                process = self._prometheus.start()
            else:
                process = await self._control_plane.restart(name, process)

    async def _wait_until_ready(self, work: Coroutine[None, None, None]) -> None:
        """Wait for the work of components to be seen; the first that ends instead fails the start."""
        ready = asyncio.create_task(work)
        ends = {name: asyncio.create_task(self._processes.ended(pid)) for name, pid in self._running.items()}
        try:
            await asyncio.wait(
                [ready, *ends.values()], timeout=_START_TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            for name, end in ends.items():
                if end.done():
                    raise self._failure(f"{name} ended while starting (exit code {end.result()})", name)
            if not ready.done():
                name = self._control_plane.awaited or min(self._awaited)
                raise self._failure(f"{name} was not at work after {_START_TIMEOUT_SECONDS} s", name)
            await ready
        finally:
            for task in (ready, *ends.values()):
                task.cancel()

    async def _ready(self) -> None:
        waits = {"traefik": self._proxy.wait_until_ready(), "prometheus": self._prometheus.wait_until_ready()}
        if self._envoy_gateway:
            waits["envoy-gateway"] = self._envoy_gateway.wait_until_ready()
        await asyncio.gather(*(self._answers(name, ready) for name, ready in waits.items()))

    async def _answers(self, name: str, ready: Awaitable[None]) -> None:
        await ready
        self._awaited.remove(name)

    def _start_kubelet(self) -> int:
        files = map(str, (self._state.kubeconfig, *self._control_plane.certificate_and_key))
        command = [sys.executable, "-m", "sandbox.kubelet", *files]
        return self._processes.start(command, self._log("kubelet"), os.environ)

    def _log(self, component: str) -> Path:
        if component in ControlPlane.COMPONENTS:
            return self._control_plane.log(component)
        return self._state.logs / f"{component}.log"

    def _failure(self, what: str, component: str) -> SandboxError:
        return SandboxError(f"{what}. The end of its log:\n{log_tail(self._log(component))}")
