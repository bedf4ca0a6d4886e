"""What comes before an update: the configuration is compared with the cluster, and weights that fall are lowered."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from canary_service.cluster.connection import connect
from canary_service.cluster.errors import ClusterError, ForbiddenError, UnknownKindError
from canary_service.cluster.live_cluster import LiveCluster
from canary_service.config.loader import Problem
from canary_service.config.settings import Settings
from canary_service.rollout.guards import (
    IDENTIFIER,
    RefusedError,
    Transition,
    missing_namespace,
    transitions,
    unattached,
    unidentified,
    unknown_kind,
    unsupported,
)
from canary_service.routing.registry import ROUTERS
from canary_service.routing.split import Entry
from canary_service.workload.live import LiveService


@dataclass(frozen=True, slots=True)
class Observed:
    """A cluster as it is before an update; `problems` keep any update of the stack from it.

    `live` is empty where the cluster does not know the router's objects.
    """

    cluster: LiveCluster
    live: Mapping[str, LiveService]
    problems: tuple[Problem, ...] = ()


def observed(settings: Settings, provider: Mapping[str, str], *, namespace_follows: bool = False) -> Observed:
    """Look at the cluster that the Kubernetes provider's configuration leads to.

    `namespace_follows` says that the update itself may make the namespace.

    Raises:
        ClusterError: it cannot be asked.
    """
    cluster = LiveCluster(connect(provider), settings)
    there = settings.create_namespace or namespace_follows or cluster.api.has_namespace()
    problems = () if there else (missing_namespace(settings),)
    if provider.get("kubeconfig") and not provider.get(IDENTIFIER):
        problems = (*problems, unidentified())
    live: Mapping[str, LiveService] = {}
    try:
        live = cluster.read()
        cluster.routes.refuse_unknown_kinds()
    except UnknownKindError as error:
        serving = [router for found in live.values() for router in found.former_routers]
        return Observed(cluster, {}, (*problems, unknown_kind(settings, str(error), serving)))
    return Observed(cluster, live, (*problems, *_unsupported(settings, cluster), *_unattached(settings, cluster, live)))


def _unattached(settings: Settings, cluster: LiveCluster, live: Mapping[str, LiveService]) -> Iterator[Problem]:
    """Yield a Gateway that is not there, if the route of a service would leave one for it that has accepted it.

    The first may come later than the route.
    """
    moves = {
        entry: found.split.entries
        for name, found in live.items()
        if found.split and not found.pending and not found.former_routers
        for entry in settings.split_of(name).entries
        if entry not in found.split.entries
    }
    for entry, served_by in moves.items():
        if why := cluster.gateways.lacking(entry):
            yield unattached(entry, served_by, why)


def _unsupported(settings: Settings, cluster: LiveCluster) -> Iterator[Problem]:
    """Yield what those who serve a route may not know: they could fail every request for it.

    A mirror that begins with weight 0 is told before: the way down is not to be refused.
    """

    @cache  # services mostly share a Gateway
    def supported_features(gateway: Entry) -> frozenset[str]:
        return cluster.gateways.supported_features(gateway)

    for name, service in settings.services.items():
        split, percent = settings.split_of(name), service.canary.mirror_percent if service.canary else 0
        if split.canary:
            split = replace(split, canary=replace(split.canary, weight=0, mirror=percent))
        for feature, names in settings.router_of_stack().demands(split).items():
            for gateway in split.entries:
                try:
                    lacking = sorted(names - supported_features(gateway))
                    found = f"status.supportedFeatures of its GatewayClass does not have {', '.join(lacking)}"
                except ForbiddenError as error:
                    lacking, found = sorted(names), f"what it supports cannot be told: {error}"
                if lacking:
                    yield unsupported(settings, name, feature, f"Gateway {gateway}: {found}")


@dataclass(frozen=True, slots=True)
class Update:
    """An update that may be carried out: `live` is what the cluster has of each service, `changes` what it does to it.

    `cluster` is None where there is none; then nothing is known and nothing was checked.
    """

    settings: Settings
    cluster: LiveCluster | None
    live: Mapping[str, LiveService]
    changes: Mapping[str, Transition]

    @staticmethod
    def compared(
        settings: Settings,
        provider: Mapping[str, str],
        stack: str,
        components: Sequence[str] = (),
        *,
        namespace_follows: bool = False,
    ) -> "Update":
        """Compare a configuration with the cluster that the Kubernetes provider's configuration leads to.

        `stack` is PROJECT/STACK; `components` are as in `guards.transitions`; `namespace_follows` says that the update
        itself may make the namespace.

        Raises:
            ClusterError: the cluster cannot be asked.
            RefusedError: the update would lose requests or surprise users.
        """
        found = observed(settings, provider, namespace_follows=namespace_follows)
        if found.problems:
            raise RefusedError(found.problems)
        return Update(settings, found.cluster, found.live, transitions(settings, found.live, stack, components))

    @staticmethod
    def unchecked(settings: Settings) -> "Update":
        """Return the update as a preview without a cluster has to take it."""
        nothing = {name: LiveService() for name in settings.services}
        return Update(settings, None, nothing, dict.fromkeys(settings.services, Transition()))

    def lower(self) -> Iterator[str]:
        """Lower weights ahead of all else, and tell each: whatever fails afterwards, the way back has been taken.

        Raises:
            ClusterError: the API server refused, or gives back another weight.
        """
        if self.cluster is None:
            return
        lowered = {name: change.lowers_to for name, change in self.changes.items() if change.lowers_to is not None}
        readable = {name: weight for name, weight in lowered.items() if not self.live[name].unreadable}
        if readable:
            for name, split in self.cluster.routes.lower(readable).items():
                yield f"{name}: {self.live[name].falls_from} → {split.weight} %, set ahead of all else and read back"
        for name in (each for each in lowered if each not in readable):
            try:
                split = self.cluster.routes.lower({name: lowered[name]})[name]
                yield f"{name}: ? → {split.weight} %, set ahead of all else and read back"
            except ClusterError as error:
                yield f"{error}. The update itself sets {lowered[name]} %"
        if any(self.changes[name].replaces for name in lowered):
            # The image that got requests is about to be replaced: first the router has to follow.
            former = {router for name in lowered for router in self.live[name].former_routers}
            routers = [self.settings.router_of_stack(), *(ROUTERS[name] for name in former)]
            time.sleep(max(router.sync_seconds for router in routers))
