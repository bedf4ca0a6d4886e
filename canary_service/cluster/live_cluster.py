"""The cluster as it is while a program runs: read before, waited for and put right in between."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, Final, TypeVar, cast

import httpx2
from lightkube import ApiError, Client
from lightkube.core.exceptions import ConfigError, LoadResourceError
from lightkube.core.resource import NamespacedResource
from lightkube.core.resource_registry import resource_registry
from lightkube.generic_resource import create_global_resource, create_namespaced_resource
from lightkube.resources.apps_v1 import Deployment, ReplicaSet
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.resources.core_v1 import Namespace, Pod, Service
from lightkube.resources.policy_v1 import PodDisruptionBudget
from lightkube.types import PatchType

from canary_service.cluster.errors import ClusterError, ForbiddenError, NotReadyError, UnknownKindError
from canary_service.cluster.workloads import PodsSeen, Workloads
from canary_service.config.settings import Settings
from canary_service.routing.gateway import UNLISTED, Gateway
from canary_service.routing.registry import ROUTERS
from canary_service.routing.router import Manifest, Pending, RouteKind, Router, UnreadableRouteError
from canary_service.routing.split import Entry, Split, Track
from canary_service.workload.facts import KINDS
from canary_service.workload.labels import object_name, selector
from canary_service.workload.live import (
    FIELD_MANAGER,
    ROLLED_BACK_ANNOTATION,
    LiveService,
    Objects,
    applied,
    changed_by_others,
    lacks,
    last_written,
    live_service,
    routes_of,
    with_stable,
)
from canary_service.workload.manifests import configurations_used
from canary_service.workload.readiness import Readiness, rollout_completed

STUCK_SECONDS: Final = 15.0
"""So long a reason that time alone will hardly mend has to last until it ends the wait: registries have hiccups."""

LOWERING_MANAGER: Final = FIELD_MANAGER + "-lowering"
"""Who lowers a weight ahead of the engine, as the API server's managedFields name it."""

_POLL_SECONDS: Final = 0.2
_REPORT_SECONDS: Final = 1.0
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404

# Of the Prometheus operator; lightkube knows Kubernetes' own kinds.
_OPERATOR: Final = ("monitoring.coreos.com", "v1")
_POD_MONITOR: Final = create_namespaced_resource(*_OPERATOR, "PodMonitor", "podmonitors")
_PROMETHEUS_RULE: Final = create_namespaced_resource(*_OPERATOR, "PrometheusRule", "prometheusrules")
_MONITORING_KINDS: Final = (_POD_MONITOR, _PROMETHEUS_RULE)

_GATEWAY_API: Final = ("gateway.networking.k8s.io", "v1")
_GATEWAY: Final = create_namespaced_resource(*_GATEWAY_API, "Gateway", "gateways")
_GATEWAY_CLASS: Final = create_global_resource(*_GATEWAY_API, "GatewayClass", "gatewayclasses")

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Drift:
    """How an object differs, or may differ, from what was declared last: `text` says it after the object's name.

    An object that the engine is about to create is missing too, and one that it is about to update may lack what is
    declared for the first time. In a preview such an object has no `resource_version` or the present one, and an
    object that the engine leaves as it is has that of the engine's last write. Without the right to write, one that it
    is about to update has none either.
    """

    text: str
    resource_version: str | None

    def left_by_engine(self, previewed: Manifest) -> bool:
        """Tell by an object's metadata in a preview whether the engine leaves it as it is."""
        return previewed.get("resourceVersion") not in {None, self.resource_version}


@dataclass(frozen=True, slots=True)
class _Routed:
    """The objects of one router that route a service, and the split that they are, or why they are none."""

    router: Router
    routes: Sequence[Manifest]
    split: Split | UnreadableRouteError


