"""Everything that runs in a sandbox, as PID 1 of its PID namespace starts it and keeps it running."""

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from sandbox.control_plane import ControlPlane
from sandbox.errors import SandboxError
from sandbox.forwarder import forward
from sandbox.processes import Processes, log_tail
from sandbox.proxy import Proxy
from sandbox.state import StateFolder

_START_TIMEOUT_SECONDS = 90
_RESTART_DELAY_SECONDS = 1.0


class Components:
    """The control plane, the kubelet, the proxy, and the forwarders that lead to them.

    `listeners` are sockets of the host's: `api` and `proxy-admin` are forwarded, `proxy` is handed to the proxy.
    """

    def __init__(
        self, state: StateFolder, toolchain: Mapping[str, str], listeners: Mapping[str, socket.socket]
    ) -> None:
        self._state = state
        self._listeners = listeners
        self._processes = Processes()
        api_port, admin_port = (listeners[name].getsockname()[1] for name in ("api", "proxy-admin"))
        self._control_plane = ControlPlane(state, toolchain, api_port, self._processes)
        self._proxy = Proxy(state, toolchain["traefik"], listeners["proxy"], admin_port, self._processes)
        self._running: dict[str, int] = {}

    async def start(self, report: Callable[[str], None]) -> None:
        """Start everything and return once each component has shown by its work that it is up.

        Raises:
            SandboxError: a component failed; the message names it and has the end of its log.

        """
        report("starting etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok")
        for name in ("api", "proxy-admin"):
            await forward(self._listeners[name])
        code = await self._control_plane.create()
        if code != 0:
            raise self._failure(f"kwokctl could not start the control plane (exit code {code})", "kwokctl")
        report("starting the kubelet and the proxy")
        self._running = {name: self._control_plane.process(name) for name in ControlPlane.COMPONENTS}
        self._running |= {"kubelet": self._start_kubelet(), "traefik": self._proxy.start()}
        await self._wait_until_ready()

    async def keep(self) -> None:
        """Start each component again whenever it ends, as a kubelet does with a control plane's static pods."""
        await asyncio.gather(*(self._keep(name, process) for name, process in self._running.items()))

    async def _keep(self, name: str, process: int) -> None:
        while True:
            code = await self._processes.ended(process)
            sys.stderr.write(f"{time.strftime('%FT%T%z')} {name} ended with {code}; starting it again\n")
            sys.stderr.flush()
            await asyncio.sleep(_RESTART_DELAY_SECONDS)
            if name == "kubelet":
                process = self._start_kubelet()
            elif name == "traefik":
                process = self._proxy.start()
            else:
                process = await self._control_plane.restart(name, process)

    async def _wait_until_ready(self) -> None:
        """Wait for every component's work to be seen; the first that ends instead fails the start."""
        ready = asyncio.create_task(self._ready())
        ends = {name: asyncio.create_task(self._processes.ended(pid)) for name, pid in self._running.items()}
        try:
            await asyncio.wait(
                [ready, *ends.values()], timeout=_START_TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            for name, end in ends.items():
                if end.done():
                    raise self._failure(f"{name} ended while starting (exit code {end.result()})", name)
            if not ready.done():
                name = self._control_plane.awaited or "traefik"
                raise self._failure(f"{name} was not at work after {_START_TIMEOUT_SECONDS} s", name)
            await ready
        finally:
            for task in (ready, *ends.values()):
                task.cancel()

    async def _ready(self) -> None:
        await asyncio.gather(self._control_plane.wait_until_ready(), self._proxy.wait_until_ready())

    def _start_kubelet(self) -> int:
        command = [sys.executable, "-m", "sandbox.kubelet", str(self._state.kubeconfig)]
        return self._processes.start(command, self._log("kubelet"), os.environ)

    def _log(self, component: str) -> Path:
        if component in ControlPlane.COMPONENTS:
            return self._control_plane.log(component)
        return self._state.logs / f"{component}.log"

    def _failure(self, what: str, component: str) -> SandboxError:
        return SandboxError(f"{what}. The end of its log:\n{log_tail(self._log(component))}")
