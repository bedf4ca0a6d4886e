"""A real Kubernetes control plane without containers, run by kwokctl inside the sandbox's namespaces."""

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import httpx2
from lightkube import AsyncClient, KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import GenericNamespacedResource, create_global_resource, create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.models.networking_v1 import IngressClassSpec
from lightkube.resources.coordination_v1 import Lease
from lightkube.resources.core_v1 import Node, ServiceAccount
from lightkube.resources.networking_v1 import IngressClass

from sandbox.network import NODE_ADDRESS
from sandbox.polling import answered
from sandbox.processes import Processes
from sandbox.state import StateFolder

_NAME = "sandbox"
_STAGES = Path(__file__).with_name("kwok-stages.yaml")
_AUDIT_POLICY = Path(__file__).with_name("audit-policy.yaml")
_POLL_SECONDS = 0.1

_SERVED = frozenset(
    {
        "gatewayclasses.gateway.networking.k8s.io",
        "gateways.gateway.networking.k8s.io",
        "httproutes.gateway.networking.k8s.io",
        "ingressroutes.traefik.io",
        "podmonitors.monitoring.coreos.com",
        "prometheusrules.monitoring.coreos.com",
        "referencegrants.gateway.networking.k8s.io",
        "servicemonitors.monitoring.coreos.com",
        "traefikservices.traefik.io",
    }
)
"""What is for use here. Each takes the API server a part of a second, large ones more."""

GATEWAY_API, _TRAEFIK = ("gateway.networking.k8s.io", "v1"), ("traefik.io", "v1alpha1")
_LISTED = (
    (*GATEWAY_API, "BackendTLSPolicy", "backendtlspolicies"),
    (*GATEWAY_API, "GRPCRoute", "grpcroutes"),
    (*GATEWAY_API, "TLSRoute", "tlsroutes"),
    (*_TRAEFIK, "IngressRouteTCP", "ingressroutetcps"),
    (*_TRAEFIK, "IngressRouteUDP", "ingressrouteudps"),
    (*_TRAEFIK, "Middleware", "middlewares"),
    (*_TRAEFIK, "MiddlewareTCP", "middlewaretcps"),
    (*_TRAEFIK, "ServersTransport", "serverstransports"),
    (*_TRAEFIK, "ServersTransportTCP", "serverstransporttcps"),
    (*_TRAEFIK, "TLSOption", "tlsoptions"),
    (*_TRAEFIK, "TLSStore", "tlsstores"),
)
"""Kinds that Traefik has to be able to list before it serves the others, without their schema, which is long."""

ENVOY_PROXY = ("gateway.envoyproxy.io", "v1alpha1", "EnvoyProxy", "envoyproxies")
"""What Envoy Gateway has to find defined, likewise. Its policies may be missing."""

