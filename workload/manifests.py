"""The Deployment and the Service of one track, as the API server takes them."""

from copy import deepcopy
from typing import Any, Final

from config.settings import CanarySettings, EnvFrom, Probe, ServiceSettings, Settings
from routing.router import Manifest
from routing.split import Track
from workload.labels import labels, object_name, selector

PORT_NAME: Final = "http"

# Time for requests in flight after the drain, before the kubelet kills: Kubernetes' own default grace period.
GRACE_AFTER_DRAIN_SECONDS: Final = 30

# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
RESTRICTED_POD: Final[Manifest] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
RESTRICTED_CONTAINER: Final[Manifest] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}


def namespace(name: str) -> Manifest:
    """Return the Namespace, in which the API server enforces the restricted Pod Security Standard."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }


def deployment(settings: Settings, name: str, track: Track, part_of: str) -> Manifest:
    """Return the Deployment of one track of a service."""
    service = settings.services[name]
    canary = service.canary if track is Track.CANARY else None
    image = settings.image_of(name, track)
    replicas = settings.canary_replicas_of(name) if canary else service.replicas
    all_labels = labels(name, track, image, part_of)
    template: Manifest = {
        "metadata": {"labels": all_labels},
        "spec": _pod(name, service, canary, image),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(settings, name, track, all_labels),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": selector(name, track)},
            # A new pod is ready before an old one is told to end: capacity never falls below what is declared.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
            "template": merged(template, service.pod_template_patch),
        },
    }


def service(settings: Settings, name: str, track: Track, part_of: str) -> Manifest:
    """Return the Service of one track, which selects the pods of that track only."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(settings, name, track, labels(name, track, settings.image_of(name, track), part_of)),
        "spec": {
            "selector": selector(name, track),
            "ports": [
                {"name": PORT_NAME, "port": settings.services[name].port, "targetPort": PORT_NAME, "protocol": "TCP"}
            ],
        },
    }


def _metadata(settings: Settings, name: str, track: Track, all_labels: dict[str, str]) -> Manifest:
    return {"name": object_name(name, track), "namespace": settings.namespace, "labels": all_labels}


def _pod(name: str, service: ServiceSettings, canary: CanarySettings | None, image: str) -> Manifest:
    env = service.env | (canary.env if canary else {})
    container: Manifest = {
        "name": name,
        "image": image,
        "ports": [{"name": PORT_NAME, "containerPort": service.port, "protocol": "TCP"}],
        "resources": {"requests": service.resources.requests, "limits": service.resources.limits},
        "readinessProbe": _probe(service.probes.readiness),
        "livenessProbe": _probe(service.probes.liveness),
        "securityContext": deepcopy(RESTRICTED_CONTAINER),
    }
    if env:
        container["env"] = [{"name": key, "value": value} for key, value in sorted(env.items())]
    if service.env_from:
        container["envFrom"] = [_env_from(source) for source in service.env_from]
    if service.drain_seconds:
        # A pod that is told to end serves on until every router has noticed.
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": service.drain_seconds}}}
    pod: Manifest = {
        "containers": [container],
        "securityContext": deepcopy(RESTRICTED_POD),
        "terminationGracePeriodSeconds": service.drain_seconds + GRACE_AFTER_DRAIN_SECONDS,
        # A pod that names no account has no business with the API server.
        "automountServiceAccountToken": service.service_account_name is not None,
    }
    if service.service_account_name:
        pod["serviceAccountName"] = service.service_account_name
    if service.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret} for secret in service.image_pull_secrets]
    if service.node_selector:
        pod["nodeSelector"] = service.node_selector
    return pod


def _probe(probe: Probe) -> Manifest:
    action: Manifest = (
        {"tcpSocket": {"port": PORT_NAME}}
        if probe.path is None
        else {"httpGet": {"path": probe.path, "port": PORT_NAME}}
    )
    return action | {
        "initialDelaySeconds": probe.initial_delay_seconds,
        "periodSeconds": probe.period_seconds,
        "timeoutSeconds": probe.timeout_seconds,
        "failureThreshold": probe.failure_threshold,
    }


def _env_from(source: EnvFrom) -> Manifest:
    return source.model_dump(by_alias=True, exclude_none=True)


def merged(base: Manifest, patch: Manifest) -> Manifest:
    """Return base with the patch merged into it.

    Maps merge by key and null removes a key (RFC 7386); lists of objects with a `name` merge by it, as containers,
    volumes and ports do in Kubernetes' strategic merge; other lists are replaced.
    """
    result = dict(base)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            known = result.get(key)
            result[key] = merged(known if isinstance(known, dict) else {}, value)
        elif _named(value) and _named(result.get(key)):
            result[key] = _merged_by_name(result[key], value)
        else:
            result[key] = value
    return result


def _named(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and "name" in item for item in value)


def _merged_by_name(base: list[Any], patch: list[Any]) -> list[Any]:
    patches = {item["name"]: item for item in patch}
    known = [merged(item, patches.pop(item["name"], {})) for item in base]
    return known + list(patches.values())
