"""The queries that everything which looks at metrics shares. Pure data: nothing is asked here.

Rates are per second, ratios and shares from 0 to 1, latencies in seconds. Where nothing was counted there is no series:
no 0, which would be a good result, and no NaN, which is neither above nor below any limit.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

WINDOW: Final = "5m"
"""Over this time rates are averaged: long enough for several scrapes, short enough to follow a shift."""

SERVICE: Final = "app"
"""The label that names the service in every result."""

TRACK: Final = "version"
"""The label that is `stable` or `canary` in every result by track."""

BUCKET: Final = "le"
"""The label of a histogram's buckets: the upper bound."""

TARGET: Final = ("pod", "instance")
"""The labels that tell apart who counts: a target that starts again begins at 0, and the others do not."""

_BY_TARGET: Final = ", ".join((SERVICE, TRACK, *TARGET))


@dataclass(frozen=True, slots=True)
class Relabel:
    """Sets label `target` to `value` where the whole of label `source` matches `pattern`; `$1` is its first group.

    `SERVICES` in the pattern stands for the names of the services as alternatives, `NAMESPACE` for the namespace.
    """

    target: str
    value: str
    source: str
    pattern: str


@dataclass(frozen=True, slots=True)
class MetricSource:
    """Who counts requests, and by which names.

    Args:
        requests: the counter of answered requests.
        failed: matches those of them that failed.
        duration: the histogram of response times.
        selector: matches the series of the services, with the placeholders of `Relabel`.
        relabels: make the labels of results, in this order, from those of the source.
        unit: of the histogram, in seconds.
        in_pods: who counts are the pods that answer, and not a router in front of them.
        up: matches `up` of the targets where it has the labels of the counts: one that is scraped and has answered
            nothing has no other series.
        counts_copies: of requests that are mirrored to the canary, too, as answered by it.
    """

    requests: str
    failed: str
    duration: str
    selector: str
    relabels: tuple[Relabel, ...] = ()
    unit: float = 1.0
    in_pods: bool = False
    up: str = ""
    counts_copies: bool = True


@dataclass(frozen=True, slots=True)
class Scope:
    """The services, by name, of one namespace."""

    namespace: str
    services: tuple[str, ...]

    def resolved(self, text: str) -> str:
        """Put namespace and names in place of their placeholders."""
        # DNS labels, in which nothing has a meaning for a regular expression.
        return text.replace("NAMESPACE", self.namespace).replace("SERVICES", "|".join(self.services))


def _of_workload(label: str) -> tuple[Relabel, ...]:
    """Read service and track off the name of a Deployment, NAME or NAME-canary."""
    return (
        Relabel(SERVICE, "$1", label, "(SERVICES)(?:-canary)?"),
        Relabel(TRACK, "stable", label, "SERVICES"),
        Relabel(TRACK, "canary", label, "(?:SERVICES)-canary"),
    )


# The application's own metrics, of which only `status` need be a label: the PodMonitor, or the scrape configuration of
# docs/monitoring.md, takes `app` and `version` from the labels of the pods, and `namespace` from where they are.
APPLICATION: Final = MetricSource(
    requests="http_requests_total",
    failed='status=~"5.."',
    duration="http_request_duration_seconds",
    selector='namespace="NAMESPACE",app=~"SERVICES"',
    in_pods=True,
    up='namespace="NAMESPACE",app=~"SERVICES"',
)

# `ingress` and `service` are stable's for the canary's requests too; `canary` alone tells them, as
# NAMESPACE-SERVICE-PORT, and is empty for stable's (rootfs/etc/nginx/lua/monitor.lua, v1.15.1). The metrics have a
# `namespace` of their own, which a ServiceMonitor lets through with honorLabels only. The durations are seconds,
# although their help text says milliseconds. With --report-status-classes the status is `5xx`.
_NGINX: Final = MetricSource(
    requests="nginx_ingress_controller_requests",
    failed='status=~"5.."',
    duration="nginx_ingress_controller_request_duration_seconds",
    selector='namespace="NAMESPACE",ingress=~"SERVICES"',
    relabels=(
        Relabel(SERVICE, "$1", "ingress", "(.+)"),
        Relabel(TRACK, "stable", "canary", ""),
        Relabel(TRACK, "canary", "canary", ".+"),
    ),
)