_NAME_LINE = re.compile(r"^  name: (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Definition:
    """A CustomResourceDefinition: its name, <plural>.<group>, and its YAML, which to parse would take long."""

    name: str
    text: str


def _definitions(folder: Path) -> list[_Definition]:
    """Return those in the files of a folder, of which some have several."""
    documents = [text for file in sorted(folder.iterdir()) for text in file.read_text().split("\n---\n")]
    named = [(_NAME_LINE.search(text), text) for text in documents]
    return [_Definition(found[1], text) for found, text in named if found and found[1] in _SERVED]


def _without_schema(group: str, version: str, kind: str, plural: str) -> _Definition:
    open_schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": open_schema}}
    spec = {
        "group": group,
        "scope": "Namespaced",
        "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
        "versions": [served],
    }
    metadata: dict[str, object] = {"name": f"{plural}.{group}"}
    if group.endswith(".k8s.io"):
        metadata["annotations"] = {"api-approved.kubernetes.io": "unapproved, a stand-in without schema"}
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return _Definition(f"{plural}.{group}", json.dumps(definition | {"metadata": metadata, "spec": spec}))


class ControlPlane:
    """etcd, kube-apiserver, kube-controller-manager, kube-scheduler and the kwok controller."""

    COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok-controller")

    def __init__(
        self, state: StateFolder, toolchain: Mapping[str, str], api_port: int, web_port: int, processes: Processes
    ) -> None:
        self._state = state
        self._toolchain = toolchain
        self._api_port = api_port
        self._web_port = web_port
        self._url = f"https://127.0.0.1:{api_port}"
        self._processes = processes
        self._cluster = state.control_plane / "clusters" / _NAME
        self._starting = asyncio.Lock()
        self.awaited = ""

    def log(self, component: str) -> Path:
        """Return the log file of a component."""
        return self._cluster / "logs" / f"{component}.log"

    def process(self, component: str) -> int:
        """Return the id of the process that kwokctl started last for a component."""
        return int((self._cluster / "pids" / f"{component}.pid").read_text(encoding="ascii"))

    async def create(self) -> int:
        """Make certificates, configuration and kubeconfig, start the components; return kwokctl's exit code."""
        toolchain = self._toolchain
        return await self._kwokctl(
            "create",
            "cluster",
            f"--config={_STAGES}",
            "--runtime=binary",
            "--disable-qps-limits",
            f"--kube-audit-policy={_AUDIT_POLICY}",
            f"--kubeconfig={self._state.kubeconfig}",
            f"--kube-apiserver-port={self._api_port}",
            f"--etcd-binary={toolchain['etcd']}",
            f"--kube-apiserver-binary={toolchain['kube_apiserver']}",
            f"--kube-controller-manager-binary={toolchain['kube_controller_manager']}",
            f"--kube-scheduler-binary={toolchain['kube_scheduler']}",
            f"--kwok-controller-binary={toolchain['kwok']}",
            "--extra-args=etcd=unsafe-no-fsync=true",  # nothing here outlives a crash of the machine
            f"--extra-args=kube-apiserver=advertise-address={NODE_ADDRESS}",
            "--extra-args=kube-apiserver=kubelet-preferred-address-types=InternalIP",  # host names mean nothing here
            "--extra-args=kube-apiserver=service-cluster-ip-range=10.96.0.0/16",  # the default has 250
        )

    async def restart(self, component: str, ended: int) -> int:
        """Start a component again whose process `ended`; return its process id, the same one if that failed."""
        async with self._starting:
            if self.process(component) == ended:  # kwokctl starts whatever is not running, others too
                await self._kwokctl("start", "cluster")
            return self.process(component)

    async def wait_until_ready(self) -> None:
        """Return once every component has shown by its work that it is up, and what routers need is there.

        That is the CRDs, IngressClass `nginx`, GatewayClass `traefik`, and Gateway `gateway` in namespace `default`,
        which takes the routes of every namespace. Meanwhile `awaited` names the component whose work is missing.
        """
        self.awaited = "kube-apiserver"
        tls = self._credentials()
        await answered(f"{self._url}/readyz", tls)
        config = KubeConfig.from_file(self._state.kubeconfig)
        async with (
            AsyncClient(config, trust_env=False) as client,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session,
        ):
            async with asyncio.TaskGroup() as definitions:
                listed = (*_LISTED, *((ENVOY_PROXY,) if "envoy_gateway" in self._toolchain else ()))
                complete = _definitions(Path(self._toolchain["crds"]))
                for definition in (*complete, *(_without_schema(*each) for each in listed)):
                    definitions.create_task(self._define(definition, session))
            for found in (_INGRESS_CLASS, _GATEWAY_CLASS, gateway("gateway", "traefik", self._web_port)):
                await client.apply(found, field_manager="sandbox", force=True)
            while self.awaited:
                with contextlib.suppress(ApiError, httpx2.HTTPError):
                    self.awaited = await self._missing(client)
                await asyncio.sleep(_POLL_SECONDS)

    @property
    def certificate_and_key(self) -> tuple[Path, Path]:
        """The files by which the cluster's own programs show who they are, as servers and as clients."""
        return self._cluster / "pki" / "admin.crt", self._cluster / "pki" / "admin.key"

    def _credentials(self) -> ssl.SSLContext:
        tls = ssl.create_default_context(cafile=self._cluster / "pki" / "ca.crt")
        tls.load_cert_chain(*self.certificate_and_key)
        return tls

    async def _define(self, definition: _Definition, session: aiohttp.ClientSession) -> None:
        """Apply a CustomResourceDefinition; return once its kind is served."""
        plural, _, group = definition.name.partition(".")
        async with session.patch(
            f"{self._url}/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition.name}",
            params={"fieldManager": "sandbox", "force": "true"},
            data=definition.text,
            headers={"Content-Type": "application/apply-patch+yaml"},
            raise_for_status=True,
        ) as answer:
            version = next(each["name"] for each in (await answer.json())["spec"]["versions"] if each["served"])
        while True:
            async with session.get(f"{self._url}/apis/{group}/{version}/{plural}?limit=1") as answer:
                if answer.ok:
                    return
            await asyncio.sleep(_POLL_SECONDS)

    async def _missing(self, client: AsyncClient) -> str:
        """Name a component that has not done its first work yet, if any."""
        self.awaited = "kube-scheduler"
        lease = await client.get(Lease, "kube-scheduler", namespace="kube-system")
        if not (lease.spec and lease.spec.holderIdentity):
            return "kube-scheduler"
        self.awaited = "kube-controller-manager"
        await client.get(ServiceAccount, "default", namespace="default")
        nodes = [node async for node in client.list(Node)]
        if not nodes:
            return "kubelet"  # registers them
        ready = [
            any(c.type == "Ready" and c.status == "True" for c in (node.status and node.status.conditions) or ())
            for node in nodes
        ]
        return "" if all(ready) else "kwok-controller"  # which makes them Ready

    async def _kwokctl(self, *arguments: str) -> int:
        environment = {
            "KWOK_WORKDIR": str(self._state.control_plane),
            "PATH": str(self._state.commands),  # kwokctl asks kubectl whether the API server answers
            "HOME": str(self._state.control_plane),
        }
        pid = self._processes.start(
            [self._toolchain["kwokctl"], f"--name={_NAME}", *arguments], self._state.logs / "kwokctl.log", environment
        )
        return await self._processes.ended(pid)


_GATEWAY_CLASS = create_global_resource(*GATEWAY_API, "GatewayClass", "gatewayclasses")(
    metadata=ObjectMeta(name="traefik"), spec={"controllerName": "traefik.io/gateway-controller"}
)
_Gateway = create_namespaced_resource(*GATEWAY_API, "Gateway", "gateways")


def gateway(name: str, gateway_class: str, port: int) -> GenericNamespacedResource:
    """Return a Gateway in namespace `default` that takes the routes of every namespace."""
    listener = {"name": "web", "protocol": "HTTP", "port": port, "allowedRoutes": {"namespaces": {"from": "All"}}}
    return _Gateway(
        metadata=ObjectMeta(name=name, namespace="default"),
        spec={"gatewayClassName": gateway_class, "listeners": [listener]},
    )


_INGRESS_CLASS = IngressClass(
    metadata=ObjectMeta(name="nginx"), spec=IngressClassSpec(controller="k8s.io/ingress-nginx")
)
