"""Plays Prometheus's discovery of Kubernetes targets, as JSON for its discovery by HTTP, which every build has.

The real one is left out of some, Debian's among them. Targets and labels are those of the roles `pod` and
`endpointslice`, without annotations, nodes, and pods' ports that no Service leads to
(https://prometheus.io/docs/prometheus/latest/configuration/configuration/#kubernetes_sd_config).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lightkube.models.core_v1 import Container, ContainerPort
from lightkube.models.discovery_v1 import Endpoint, EndpointPort
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Pod, Service
from lightkube.resources.discovery_v1 import EndpointSlice

POD_PATH, SERVICE_PATH = "/discovery/pod", "/discovery/endpointslice"

_SERVICE_NAME = "kubernetes.io/service-name"
"""Label of an EndpointSlice."""

Labels = Mapping[str, str]


def pod_targets(pods: Iterable[Pod]) -> list[dict[str, Any]]:
    """Return each container port of each pod that has an address."""
    return [
        _target(f"{pod.status.podIP}:{port.containerPort}", _of_pod(pod) | _of_port(container, port))
        for pod in pods
        if pod.spec and pod.status and pod.status.podIP
        for container in pod.spec.containers
        for port in container.ports or ()
    ]


def service_targets(
    slices: Iterable[EndpointSlice], services: Iterable[Service], pods: Iterable[Pod]
) -> list[dict[str, Any]]:
    """Return each port of each endpoint of each Service."""
    services_by_name = {_key(service.metadata): service for service in services}
    pods_by_name = {_key(pod.metadata): pod for pod in pods}
    return list(_service_targets(slices, services_by_name, pods_by_name))


def _service_targets(
    slices: Iterable[EndpointSlice],
    services: Mapping[tuple[str, str], Service],
    pods: Mapping[tuple[str, str], Pod],
) -> Iterator[dict[str, Any]]:
    for endpoints in slices:
        metadata = endpoints.metadata or ObjectMeta()
        namespace = metadata.namespace or ""
        service = services.get((namespace, (metadata.labels or {}).get(_SERVICE_NAME, "")))
        common = {"namespace": namespace, "endpointslice_name": metadata.name or ""}
        common |= _of_object("service", service.metadata) if service else {}
        for endpoint in endpoints.endpoints or ():
            target = endpoint.targetRef
            pod = pods.get((namespace, target.name or "")) if target and target.kind == "Pod" else None
            for port in endpoints.ports or ():
                labels = common | _of_endpoint(endpoint, port) | (_of_pod(pod) if pod else {})
                for container in pod.spec.containers if pod and pod.spec else ():
                    for own in container.ports or ():
                        labels |= _of_port(container, own) if own.containerPort == port.port else {}
                for address in endpoint.addresses:
                    yield _target(f"{address}:{port.port}", labels)


def _target(address: str, labels: Labels) -> dict[str, Any]:
    return {"targets": [address], "labels": {f"__meta_kubernetes_{name}": value for name, value in labels.items()}}


def _of_pod(pod: Pod) -> dict[str, str]:
    assert pod.metadata is not None and pod.spec is not None  # noqa: PT018, S101  the API server sets both
    status = pod.status
    ready = any(c.type == "Ready" and c.status == "True" for c in (status and status.conditions) or ())
    owner = next((owner for owner in pod.metadata.ownerReferences or () if owner.controller), None)
    return {
        "namespace": pod.metadata.namespace or "",
        **_of_object("pod", pod.metadata),
        "pod_ip": (status and status.podIP) or "",
        "pod_host_ip": (status and status.hostIP) or "",
        "pod_phase": (status and status.phase) or "",
        "pod_ready": str(ready).lower(),
        "pod_uid": pod.metadata.uid or "",
        "pod_node_name": pod.spec.nodeName or "",
        **({"pod_controller_kind": owner.kind, "pod_controller_name": owner.name} if owner else {}),
    }


def _of_port(container: Container, port: ContainerPort) -> dict[str, str]:
    return {
        "pod_container_name": container.name,
        "pod_container_image": container.image or "",
        "pod_container_port_name": port.name or "",
        "pod_container_port_number": str(port.containerPort),
        "pod_container_port_protocol": port.protocol or "TCP",
        "pod_container_init": "false",
    }


def _of_endpoint(endpoint: Endpoint, port: EndpointPort) -> dict[str, str]:
    target, conditions = endpoint.targetRef, endpoint.conditions
    return {
        "endpointslice_port": str(port.port),
        "endpointslice_port_name": port.name or "",
        "endpointslice_port_protocol": port.protocol or "TCP",
        "endpointslice_endpoint_conditions_ready": str(bool(conditions and conditions.ready)).lower(),
        "endpointslice_address_target_kind": (target and target.kind) or "",
        "endpointslice_address_target_name": (target and target.name) or "",
    }


def _of_object(kind: str, metadata: ObjectMeta | None) -> dict[str, str]:
    labels = {sanitized(name): value for name, value in ((metadata and metadata.labels) or {}).items()}
    return {
        f"{kind}_name": (metadata and metadata.name) or "",
        **{f"{kind}_label_{name}": value for name, value in labels.items()},
        **{f"{kind}_labelpresent_{name}": "true" for name in labels},
    }


def _key(metadata: ObjectMeta | None) -> tuple[str, str]:
    return (metadata and metadata.namespace) or "", (metadata and metadata.name) or ""


def sanitized(label: str) -> str:
    """Return what a label's name is in Prometheus."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", label)
