"""The objects of routers that take a configuration's requests: read, waited for, and lowered ahead of the engine."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

from lightkube.resources.core_v1 import Service

from canary_service.cluster.api import KubernetesApi, resource_of
from canary_service.cluster.errors import ClusterError, ForbiddenError, NotReadyError, UnknownKindError
from canary_service.cluster.gateways import Gateways
from canary_service.cluster.workloads import POLL_SECONDS, STUCK_SECONDS
from canary_service.config.settings import Settings
from canary_service.routing.registry import ROUTERS
from canary_service.routing.router import Manifest, Pending, RouteKind, Router, UnreadableRouteError
from canary_service.routing.split import Split
from canary_service.workload.facts import KINDS
from canary_service.workload.live import LiveService, applied, key_of, last_written, read_split, routes_of, with_stable

_WHERE_REQUESTS_COME_IN: Final = frozenset(
    {"entryPoints", "gateways", "hostnames", "hosts", "ingressClassName", "parentRefs", "tls"}
)
"""Fields of routes' specifications that say by what requests reach them, not where they go."""


@dataclass(frozen=True, slots=True)
class _Routed:
    """The objects of one router that route a service, and the split that they are, or why they are none."""

    router: Router
    routes: Sequence[Manifest]
    split: Split | UnreadableRouteError


