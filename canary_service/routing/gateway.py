"""HTTPRoute of the Gateway API (https://gateway-api.sigs.k8s.io/reference/spec/), standard channel."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final

from canary_service.routing.ordered import (
    COOKIE_HEADER,
    HEADER_SYNTAX,
    Condition,
    Mirror,
    SharedObjects,
    Shares,
    affinity_of,
    backends_of,
    cookie_of,
    cookie_pattern,
    metadata,
    one,
    only,
    reading,
    rules_with_sessions,
    services,
    set_cookie,
    shares,
)
from canary_service.routing.router import (
    Feature,
    HeaderSyntax,
    Manifest,
    Pending,
    RouteKind,
    RouteObject,
    UnreadableRouteError,
)
from canary_service.routing.split import TOTAL_WEIGHT, Backend, CanaryBackend, Entry, Header, Match, Split

API_VERSION: Final = "gateway.networking.k8s.io/v1"
KIND: Final = "HTTPRoute"
_GROUP: Final = "gateway.networking.k8s.io"
_DECIDING: Final = frozenset({"Accepted", "ResolvedRefs"})
"""The conditions of a route without which a parent sends no requests by it."""

_PATH_TYPES: Final = {"Prefix": "PathPrefix", "Exact": "Exact"}


# What pkg/features of the Gateway API calls them. Response headers of one backend have no name: who changes them for a
# rule, and request headers for a backend, is taken to know them.
_MIRROR_FEATURE: Final = "HTTPRouteRequestMirror"
_PART_FEATURE: Final = "HTTPRouteRequestPercentageMirror"
_SESSION_FEATURES: Final = frozenset(
    {"HTTPRouteResponseHeaderModification", "HTTPRouteBackendRequestHeaderModification"}
)
UNLISTED: Final[Mapping[str, frozenset[str]]] = {
    # internal/gatewayapi/filters.go and validate.go, v1.9.0; internal/gatewayapi/status/gatewayclass.go lists nothing.
    "gateway.envoyproxy.io/gatewayclass-controller": _SESSION_FEATURES | {_MIRROR_FEATURE, _PART_FEATURE},
}
"""What controllers support, by name, that leave the status of their GatewayClass empty."""


class HttpRoutes(SharedObjects, ABC):
    """One HTTPRoute named as the service; what it is attached to is the subclass's."""

    features = frozenset({Feature.WEIGHT, Feature.HEADER, Feature.COOKIE})
    kinds = (RouteKind(API_VERSION, KIND, "httproutes"),)
    header_syntax: HeaderSyntax = HEADER_SYNTAX
    # Istio, which serves these routes too, gathers changes for up to 10 s (PILOT_DEBOUNCE_MAX); others are faster
    # (Traefik 2 s) or name no bound.
    sync_seconds = 10.0

    @abstractmethod
    def _place(self, split: Split) -> Manifest:
        """Return the part of the specification that says which requests come to the route."""

    @abstractmethod
    def _placed(self, spec: Manifest) -> tuple[str, tuple[Entry, ...]]:
        """Return the host and the entries that `_place` was made of."""

    def render(self, split: Split) -> Sequence[RouteObject]:
        """Return the HTTPRoute."""
        spec = self._place(split) | {
            "rules": [
                {
                    "matches": [_match(split.match, condition)],
                    "backendRefs": [_weighted(*share) for share in shares(split, percent)],
                }
                for condition, percent in rules_with_sessions(split)
            ]
        }
        if split.affinity:
            for reference, (backend, _) in zip(
                spec["rules"][-1]["backendRefs"], shares(split, split.weight), strict=True
            ):
                reference["filters"] = [_adding(set_cookie(split, backend))]
        if split.canary and split.mirror:
            spec["rules"][-1]["filters"] = [_filter(split.canary)]
        manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata(split), "spec": spec}
        return (RouteObject(manifest, services(split)),)

    def pending(self, manifests: Sequence[Manifest]) -> Pending | None:
        """Return what the route's status says against it, or which parent nobody has answered for.

        Raises:
            UnreadableRouteError: there is none or more than one.
        """
        route = only(manifests, KIND)
        answers = (route.get("status") or {}).get("parents") or ()
        for parent in route["spec"].get("parentRefs") or ():
            conditions = [
                condition
                for answer in answers
                if _parent(route, answer["parentRef"]) == _parent(route, parent)
                for condition in answer.get("conditions") or ()
                if condition["type"] in _DECIDING
            ]
            present = [each for each in conditions if _is_present(each, route)]
            if conditions and not present:
                return Pending(
                    f"HTTPRoute {route['metadata']['name']}: its status is of a former state of it, and no controller "
                    "has answered for the present one",
                    stale=True,
                )
            for condition in present:
                if condition["status"] == "False":
                    told = (route["metadata"]["name"], condition["reason"], condition.get("message"))
                    return Pending(f"HTTPRoute {': '.join(filter(None, told))}", refused=True)
            if not any(condition["status"] == "True" for condition in present):
                namespace, kind, name, listener = _parent(route, parent)
                asked = f"{kind} {namespace}/{name}" + (f", listener {listener}" if listener else "")
                return Pending(
                    f"HTTPRoute {route['metadata']['name']}: no controller has answered for {asked}, if that is there"
                )
        return None

    def demands(self, split: Split) -> dict[Feature, frozenset[str]]:
        """Return what mirror and session cookie take.

        Traefik 3.7 accepts a route with a filter that it does not know, and answers 500 to all its requests.
        """
        demanded = {}
        if split.mirror:
            of_a_part = {_PART_FEATURE} if split.mirror < TOTAL_WEIGHT else set[str]()
            demanded[Feature.MIRROR] = frozenset({_MIRROR_FEATURE} | of_a_part)
        if split.affinity:
            demanded[Feature.AFFINITY] = _SESSION_FEATURES
        return demanded

    def read(self, manifests: Sequence[Manifest]) -> Split:
        """Return the split of one HTTPRoute.

        Raises:
            UnreadableRouteError: there is none or more than one, or its rules are not those of one split.
        """
        route = only(manifests, KIND)
        with reading(f"{KIND} {route['metadata']['name']}"):
            host, entries = self._placed(route["spec"])
            found = route["spec"].get("rules") or []
            read = [_rule(rule) for rule in found]
            path_type, path = one([*{(path["type"], path["value"]) for path, _, _ in read}], "paths in its rules")
            if path_type not in _PATH_TYPES.values():
                raise UnreadableRouteError(f"its path is matched by {path_type}")
            mirror = _mirror(found)
            affinity = affinity_of([_added(each) for each in found[-1]["backendRefs"]])
            stable, canary = backends_of([(condition, shared) for _, condition, shared in read], mirror, affinity)
            return Split(
                name=route["metadata"]["name"],
                namespace=route["metadata"]["namespace"],
                match=Match(host, path, "Exact" if path_type == _PATH_TYPES["Exact"] else "Prefix"),
                stable=stable,
                canary=canary,
                entries=entries,
                annotations=dict(route["metadata"].get("annotations") or {}),
                affinity=affinity,
            )


