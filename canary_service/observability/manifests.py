"""The objects that watch a stack's services, as the API server takes them."""

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from canary_service.config.settings import Settings
from canary_service.observability.rules import groups
from canary_service.routing.router import Manifest
from canary_service.routing.split import Track
from canary_service.workload.labels import MANAGED_BY

API_VERSION: Final = "monitoring.coreos.com/v1"
"""Of the Prometheus operator's kinds."""

SCRAPE_SECONDS: Final = 15
"""The time between two scrapes of a pod: four samples in the shortest window of the rules."""

_DASHBOARD: Final = Path(__file__).with_name("dashboard.json")
_NAME_LENGTH: Final = 40
"""Grafana takes no longer uid of a dashboard."""
_HASH_DIGITS: Final = 8


def monitoring_name(project: str, stack: str) -> str:
    """Return the name that the monitoring objects of a stack share, of which there may be several in a namespace.

    It is PROJECT-STACK, with a hash where that is no name of an object or could be another stack's too.
    """
    name = re.sub(r"[^a-z0-9]+", "-", f"{project}-{stack}".lower()).strip("-")
    if name == f"{project}-{stack}" and "-" not in stack and len(name) <= _NAME_LENGTH:
        return name
    digits = sha256(f"{project}/{stack}".encode()).hexdigest()[:_HASH_DIGITS]
    return f"{name[: _NAME_LENGTH - _HASH_DIGITS - 1].strip('-')}-{digits}".strip("-")


def pod_monitor(settings: Settings, name: str, part_of: str) -> Manifest:
    """Return the PodMonitor that has the metrics of all services' pods collected, of both tracks.

    What is collected has the labels `app` and `version` of its pod, whatever the application itself says.
    """
    relabelings: list[Manifest] = [
        {"sourceLabels": ["__meta_kubernetes_pod_label_app"], "targetLabel": "app"},
        # Pods of others have no such label, or one that is a version of the software.
        {"targetLabel": "version", "replacement": Track.STABLE.value},
        {
            "sourceLabels": ["__meta_kubernetes_pod_label_version"],
            "regex": Track.CANARY.value,
            "targetLabel": "version",
            "replacement": Track.CANARY.value,
        },
    ]
    if attached := [name for name, service in settings.services.items() if service.stable == "existing"]:
        regex = f"({'|'.join(attached)})-{Track.CANARY}"
        relabelings.append({"sourceLabels": ["app"], "regex": regex, "targetLabel": "app", "replacement": "$1"})
    endpoint = {
        "port": settings.monitoring.metrics_port,
        "path": settings.monitoring.metrics_path,
        "interval": f"{SCRAPE_SECONDS}s",
        "relabelings": relabelings,
        "metricRelabelings": [{"action": "labeldrop", "regex": "exported_(?:app|version)"}],
    }
    apps = sorted({settings.app_label_of(service, track) for service in settings.services for track in Track})
    spec = {
        "selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": apps}]},
        "podMetricsEndpoints": [endpoint],
    }
    return _object(settings, API_VERSION, "PodMonitor", name, part_of) | {"spec": spec}


def prometheus_rule(settings: Settings, name: str, part_of: str) -> Manifest:
    """Return the PrometheusRule with all rules of the stack."""
    spec = {"groups": groups(settings, name)}
    return _object(settings, API_VERSION, "PrometheusRule", name, part_of) | {"spec": spec}


def dashboard(settings: Settings, name: str, part_of: str) -> Manifest:
    """Return the ConfigMap from which Grafana's sidecar takes the dashboard."""
    content: dict[str, Any] = json.loads(_DASHBOARD.read_text(encoding="utf-8"))
    content |= {"uid": name, "title": settings.monitoring.dashboard_title or f"{part_of} services"}
    for variable in content["templating"]["list"]:
        if variable["name"] == "namespace":
            variable["current"] = {"text": settings.namespace, "value": settings.namespace}
    made = _object(settings, "v1", "ConfigMap", name, part_of)
    made["metadata"]["labels"] |= settings.monitoring.dashboard_labels
    return made | {"data": {f"{name}.json": json.dumps(content, separators=(",", ":"))}}


def _object(settings: Settings, api_version: str, kind: str, name: str, part_of: str) -> Manifest:
    labels = {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/component": "monitoring",
        "app.kubernetes.io/part-of": part_of,
        "app.kubernetes.io/managed-by": MANAGED_BY,
    }
    # Of the dashboard, Grafana has its own; the others are found by the labels that the Prometheus object selects.
    labels |= {} if kind == "ConfigMap" else settings.monitoring.labels
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": settings.namespace, "labels": labels},
    }
