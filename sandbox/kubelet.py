"""The kubelet of the sandbox's nodes: plays every pod bound to them with a server that really answers.

Run as `python -m sandbox.kubelet KUBECONFIG CERTIFICATE KEY` inside the sandbox's namespaces. It registers the nodes;
kwok keeps them alive. What it cannot do for want of containers: run commands, mount volumes. It shows what containers
use and log, and in place of kube-state-metrics and of Prometheus's own discovery which Deployments and targets there
are.
"""

import asyncio
import ipaddress
import itertools
import logging
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping

import aiohttp
import uvloop
from aiohttp import web
from lightkube import AsyncClient, KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import DaemonEndpoint, NodeAddress, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.operators import BinaryOperator, SequenceOperator, not_equal
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Node, Pod, Service
from lightkube.resources.discovery_v1 import EndpointSlice
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from sandbox.configuration import Configuration
from sandbox.container_log import ContainerLog, Wanted
from sandbox.discovery import POD_PATH, SERVICE_PATH, pod_targets, service_targets
from sandbox.kube_state_metrics import KubeStateMetrics
from sandbox.network import CADVISOR_PATH, CLUSTER_METRICS_PORT, KUBELET_PORT, NODE_ADDRESS, POD_NETWORK
from sandbox.pod import AnsweringPod
from sandbox.usage import Played, Usage
from sandbox.watched import Watched
from sandbox.writer import Writer

_log = logging.getLogger("kubelet")

_NODES = ("node-1", "node-2")
_ROOM = {"cpu": "1000", "memory": "1Ti", "ephemeral-storage": "1Ti", "pods": "1000"}
"""Capacity of each node: what the pods request is never used."""

_BOUND: dict[str, str | BinaryOperator | SequenceOperator] = {"spec.nodeName": not_equal("")}
_RETRY_SECONDS = 0.5
_LOG_PATH = "/containerLogs/{namespace}/{pod}/{container}"


class Kubelet:
    """Watches the pods that are bound to a node, and leads each one's life."""

    def __init__(self, client: AsyncClient, session: aiohttp.ClientSession, pods: asyncio.TaskGroup) -> None:
        self._client = client
        self._session = session
        self._tasks = pods
        self._writer = Writer(client, "kubelet")
        self._pods: dict[str, tuple[AnsweringPod, asyncio.Task[None]]] = {}
        # Round the network, so that an address comes back as late as possible: proxies learn late who left.
        self._addresses = itertools.cycle(ipaddress.IPv4Network(f"{POD_NETWORK}/16").hosts())

    async def run(self) -> None:
        """Follow the API server for good, through its restarts and broken connections."""
        while True:
            try:
                await self._follow()
            except Exception as error:  # noqa: BLE001  whatever the API server does, the pods go on answering
                _log.warning("listing the pods anew after %r", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _follow(self) -> None:
        listing = self._client.list(Pod, namespace="*", fields=_BOUND)
        present = {_uid(pod): pod async for pod in listing}
        self.play(present)
        for name in _NODES:
            await self._register(name)
        version = listing.resourceVersion
        async for change, pod in self._client.watch(Pod, namespace="*", fields=_BOUND, resource_version=version):
            if change == "DELETED":
                self._gone(_uid(pod))
            else:
                self._seen(pod)

    def play(self, pods: Mapping[str, Pod]) -> None:
        """Play these pods, by uid, and no others."""
        for uid in self._pods.keys() - pods.keys():
            self._gone(uid)
        # Those that had an address before this process began keep it: only then is it known which ones are free.
        for pod in sorted(pods.values(), key=lambda pod: not _address(pod)):
            self._seen(pod)

    def played(self) -> Iterator[Played]:
        """Return every container of every pod."""
        for pod, _ in self._pods.values():
            for container in pod.containers:
                yield Played(pod.namespace, pod.name, container)

    @property
    def pods(self) -> list[Pod]:
        """The pods that are played, as the API server has them."""
        return [pod.latest for pod, _ in self._pods.values()]

    def log(self, namespace: str, pod: str, container: str, *, previous: bool) -> ContainerLog:
        """Return the log of a container's present run, or the last one; `previous` is the one before.

        Raises:
            LookupError: there is none; says why.
        """
        for found, _ in self._pods.values():
            if (found.namespace, found.name) == (namespace, pod):
                return found.log(container, previous=previous)
        raise LookupError(f'pod "{pod}" is not on this node')

    @property
    def addresses(self) -> dict[str, str]:
        """The IP of each pod that is played, by uid."""
        return {uid: pod.address for uid, (pod, _) in self._pods.items()}

    def _seen(self, pod: Pod) -> None:
        uid = _uid(pod)
        if uid in self._pods:
            self._pods[uid][0].update(pod)
            return
        if pod.status and pod.status.phase in ("Succeeded", "Failed"):  # ended before this process began
            if pod.metadata and pod.metadata.deletionTimestamp:
                self._tasks.create_task(self._writer.remove(pod))
            return
        assert pod.metadata is not None  # noqa: S101  the API server sets it
        configuration = Configuration(self._client, pod.metadata.namespace or "")
        address = _address(pod) or self._free_address()
        answering = AnsweringPod(pod, address, self._session, configuration, self._writer)
        self._pods[uid] = answering, self._tasks.create_task(self._lead(answering))

    @staticmethod
    async def _lead(pod: AnsweringPod) -> None:
        try:
            await pod.run()
        except Exception:  # noqa: BLE001  one pod's trouble is not the others'
            _log.exception("the pod with address %s is not played any further", pod.address)

    def _gone(self, uid: str) -> None:
        if uid in self._pods:
            _, life = self._pods.pop(uid)
            life.cancel()

    def _free_address(self) -> str:
        used = set(self.addresses.values())
        return next(address for address in map(str, self._addresses) if address not in used)

    async def _register(self, name: str) -> None:
        zone = name.replace("node", "zone")
        labels = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": zone,
        }
        system = NodeSystemInfo(
            architecture="",
            bootID="",
            containerRuntimeVersion="none",
            kernelVersion="",
            kubeProxyVersion="",
            kubeletVersion="sandbox",
            machineID="",
            operatingSystem="linux",
            osImage="",
            systemUUID="",
        )
        addresses = [NodeAddress(NODE_ADDRESS, "InternalIP"), NodeAddress(name, "Hostname")]
        status = NodeStatus(
            addresses=addresses,
            allocatable=_ROOM,
            capacity=_ROOM,
            daemonEndpoints=NodeDaemonEndpoints(DaemonEndpoint(Port=KUBELET_PORT)),  # the API server asks there
            nodeInfo=system,
        )
        try:
            await self._client.create(Node(metadata=ObjectMeta(name=name, labels=labels), status=status))
        except ApiError as error:
            if error.status.reason != "AlreadyExists":
                raise