class LiveCluster:
    """The services of one configuration in a cluster. May be used by several threads at once."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._router = settings.router_of_stack()
        self._objects: dict[tuple[str, str], Manifest] = {}
        self._kinds: frozenset[str] = frozenset()
        self._asking = threading.Lock()
        self._workloads = Workloads(settings, self._list)
        self._former: dict[str, tuple[Router, ...]] = {}
        self._unmade: frozenset[str] = frozenset()
        self._mirroring: frozenset[tuple[str, str]] = frozenset()
        self._unknown: UnknownKindError | None = None

    def read(self, *, monitoring: bool = True) -> dict[str, LiveService]:
        """Return what there is of each service.

        Where the cluster does not know the declared router's kinds, the routes are those of the routers that serve.

        Args:
            monitoring: look at what watches the services too, which only an update has to compare.

        Raises:
            ClusterError: the API server cannot be asked; UnknownKindError when no other router serves either.
        """
        deployments, services = self._list(Deployment), self._list(Service)
        unknown: UnknownKindError | None = None
        try:
            routes = self._routes()
        except UnknownKindError as error:
            routes, unknown = [], error
        optional = [kind for kind in self._optional_kinds() if monitoring or kind not in _MONITORING_KINDS]
        others = [found for kind in optional for found in self._listed(kind)]
        self._objects = {_key(found): found for found in (*deployments, *services, *routes, *others)}
        self._kinds = frozenset({"Deployment", "Service", *(each.kind for each in self._router.kinds)}) | {
            kind.__name__ for kind in optional
        }
        deployments_by_name = {found["metadata"]["name"]: found for found in deployments}
        services_by_name = {found["metadata"]["name"]: found for found in services}
        unfinished = any(
            not rollout_completed(found)
            for name in self._settings.services
            for track in Track
            if (found := deployments_by_name.get(object_name(name, track)))
        )
        sets = self._list(ReplicaSet) if unfinished else []
        objects = Objects(deployments_by_name, services_by_name, routes, sets)
        live = {name: live_service(self._settings, name, objects) for name in self._settings.services}
        live = self._with_gateways({name: self._patient(name, found) for name, found in live.items()})
        live |= self._moving({name: found for name, found in live.items() if found.ours}, routes)
        self._former = {name: tuple(ROUTERS[each] for each in found.former_routers) for name, found in live.items()}
        if unknown:
            if not any(self._former.values()):
                raise unknown
            pending = Pending(str(unknown), refused=True)
            live = {name: replace(found, pending=pending) for name, found in live.items()}
        self._unknown = unknown
        self._unmade = frozenset(
            name for name, former in self._former.items() if former and not routes_of(self._settings, name, routes)
        )
        begins = [name for name, found in live.items() if found.split and not found.mirror]
        self._mirroring = frozenset(chain(*map(self._only_for_mirror, begins)))
        return {name: replace(found, strands=self._strands(name, found)) for name, found in live.items()}

    def refuse_unknown_kinds(self) -> None:
        """Refuse what the declared router has to carry out, where `read` found that the cluster lacks its kinds.

        Raises:
            UnknownKindError: it does.
        """
        if self._unknown:
            raise self._unknown

    def knows_monitoring(self) -> bool:
        """Tell whether there are the kinds of the Prometheus operator that the stack uses; asked once.

        Raises:
            ClusterError: the API server cannot be asked.
        """
        return self._knows_monitoring

    def has_namespace(self) -> bool:
        """Tell whether the namespace is there; who may not ask takes it for granted.

        Raises:
            ClusterError: the API server cannot be asked.
        """

        def found() -> bool:
            try:
                self._client.get(Namespace, self._settings.namespace)
            except ApiError as error:
                return error.status.code != _NOT_FOUND
            return True

        return self._asked(found)

    @property
    def settings(self) -> Settings:
        """The configuration whose services these are."""
        return self._settings

    def namespace(self) -> Manifest | None:
        """Return the Namespace, None when there is none.

        Raises:
            ClusterError: the API server cannot be asked; ForbiddenError when the account may not ask.
        """
        return self._asked_for(lambda: _plain(self._client.get(Namespace, self._settings.namespace)))

    def listed(self, kind: Any) -> list[Manifest]:  # noqa: ANN401 - a class of lightkube
        """Return all objects of a kind in the namespace, or in the cluster if the kind has none.

        Raises:
            ClusterError: the API server cannot be asked; ForbiddenError when the account may not ask.
        """
        if issubclass(kind, NamespacedResource):
            return self._list(kind)
        return self._asked(lambda: [_plain(found) for found in self._client.list(kind)])

    def routes(self, kind: RouteKind) -> list[Manifest] | None:
        """Return all objects of a router's kind in the namespace, None where the cluster does not know it.

        Raises:
            ClusterError: the API server cannot be asked; ForbiddenError when the account may not ask.
        """
        return self._list_if_known(_resource_of(kind))

    def supported_features(self, gateway: Entry) -> frozenset[str]:
        """Return what the implementation behind a Gateway is known to support.

        Raises:
            ClusterError: the API server cannot be asked; ForbiddenError when the account may not ask.
        """
        found = self._gateway(gateway)
        if found is None:
            return frozenset()
        named: str = found["spec"]["gatewayClassName"]
        of_class = self._asked_for(lambda: _plain(self._client.get(_GATEWAY_CLASS, named)))
        if of_class is None:
            return frozenset()
        listed = (of_class.get("status") or {}).get("supportedFeatures")
        if listed is None:
            return UNLISTED.get(of_class["spec"]["controllerName"], frozenset())
        return frozenset(each["name"] for each in listed)

    def lacking(self, gateway: Entry) -> str:
        """Return, in words, that a Gateway or its listener is not there; empty when it is, or who asks may not see it.

        Other routers' entries are no objects of which that could be asked.

        Raises:
            ClusterError: the API server cannot be asked.
        """
        if not isinstance(self._router, Gateway):
            return ""
        try:
            found = self._gateway(gateway)
        except ForbiddenError:
            return ""
        named = f"Gateway {gateway.namespace or self._settings.namespace}/{gateway.name}"
        if found is None:
            return f"{named} is not there"
        listeners = [each["name"] for each in found["spec"].get("listeners") or ()]
        if gateway.listener and gateway.listener not in listeners:
            return f"{named} has no listener {gateway.listener}, but {', '.join(listeners) or 'none at all'}"
        return ""

    def _gateway(self, gateway: Entry) -> Manifest | None:
        namespace = gateway.namespace or self._settings.namespace
        return self._asked_for(lambda: _plain(self._client.get(_GATEWAY, gateway.name, namespace=namespace)))

    def _with_gateways(self, live: Mapping[str, LiveService]) -> dict[str, LiveService]:
        """Return the services with what their routes wait for: status of a route may outlive its Gateway."""
        attached = {name: found.split.entries for name, found in live.items() if found.split}
        lacking = {entry: self.lacking(entry) for entry in dict.fromkeys(chain(*attached.values()))}
        told = dict(live)
        for name, entries in attached.items():
            why, pending = [lacking[entry] for entry in entries if lacking[entry]], live[name].pending
            if why and not (pending and pending.refused):
                told[name] = replace(live[name], pending=_without(name, why))
        return told

    def _patient(self, name: str, found: LiveService) -> LiveService:
        """Give a controller the time that it has to follow before a status is said to be out of date."""
        stale = found.pending is not None and found.pending.stale
        if stale and time.time() - self.route_written_at(name) < self._router.sync_seconds:
            return replace(found, pending=None)
        return found

    def log_of_ended(self, pod: str, container: str, lines: int) -> list[str]:
        """Return the last lines that a container wrote before it ended last.

        Raises:
            ClusterError: the API server cannot be asked, or its kubelet has none; ForbiddenError as above.
        """
        path = f"/api/v1/namespaces/{self._settings.namespace}/pods/{pod}/log"
        wanted = {"container": container, "previous": "true", "tailLines": str(lines)}

        def asked() -> list[str]:
            # lightkube's own call has no `previous`.
            answer = self._client._client._client.get(path, params=wanted)  # noqa: SLF001 - see above
            if answer.is_error:
                raise ApiError(answer.request, answer)
            return list(answer.text.splitlines())

        return self._asked(asked)

    def changed_by_others(self, name: str) -> dict[str, tuple[str, ...]]:
        """Return who has changed the objects of a service since this program last did, by kind and name.

        They are those that `read` found last, without those of a stable that something else owns.
        """
        own = {object_name(name, track) for track in self._settings.tracks_of(name)}
        return {
            f"{kind} {found}": tuple(sorted(others))
            for (kind, found), manifest in self._objects.items()
            if found in own and (others := changed_by_others(manifest) - {LOWERING_MANAGER})
        }

    def route_written_at(self, name: str) -> float:
        """Return when a route of a service was written last, in seconds since the epoch; of those that `read` found."""
        kinds = {each.kind for each in self._router.kinds}
        found = [each for (kind, _), each in self._objects.items() if kind in kinds]
        return max((last_written(route) for route in routes_of(self._settings, name, found)), default=0.0)

    def split(self, name: str) -> Split:
        """Return the split that the objects of the router in force describe now.

        Raises:
            UnreadableRouteError: the objects are missing or were changed into something that is no split.
            ClusterError: the API server cannot be asked.
        """
        return _most(self._found((name,))[name])

    def drift(self, manifest: Manifest, *, keep_replicas: bool = False) -> Drift | None:
        """Return what others may have done to a declared object since this program last wrote it, None for nothing."""
        key = _key(manifest)
        found = self._objects.get(key)
        if found is None:
            return Drift("is missing", None) if key[0] in self._kinds else None
        if not lacks(found, manifest, keep_replicas=keep_replicas):
            return None
        others = ", ".join(sorted(changed_by_others(found)))
        text = f"was changed by {others}" if others else "lacks what is declared"
        return Drift(text, found["metadata"]["resourceVersion"])

    def lost(self, manifest: Manifest) -> bool:
        """Tell whether a Service, Deployment or route is missing although another object of its track is there.

        So too for the objects that watch a stack's services.
        """
        kind, name = _key(manifest)
        routed = {each.kind for each in self._router.kinds}
        track = manifest["metadata"]["labels"].get("app.kubernetes.io/instance")
        siblings = any(other == track for _, other in self._objects)
        moving = {object_name(service, each) for service in self._unmade for each in Track}
        if kind in routed and (name in moving or (kind, name) in self._mirroring):
            return False  # the engine is about to make it
        kept = {"Deployment", "Service", *routed, *(kind.__name__ for kind in _MONITORING_KINDS)}
        return kind in kept and (kind, name) not in self._objects and siblings

    def _only_for_mirror(self, name: str) -> set[tuple[str, str]]:
        """Return the declared router's objects of a service that are there only as long as requests are mirrored."""
        split = self._settings.split_of(name)
        if split.canary is None:
            return set()
        plain = replace(split, canary=replace(split.canary, mirror=0))
        mirrored, others = ({_key(each.manifest) for each in self._router.render(of)} for of in (split, plain))
        return mirrored - others

    def restore(self, manifest: Manifest, *, keep_replicas: bool = False, dry_run: bool = False) -> Manifest | None:
        """Apply an object as it is declared, as the engine would; return it when that changed anything.

        Args:
            manifest: the object.
            keep_replicas: leave the number of replicas as an autoscaler has set it.
            dry_run: change nothing, but tell.

        Raises:
            ClusterError: the API server refused.
        """
        kind = _resource(manifest)
        name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
        before = self._get(kind, name)
        if before and _key(manifest) not in self._objects:
            return None  # the engine has just made it
        if keep_replicas and before:
            manifest = manifest | {"spec": manifest["spec"] | {"replicas": before["spec"].get("replicas", 1)}}

        def patched(patch: Manifest, patch_type: PatchType, **options: Any) -> Manifest:  # noqa: ANN401 - those of lightkube
            done = self._client.patch(
                kind,
                name,
                patch,
                namespace=namespace,
                patch_type=patch_type,
                field_manager=FIELD_MANAGER,
                dry_run=dry_run,
                **options,
            )
            return _plain(done)

        after: Manifest | None = None
        try:
            if before and kind is Service and not _numbers(manifest) <= _numbers(before):
                # Applied, a port would stand beside the one with another number that is there, and both need names.
                ports = {"spec": {"ports": manifest["spec"]["ports"]}}
                after = self._asked(lambda: patched(ports, PatchType.MERGE))
            if not (dry_run and after):
                after = self._asked(lambda: patched(manifest, PatchType.APPLY, force=True))
        except ForbiddenError:
            if not dry_run:
                raise
            return before or manifest  # a dry run needs the right to write; that something is lost is known already
        return after if before is None or _declarations(before) != _declarations(after) else None

    def splits(self) -> dict[str, Split | UnreadableRouteError]:
        """Return the split of each service as the router's objects describe it now, or why they describe none.

        Raises:
            ClusterError: the API server cannot be asked.
        """
        found: dict[str, Split | UnreadableRouteError] = {}
        for name, splits in self._found(tuple(self._settings.services)).items():
            try:
                found[name] = _most(splits)
            except UnreadableRouteError as error:
                found[name] = error
        return found

    def _found(self, names: Sequence[str]) -> dict[str, list[_Routed]]:
        """Return each router's objects of services, the declared one's first; without any, that it has none."""
        routers = {name: (self._router, *self._former.get(name, ())) for name in names}
        served = [each for each in dict.fromkeys(chain(*routers.values())) if not self._unknown or each != self._router]
        routes = {each.name: self._routes(each) for each in served}
        found: dict[str, list[_Routed]] = {}
        for name, of in routers.items():
            own = [(each, routes_of(self._settings, name, routes.get(each.name, []))) for each in of]
            read = [
                _Routed(each, there, _read(each, self._with_stable(each, name, there))) for each, there in own if there
            ]
            # Objects of a kind that two routers have are those of the one that can read them.
            kinds = {each.router.kinds for each in read if isinstance(each.split, Split)}
            read = [each for each in read if isinstance(each.split, Split) or each.router.kinds not in kinds]
            found[name] = read or [_Routed(self._router, [], _read(self._router, []))]
        return found

    def _with_stable(self, router: Router, name: str, routes: list[Manifest]) -> list[Manifest]:
        return with_stable(self._settings, name, routes) if router is self._router else routes

    def lower(self, weights: Mapping[str, int]) -> dict[str, Split]:
        """Set weights (percent) that are below those in force, and return the splits that are then read back.

        A canary gets no copies of requests any more either. A service that fails keeps no other from being lowered. One
        without a canary is left as it is. Where the weight is to be 0, objects of the declared router that are no split
        are put back as declared, as the next update does.

        Raises:
            ClusterError: the API server refused, or gives back another weight; it names the services.
        """
        problems: dict[str, str] = {}
        before = self._found(tuple(weights))
        for name, weight in weights.items():
            for found in before[name]:
                try:
                    self._set_weight(name, found, weight)
                except ClusterError as error:
                    problems[name] = str(error)
        after = self._found(tuple(weights))
        lowered: dict[str, Split] = {}
        for name, weight in weights.items():
            try:
                split = _most(after[name])
            except UnreadableRouteError as error:
                problems.setdefault(name, str(error))
                continue
            if split.canary and split.weight != weight:
                problems.setdefault(name, f"{weight} was set, but {split.weight} read back")
            else:
                lowered[name] = split
        if problems:
            raise ClusterError("; ".join(f"{name}: the weight is not lowered: {why}" for name, why in problems.items()))
        return lowered

    def _put_back(self, name: str, found: _Routed) -> None:
        """Put back, as declared but with weight 0, objects of the declared router; how others were is not known.

        A canary whose Service is not there gets no rule either, which some routers would fail the whole route for.

        Raises:
            ClusterError: the API server refused one; the others are put back.
        """
        if found.router is not self._router or not found.routes:
            return
        split = self._settings.split_of(name)
        if split.canary:
            serves = self._get(Service, split.canary.backend.service)
            split = replace(split, canary=replace(split.canary, weight=0, mirror=0) if serves else None)
        there = set(map(_key, found.routes))
        others = self._settings.services[name].stable == "existing"
        refused: ClusterError | None = None
        for route in self._router.render(split):
            if _key(route.manifest) in there and not (others and route.services == {split.stable.service}):
                try:
                    self._patch(route.manifest)
                except ClusterError as error:
                    refused = error
        if refused:
            raise refused

    def _set_weight(self, name: str, found: _Routed, weight: int) -> None:
        router, split = found.router, found.split
        if isinstance(split, UnreadableRouteError):
            if not weight:  # which alone is no rise, whatever is in force
                self._put_back(name, found)
            return
        # The other of two routers may have less already.
        if split.canary is None or split.weight < weight:
            return
        # A stable route that something else owns may have any name; ours is that of the service.
        lowered = replace(split, name=name, canary=replace(split.canary, weight=weight, mirror=0))
        unchanged = [route.manifest for route in router.render(replace(split, name=name))]
        for route in router.render(lowered):
            if route.manifest not in unchanged:
                self._patch(route.manifest)

    def mark_rolled_back(self, name: str, image: str | None) -> None:
        """Note on the canary's Deployment that this image was rolled back; None removes the note.

        Raises:
            ClusterError: the API server refused.
        """
        change = {"metadata": {"annotations": {ROLLED_BACK_ANNOTATION: image}}}
        deployment, namespace = object_name(name, Track.CANARY), self._settings.namespace

        def patch() -> Deployment:
            return self._client.patch(
                Deployment,
                deployment,
                change,
                namespace=namespace,
                patch_type=PatchType.MERGE,
                field_manager=LOWERING_MANAGER,
            )

        self._asked_for(patch)

    def wait_until_ready(self, name: str, track: Track, report: Callable[[str], object], at_least: int = 0) -> None:
        """Return when all pods of one track's newest revision take requests by their Service, and no older ones do.

        Args:
            name: the service.
            track: its track.
            report: takes a line on how far it is, once a second has gone and whenever that changes.
            at_least: pods to wait for even if the Deployment asks for fewer.

        Raises:
            NotReadyError: not within `readyTimeoutSeconds`, or something lasts that time alone will hardly mend.
        """
        timeout = self._settings.services[name].ready_timeout_seconds
        begin = time.monotonic()
        reported = ""
        stuck_since: float | None = None
        while True:
            found = self._readiness(name, track, at_least, begin)
            if found.complete:
                return
            now = time.monotonic()
            stuck_since = (stuck_since or now) if found.stuck else None
            stuck = stuck_since is not None and now - stuck_since >= STUCK_SECONDS
            if stuck or now - begin >= timeout:
                raise NotReadyError(_not_ready(object_name(name, track), track, found, now - begin))
            progress = f"{found.ready} of {found.wanted} pods take requests; {'; '.join(found.reasons)}"
            if progress != reported and now - begin >= _REPORT_SECONDS:
                report(progress)
                reported = progress
            time.sleep(_POLL_SECONDS)

    def wait_until_routed(self, name: str) -> str:
        """Return when the declared router routes by its objects, as far as it can be told, or why it does not.

        While another router's objects serve on, `readyTimeoutSeconds` are given for it, and `sync_seconds` to follow.
        Otherwise nothing is gained by waiting for a controller that does not answer, and may be made later.

        Raises:
            NotReadyError: another router has to serve on, or a controller has refused the objects.
        """
        moves, begin = bool(self._former.get(name)), time.monotonic()
        timeout = float(self._settings.services[name].ready_timeout_seconds)
        while pending := self._pending(name):
            if time.monotonic() - begin >= (timeout if moves else min(timeout, STUCK_SECONDS)):
                if moves:
                    raise NotReadyError(f"{pending.reason}\nThe former route serves on. Correct the router's settings")
                if pending.refused:
                    raise NotReadyError(f"{pending.reason}\nNo request is routed by it. Correct the router's settings")
                return pending.reason
            time.sleep(_POLL_SECONDS)
        if moves:
            time.sleep(self._router.sync_seconds)
        return ""

    def _pending(self, name: str) -> Pending | None:
        try:
            pending = self._router.pending(routes_of(self._settings, name, self._routes()))
        except UnreadableRouteError as error:
            return Pending(str(error))
        if pending and pending.refused:
            return pending
        why = list(filter(None, map(self.lacking, self._settings.split_of(name).entries)))
        return _without(name, why) if why else pending

    def pods_of(self, name: str, track: Track) -> PodsSeen:
        """Return the pods of one track as they are now.

        Raises:
            ClusterError: the API server cannot be asked.
        """
        return self._workloads.look(name, track, 0, time.monotonic())

    def keep_while_used(
        self, name: str, track: Track, configurations: Sequence[Manifest], *, superseding: bool
    ) -> None:
        """Let ConfigMaps and Secrets of a track go with the last ReplicaSet that uses them.

        Those that are declared belong to the Deployment: restarts by hand make ReplicaSets that this program does not
        see, and take old ones away. Those that they supersede are left to the ReplicaSets that use them, of which
        Kubernetes keeps `revisionHistoryLimit`
        (https://kubernetes.io/docs/concepts/architecture/garbage-collection/#owners-dependents).

        Raises:
            ClusterError: the API server refused.
        """
        deployment = self._get(Deployment, object_name(name, track))
        if deployment is None:  # deleted by somebody meanwhile, which the wait for its pods tells
            return
        for manifest in configurations:
            if not self._own(*_key(manifest), [_reference(deployment)]):
                # The garbage collector was about to remove it with its former owners.
                self.restore(manifest)
                self._own(*_key(manifest), [_reference(deployment)])
        if not superseding:
            return
        declared = {_key(manifest) for manifest in configurations}
        no_more = {"$patch": "delete", "uid": deployment["metadata"]["uid"]}
        for replica_set in self._list(ReplicaSet, selector(self._settings.app_label_of(name, track), track)):
            for kind, former in configurations_used(replica_set, object_name(name, track)) - declared:
                self._own(kind, former, [no_more, _reference(replica_set)])

    def _own(self, kind: str, name: str, owners: Sequence[Manifest]) -> bool:
        """Change the owners of a ConfigMap or Secret, by their uid; return whether it is there."""
        resource, namespace = resource_registry.load("v1", kind), self._settings.namespace
        patch = {"metadata": {"ownerReferences": list(owners)}}  # a strategic merge patch leaves the other owners
        return (
            self._asked_for(lambda: self._client.patch(cast("Any", resource), name, patch, namespace=namespace))
            is not None
        )

    def _readiness(self, name: str, track: Track, at_least: int, since: float) -> Readiness:
        try:
            return self._workloads.look(name, track, at_least, since).readiness
        except ForbiddenError:
            raise
        except ClusterError as error:
            return Readiness(0, at_least, rolled_out=False, reasons=(str(error),))

    def _strands(self, name: str, live: LiveService) -> bool:
        """Tell whether the Service, which leads to ready pods now, would lead to none with its declared selector."""
        declared = selector(self._settings.app_label_of(name, Track.STABLE), Track.STABLE)
        if not live.selector or dict(live.selector) == declared or self._settings.services[name].stable == "existing":
            return False
        return any(map(_is_ready, self._list(Pod, live.selector))) and not any(
            map(_is_ready, self._list(Pod, declared))
        )

    @cached_property
    def _knows_monitoring(self) -> bool:
        group, version = _OPERATOR

        def served() -> set[str]:
            # lightkube has no call for it. Everybody may ask (ClusterRole system:discovery), and unlike a list of
            # objects it does not answer "forbidden" where there is no such kind.
            answer = self._client._client._client.get(f"/apis/{group}/{version}")  # noqa: SLF001 - see above
            if answer.status_code == _NOT_FOUND:
                return set()
            answer.raise_for_status()
            return {resource["kind"] for resource in answer.json()["resources"]}

        return {kind.__name__ for kind in _MONITORING_KINDS} <= self._asked(served)

    def _optional_kinds(self) -> list[Any]:
        services = self._settings.services.values()
        watched = self._settings.monitoring.enabled and self._knows_monitoring
        return [
            kind
            for kind, asked_for in (
                (HorizontalPodAutoscaler, any(service.autoscaling for service in services)),
                (PodDisruptionBudget, any(service.disruption_budget for service in services)),
                (_PROMETHEUS_RULE, watched),
                (_POD_MONITOR, watched and self._settings.monitoring.source == "application"),
            )
            if asked_for
        ]

    def _routes(self, router: Router | None = None) -> list[Manifest]:
        asked, routes = router or self._router, list[Manifest]()
        for kind in asked.kinds:
            try:
                found = self._list_if_known(_resource_of(kind))
            except ForbiddenError as error:
                roles = "rbac/" if kind.kind in KINDS else "rbac/routers"
                raise ForbiddenError(f"{error}. {roles} has this right (docs/rbac.md)") from error
            if found is None:
                raise UnknownKindError(
                    f"router {asked.name} needs {kind.kind} ({kind.api_version}), which the cluster does not "
                    "know: install its CustomResourceDefinitions, or choose another router"
                )
            routes += found
        return routes

    def routes_of_others(self) -> dict[str, list[Manifest]]:
        """Return the objects of this program that belong to routers other than the declared one, by its name.

        Raises:
            ClusterError: the API server cannot be asked.
        """
        own = {(kind.api_version, kind.kind) for kind in self._router.kinds}
        served = self._served_groups
        found: dict[str, list[Manifest]] = {}
        listed: dict[RouteKind, list[Manifest]] = {}
        for router in self._others:
            kinds = [kind for kind in router.kinds if (kind.api_version, kind.kind) not in own]
            try:
                # Of a group that is not served, nobody is asked to have the right to list it.
                for kind in (each for each in kinds if each not in listed and _group(each) in served):
                    listed[kind] = self._list_if_known(_resource_of(kind)) or []
            except ForbiddenError:
                continue  # who may not see them cannot remove them either
            if routes := [route for kind in kinds for route in listed.get(kind, ()) if applied(route)]:
                found[router.name] = routes
        # Objects of a kind that two routers have are those of the one that can read them.
        read = {router for router, routes in found.items() if self._reads(ROUTERS[router], routes)}
        of_kinds = {ROUTERS[router].kinds: router for router in [*reversed(found), *sorted(read)]}
        return {router: routes for router, routes in found.items() if of_kinds[ROUTERS[router].kinds] == router}

    def _reads(self, router: Router, routes: Sequence[Manifest]) -> bool:
        own = (routes_of(self._settings, name, routes) for name in self._settings.services)
        return any(isinstance(_read(router, found), Split) for found in own if found)

    def _moving(self, ours: Mapping[str, LiveService], routes: Sequence[Manifest]) -> dict[str, LiveService]:
        """Return the services that other routers' objects route, alone or besides, with what is in force of all."""
        found: dict[str, LiveService] = {}
        others = self.routes_of_others() if ours else {}
        for name, live in ours.items():
            if self._settings.services[name].stable == "existing":
                continue
            former = {router: routes_of(self._settings, name, there) for router, there in others.items()}
            if live.split is None:  # objects of the declared router's kinds may say the split of another one
                former |= {router.name: routes_of(self._settings, name, routes) for router in self._alike}
            splits = {router: _read(ROUTERS[router], there) for router, there in former.items() if there}
            names = [each for each, split in splits.items() if each in others or isinstance(split, Split)]
            declared = [live.split] if live.split else []
            readable = [*declared, *(split for split in splits.values() if isinstance(split, Split))]
            if names:
                # What its router has not accepted takes no requests, but may from one moment to the next.
                serving = [split for split in readable if not (live.pending and split is live.split)]
                # What the declared router cannot read may be another one's, of the same kind.
                unread = [] if set(names) - others.keys() else [live.unreadable]
                unread += [str(splits[each]) for each in names if isinstance(splits[each], UnreadableRouteError)]
                found[name] = replace(
                    live,
                    split=max(serving or readable, key=lambda split: split.weight, default=None),
                    unreadable=next(filter(None, unread), ""),
                    former_routers=tuple(names),
                    least=min((split.weight for split in serving), default=0),
                    most=max((split.weight for split in readable), default=0),
                )
        return found

    @property
    def _alike(self) -> list[Router]:
        """The routers whose objects are of the declared router's kinds."""
        return [each for each in self._others if each.kinds == self._router.kinds]

    @property
    def _others(self) -> list[Router]:
        return [each for each in ROUTERS.values() if each.name != self._router.name]

    @cached_property
    def _served_groups(self) -> frozenset[str]:
        def served() -> frozenset[str]:
            # As above: everybody may ask, and lightkube has no call for it.
            answer = self._client._client._client.get("/apis")  # noqa: SLF001 - see above
            answer.raise_for_status()
            return frozenset(group["name"] for group in answer.json()["groups"])

        return self._asked(served)

    def _patch(self, manifest: Manifest) -> None:
        """Write annotations and specification of an object, if it is there."""
        metadata = manifest["metadata"]
        change: Manifest = {"metadata": {"annotations": metadata.get("annotations") or {}}, "spec": manifest["spec"]}

        def patch() -> None:
            self._client.patch(
                _resource(manifest),
                metadata["name"],
                change,
                namespace=metadata["namespace"],
                patch_type=PatchType.MERGE,
                field_manager=LOWERING_MANAGER,
            )

        self._asked_for(patch)

    def _list_if_known(self, kind: Any) -> list[Manifest] | None:  # noqa: ANN401 - a class of lightkube
        """Return the objects of a kind, None where the cluster does not know it."""

        def listed() -> list[Manifest] | None:
            try:
                return [_plain(found) for found in self._client.list(kind, namespace=self._settings.namespace)]
            except httpx2.HTTPStatusError as error:  # of a path that is not there, which has no Status to answer with
                if error.response.status_code == _NOT_FOUND:
                    return None
                raise

        return self._asked(listed)

    def _get(self, kind: Any, name: str) -> Manifest | None:  # noqa: ANN401 - a class of lightkube
        return self._asked_for(lambda: _plain(self._client.get(kind, name, namespace=self._settings.namespace)))

    def _list(self, kind: Any, labels: Mapping[str, str] | None = None) -> list[Manifest]:  # noqa: ANN401 - a class of lightkube
        namespace = self._settings.namespace
        return self._asked(
            lambda: [_plain(found) for found in self._client.list(kind, namespace=namespace, labels=dict(labels or {}))]
        )

    def _listed(self, kind: Any) -> list[Manifest]:  # noqa: ANN401 - a class of lightkube
        """List objects that a stack can do without."""
        try:
            return self._list(kind)
        except ForbiddenError as error:
            if kind not in _MONITORING_KINDS:
                raise
            raise ForbiddenError(
                f"{error}. rbac/ has this right; without it: pulumi config set --path monitoring.enabled false"
            ) from error

    def _asked_for(self, ask: Callable[[], Found]) -> Found | None:
        """Ask for an object that may not be there."""

        def found() -> Found | None:
            try:
                return ask()
            except ApiError as error:
                if error.status.code == _NOT_FOUND:
                    return None
                raise
            except httpx2.HTTPStatusError as error:  # of a kind that is not there, as above
                if error.response.status_code == _NOT_FOUND:
                    return None
                raise

        return self._asked(found)

    def _asked(self, ask: Callable[[], Found]) -> Found:
        try:
            # One at a time: msgspec, which decodes the answers, ended the process when threads did so at once.
            with self._asking:
                return ask()
        except ApiError as error:
            refused = ForbiddenError if error.status.code == _FORBIDDEN else ClusterError
            raise refused(f"the API server refused: {error.status.message or error}") from error
        except (httpx2.HTTPError, ConfigError, OSError, ValueError, KeyError) as error:
            # The last three also come from a credential plugin that is missing or prints something else than a token.
            server = self._client.config.cluster.server
            raise ClusterError(
                f"the API server {server} cannot be asked: {type(error).__name__}: {error}. It is that of kubernetes:"
                "kubeconfig and kubernetes:context, if the stack sets them, else of kubectl"
            ) from error


