"""A stack that breaks no rule, though every rule is on: a service with all its objects, and a split of each router."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from canary_policies.catalog import RULES
from canary_policies.objects import Object, objects_of

Manifest = dict[str, Any]

NAMESPACE = "shop"
NGINX = "nginx.ingress.kubernetes.io/"
CANARY, WEIGHT, TOTAL = f"{NGINX}canary", f"{NGINX}canary-weight", f"{NGINX}canary-weight-total"
HEADER, VALUE = f"{NGINX}canary-by-header", f"{NGINX}canary-by-header-value"
PATTERN, COOKIE = f"{NGINX}canary-by-header-pattern", f"{NGINX}canary-by-cookie"
DIGEST = "@sha256:" + "0123456789abcdef" * 4
IMAGE = f"registry.example/shop/web:1.4.2{DIGEST}"

CONFIG: Mapping[str, Mapping[str, Any]] = {
    "image-registry": {"registries": ["registry.example/shop"]},
    "max-weight": {"maxWeight": 50},
}

POD_KINDS = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "ReplicationController": ("spec", "template"),
}
SERVING_KINDS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicationController")
_VERSIONS = {
    "ConfigMap": "v1",
    "CronJob": "batch/v1",
    "DaemonSet": "apps/v1",
    "Deployment": "apps/v1",
    "DestinationRule": "networking.istio.io/v1",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "Ingress": "networking.k8s.io/v1",
    "IngressRoute": "traefik.io/v1alpha1",
    "Job": "batch/v1",
    "Pod": "v1",
    "PodDisruptionBudget": "policy/v1",
    "ReplicationController": "v1",
    "Service": "v1",
    "ServiceResolver": "consul.hashicorp.com/v1alpha1",
    "ServiceSplitter": "consul.hashicorp.com/v1alpha1",
    "StatefulSet": "apps/v1",
    "TraefikService": "traefik.io/v1alpha1",
    "VirtualService": "networking.istio.io/v1",
}


def manifest(kind: str, name: str, labels: Mapping[str, str] | None = None, **fields: Any) -> Manifest:  # noqa: ANN401 - of any kind
    metadata: Manifest = {"name": name, "namespace": NAMESPACE}
    if labels:
        metadata["labels"] = dict(labels)
    return {"apiVersion": _VERSIONS[kind], "kind": kind, "metadata": metadata, **fields}


def selector(app: str, track: str) -> dict[str, str]:
    return {"app": app, "version": track}


def labels(app: str, track: str) -> dict[str, str]:
    return selector(app, track) | {"app.kubernetes.io/name": app, "app.kubernetes.io/managed-by": "pulumi"}


def container() -> Manifest:
    return {
        "name": "web",
        "image": IMAGE,
        "ports": [{"name": "http", "containerPort": 8080}],
        "env": [{"name": "LOG_LEVEL", "value": "info"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "lifecycle": {"preStop": {"sleep": {"seconds": 10}}},
    }


def pod(app: str, track: str) -> Manifest:
    return {
        "metadata": {"labels": labels(app, track)},
        "spec": {
            "containers": [container()],
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": 40,
        },
    }


def workload(kind: str, name: str, app: str, track: str = "stable") -> Manifest:
    path = POD_KINDS[kind]
    made = manifest(kind, name, labels(app, track))
    if not path:
        made["spec"] = pod(app, track)["spec"]
        return made
    holder = made
    for key in path[:-1]:
        holder = holder.setdefault(key, {})
    holder[path[-1]] = pod(app, track)
    if kind in SERVING_KINDS:
        found = selector(app, track)
        made["spec"] |= {
            "replicas": 4,
            "selector": found if kind == "ReplicationController" else {"matchLabels": found},
        }
    return made


def service(name: str, app: str, track: str) -> Manifest:
    return manifest(
        "Service", name, labels(app, track), spec={"selector": selector(app, track), "ports": [{"port": 80}]}
    )


def ingress(name: str, track: str, backend: str, annotations: Mapping[str, str] | None = None) -> Manifest:
    path = {"path": "/api", "pathType": "Prefix", "backend": {"service": {"name": backend, "port": {"number": 80}}}}
    made = manifest(
        "Ingress",
        name,
        labels("web", track),
        spec={"ingressClassName": "nginx", "rules": [{"host": "shop.example", "http": {"paths": [path]}}]},
    )
    made["metadata"]["annotations"] = dict(annotations or {}) | {"pulumi.com/skipAwait": "true"}
    return made


def valid() -> list[Manifest]:
    return [
        workload("Deployment", "web", "web"),
        workload("Deployment", "web-canary", "web", "canary"),
        service("web", "web", "stable"),
        service("web-canary", "web", "canary"),
        ingress("web", "stable", "web"),
        ingress(
            "web-canary", "canary", "web-canary", {CANARY: "true", WEIGHT: "20", HEADER: "X-Canary", VALUE: "always-me"}
        ),
        manifest(
            "PodDisruptionBudget",
            "web",
            spec={"minAvailable": 3, "selector": {"matchLabels": selector("web", "stable")}},
        ),
        manifest(
            "HorizontalPodAutoscaler",
            "web",
            labels("web", "stable"),
            spec={
                "minReplicas": 4,
                "maxReplicas": 8,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            },
        ),
        manifest("ConfigMap", "web", data={"LOG_LEVEL": "info", "app.yaml": "greeting: hello\n"}),
        *(workload(kind, kind.lower(), kind.lower()) for kind in POD_KINDS if kind != "Deployment"),
        manifest(
            "HTTPRoute",
            "web",
            spec={
                "rules": [
                    {
                        "matches": [{"headers": [{"name": "X-Canary", "value": "true"}]}],
                        "backendRefs": [{"name": "web-canary", "port": 80, "weight": 1}],
                    },
                    {
                        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                        "backendRefs": [
                            {"name": "web", "port": 80, "weight": 80},
                            {"name": "web-canary", "port": 80, "weight": 20},
                        ],
                    },
                ]
            },
        ),
        manifest(
            "VirtualService",
            "web",
            spec={
                "hosts": ["web"],
                "http": [
                    {
                        "match": [{"headers": {"x-canary": {"exact": "true"}}}],
                        "route": [{"destination": {"host": "web-canary"}}],
                    },
                    {
                        "route": [
                            {"destination": {"host": "web"}, "weight": 80},
                            {"destination": {"host": "web-canary"}, "weight": 20},
                        ]
                    },
                ],
            },
        ),
        manifest(
            "TraefikService",
            "web",
            spec={
                "weighted": {
                    "services": [
                        {"name": "web", "port": 80, "weight": 80},
                        {"name": "web-canary", "port": 80, "weight": 20},
                    ]
                }
            },
        ),
        manifest(
            "IngressRoute",
            "web",
            spec={
                "routes": [
                    {"match": "Host(`a`) && Header(`X-Canary`, `true`)", "services": [{"name": "web-canary"}]},
                    {"match": "Host(`a`)", "services": [{"name": "web", "kind": "TraefikService"}]},
                ]
            },
        ),
        manifest(
            "ServiceSplitter",
            "api",
            spec={
                "splits": [
                    {"weight": 80, "serviceSubset": "stable"},
                    {"weight": 20, "serviceSubset": "canary"},
                ]
            },
        ),
    ]


def token(found: Mapping[str, Any]) -> str:
    version = found["apiVersion"]
    return f"kubernetes:{version if '/' in version else f'core/{version}'}:{found['kind']}"


def objects(manifests: Iterable[Manifest]) -> list[Object]:
    return [made for found in manifests for made in objects_of(token(found), "resource", found)]


def findings(manifests: Sequence[Manifest], config: Mapping[str, Mapping[str, Any]] = CONFIG) -> list[str]:
    """Return `rule: Kind name` for each rule and object that breaks it, sorted."""
    found = {
        f"{rule.name}: {finding.object.kind} {finding.object.name}"
        for rule in RULES
        for finding in rule.findings(objects(manifests), rule.configured(config.get(rule.name, {})))
    }
    return sorted(found)


def named(manifests: Sequence[Manifest], title: str) -> Manifest:
    """Return the manifest with this kind and name, as in `Service web`."""
    (found,) = [each for each in manifests if f"{each['kind']} {each['metadata']['name']}" == title]
    return found


REMOVED = object()
"""As a value: the key goes."""


def changed(manifests: Sequence[Manifest], title: str, *changes: tuple[tuple[str | int, ...], Any]) -> list[Manifest]:
    """Return the manifests with other values at paths of one of them."""
    result = deepcopy(list(manifests))
    for path, value in changes:
        holder: Any = named(result, title)
        for key in path[:-1]:
            holder = holder.setdefault(key, {}) if isinstance(holder, dict) else holder[key]
        if value is REMOVED:
            del holder[path[-1]]
        elif path[-1] == "+":
            holder.append(deepcopy(value))
        else:
            holder[path[-1]] = deepcopy(value)
    return result
