"""What a cluster shows of a namespace, as far as an account may read it. No I/O."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from canary_service.routing.router import Manifest
from canary_service.routing.split import Entry
from canary_service.workload.readiness import CRASHES

KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "Namespace": ("", "namespaces"),
    "IngressClass": ("networking.k8s.io", "ingressclasses"),
    "Ingress": ("networking.k8s.io", "ingresses"),
    "Service": ("", "services"),
    "EndpointSlice": ("discovery.k8s.io", "endpointslices"),
    "Deployment": ("apps", "deployments"),
    "ReplicaSet": ("apps", "replicasets"),
    "Pod": ("", "pods"),
    "Event": ("", "events"),
    "HorizontalPodAutoscaler": ("autoscaling", "horizontalpodautoscalers"),
    "PodDisruptionBudget": ("policy", "poddisruptionbudgets"),
}
"""Every kind that is looked at, with API group and resource, as rights name them.

For another router than nginx, its own kinds take the place of Ingress and IngressClass."""

LOG_LINES: Final = 5
"""So many of the last lines of a container are shown."""


@dataclass(frozen=True, slots=True)
class Log:
    """The last lines of a container that ended, or why they could not be read."""

    lines: tuple[str, ...] = ()
    unread: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """Percent of a service's requests that its canary answered, and its least and most declared weight meanwhile."""

    percent: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Facts:
    """A namespace at one moment, `at` (seconds since the epoch).

    `objects` has those of each kind that could be read, `unread` why the others could not, `unserved` are the router's
    kinds that the cluster does not know. Of Namespaces there is the one of the stack, or none. `logs` are by pod and
    container. `shares` are by service, `unmeasured` says why one is not there.
    `of_others` are the objects of this program that belong to routers other than the declared one, by its name.
    `lacking` are the declared Gateways that are not there, or not as they are named, in words.
    """

    at: float
    objects: Mapping[str, Sequence[Manifest]]
    unread: Mapping[str, str] = field(default_factory=dict)
    logs: Mapping[tuple[str, str], Log] = field(default_factory=dict)
    shares: Mapping[str, Share] = field(default_factory=dict)
    unmeasured: str = ""
    unserved: frozenset[str] = frozenset()
    of_others: Mapping[str, Sequence[Manifest]] = field(default_factory=dict)
    lacking: Mapping[Entry, str] = field(default_factory=dict)

    def of(self, kind: str) -> Sequence[Manifest]:
        """Return the objects of a kind; none when it could not be read."""
        return self.objects.get(kind, ())

    def named(self, kind: str, name: str) -> Manifest | None:
        """Return the object of this kind and name."""
        return next((found for found in self.of(kind) if found["metadata"]["name"] == name), None)


def containers_of(pod: Manifest) -> list[Manifest]:
    """Return the status of each container, init containers first."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def crashed(pods: Sequence[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Yield each container that does not stay up, as its pod and its status."""
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp"):
            continue
        for container in containers_of(pod):
            waiting = (container.get("state") or {}).get("waiting") or {}
            again = container.get("restartCount", 0) >= CRASHES and not container.get("ready")
            if waiting.get("reason") == "CrashLoopBackOff" or again:
                yield pod, container
