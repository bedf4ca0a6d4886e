"""The scrape jobs that the Prometheus operator makes of PodMonitors and ServiceMonitors.

As pkg/prometheus/promcfg.go of prometheus-operator 0.93 (generatePodMonitorConfig, generateServiceMonitorConfig), but
for what answering pods have no use for (TLS, credentials, HTTP proxies, limits, shards), and for the discovery: the
selection of namespaces is a relabeling, too.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.discovery import POD_PATH, SERVICE_PATH, sanitized

INTERVAL = "1s"
"""How often is scraped and evaluated what names no interval. The operator's default is 30 s, for which nobody wants to
wait here."""

Relabeling = dict[str, Any]
Object = Mapping[str, Any]

_COPIED = {
    "interval": "scrape_interval",
    "scrapeTimeout": "scrape_timeout",
    "path": "metrics_path",
    "params": "params",
    "scheme": "scheme",
    "honorTimestamps": "honor_timestamps",
    "trackTimestampsStaleness": "track_timestamps_staleness",
    "followRedirects": "follow_redirects",
}
"""Fields of an endpoint, and what they are called in a scrape job."""

_ENDPOINT_FIELDS = {
    *_COPIED,
    *("honorLabels", "port", "portNumber", "targetPort", "filterRunning", "relabelings", "metricRelabelings"),
}
_MONITOR_FIELDS = {
    *("selector", "namespaceSelector", "podMetricsEndpoints", "endpoints"),
    *("jobLabel", "podTargetLabels", "targetLabels"),
}


@dataclass(frozen=True)
class _Kind:
    """What makes the two kinds of monitors differ."""

    prefix: str
    endpoints: str
    path: str
    """Where targets are found."""
    selected: str
    """Whose labels the selector, jobLabel and targetLabels are about."""
    port_name: str
    identity: Sequence[Relabeling]
    job: Callable[[Object], Relabeling]


_POD_IDENTITY = (
    {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
    {"source_labels": ["__meta_kubernetes_pod_container_name"], "target_label": "container"},
    {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
)
_KINDS = {
    "PodMonitor": _Kind(
        prefix="podMonitor",
        endpoints="podMetricsEndpoints",
        path=POD_PATH,
        selected="pod",
        port_name="__meta_kubernetes_pod_container_port_name",
        identity=_POD_IDENTITY,
        job=lambda metadata: {"target_label": "job", "replacement": f"{metadata['namespace']}/{metadata['name']}"},
    ),
    "ServiceMonitor": _Kind(
        prefix="serviceMonitor",
        endpoints="endpoints",
        path=SERVICE_PATH,
        selected="service",
        port_name="__meta_kubernetes_endpointslice_port_name",
        identity=(*_POD_IDENTITY, {"source_labels": ["__meta_kubernetes_service_name"], "target_label": "service"}),
        job=lambda _: {"source_labels": ["__meta_kubernetes_service_name"], "target_label": "job"},
    ),
}


def scrape_jobs(monitor: Object, discovery_url: str) -> list[dict[str, Any]]:
    """Return a job for each endpoint of a monitor; targets are found at an URL (sandbox.discovery)."""
    kind = _KINDS[monitor["kind"]]
    endpoints = monitor["spec"].get(kind.endpoints) or ()
    return [_job(monitor, kind, endpoint, number, discovery_url) for number, endpoint in enumerate(endpoints)]


def left_out(monitor: Object) -> list[str]:
    """Name the fields of a monitor that its jobs do not heed."""
    spec, endpoints = monitor["spec"], _KINDS[monitor["kind"]].endpoints
    return [
        *(f"spec.{name}" for name in spec if name not in _MONITOR_FIELDS),
        *(
            f"spec.{endpoints}[{number}].{name}"
            for number, endpoint in enumerate(spec.get(endpoints) or ())
            for name in endpoint
            if name not in _ENDPOINT_FIELDS
        ),
    ]


def _job(monitor: Object, kind: _Kind, endpoint: Object, number: int, discovery_url: str) -> dict[str, Any]:
    metadata = monitor["metadata"]
    return {
        "job_name": f"{kind.prefix}/{metadata['namespace']}/{metadata['name']}/{number}",
        "scrape_interval": INTERVAL,
        "honor_labels": endpoint.get("honorLabels", False),
        "http_sd_configs": [{"url": discovery_url + kind.path, "refresh_interval": INTERVAL}],
        "relabel_configs": list(_relabelings(monitor, kind, endpoint)),
        "metric_relabel_configs": list(map(_as_configured, endpoint.get("metricRelabelings") or ())),
        **{name: endpoint[field] for field, name in _COPIED.items() if field in endpoint},
    }


def _relabelings(monitor: Object, kind: _Kind, endpoint: Object) -> Iterator[Relabeling]:
    spec = monitor["spec"]
    namespaces = spec.get("namespaceSelector") or {}
    if not namespaces.get("any"):
        names = namespaces.get("matchNames") or [monitor["metadata"]["namespace"]]
        yield _keep(["__meta_kubernetes_namespace"], "|".join(names))
    yield {"source_labels": ["job"], "target_label": "__tmp_prometheus_job_name"}
    if endpoint.get("filterRunning", True):
        yield {
            "action": "drop",
            "source_labels": ["__meta_kubernetes_pod_phase"],
            "regex": "(Failed|Succeeded)",
        }
    yield from _selection(spec.get("selector") or {}, kind.selected)
    port, number = endpoint.get("port"), endpoint.get("portNumber")
    target_port = endpoint.get("targetPort")
    if port:
        yield _keep([kind.port_name], port)
    elif number or isinstance(target_port, int):
        yield _keep(["__meta_kubernetes_pod_container_port_number"], str(number or target_port))
    elif target_port:
        yield _keep(["__meta_kubernetes_pod_container_port_name"], target_port)
    yield from kind.identity
    for labels, owner in ((spec.get("targetLabels"), "service"), (spec.get("podTargetLabels"), "pod")):
        for label in labels or ():
            yield _copy_label(owner, label, sanitized(label))
    yield kind.job(monitor["metadata"])
    if spec.get("jobLabel"):
        yield _copy_label(kind.selected, spec["jobLabel"], "job")
    if port or target_port:
        yield {"target_label": "endpoint", "replacement": port or str(target_port)}
    yield from map(_as_configured, endpoint.get("relabelings") or ())


def _selection(selector: Object, selected: str) -> Iterator[Relabeling]:
    for label, value in sorted((selector.get("matchLabels") or {}).items()):
        yield _keep(_label_of(selected, label), f"({value});true")
    for expression in selector.get("matchExpressions") or ():
        label, operator = _label_of(selected, expression["key"]), expression["operator"]
        values = f"({'|'.join(expression.get('values') or ())});true"
        if operator in ("In", "NotIn"):
            yield {"action": "keep" if operator == "In" else "drop", "source_labels": label, "regex": values}
        else:
            action = "keep" if operator == "Exists" else "drop"
            yield {"action": action, "source_labels": label[1:], "regex": "true"}


def _keep(source_labels: list[str], regex: str) -> Relabeling:
    return {"action": "keep", "source_labels": source_labels, "regex": regex}


def _label_of(selected: str, label: str) -> list[str]:
    name = sanitized(label)
    return [f"__meta_kubernetes_{selected}_label_{name}", f"__meta_kubernetes_{selected}_labelpresent_{name}"]


def _copy_label(owner: str, label: str, target: str) -> Relabeling:
    return {"source_labels": _label_of(owner, label)[:1], "target_label": target, "regex": "(.+)"}


def _as_configured(relabeling: Object) -> Relabeling:
    """Return a relabeling in the words of Prometheus: `sourceLabels` is `source_labels`, actions are in lower case."""
    words = {re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", key): value for key, value in relabeling.items()}
    return words | ({"action": words["action"].lower()} if "action" in words else {})
