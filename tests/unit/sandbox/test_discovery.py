"""Which targets Prometheus is told, and their labels: those of its own discovery (discovery/kubernetes/*_test.go)."""

from lightkube.models.core_v1 import (
    Container,
    ContainerPort,
    ObjectReference,
    PodCondition,
    PodSpec,
    PodStatus,
)
from lightkube.models.discovery_v1 import Endpoint, EndpointConditions, EndpointPort
from lightkube.models.meta_v1 import ObjectMeta, OwnerReference
from lightkube.resources.core_v1 import Pod, Service
from lightkube.resources.discovery_v1 import EndpointSlice

from sandbox.discovery import pod_targets, service_targets


def pod(address: str | None = "10.0.0.1") -> Pod:
    ports = [ContainerPort(containerPort=8080, name="http"), ContainerPort(containerPort=9090, protocol="UDP")]
    owner = OwnerReference(apiVersion="apps/v1", kind="ReplicaSet", name="cart-1", uid="0", controller=True)
    return Pod(
        metadata=ObjectMeta(
            name="cart-1-a", namespace="shop", uid="1", labels={"app.io/x": "cart"}, ownerReferences=[owner]
        ),
        spec=PodSpec(containers=[Container(name="app", image="app:1", ports=ports)], nodeName="node-1"),
        status=PodStatus(
            podIP=address, hostIP="10.1.0.1", phase="Running", conditions=[PodCondition(status="True", type="Ready")]
        ),
    )


OF_POD = {
    "__meta_kubernetes_namespace": "shop",
    "__meta_kubernetes_pod_name": "cart-1-a",
    "__meta_kubernetes_pod_ip": "10.0.0.1",
    "__meta_kubernetes_pod_host_ip": "10.1.0.1",
    "__meta_kubernetes_pod_phase": "Running",
    "__meta_kubernetes_pod_ready": "true",
    "__meta_kubernetes_pod_uid": "1",
    "__meta_kubernetes_pod_node_name": "node-1",
    "__meta_kubernetes_pod_controller_kind": "ReplicaSet",
    "__meta_kubernetes_pod_controller_name": "cart-1",
    "__meta_kubernetes_pod_label_app_io_x": "cart",
    "__meta_kubernetes_pod_labelpresent_app_io_x": "true",
}
OF_HTTP_PORT = {
    "__meta_kubernetes_pod_container_name": "app",
    "__meta_kubernetes_pod_container_image": "app:1",
    "__meta_kubernetes_pod_container_port_name": "http",
    "__meta_kubernetes_pod_container_port_number": "8080",
    "__meta_kubernetes_pod_container_port_protocol": "TCP",
    "__meta_kubernetes_pod_container_init": "false",
}


def test_each_port_of_a_pod_is_a_target() -> None:
    http, other = pod_targets([pod(), pod(address=None)])
    assert http == {"targets": ["10.0.0.1:8080"], "labels": OF_POD | OF_HTTP_PORT}
    assert other["targets"] == ["10.0.0.1:9090"]
    assert other["labels"]["__meta_kubernetes_pod_container_port_name"] == ""
    assert other["labels"]["__meta_kubernetes_pod_container_port_protocol"] == "UDP"


def test_each_endpoint_of_a_service_is_a_target_with_the_labels_of_its_pod() -> None:
    endpoints = EndpointSlice(
        metadata=ObjectMeta(name="cart-x", namespace="shop", labels={"kubernetes.io/service-name": "cart"}),
        addressType="IPv4",
        endpoints=[
            Endpoint(
                addresses=["10.0.0.1"],
                conditions=EndpointConditions(ready=True),
                targetRef=ObjectReference(kind="Pod", name="cart-1-a"),
            )
        ],
        ports=[EndpointPort(port=8080, name="web", protocol="TCP")],
    )
    services = [
        Service(metadata=ObjectMeta(name="cart", namespace=namespace, labels={"in": namespace}))
        for namespace in ("other", "shop")
    ]
    (target,) = service_targets([endpoints], services, [pod()])
    assert target == {
        "targets": ["10.0.0.1:8080"],
        "labels": OF_POD
        | OF_HTTP_PORT
        | {
            "__meta_kubernetes_endpointslice_name": "cart-x",
            "__meta_kubernetes_endpointslice_port": "8080",
            "__meta_kubernetes_endpointslice_port_name": "web",
            "__meta_kubernetes_endpointslice_port_protocol": "TCP",
            "__meta_kubernetes_endpointslice_endpoint_conditions_ready": "true",
            "__meta_kubernetes_endpointslice_address_target_kind": "Pod",
            "__meta_kubernetes_endpointslice_address_target_name": "cart-1-a",
            "__meta_kubernetes_service_name": "cart",
            "__meta_kubernetes_service_label_in": "shop",
            "__meta_kubernetes_service_labelpresent_in": "true",
        },
    }
    (without_pod,) = service_targets([endpoints], [], [])
    assert without_pod["targets"] == ["10.0.0.1:8080"]
