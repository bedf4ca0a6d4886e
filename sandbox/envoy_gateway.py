"""Envoy Gateway with an Envoy of its own: a second implementation of the Gateway API, for tests that ask for it."""

import json
import os
import sys
from base64 import b64encode
from collections.abc import Mapping

from lightkube import AsyncClient, KubeConfig
from lightkube.generic_resource import GenericNamespacedResource, create_global_resource, create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace, Secret

from sandbox.control_plane import ENVOY_PROXY, GATEWAY_API, gateway
from sandbox.errors import SandboxError
from sandbox.polling import answered
from sandbox.processes import Processes, log_tail
from sandbox.state import StateFolder

GATEWAY = "envoy"
"""Name of the Gateway in namespace `default`, which takes the routes of every namespace, and of its GatewayClass."""

_CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"
_GROUP, _VERSION, _KIND, _ = ENVOY_PROXY
CONTROLLER_NAMESPACE = "envoy-gateway-system"
"""Where it has its EnvoyProxy, named as the Gateway, and its certificates."""

_CERTIFICATES = "/certs"
"""Where Envoy Gateway looks for its certificates when its resources are those of a cluster; not a setting."""

_GatewayClass = create_global_resource(*GATEWAY_API, "GatewayClass", "gatewayclasses")
EnvoyProxy = create_namespaced_resource(*ENVOY_PROXY)


class EnvoyGateway:
    """The Envoy Gateway process, which starts Envoy as another one.

    Both listen inside the sandbox's network namespace only: Envoy on `port` for requests, and on `admin_port` for
    questions about itself; Envoy Gateway on 9443, 18000, 18002, 19000 and 19001, none of which is a setting.
    """

    def __init__(
        self, state: StateFolder, toolchain: Mapping[str, str], port: int, admin_port: int, processes: Processes
    ) -> None:
        self._state = state
        self._toolchain = toolchain
        self._port = port
        self._admin_port = admin_port
        self._processes = processes
        self._certificates = state.envoy_gateway / "config" / "certs"
        self._configuration = state.envoy_gateway / "envoy-gateway.yaml"
        self._environment = {"KUBECONFIG": str(state.kubeconfig), "HOME": str(state.envoy_gateway)}

    async def prepare(self) -> None:
        """Write certificates and configuration, and what the API server has to know of them.

        Raises:
            SandboxError: certificates could not be made.

        """
        folder, version = self._state.envoy_gateway, self._toolchain["envoy_version"]
        folder.mkdir()
        certgen = [self._toolchain["envoy_gateway"], "certgen", "--local", "--config-home", str(folder / "config")]
        log = self._state.logs / "envoy-gateway-certificates.log"
        if await self._processes.ended(self._processes.start(certgen, log, self._environment)):
            raise SandboxError(f"Envoy Gateway could not make its certificates. The end of its log:\n{log_tail(log)}")
        # Found there, it is not downloaded.
        envoy = folder / "data" / "envoy-versions" / version / "bin" / "envoy"
        envoy.parent.mkdir(parents=True)
        envoy.symlink_to(self._toolchain["envoy"])
        homes = {"configHome": "config", "dataHome": "data", "stateHome": "state", "runtimeDir": "runtime"}
        configuration = {
            "apiVersion": f"{_GROUP}/{_VERSION}",
            "kind": "EnvoyGateway",
            "gateway": {"controllerName": _CONTROLLER},
            "provider": {
                "type": "Custom",
                "custom": {
                    "resource": {"type": "Kubernetes", "kubernetes": {"leaderElection": {"disable": True}}},
                    "infrastructure": {
                        "type": "Host",
                        "host": {setting: str(folder / name) for setting, name in homes.items()},
                    },
                },
            },
        }
        self._configuration.write_text(json.dumps(configuration), encoding="utf-8")  # which is YAML, too
        async with AsyncClient(KubeConfig.from_file(self._state.kubeconfig), trust_env=False) as client:
            await client.apply(Namespace(metadata=ObjectMeta(name=CONTROLLER_NAMESPACE)), field_manager="sandbox")
            for found in (self._secret("envoy-oidc-hmac"), self._secret("envoy", "kubernetes.io/tls"), self._proxy()):
                await client.apply(found, field_manager="sandbox")
            parameters = {"group": _GROUP, "kind": _KIND, "name": GATEWAY, "namespace": CONTROLLER_NAMESPACE}
            spec = {"controllerName": _CONTROLLER, "parametersRef": parameters}
            await client.apply(_GatewayClass(metadata=ObjectMeta(name=GATEWAY), spec=spec), field_manager="sandbox")
            await client.apply(gateway(GATEWAY, GATEWAY, self._port), field_manager="sandbox")

    def _secret(self, name: str, kind: str = "Opaque") -> Secret:
        folder = self._certificates / name
        data = {file.name: b64encode(file.read_bytes()).decode() for file in folder.iterdir()}
        return Secret(metadata=ObjectMeta(name=name, namespace=CONTROLLER_NAMESPACE), type=kind, data=data)

    def _proxy(self) -> GenericNamespacedResource:
        """Return how Envoy is to run: with its own choice of admin port nobody would find it."""
        port = {"op": "replace", "path": "/admin/address/socket_address/port_value", "value": self._admin_port}
        spec = {
            "provider": {"type": "Host", "host": {"envoyVersion": self._toolchain["envoy_version"]}},
            "bootstrap": {"type": "JSONPatch", "jsonPatches": [port]},
            "concurrency": 2,
            "telemetry": {"accessLog": {"disable": True}},
        }
        return EnvoyProxy(metadata=ObjectMeta(name=GATEWAY, namespace=CONTROLLER_NAMESPACE), spec=spec)

    def start(self) -> int:
        """Start Envoy Gateway and return its process id."""
        certificates = str(self._certificates / "envoy-gateway")
        reroot = [sys.executable, "-m", "sandbox.reroot", certificates, _CERTIFICATES]
        command = [self._toolchain["envoy_gateway"], "server", "--config-path", str(self._configuration)]
        environment = os.environ | self._environment
        return self._processes.start([*reroot, *command], self._state.logs / "envoy-gateway.log", environment)

    async def wait_until_ready(self) -> None:
        """Return once Envoy has the configuration for its Gateway."""
        await answered(f"http://127.0.0.1:{self._admin_port}/ready")
