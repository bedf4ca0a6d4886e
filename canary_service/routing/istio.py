"""Istio's VirtualService (https://istio.io/latest/docs/reference/config/networking/virtual-service/).

The tracks have a Service each, so that no DestinationRule with subsets is needed.
"""

import re
from collections.abc import Sequence
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
    by_element,
    cookie_of,
    cookie_pattern,
    match_of,
    metadata,
    one,
    only,
    reading,
    rules_with_sessions,
    services,
    set_cookie,
    shares,
)
from canary_service.routing.router import Feature, HeaderSyntax, Manifest, RouteKind, RouteObject, UnreadableRouteError
from canary_service.routing.split import Backend, Entry, Header, Match, Split

_GROUP: Final = "networking.istio.io"
VERSIONS: Final = ("v1", "v1beta1")
"""Of VirtualService, with one and the same content; `v1` came with Istio 1.22."""
_KIND: Final = "VirtualService"
_COOKIE: Final = COOKIE_HEADER.lower()


class Istio(SharedObjects):
    """One VirtualService: for ingress Gateways, the entries; without them for the mesh, by the Service's name."""

    name = "istio"
    features = frozenset(
        {Feature.WEIGHT, Feature.HEADER, Feature.COOKIE, Feature.AFFINITY, Feature.MIRROR, Feature.MESH}
    )
    # "The keys must be lowercase" (virtual_service.proto, HTTPMatchRequest.headers): others never match.
    header_syntax = HeaderSyntax(
        name=re.compile(r"(?!cookie$)[a-z0-9!#$%&'*+.^_|~-]{1,256}"),
        value=HEADER_SYNTAX.value,
        rule="a name in lower case, of letters, digits and !#$%&'*+-.^_|~, and a value of visible ASCII characters but "
        "the backtick",
    )
    # Changes are gathered for up to 10 s (PILOT_DEBOUNCE_MAX, https://istio.io/latest/docs/reference/commands/pilot-discovery/).
    sync_seconds = 10.0

    def __init__(self, version: str = VERSIONS[0]) -> None:
        self._api_version = f"{_GROUP}/{version}"
        others = tuple(f"{_GROUP}/{each}" for each in VERSIONS if each != version)
        self.kinds = (RouteKind(self._api_version, _KIND, "virtualservices", others),)

    def render(self, split: Split) -> Sequence[RouteObject]:
        """Return the VirtualService."""
        gateways = [f"{entry.namespace}/{entry.name}" if entry.namespace else entry.name for entry in split.entries]
        spec: Manifest = {"gateways": gateways} if gateways else {}
        spec |= {
            "hosts": [split.match.host],
            "http": [
                _matched(split.match, condition) | {"route": [_weighted(*share) for share in shares(split, percent)]}
                for condition, percent in rules_with_sessions(split)
            ],
        }
        if split.affinity:
            for weighted, (backend, _) in zip(spec["http"][-1]["route"], shares(split, split.weight), strict=True):
                weighted["headers"] = {"response": {"add": set_cookie(split, backend)}}
        if split.canary and split.mirror:
            copies = _destination(split.canary.backend) | {"percentage": {"value": split.mirror}}
            spec["http"][-1]["mirrors"] = [copies]
        manifest = {"apiVersion": self._api_version, "kind": _KIND, "metadata": metadata(split), "spec": spec}
        return (RouteObject(manifest, services(split)),)

    def read(self, manifests: Sequence[Manifest]) -> Split:
        """Return the split of one VirtualService.

        Raises:
            UnreadableRouteError: there is none or more than one, or its routes are not those of one split.
        """
        route = only(manifests, _KIND)
        with reading(f"{_KIND} {route['metadata']['name']}"):
            spec = route["spec"]
            host, found = one(spec["hosts"], "hosts"), spec.get("http") or []
            read = [_route(host, each) for each in found]
            match = one([*{match for match, _, _ in read}], "paths in its routes")
            mirror = _mirror(found[-1])
            affinity = affinity_of([_added(each) for each in found[-1]["route"]])
            stable, canary = backends_of([(condition, shared) for _, condition, shared in read], mirror, affinity)
            return Split(
                name=route["metadata"]["name"],
                namespace=route["metadata"]["namespace"],
                match=match,
                stable=stable,
                canary=canary,
                entries=tuple(map(_entry, spec.get("gateways") or ())),
                annotations=dict(route["metadata"].get("annotations") or {}),
                affinity=affinity,
            )


def _entry(gateway: str) -> Entry:
    namespace, _, name = gateway.rpartition("/")
    return Entry(name, namespace or None)


def _matched(match: Match, condition: Condition | None) -> Manifest:
    headers: Manifest = {}
    if isinstance(condition, Header):
        headers = {"headers": {condition.name: {"exact": condition.value}}}
    elif condition:
        headers = {"headers": {_COOKIE: {"regex": cookie_pattern(condition)}}}
    everything = match.path == "/" and match.path_type == "Prefix"
    uris: list[Manifest] = [{}] if everything else [{"uri": {how: path}} for how, path in by_element(match)]
    alternatives = [uri | headers for uri in uris]
    return {"match": alternatives} if alternatives != [{}] else {}


def _destination(backend: Backend) -> Manifest:
    return {"destination": {"host": backend.service, "port": {"number": backend.port}}}


def _weighted(backend: Backend, weight: int) -> Manifest:
    return _destination(backend) | {"weight": weight}


def _route(host: str, route: Manifest) -> tuple[Match, Condition | None, Shares]:
    alternatives: list[Manifest] = route.get("match") or [{}]
    headers: list[Manifest] = [each.get("headers") or {} for each in alternatives]
    if any(each != headers[0] for each in headers) or any(each.keys() - {"uri", "headers"} for each in alternatives):
        raise UnreadableRouteError("a route matches more than one path with the same headers")
    paths = [pair for each in alternatives for pair in (each.get("uri") or {}).items()]
    match = match_of(host, paths) if paths else Match(host, "/")
    destinations = route["route"]
    # A lone destination gets everything, whatever its weight.
    shared = [_share(each, 100 if len(destinations) == 1 else 0) for each in destinations]
    return match, _condition(headers[0]) if headers[0] else None, shared


def _condition(headers: Manifest) -> Condition:
    name, value = one([*headers.items()], "headers in a match")
    if name == _COOKIE:
        return cookie_of(value["regex"])
    return Header(name, value["exact"])


def _added(route: Manifest) -> dict[str, str]:
    return dict(((route.get("headers") or {}).get("response") or {}).get("add") or {})


def _share(route: Manifest, weight: int) -> tuple[Backend, Any]:
    return _backend(route), route.get("weight", weight)


def _backend(route: Manifest) -> Backend:
    destination = route["destination"]
    return Backend(destination["host"], destination["port"]["number"])


def _mirror(route: Manifest) -> Mirror | None:
    mirrors = route.get("mirrors") or ()
    if len(mirrors) > 1 or "mirror" in route:
        raise UnreadableRouteError("requests are mirrored to more than one place, or in the old way")
    return next(((_backend(each), each["percentage"]["value"]) for each in mirrors), None)
