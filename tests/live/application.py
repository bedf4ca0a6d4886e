"""A small application in a sandbox: Deployment, Service, Ingress; and requests to it through the proxy."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import httpx2
from lightkube import Client
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Pod, Service
from lightkube.resources.networking_v1 import Ingress

Found = TypeVar("Found")

_http = httpx2.Client(trust_env=False, timeout=30)


def eventually(find: Callable[[], Found], seconds: float = 30) -> Found:
    """Return what is found as soon as it is true; fail when that takes too long."""
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < deadline, f"not within {seconds} s; the last look found {found!r}"
        time.sleep(0.05)
    return found


@dataclass
class Application:
    cluster: Client
    namespace: str
    proxy_url: str
    name: str = "app"
    version: str = "stable"
    replicas: int = 1
    host: str = ""
    image: str = "registry.example/app:1.0"
    drain_seconds: int = 4
    grace_seconds: int = 20
    environment: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    ingress_annotations: Mapping[str, str] = field(default_factory=dict)
    probe: Mapping[str, Any] = field(
        default_factory=lambda: {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1}
    )
    liveness_probe: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self.host = self.host or f"{self.name}.{self.namespace}.example"

    @property
    def labels(self) -> dict[str, str]:
        return {"app": self.name.removesuffix("-canary"), "version": self.version}

    def create(self) -> "Application":
        metadata = {"name": self.name, "namespace": self.namespace}
        container = {
            "name": "app",
            "image": self.image,
            "env": [{"name": name, "value": value} for name, value in self.environment.items()],
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": self.probe or None,
            "livenessProbe": self.liveness_probe,
            "lifecycle": {"preStop": {"sleep": {"seconds": self.drain_seconds}}} if self.drain_seconds else None,
        }
        deployment = {
            "metadata": metadata,
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": self.labels},
                "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {
                    "metadata": {"labels": self.labels, "annotations": dict(self.annotations)},
                    "spec": {"terminationGracePeriodSeconds": self.grace_seconds, "containers": [container]},
                },
            },
        }
        service = {
            "metadata": metadata,
            "spec": {"selector": self.labels, "ports": [{"port": 80, "targetPort": "http"}]},
        }
        backend = {"service": {"name": self.name, "port": {"number": 80}}}
        ingress = {
            "metadata": {**metadata, "annotations": dict(self.ingress_annotations)},
            "spec": {
                "ingressClassName": "nginx",
                "rules": [
                    {"host": self.host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
                ],
            },
        }
        self.cluster.create(cast("Deployment", Deployment.from_dict(deployment)))
        self.cluster.create(cast("Service", Service.from_dict(service)))
        self.cluster.create(cast("Ingress", Ingress.from_dict(ingress)))
        return self

    def pods(self) -> list[Pod]:
        return list(self.cluster.list(Pod, namespace=self.namespace, labels=dict(self.labels)))

    def pod(self) -> Pod:
        (pod,) = self.pods()
        return pod

    def wait_until_ready(self) -> "Application":
        eventually(lambda: len(self.pods()) == self.replicas and all(map(is_ready, self.pods())))
        return self

    def wait_until_served(self) -> "Application":
        """Ready, and the proxy knows it."""
        self.wait_until_ready()
        eventually(lambda: self.get().status_code == httpx2.codes.OK)
        return self

    def order(self, **orders: str | None) -> None:
        """Annotate the only pod: `error_rate="1"` is the annotation sandbox/error-rate."""
        annotations = {f"sandbox/{name.replace('_', '-')}": value for name, value in orders.items()}
        metadata = self.pod().metadata
        assert metadata is not None
        assert metadata.name is not None
        self.cluster.patch(Pod, metadata.name, {"metadata": {"annotations": annotations}}, namespace=self.namespace)

    def get(self, path: str = "/", **headers: str) -> httpx2.Response:
        return _http.get(self.proxy_url + path, headers={"Host": self.host, **headers})

    def restart(self) -> None:
        """What `kubectl rollout restart` does."""
        annotations = {"kubectl.kubernetes.io/restartedAt": str(time.time())}
        patch = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
        self.cluster.patch(Deployment, self.name, patch, namespace=self.namespace)

    def rolled_out(self) -> bool:
        deployment = self.cluster.get(Deployment, self.name, namespace=self.namespace)
        status, metadata = deployment.status, deployment.metadata
        assert status is not None
        assert metadata is not None
        current = status.observedGeneration == metadata.generation
        return bool(current and status.updatedReplicas == status.replicas == status.availableReplicas == self.replicas)


def is_ready(pod: Pod) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in (pod.status and pod.status.conditions) or ())