def _not_ready(deployment: str, track: Track, found: Readiness, seconds: float) -> str:
    reasons = "".join(f"\n  {reason}" for reason in found.reasons) or "\n  no reason was given"
    consequence = "Stable is as it was, and no weight has risen."
    if track is Track.STABLE:
        consequence = "Its older pods serve on, and a canary keeps its share."
    return (
        f"Deployment {deployment}: {found.ready} of {found.wanted} pods take requests after {seconds:.0f} s.{reasons}\n"
        f"{consequence} Correct the configuration and run `pulumi up` again."
    )


def _read(router: Router, routes: Sequence[Manifest]) -> Split | UnreadableRouteError:
    try:
        return router.read(routes)
    except UnreadableRouteError as error:
        return error


def _most(found: Sequence[_Routed]) -> Split:
    """Return the split that gives the canary most: while a service moves, requests come in by all of its routers.

    Raises:
        UnreadableRouteError: what one of them does is not known.
    """
    for each in found:
        if isinstance(each.split, UnreadableRouteError):
            raise each.split
    return max((each.split for each in found if isinstance(each.split, Split)), key=lambda split: split.weight)


def _without(name: str, lacking: Sequence[str]) -> Pending:
    return Pending(f"HTTPRoute {name}: {', '.join(lacking)}")


