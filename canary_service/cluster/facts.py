"""Gathers what a cluster shows of a namespace: one list per kind, and the last words of containers that crash."""

import time
from typing import Final

from lightkube.resources.apps_v1 import Deployment, ReplicaSet
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.resources.core_v1 import Event, Namespace, Pod, Service
from lightkube.resources.discovery_v1 import EndpointSlice
from lightkube.resources.networking_v1 import IngressClass
from lightkube.resources.policy_v1 import PodDisruptionBudget

from canary_service.cluster.api import KubernetesApi
from canary_service.cluster.errors import ClusterError, ForbiddenError
from canary_service.cluster.live_cluster import LiveCluster
from canary_service.routing.nginx import Nginx
from canary_service.routing.router import Manifest
from canary_service.workload.facts import LOG_LINES, Facts, Log, crashed
from canary_service.workload.labels import selector

_LOGS_PER_TRACK: Final = 1
"""Pods of a track run the same and crash alike."""

_LISTED: Final = (
    Service,
    EndpointSlice,
    Deployment,
    ReplicaSet,
    Pod,
    Event,
    HorizontalPodAutoscaler,
    PodDisruptionBudget,
)


def gathered(cluster: LiveCluster) -> Facts:
    """Return what can be read; for what the account may not read, which right it lacks.

    Raises:
        ClusterError: the API server cannot be asked; ForbiddenError when it lets the account read nothing at all.
    """
    objects: dict[str, list[Manifest]] = {}
    unread: dict[str, str] = {}
    try:
        found = cluster.api.namespace()
        objects[Namespace.__name__] = [found] if found else []
    except ForbiddenError as error:
        unread[Namespace.__name__] = str(error)
    router = cluster.settings.router_of_stack()
    unserved: set[str] = set()
    for route_kind in router.kinds:
        try:
            routes = cluster.api.listed_if_known(route_kind)
        except ForbiddenError as error:
            unread[route_kind.kind] = str(error)
        else:
            objects[route_kind.kind] = routes or []
            unserved |= {route_kind.kind} if routes is None else set()
    for kind in (*((IngressClass,) if router.name == Nginx.name else ()), *_LISTED):
        try:
            objects[kind.__name__] = cluster.api.listed(kind)
        except ForbiddenError as error:
            unread[kind.__name__] = str(error)
    if not objects:
        raise ForbiddenError(unread[Pod.__name__])
    logs = _logs(cluster, objects.get(Pod.__name__, []))
    others = cluster.routes.of_others()
    entries = {entry for name in cluster.settings.services for entry in cluster.settings.split_of(name).entries}
    lacking = {entry: why for entry in entries if (why := cluster.gateways.lacking(entry))}
    return Facts(time.time(), objects, unread, logs, unserved=frozenset(unserved), of_others=others, lacking=lacking)


def _logs(cluster: LiveCluster, pods: list[Manifest]) -> dict[tuple[str, str], Log]:
    settings = cluster.settings
    logs: dict[tuple[str, str], Log] = {}
    for name in settings.services:
        for track in settings.tracks_of(name):
            labels = selector(settings.app_label_of(name, track), track).items()
            of_track = [pod for pod in pods if labels <= (pod["metadata"].get("labels") or {}).items()]
            for pod, container in list(crashed(of_track))[:_LOGS_PER_TRACK]:
                key = pod["metadata"]["name"], container["name"]
                logs[key] = _log(cluster.api, *key)
    return logs


def _log(api: KubernetesApi, pod: str, container: str) -> Log:
    try:
        return Log(tuple(api.log_of_ended(pod, container, LOG_LINES)))
    except ClusterError as error:  # a kubelet that keeps no logs is no reason to say nothing of the rest
        return Log(unread=str(error))