# What Traefik calls a service depends on the provider that read it: of Ingresses NAMESPACE-INGRESS-SERVICE-PORT, with
# -canary at the end for the canary's; of its own resources and of Gateway API routes NAMESPACE-SERVICE-PORT, for the
# latter after the route's name and -svc-.
_TRAEFIK_INGRESS: Final = "NAMESPACE-(?:SERVICES)-(SERVICES)-[0-9]+(?:-canary)?@kubernetesingressnginx"
_TRAEFIK_RESOURCE: Final = "(?:.*-svc-)?NAMESPACE-(SERVICES)(?:-canary)?-[0-9]+@kubernetes(?:crd|gateway)"
_TRAEFIK: Final = MetricSource(
    requests="traefik_service_requests_total",
    failed='code=~"5.."',
    duration="traefik_service_request_duration_seconds",
    selector=f'service=~"{_TRAEFIK_INGRESS}|{_TRAEFIK_RESOURCE}"',
    relabels=(
        Relabel(SERVICE, "$1", "service", _TRAEFIK_INGRESS),
        Relabel(SERVICE, "$1", "service", _TRAEFIK_RESOURCE),
        Relabel(TRACK, "stable", "service", ".*"),
        Relabel(TRACK, "canary", "service", ".*-canary(?:-[0-9]+)?@.*"),
    ),
)

# https://istio.io/latest/docs/reference/config/metrics/. Counted where requests arrive; at the gateway alone it would
# be reporter="source".
_ISTIO: Final = MetricSource(
    requests="istio_requests_total",
    failed='response_code=~"5.."',
    duration="istio_request_duration_milliseconds",
    selector='reporter="destination",destination_workload_namespace="NAMESPACE",'
    'destination_workload=~"(?:SERVICES)(?:-canary)?"',
    relabels=_of_workload("destination_workload"),
    unit=1e-3,
    in_pods=True,
)

# https://linkerd.io/2/reference/proxy-metrics/: counted by the proxies of the pods that answer; a failure is what
# Linkerd takes for one, which without a ServiceProfile is 5xx.
_LINKERD: Final = MetricSource(
    requests="response_total",
    failed='classification="failure"',
    duration="response_latency_ms",
    selector='direction="inbound",namespace="NAMESPACE",deployment=~"(?:SERVICES)(?:-canary)?"',
    relabels=_of_workload("deployment"),
    unit=1e-3,
    in_pods=True,
)

# With mergeBackends in its EnvoyProxy, Envoy Gateway has a cluster for each Service, named
# service/NAMESPACE/NAME/PORT/PROTOCOL. Without it, one cluster is both backends of a rule, and no metric tells them
# apart (v1.9.0: irBackendClusterName in internal/gatewayapi/helpers.go, NeedsClusterPerSetting in internal/ir/xds.go).
_ENVOY_CLUSTER: Final = "service/NAMESPACE/(SERVICES)"
_ENVOY: Final = MetricSource(
    requests="envoy_cluster_upstream_rq_xx",
    failed='envoy_response_code_class="5"',
    duration="envoy_cluster_upstream_rq_time",
    selector=f'envoy_cluster_name=~"{_ENVOY_CLUSTER}(?:-canary)?/[0-9]+(?:/.*)?"',
    relabels=(
        Relabel(SERVICE, "$1", "envoy_cluster_name", f"{_ENVOY_CLUSTER}(?:-canary)?/.*"),
        Relabel(TRACK, "stable", "envoy_cluster_name", f"{_ENVOY_CLUSTER}/.*"),
        Relabel(TRACK, "canary", "envoy_cluster_name", f"{_ENVOY_CLUSTER}-canary/.*"),
    ),
    unit=1e-3,
    # Copies go to a cluster of their own, rule/N-mirror-N
    # (processRequestMirrorFilter in internal/gatewayapi/filters.go).
    counts_copies=False,
)

# Counted by the sidecars of the clients. A name of a service holds for all namespaces, as in Consul itself.
_CONSUL: Final = MetricSource(
    requests="envoy_cluster_upstream_rq_xx",
    failed='envoy_response_code_class="5"',
    duration="envoy_cluster_upstream_rq_time",
    selector='consul_destination_service=~"SERVICES",consul_destination_service_subset=~"stable|canary"',
    relabels=(
        Relabel(SERVICE, "$1", "consul_destination_service", "(.+)"),
        Relabel(TRACK, "$1", "consul_destination_service_subset", "(.+)"),
    ),
    unit=1e-3,
)

SOURCES: Final[Mapping[str, MetricSource]] = MappingProxyType(
    {
        "application": APPLICATION,
        "nginx": _NGINX,
        "traefik": _TRAEFIK,
        "istio": _ISTIO,
        "linkerd": _LINKERD,
        "envoy": _ENVOY,
        "consul": _CONSUL,
    }
)
"""Who can count requests, by the name that `monitoring.source` takes."""


