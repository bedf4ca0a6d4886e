"""The objects of one track, as the API server takes them: what runs, its configuration, its scale and its Service."""

import json
import re
from base64 import b64encode
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from hashlib import sha256
from typing import Any, Final, Literal

from canary_service.config.settings import EnvFrom, Probe, Settings
from canary_service.routing.router import Manifest
from canary_service.routing.split import Track
from canary_service.workload.labels import labels, object_name, selector

# Time for requests in flight after the drain, before the kubelet kills: Kubernetes' own default grace period.
GRACE_AFTER_DRAIN_SECONDS: Final = 30

CONTAINER_PORT_NAME: Final = "http"

_HASH_DIGITS: Final = 10

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
    annotations = settings.router_of_stack().pod_annotations(name, track)
    template: Manifest = {
        "metadata": {"labels": labels_of(settings, name, track, part_of)}
        | ({"annotations": annotations} if annotations else {}),
        "spec": _pod(settings, name, track),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(settings, name, track, part_of),
        "spec": {
            # With an autoscaler, what a new Deployment begins with: without a number it would be one pod.
            "replicas": settings.replicas_of(name, track),
            # A pod that crashes right after it was ready does not take the place of a good one.
            "minReadySeconds": service.min_ready_seconds,
            "progressDeadlineSeconds": service.ready_timeout_seconds + service.min_ready_seconds,
            "selector": {"matchLabels": _selector(settings, name, track)},
            # A new pod is ready before an old one is told to end: capacity never falls below what is declared.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
            "template": merged(template, service.pod_template_patch),
        },
    }


def service(settings: Settings, name: str, track: Track, part_of: str) -> Manifest:
    """Return the Service of one track, which selects the pods of that track only."""
    exposed = settings.services[name]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(settings, name, track, part_of),
        "spec": {
            "selector": _selector(settings, name, track),
            "ports": [
                # By number: pods made by hand, whose ports may have other names, serve on while they are taken over.
                {"port": settings.service_port_of(name), "targetPort": exposed.port, "protocol": "TCP"}
                | ({"name": exposed.port_name} if exposed.port_name else {})
            ],
        },
    }


def configurations(settings: Settings, name: str, track: Track, part_of: str) -> list[Manifest]:
    """Return the ConfigMap and the Secret of one track, as far as there is content for them.

    Their names hold a hash of the content: what changes it rolls the pods, each track keeps its own, and rolling back
    a track rolls back its configuration. The Secret's `data` is the plain content in base64.
    """
    return [
        {
            "apiVersion": "v1",
            "kind": found.kind,
            "metadata": _metadata(settings, name, track, part_of) | {"name": found.name},
            "immutable": True,
            **found.body,
        }
        for found in _contents(settings, name, track)
    ]


def configurations_used(replica_set: Manifest, owner: str) -> set[tuple[str, str]]:
    """Return kind and name of each ConfigMap and Secret that was made for `owner`, a track, and that its pods use."""
    pod = replica_set["spec"]["template"]["spec"]
    sources = [source for container in pod["containers"] for source in container.get("envFrom") or ()]
    volumes = pod.get("volumes") or ()
    references = [("ConfigMap", (source.get("configMapRef") or {}).get("name")) for source in sources]
    references += [("Secret", (source.get("secretRef") or {}).get("name")) for source in sources]
    references += [("ConfigMap", (volume.get("configMap") or {}).get("name")) for volume in volumes]
    references += [("Secret", (volume.get("secret") or {}).get("secretName")) for volume in volumes]
    ours = re.compile(rf"{re.escape(owner)}-[0-9a-f]{{{_HASH_DIGITS}}}")
    return {(kind, name) for kind, name in references if name and ours.fullmatch(name)}


def autoscaler(settings: Settings, name: str, track: Track, part_of: str) -> Manifest | None:
    """Return the HorizontalPodAutoscaler of one track, if one is asked for.

    The canary begins with stable's least number times its weight and may grow to stable's most: at weight 100 it
    takes everything.
    """
    scaling = settings.services[name].autoscaling
    if scaling is None:
        return None
    metric = {"type": "Utilization", "averageUtilization": scaling.target_cpu_percent}
    spec: Manifest = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": object_name(name, track)},
        "minReplicas": settings.replicas_of(name, track),
        "maxReplicas": scaling.max_replicas,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": metric}}],
    }
    if track is Track.STABLE:
        # Stable has to be able to take everything back, although the canary takes its load (argo-rollouts #2857, #3849,
        # #4369); and when the canary has gone, the load must have come back before the pods for it are gone.
        spec["behavior"] = {
            "scaleDown": {"selectPolicy": "Disabled"}
            if settings.services[name].canary
            else {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
        }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _metadata(settings, name, track, part_of),
        "spec": spec,
    }