class Gateway(HttpRoutes):
    """An HTTPRoute that is attached to Gateways, the entries."""

    name = "gateway"
    features = HttpRoutes.features | {Feature.AFFINITY, Feature.MIRROR}

    def _place(self, split: Split) -> Manifest:
        parents = [
            {"group": _GROUP, "kind": "Gateway", "name": entry.name}
            | ({"namespace": entry.namespace} if entry.namespace else {})
            | ({"sectionName": entry.listener} if entry.listener else {})
            for entry in split.entries
        ]
        return {"parentRefs": parents, "hostnames": [split.match.host]}

    def _placed(self, spec: Manifest) -> tuple[str, tuple[Entry, ...]]:
        host = one(spec["hostnames"], "hostnames")
        parents = spec.get("parentRefs") or ()
        return host, tuple(Entry(each["name"], each.get("namespace"), each.get("sectionName")) for each in parents)


def _parent(route: Manifest, reference: Manifest) -> tuple[str, str, str, str]:
    """Return namespace, kind, name and listener of a parent, with what a reference may leave out."""
    namespace = reference.get("namespace") or route["metadata"]["namespace"]
    return namespace, reference.get("kind") or "Gateway", reference["name"], reference.get("sectionName") or ""


def _is_present(condition: Manifest, route: Manifest) -> bool:
    """Tell whether a condition is of the route as it is now; controllers may leave out of which it is."""
    present, observed = route["metadata"].get("generation"), condition.get("observedGeneration")
    return not present or not observed or observed >= present


def _match(match: Match, condition: Condition | None) -> Manifest:
    path = {"path": {"type": _PATH_TYPES[match.path_type], "value": match.path}}
    if condition is None:
        return path
    if isinstance(condition, Header):
        return path | {"headers": [{"type": "Exact", "name": condition.name, "value": condition.value}]}
    pattern = cookie_pattern(condition)
    return path | {"headers": [{"type": "RegularExpression", "name": COOKIE_HEADER, "value": pattern}]}


def _reference(backend: Backend) -> Manifest:
    return {"group": "", "kind": "Service", "name": backend.service, "port": backend.port}


def _weighted(backend: Backend, weight: int) -> Manifest:
    return _reference(backend) | {"weight": weight}


def _filter(canary: CanaryBackend) -> Manifest:
    return {
        "type": "RequestMirror",
        "requestMirror": {"backendRef": _reference(canary.backend), "percent": canary.mirror},
    }


def _adding(headers: Mapping[str, str]) -> Manifest:
    added = [{"name": name, "value": value} for name, value in headers.items()]
    return {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": added}}


def _added(reference: Manifest) -> dict[str, str]:
    found = [each["responseHeaderModifier"]["add"] for each in reference.get("filters") or ()]
    return {header["name"]: header["value"] for each in found for header in each}


def _rule(rule: Manifest) -> tuple[Manifest, Condition | None, Shares]:
    match = one(rule["matches"], "matches in a rule")
    headers: list[Manifest] = match.get("headers") or []
    condition = _condition(*headers) if headers else None
    if match.keys() - {"path", "headers"}:
        raise UnreadableRouteError("a rule matches more than path and headers")
    return match["path"], condition, [_share(reference) for reference in rule.get("backendRefs") or ()]


def _mirror(found: Sequence[Manifest]) -> Mirror | None:
    *others, last = (rule.get("filters") or () for rule in found)
    if any(others) or [each["type"] for each in last] not in ([], ["RequestMirror"]):
        raise UnreadableRouteError("a rule has other filters than the last one's mirror")
    return next(
        ((_backend(each["requestMirror"]["backendRef"]), each["requestMirror"]["percent"]) for each in last), None
    )


def _condition(header: Manifest) -> Condition:
    if header.get("type", "Exact") == "Exact":
        return Header(header["name"], header["value"])
    if header["name"].lower() != COOKIE_HEADER.lower():
        raise UnreadableRouteError(f"header {header['name']} is matched by a pattern")
    return cookie_of(header["value"])


def _share(reference: Manifest) -> tuple[Backend, Any]:
    return _backend(reference), reference.get("weight", 1)


def _backend(reference: Manifest) -> Backend:
    return Backend(reference["name"], reference["port"])
