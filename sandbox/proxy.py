"""Traefik as the sandbox's proxy: it serves ingress-nginx's annotations, the Gateway API and its own resources."""

import socket

from sandbox.histograms import DURATION_BUCKETS
from sandbox.polling import answered
from sandbox.processes import Processes
from sandbox.state import StateFolder

_RETRIED = "error timeout http_502"
"""In nginx, `error` is also a connection that breaks before the answer, and then idempotent requests are sent again.
In Traefik it is a refused one only; what breaks later is a 502 of its own (the played pods give none), after which it
sends idempotent requests again too."""

_TRIES = 30
"""ingress-nginx has 3. Traefik's round robin goes on between the tries of a request and can lead it to the same pod
again and again while others are in flight: with one pod of two gone, 3 tries left about 5 % of the requests failed."""


class Proxy:
    """The Traefik process.

    It accepts on the host's own listening socket, so that requests take no detour; its admin entry point
    (API, metrics, ping) listens inside.
    """

    def __init__(
        self, state: StateFolder, traefik: str, web: socket.socket, admin_port: int, processes: Processes
    ) -> None:
        self._state = state
        self._traefik = traefik
        self._web = web
        self._admin_port = admin_port
        self._processes = processes

    def start(self) -> int:
        """Start Traefik and return its process id."""
        arguments = (
            # Not bound: the socket handed over under the entry point's name is used.
            f"--entrypoints.web.address=127.0.0.1:{self._web.getsockname()[1]}",
            f"--entrypoints.traefik.address=127.0.0.1:{self._admin_port}",
            "--log.level=INFO",
            "--log.nocolor=true",
            "--api.insecure=true",
            "--ping=true",
            "--metrics.prometheus=true",
            "--metrics.prometheus.entrypoint=traefik",
            "--metrics.prometheus.addrouterslabels=true",
            f"--metrics.prometheus.buckets={','.join(map(str, DURATION_BUCKETS))}",
            "--providers.kubernetesingressnginx=true",
            # Written to status.loadBalancer, which Pulumi's Ingress await waits for.
            "--providers.kubernetesingressnginx.publishstatusaddress=127.0.0.1",
            f"--providers.kubernetesingressnginx.proxynextupstream={_RETRIED}",
            f"--providers.kubernetesingressnginx.proxynextupstreamtries={_TRIES}",
            "--providers.kubernetesgateway=true",
            "--providers.kubernetesgateway.statusaddress.ip=127.0.0.1",
            "--providers.kubernetescrd=true",
            # As in Traefik's Helm chart: a canary without pods fails its own share and not the whole route.
            "--providers.kubernetescrd.allowemptyservices=true",
            "--global.checknewversion=false",
            "--global.sendanonymoususage=false",
        )
        return self._processes.start(
            [self._traefik, *arguments],
            self._state.logs / "traefik.log",
            {"KUBECONFIG": str(self._state.kubeconfig)},
            listening={"web": self._web.fileno()},
        )

    async def wait_until_ready(self) -> None:
        """Return once Traefik answers."""
        await answered(f"http://127.0.0.1:{self._admin_port}/ping")