class Routes:
    """What routes the services of a configuration. May be used by several threads at once.

    Which other routers serve beside the declared one, or in its place, is what `in_force` found last.
    """

    def __init__(self, settings: Settings, api: KubernetesApi, gateways: Gateways) -> None:
        self._settings = settings
        self._api = api
        self._gateways = gateways
        self._router = settings.router_of_stack()
        self._seen: Sequence[Manifest] = ()
        self._former: dict[str, tuple[Router, ...]] = {}
        self._unknown: UnknownKindError | None = None

    def listed(self, router: Router | None = None) -> list[Manifest]:
        """Return all objects of a router's kinds in the namespace, by default of the declared one's.

        Raises:
            ClusterError: the API server cannot be asked; UnknownKindError when the cluster does not know a kind.
        """
        asked, routes = router or self._router, list[Manifest]()
        for kind in asked.kinds:
            try:
                found = self._api.listed_if_known(kind)
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

    def in_force(
        self, live: Mapping[str, LiveService], routes: Sequence[Manifest], unknown: UnknownKindError | None
    ) -> dict[str, LiveService]:
        """Return the services with what routes them in fact: as far as its router takes it, and by other routers.

        Args:
            live: the services as the declared router's objects say.
            routes: all objects of the declared router's kinds.
            unknown: that the cluster does not know these kinds.

        Raises:
            ClusterError: the API server cannot be asked; `unknown` when no other router serves either.
        """
        self._seen = routes
        found = self._with_gateways({name: self._patient(name, each) for name, each in live.items()})
        found |= self._moving({name: each for name, each in found.items() if each.ours}, routes)
        self._former = {name: tuple(ROUTERS[each] for each in of.former_routers) for name, of in found.items()}
        if unknown:
            if not any(self._former.values()):
                raise unknown
            pending = Pending(str(unknown), refused=True)
            found = {name: replace(each, pending=pending) for name, each in found.items()}
        self._unknown = unknown
        return found

    def refuse_unknown_kinds(self) -> None:
        """Refuse what the declared router has to carry out, where `in_force` was told that the cluster lacks its kinds.

        Raises:
            UnknownKindError: it does.
        """
        if self._unknown:
            raise self._unknown

    def written_at(self, name: str) -> float:
        """Return when a route of a service was written last, in seconds since the epoch; of those that were read."""
        return max(map(last_written, routes_of(self._settings, name, self._seen)), default=0.0)

    def split(self, name: str) -> Split:
        """Return the split that the objects of the router in force describe now.

        Raises:
            UnreadableRouteError: the objects are missing or were changed into something that is no split.
            ClusterError: the API server cannot be asked.
        """
        return _most(self._found((name,))[name])

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
                of_others = [each.router.name for each in after[name] if each.router is not self._router]
                back = f". To have it put back: `pulumi config set router {of_others[0]}`" if of_others else ""
                problems.setdefault(name, f"{error}{back}")
                continue
            if split.canary and split.weight != weight:
                problems.setdefault(name, f"{weight} was set, but {split.weight} read back")
            else:
                lowered[name] = split
        if problems:
            raise ClusterError("; ".join(f"{name}: the weight is not lowered: {why}" for name, why in problems.items()))
        return lowered

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
            time.sleep(POLL_SECONDS)
        if moves:
            time.sleep(self._router.sync_seconds)
        return ""

    def of_others(self) -> dict[str, list[Manifest]]:
        """Return the objects of this program that belong to routers other than the declared one, by its name.

        Raises:
            ClusterError: the API server cannot be asked.
        """
        own = {(kind.api_version, kind.kind) for kind in self._router.kinds}
        served = self._api.groups
        found: dict[str, list[Manifest]] = {}
        listed: dict[RouteKind, list[Manifest]] = {}
        for router in self._others:
            kinds = [kind for kind in router.kinds if (kind.api_version, kind.kind) not in own]
            try:
                # Of a group that is not served, nobody is asked to have the right to list it.
                for kind in (each for each in kinds if each not in listed and _group(each) in served):
                    listed[kind] = self._api.listed_if_known(kind) or []
            except ForbiddenError:
                continue  # who may not see them cannot remove them either
            if routes := [route for kind in kinds for route in listed.get(kind, ()) if applied(route)]:
                found[router.name] = routes
        # Objects of a kind that two routers have are those of the one that can read them.
        read = {router for router, routes in found.items() if self._reads(ROUTERS[router], routes)}
        of_kinds = {ROUTERS[router].kinds: router for router in [*reversed(found), *sorted(read)]}
        return {router: routes for router, routes in found.items() if of_kinds[ROUTERS[router].kinds] == router}

    def _found(self, names: Sequence[str]) -> dict[str, list[_Routed]]:
        """Return each router's objects of services, the declared one's first; without any, that it has none."""
        routers = {name: (self._router, *self._former.get(name, ())) for name in names}
        served = [each for each in dict.fromkeys(chain(*routers.values())) if not self._unknown or each != self._router]
        routes = {each.name: self.listed(each) for each in served}
        found: dict[str, list[_Routed]] = {}
        for name, of in routers.items():
            own = [(each, routes_of(self._settings, name, routes.get(each.name, []))) for each in of]
            read = [
                _Routed(each, there, self._read(name, each, self._with_stable(each, name, there)))
                for each, there in own
                if there
            ]
            # Objects of a kind that two routers have are those of the one that can read them.
            kinds = {each.router.kinds for each in read if isinstance(each.split, Split)}
            read = [each for each in read if isinstance(each.split, Split) or each.router.kinds not in kinds]
            found[name] = read or [_Routed(self._router, [], self._read(name, self._router, []))]
        return found

    def _with_stable(self, router: Router, name: str, routes: list[Manifest]) -> list[Manifest]:
        return with_stable(self._settings, name, routes) if router is self._router else routes

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
                self._write(route.manifest)

    def _put_back(self, name: str, found: _Routed) -> None:
        """Put back, as declared but with weight 0, objects of the declared router; how others were is not known.

        Requests come in where they do now: what is declared of that may be wrong, which an update would refuse. A
        canary whose Service is not there gets no rule either, which some routers would fail the whole route for.

        Raises:
            ClusterError: the API server refused one; the others are put back.
        """
        if found.router is not self._router or not found.routes:
            return
        split = self._settings.split_of(name)
        if split.canary:
            serves = self._api.get(Service, split.canary.backend.service)
            split = replace(split, canary=replace(split.canary, weight=0, mirror=0) if serves else None)
        there = {key_of(route): route["spec"] for route in found.routes}
        others = self._settings.services[name].stable == "existing"
        refused: ClusterError | None = None
        for route in self._router.render(split):
            before = there.get(key_of(route.manifest))
            if before is not None and not (others and route.services == {split.stable.service}):
                spec = route.manifest["spec"]
                kept = {key: before[key] for key in _WHERE_REQUESTS_COME_IN & before.keys() & spec.keys()}
                try:
                    self._write(route.manifest | {"spec": spec | kept})
                except ClusterError as error:
                    refused = error
        if refused:
            raise refused

    def _pending(self, name: str) -> Pending | None:
        try:
            pending = self._router.pending(routes_of(self._settings, name, self.listed()))
        except UnreadableRouteError as error:
            return Pending(str(error))
        if pending and pending.refused:
            return pending
        why = list(filter(None, map(self._gateways.lacking, self._settings.split_of(name).entries)))
        return _without(name, why) if why else pending

    def _with_gateways(self, live: Mapping[str, LiveService]) -> dict[str, LiveService]:
        """Return the services with what their routes wait for: status of a route may outlive its Gateway."""
        attached = {name: found.split.entries for name, found in live.items() if found.split}
        lacking = {entry: self._gateways.lacking(entry) for entry in dict.fromkeys(chain(*attached.values()))}
        told = dict(live)
        for name, entries in attached.items():
            why, pending = [lacking[entry] for entry in entries if lacking[entry]], live[name].pending
            if why and not (pending and pending.refused):
                told[name] = replace(live[name], pending=_without(name, why))
        return told

    def _patient(self, name: str, found: LiveService) -> LiveService:
        """Give a controller the time that it has to follow before a status is said to be out of date."""
        stale = found.pending is not None and found.pending.stale
        if stale and time.time() - self.written_at(name) < self._router.sync_seconds:
            return replace(found, pending=None)
        return found

    def _moving(self, ours: Mapping[str, LiveService], routes: Sequence[Manifest]) -> dict[str, LiveService]:
        """Return the services that other routers' objects route, alone or besides, with what is in force of all."""
        found: dict[str, LiveService] = {}
        others = self.of_others() if ours else {}
        for name, live in ours.items():
            if self._settings.services[name].stable == "existing":
                continue
            former = {router: routes_of(self._settings, name, there) for router, there in others.items()}
            if live.split is None:  # objects of the declared router's kinds may say the split of another one
                former |= {router.name: routes_of(self._settings, name, routes) for router in self._alike}
            splits = {router: self._read(name, ROUTERS[router], there) for router, there in former.items() if there}
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

    def _reads(self, router: Router, routes: Sequence[Manifest]) -> bool:
        own = {name: routes_of(self._settings, name, routes) for name in self._settings.services}
        return any(isinstance(self._read(name, router, found), Split) for name, found in own.items() if found)

    def _read(self, name: str, router: Router, routes: Sequence[Manifest]) -> Split | UnreadableRouteError:
        try:
            return read_split(self._settings, name, router, routes)
        except UnreadableRouteError as error:
            return error

    @property
    def _alike(self) -> list[Router]:
        """The routers whose objects are of the declared router's kinds."""
        return [each for each in self._others if each.kinds == self._router.kinds]

    @property
    def _others(self) -> list[Router]:
        return [each for each in ROUTERS.values() if each.name != self._router.name]

    def _write(self, manifest: Manifest) -> None:
        """Write annotations and specification of an object, if it is there."""
        metadata = manifest["metadata"]
        change: Manifest = {"metadata": {"annotations": metadata.get("annotations") or {}}, "spec": manifest["spec"]}
        self._api.patch(resource_of(manifest), metadata["name"], change)


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
