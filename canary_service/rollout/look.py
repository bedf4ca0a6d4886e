"""Looks at a stack once: at its cluster, and at what Prometheus has counted."""

import time
from collections.abc import Mapping, Sequence

from lightkube.resources.apps_v1 import Deployment, ReplicaSet
from lightkube.resources.core_v1 import Pod

from canary_service.cluster.errors import ForbiddenError
from canary_service.cluster.live_cluster import LiveCluster
from canary_service.config.settings import Settings
from canary_service.observability.queries import SOURCES, Scope
from canary_service.rollout.counters import Counters
from canary_service.rollout.counting import Count
from canary_service.rollout.prometheus import Prometheus, PrometheusError, shown
from canary_service.rollout.status import WINDOW_SECONDS, Seen
from canary_service.routing.router import Manifest


def look(cluster: LiveCluster, settings: Settings, names: Sequence[str], prometheus: str | None) -> Seen:
    """Return what is seen of services; `prometheus` is the URL of the server, by default that of the configuration.

    Raises:
        ClusterError: the API server cannot be asked.
    """
    live = cluster.read(monitoring=False)
    counts, not_counted = _counts(settings, names, prometheus or settings.rollout.prometheus_url)
    return Seen(
        at=time.time(),
        live=live,
        deployments=cluster.api.listed(Deployment),
        replica_sets=_listed(cluster, ReplicaSet),
        pods=_listed(cluster, Pod),
        counts=counts,
        not_counted=not_counted,
        routed_at={name: cluster.routes.written_at(name) for name in names},
        changes={name: cluster.declared.changed_by_others(name) for name in names},
    )


def _listed(cluster: LiveCluster, kind: type[ReplicaSet | Pod]) -> list[Manifest] | None:
    try:
        return cluster.api.listed(kind)
    except ForbiddenError:  # what follows from it is not known then
        return None


def _counts(settings: Settings, names: Sequence[str], url: str | None) -> tuple[Mapping[str, Count], str]:
    """Return what was answered in the last minute by service, and why that of others is not known."""
    if url is None:
        return {}, "no Prometheus is named, by --prometheus or rollout.prometheusUrl"
    try:
        with Prometheus(url) as server:
            counters = Counters(server, SOURCES[settings.monitoring.source], Scope(settings.namespace, tuple(names)))
            requests, _ = counters.last(WINDOW_SECONDS)
            return requests, ""
    except PrometheusError as error:
        return {}, f"{shown(url)} was asked, and {error}"