def _group(kind: RouteKind) -> str:
    return kind.api_version.partition("/")[0]


def _key(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def _reference(owner: Manifest) -> Manifest:
    """Return the entry of an object in the `ownerReferences` of others."""
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def _declarations(manifest: Manifest) -> tuple[object, ...]:
    """Return the parts of an object that somebody declares, without what the API server and controllers add."""
    metadata = manifest["metadata"]
    return manifest.get("spec"), metadata.get("labels"), metadata.get("annotations")


def _numbers(service: Manifest) -> set[int]:
    return {port["port"] for port in service["spec"].get("ports") or ()}


def _resource(manifest: Manifest) -> Any:  # noqa: ANN401 - a class of lightkube
    return resource_registry.load(manifest["apiVersion"], manifest["kind"])


def _resource_of(kind: RouteKind) -> Any:  # noqa: ANN401 - a class of lightkube
    try:
        return resource_registry.load(kind.api_version, kind.kind)
    except LoadResourceError:  # not one of Kubernetes' own
        group, _, version = kind.api_version.partition("/")
        return resource_registry.register(create_namespaced_resource(group, version, kind.kind, kind.plural))


def _plain(found: Any) -> Manifest:  # noqa: ANN401 - an instance of any class of lightkube
    api = type(found)._api_info.resource  # noqa: SLF001 - lists leave kind and apiVersion out of their items
    version = f"{api.group}/{api.version}" if api.group else api.version
    plain: Manifest = found.to_dict()
    return plain | {"apiVersion": version, "kind": api.kind}


def _is_ready(pod: Manifest) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and not pod["metadata"].get("deletionTimestamp")