def request_rate(source: MetricSource, namespace: str, services: Iterable[str]) -> str:
    """Return the query for requests per second of each service, both tracks together; one series per service."""
    return f"sum by ({SERVICE}) ({_rates(source, Scope(namespace, tuple(services)), source.requests)})"


def track_rate(source: MetricSource, scope: Scope, window: str = WINDOW) -> str:
    """Return the query for requests per second of each track."""
    return f"sum by ({SERVICE}, {TRACK}) ({_rates(source, scope, source.requests, window)})"


def track_error_ratio(source: MetricSource, scope: Scope, window: str = WINDOW) -> str:
    """Return the query for the part of each track's requests that failed; none without requests."""
    failed = f"sum by ({SERVICE}, {TRACK}) ({_rates(source, scope, source.requests, window, source.failed)})"
    answered = track_rate(source, scope, window)
    # A source that has counted no failure yet has no series of them.
    return f"({failed} or 0 * {answered}) / ({answered} > 0)"


def track_latency(source: MetricSource, scope: Scope, quantile: float, window: str = WINDOW) -> str:
    """Return the query for a quantile (0 to 1) of each track's response times, in seconds; none without requests.

    It is interpolated within a bucket of the histogram, and so no more exact than the buckets are narrow.
    """
    buckets = f"sum by ({SERVICE}, {TRACK}, le) ({_rates(source, scope, f'{source.duration}_bucket', window)})"
    seconds = f"histogram_quantile({quantile:g}, {buckets})"
    # NaN, which is what no requests give, is not at least 0.
    return f"{seconds} >= 0" if source.unit == 1 else f"{source.unit:g} * {seconds} >= 0"


def track_share(source: MetricSource, scope: Scope, window: str = WINDOW) -> str:
    """Return the query for the part of a service's requests that each track answered; none without requests."""
    rate = track_rate(source, scope, window)
    return f"{rate} / on ({SERVICE}) group_left () (sum by ({SERVICE}) ({rate}) > 0)"


def track_requests(source: MetricSource, scope: Scope) -> str:
    """Return the query for the requests that each target has counted for each track since it started."""
    return f"sum by ({_BY_TARGET}) ({_relabelled(source, scope, _series(source, scope, source.requests))})"


def track_failures(source: MetricSource, scope: Scope) -> str:
    """Return the query for those of them that failed; where none has, there may be no series."""
    return (
        f"sum by ({_BY_TARGET}) ({_relabelled(source, scope, _series(source, scope, source.requests, source.failed))})"
    )


def track_durations(source: MetricSource, scope: Scope) -> str:
    """Return the query for the histogram of each track's response times by target; `le` is in the source's unit."""
    series = _series(source, scope, f"{source.duration}_bucket")
    return f"sum by ({_BY_TARGET}, {BUCKET}) ({_relabelled(source, scope, series)})"


def scrapes(source: MetricSource, scope: Scope) -> str:
    """Return the query for the time, in seconds since the epoch, from which each target's counts are for each track."""
    latest = f"max by ({_BY_TARGET})"
    found = f"{latest} ({_relabelled(source, scope, f'timestamp({_series(source, scope, source.requests)})')})"
    if not source.up:
        return found
    up = f"up{{{scope.resolved(source.up)}}}"
    return f"{found} or {latest} ({_relabelled(source, scope, f'timestamp({up}) and {up} == 1')})"


def oldest_scrape(source: MetricSource, scope: Scope) -> str:
    """Return the query for the time of the oldest of those counts that are valid now, in seconds since the epoch."""
    return f"min(timestamp({_series(source, scope, source.requests)}))"


def _rates(source: MetricSource, scope: Scope, metric: str, window: str = WINDOW, matcher: str = "") -> str:
    return _relabelled(source, scope, f"rate({_series(source, scope, metric, matcher)}[{window}])")


def _series(source: MetricSource, scope: Scope, metric: str, matcher: str = "") -> str:
    selector = scope.resolved(source.selector) + (f",{matcher}" if matcher else "")
    return f"{metric}{{{selector}}}"


def _relabelled(source: MetricSource, scope: Scope, query: str) -> str:
    for relabel in source.relabels:
        arguments = (relabel.target, relabel.value, relabel.source, scope.resolved(relabel.pattern))
        query = f"label_replace({', '.join([query, *map(json.dumps, arguments)])})"
    return query