def _uid(pod: Pod) -> str:
    assert pod.metadata is not None  # noqa: S101  the API server sets it
    return pod.metadata.uid or ""


def _address(pod: Pod) -> str | None:
    return pod.status.podIP if pod.status else None


async def _main(kubeconfig: str, certificate: str, key: str) -> None:
    async with (
        AsyncClient(KubeConfig.from_file(kubeconfig), trust_env=False) as client,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0)) as session,
        asyncio.TaskGroup() as tasks,
    ):
        kubelet = Kubelet(client, session, tasks)
        deployments, services, slices = Watched(Deployment), Watched(Service), Watched(EndpointSlice)
        for watched in (deployments, services, slices):
            tasks.create_task(watched.follow(client))
        own: dict[str, Page] = {CADVISOR_PATH: _metrics(Usage(kubelet.played)), _LOG_PATH: _logs(kubelet)}
        of_cluster: dict[str, Page] = {
            "/metrics": _metrics(KubeStateMetrics(deployments)),
            POD_PATH: _json(lambda: pod_targets(kubelet.pods)),
            SERVICE_PATH: _json(lambda: service_targets(slices.objects, services.objects, kubelet.pods)),
        }
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate, key)
        await _serve(KUBELET_PORT, own, tls)
        await _serve(CLUSTER_METRICS_PORT, of_cluster, None)
        await kubelet.run()


Page = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def _serve(port: int, pages: Mapping[str, Page], tls: ssl.SSLContext | None) -> None:
    """Serve pages by their paths on the node's address; unlike a kubelet, whoever asks."""
    application = web.Application()
    for path, page in pages.items():
        application.router.add_get(path, page)
    # Who breaks off while following a log is noticed by that alone.
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, NODE_ADDRESS, port, ssl_context=tls).start()


def _metrics(collector: Collector) -> Page:
    registry = CollectorRegistry()
    registry.register(collector)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return answer


def _json(look: Callable[[], object]) -> Page:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(look())

    return answer


def _logs(kubelet: Kubelet) -> Page:
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            wanted = Wanted.read(request.query)
            log = kubelet.log(**request.match_info, previous=wanted.previous)
        except (ValueError, LookupError) as error:
            return web.Response(status=web.HTTPBadRequest.status_code, text=str(error))
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        async for line in wanted.of(log):
            await response.write(line)
        return response

    return answer


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would log every request
    uvloop.run(_main(*sys.argv[1:]))