def disruption_budget(settings: Settings, name: str, track: Track, part_of: str) -> Manifest | None:
    """Return the PodDisruptionBudget of one track, if one is asked for."""
    budget = settings.services[name].disruption_budget
    if budget is None:
        return None
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(settings, name, track, part_of),
        "spec": {
            "maxUnavailable": budget.max_unavailable,
            "selector": {"matchLabels": _selector(settings, name, track)},
            # A pod that is not ready serves nobody, and several of them would block the drain of a node for good.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def labels_of(settings: Settings, name: str, track: Track, part_of: str) -> dict[str, str]:
    """Return the labels of every object of one track."""
    return labels(name, track, settings.image_of(name, track), part_of, settings.app_label_of(name, track))


def _selector(settings: Settings, name: str, track: Track) -> dict[str, str]:
    return selector(settings.app_label_of(name, track), track)


def _metadata(settings: Settings, name: str, track: Track, part_of: str) -> Manifest:
    return {
        "name": object_name(name, track),
        "namespace": settings.namespace,
        "labels": labels_of(settings, name, track, part_of),
    }


@dataclass(frozen=True, slots=True)
class _Content:
    """What one ConfigMap or Secret holds, and where its pods find it."""

    kind: Literal["ConfigMap", "Secret"]
    data: dict[str, str]
    owner: str
    mount_path: str | None

    @property
    def name(self) -> str:
        canonical = json.dumps([self.kind, self.data], sort_keys=True, separators=(",", ":"))
        return f"{self.owner}-{sha256(canonical.encode()).hexdigest()[:_HASH_DIGITS]}"

    @property
    def body(self) -> Manifest:
        if self.kind == "ConfigMap":
            return {"data": self.data}
        return {
            "type": "Opaque",
            "data": {key: b64encode(value.encode()).decode() for key, value in self.data.items()},
        }

    @property
    def env_from(self) -> Manifest:
        return {"configMapRef" if self.kind == "ConfigMap" else "secretRef": {"name": self.name}}

    @property
    def volume(self) -> Manifest:
        source: Manifest = (
            {"configMap": {"name": self.name}} if self.kind == "ConfigMap" else {"secret": {"secretName": self.name}}
        )
        return {"name": self.kind.lower()} | source


def _contents(settings: Settings, name: str, track: Track) -> list[_Content]:
    service, owner = settings.services[name], object_name(name, track)
    config, secret = service.config_map, service.secret
    contents = (
        _Content("ConfigMap", settings.config_of(name, track), owner, config.mount_path if config else None),
        _Content("Secret", settings.secret_of(name, track), owner, secret.mount_path if secret else None),
    )
    return [content for content in contents if content.data]


def _pod(settings: Settings, name: str, track: Track) -> Manifest:
    service = settings.services[name]
    env = service.env | (service.canary.env if service.canary and track is Track.CANARY else {})
    container: Manifest = {
        "name": name,
        "image": settings.image_of(name, track),
        "ports": [{"name": CONTAINER_PORT_NAME, "containerPort": service.port, "protocol": "TCP"}],
        "resources": {"requests": service.resources.requests, "limits": service.resources.limits},
        "readinessProbe": _probe(service.probes.readiness),
        "livenessProbe": _probe(service.probes.liveness),
        "securityContext": deepcopy(RESTRICTED_CONTAINER),
    }
    if env:
        container["env"] = [{"name": key, "value": value} for key, value in sorted(env.items())]
    contents = _contents(settings, name, track)
    variables = [content.env_from for content in contents if content.mount_path is None]
    if sources := [_env_from(source) for source in service.env_from] + variables:
        container["envFrom"] = sources
    if service.drain_seconds:
        # A pod that is told to end serves on until every router has noticed.
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": service.drain_seconds}}}
    pod: Manifest = {
        "containers": [container],
        "securityContext": deepcopy(RESTRICTED_POD),
        "terminationGracePeriodSeconds": service.drain_seconds + GRACE_AFTER_DRAIN_SECONDS,
        # Always said: removed, it would be filled in again from the deprecated `serviceAccount` beside it.
        "serviceAccountName": service.service_account_name or "default",
        # A pod that names no account has no business with the API server.
        "automountServiceAccountToken": service.service_account_name is not None,
    }
    if service.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret} for secret in service.image_pull_secrets]
    if service.node_selector:
        pod["nodeSelector"] = service.node_selector
    if files := [content for content in contents if content.mount_path]:
        pod["volumes"] = [content.volume for content in files]
        container["volumeMounts"] = [
            {"name": content.volume["name"], "mountPath": content.mount_path, "readOnly": True} for content in files
        ]
    return pod


def _probe(probe: Probe) -> Manifest:
    action: Manifest = (
        {"tcpSocket": {"port": CONTAINER_PORT_NAME}}
        if probe.path is None
        else {"httpGet": {"path": probe.path, "port": CONTAINER_PORT_NAME}}
    )
    times = {
        "periodSeconds": probe.period_seconds,
        "timeoutSeconds": probe.timeout_seconds,
        "failureThreshold": probe.failure_threshold,
    }
    if probe.initial_delay_seconds:  # the API server drops 0, and what it drops looks as if it was taken from us
        times["initialDelaySeconds"] = probe.initial_delay_seconds
    return action | times


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
    # A name may stand there twice: a volume that is mounted at two places.
    names = {item["name"] for item in base}
    known = [reduce(merged, (p for p in patch if p["name"] == item["name"]), item) for item in base]
    return known + [item for item in patch if item["name"] not in names]
