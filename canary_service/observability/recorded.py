"""What the recording rules keep, and the queries of alerts and panels on it. Pure data.

Whatever the source counts, the recorded series have the labels `namespace`, `app` (the service) and, by track,
`version`. Their names say level, metric and operation (https://prometheus.io/docs/practices/rules/). A query takes the
matchers of its series, such as `namespace="shop",app="cart"`.
"""

from collections.abc import Callable
from typing import Final

from canary_service.observability.queries import SERVICE, TRACK
from canary_service.routing.split import Track

FAST: Final = "1m"
"""A canary that fails shows in this window within two evaluations."""
SLOW: Final = "5m"
"""What counts where FAST has too few requests to tell, and in panels."""

INTERVAL_SECONDS: Final = 30
"""The rules are evaluated so often."""

SECONDS: Final = {FAST: 60, SLOW: 300, "30m": 1800, "1h": 3600, "6h": 21600, "3d": 259200}
"""The windows there are."""

ERROR_RATIO: Final = "canary_track:request_errors:ratio"
"""The part (0 to 1) of a track's requests that failed, over the shortest window with enough of them."""
LATENCY: Final = "canary_track:request_duration_seconds:p95"
"""The 95th percentile of a track's response times, over the shortest window with enough requests."""
SHARE: Final = "canary_track:requests:percent"
"""Percent of a service's requests that a track answered, over the shortest window with enough of them.

None while requests are mirrored: the canary's counts are copies then."""

DECLARED_WEIGHT: Final = "canary_service:declared_weight:percent"
"""The canary's weight as the stack declares it; label `image`. None without a canary."""
LEAST_WEIGHT: Final = "canary_service:declared_weight:min7m"
MOST_WEIGHT: Final = "canary_service:declared_weight:max7m"
"""The share of a window that a shift falls into lies between the weights before and after it. None without a canary."""

DECLARED_MIRROR: Final = "canary_service:declared_mirror:percent"
"""Percent of the requests to stable of which the canary gets a copy. None where it gets none."""
MIRRORED: Final = "canary_service:declared_mirror:max7m"
"""The most of it in the time in which counts may hold copies. Where it is, there is no share of the canary, and what it
answered is no part of what the service did for its clients."""

SERVICE_INFO: Final = "canary_service:info"
"""1 for each service; label `router`."""

SERVICE_RATE: Final = f"canary_service:requests:rate{SLOW}"
"""Requests per second of both tracks; while requests are mirrored, of stable."""
SERVICE_ERROR_RATE: Final = f"canary_service:request_errors:rate{SLOW}"
"""Failed requests per second of both tracks; while requests are mirrored, of stable."""

QUANTILES: Final = (0.5, 0.95, 0.99)
JUDGED_QUANTILE: Final = 0.95


def track_rate_over(window: str) -> str:
    """Return the series of requests per second of each track."""
    return f"canary_track:requests:rate{window}"


def track_error_ratio_over(window: str) -> str:
    """Return the series of the part (0 to 1) of each track's requests that failed."""
    return f"canary_track:request_errors:ratio_rate{window}"


def track_latency_over(window: str, quantile: float = JUDGED_QUANTILE) -> str:
    """Return the series of a quantile of each track's response times, in seconds."""
    return f"canary_track:request_duration_seconds:p{100 * quantile:g}_rate{window}"


def shortest(query: Callable[[str], str]) -> str:
    """Return a query over the shorter window where that gives something, else over the longer one."""
    return " or ".join(f"({query(window)})" for window in (FAST, SLOW))


def measured_share(matchers: str, window: str = FAST) -> str:
    """Return the query for the percent of a service's requests that the canary answered, however few there are.

    None while requests are mirrored.
    """
    series = track_rate_over(window)
    canary = f'{series}{{{matchers},{TRACK}="{Track.CANARY}"}}'
    share = f"100 * sum by ({SERVICE}) ({canary}) / (sum by ({SERVICE}) ({series}{{{matchers}}}) > 0)"
    return f"{share} unless on ({SERVICE}) {MIRRORED}{{{matchers}}}"


def weight_changes(matchers: str) -> str:
    """Return the query that has a series in the minute after a declared weight changed; its value is the new one."""
    weight = f"{DECLARED_WEIGHT}{{{matchers}}}"
    return f"{weight} != {weight} offset 1m"


def error_budget_ratio(matchers: str, window: str) -> str:
    """Return the query for the part (0 to 1) of a service's requests that failed, over a window of `SECONDS`.

    Before the recorded series reach that far back, none is taken to have failed: what lasts since a minute does not
    count as if it had lasted three days.
    """
    failed, answered = f"{SERVICE_ERROR_RATE}{{{matchers}}}", f"{SERVICE_RATE}{{{matchers}}}"
    samples = SECONDS[window] // INTERVAL_SECONDS
    return f"sum_over_time({failed}[{window}]) / ({samples} * avg_over_time({answered}[{window}]))"


def cpu(namespace: str, pods: str) -> str:
    """Return the query for processors in use by each pod (cAdvisor, in the kubelet); `pods` is a pattern."""
    return f"sum by (pod) (rate(container_cpu_usage_seconds_total{_containers(namespace, pods)}[{SLOW}]))"


def memory(namespace: str, pods: str) -> str:
    """Return the query for bytes in use by each pod that cannot be taken back (cAdvisor); `pods` is a pattern."""
    return f"sum by (pod) (container_memory_working_set_bytes{_containers(namespace, pods)})"


def ready_pods(namespace: str, deployments: str) -> str:
    """Return the query for ready pods of each Deployment (kube-state-metrics); `deployments` is a pattern."""
    return f"max by (namespace, deployment) (kube_deployment_status_replicas_ready{_of(namespace, deployments)})"


def wanted_pods(namespace: str, deployments: str) -> str:
    """Return the query for the pods that each Deployment asks for (kube-state-metrics)."""
    return f"max by (namespace, deployment) (kube_deployment_spec_replicas{_of(namespace, deployments)})"


def pods_of(deployment: str) -> str:
    """Return the pattern of a Deployment's pods: a hash and a random part, each without a dash, follow its name."""
    return f"{deployment}-[^-]+-[^-]+"


def _containers(namespace: str, pods: str) -> str:
    # Without a container's name cAdvisor adds a pod up once more.
    return f'{{namespace="{namespace}",pod=~"{pods}",container!="",container!="POD"}}'


def _of(namespace: str, deployments: str) -> str:
    return f'{{namespace="{namespace}",deployment=~"{deployments}"}}'
