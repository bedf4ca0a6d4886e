"""Consul's service-splitter and service-router (https://developer.hashicorp.com/consul/docs/reference/config-entry/service-splitter).

Both tracks are one service of Consul's with two subsets, so that intentions for it hold for the canary too; the pods
say by annotations to which they belong.
"""

from collections.abc import Sequence
from typing import Any, Final

from canary_service.routing.ordered import (
    COOKIE_HEADER,
    HEADER_SYNTAX,
    Condition,
    SharedObjects,
    backends_of,
    cookie_of,
    cookie_pattern,
    metadata,
    one,
    only,
    reading,
    rules,
    services,
)
from canary_service.routing.router import Feature, HeaderSyntax, Manifest, RouteKind, RouteObject, UnreadableRouteError
from canary_service.routing.split import TOTAL_WEIGHT, Backend, Header, Match, Split, Track

_API_VERSION: Final = "consul.hashicorp.com/v1alpha1"
_POD: Final = "consul.hashicorp.com/"
PORT_ANNOTATION: Final = "canary-service/port"
"""The port of the Services, which Consul's objects have no field for."""


class Consul(SharedObjects):
    """ServiceDefaults, ServiceResolver and ServiceSplitter, and for header and cookie a ServiceRouter."""

    name = "consul"
    features = frozenset({Feature.WEIGHT, Feature.HEADER, Feature.COOKIE, Feature.MESH})
    kinds = tuple(
        RouteKind(_API_VERSION, kind, kind.lower() if kind.endswith("s") else f"{kind.lower()}s")
        for kind in ("ServiceDefaults", "ServiceResolver", "ServiceSplitter", "ServiceRouter")
    )
    header_syntax: HeaderSyntax = HEADER_SYNTAX
    # No bound is documented; taken to be no slower than Istio.
    sync_seconds = 10.0

    def pod_annotations(self, service: str, track: Track) -> dict[str, str]:
        """Return what makes pods of both tracks one service of Consul's, in a subset each."""
        return {
            f"{_POD}connect-inject": "true",
            f"{_POD}connect-service": service,
            f"{_POD}service-meta-version": str(track),
        }

    def render(self, split: Split) -> Sequence[RouteObject]:
        """Return the objects, ServiceDefaults first: splitter and router are refused for a protocol other than HTTP."""
        stable, both = frozenset({split.stable.service}), services(split)
        annotations = split.annotations | {PORT_ANNOTATION: str(split.stable.port)}
        *chosen, (_, weight) = rules(split.canary)
        subsets = {str(track): {"filter": f"Service.Meta.version == {track}"} for track in Track}
        objects = [
            RouteObject(_object(split, "ServiceDefaults", {"protocol": "http"}, annotations), stable),
            RouteObject(
                _object(split, "ServiceResolver", {"defaultSubset": str(Track.STABLE), "subsets": subsets}), stable
            ),
            RouteObject(_object(split, "ServiceSplitter", {"splits": _splits(split, weight)}), both),
        ]
        if chosen:
            routes = [
                {
                    "match": {"http": {"header": [_header(condition)]}},
                    "destination": {
                        "service": split.name,
                        "serviceSubset": str(Track.CANARY if percent else Track.STABLE),
                    },
                }
                for condition, percent in chosen
                if condition
            ]
            objects.append(RouteObject(_object(split, "ServiceRouter", {"routes": routes}), both))
        return objects

    def read(self, manifests: Sequence[Manifest]) -> Split:
        """Return the split of one service's objects.

        Raises:
            UnreadableRouteError: one is missing or there twice, or weights are not whole and together 100.
        """
        defaults, splitter = only(manifests, "ServiceDefaults"), only(manifests, "ServiceSplitter")
        routers = [manifest for manifest in manifests if manifest["kind"] == "ServiceRouter"]
        name, namespace = defaults["metadata"]["name"], defaults["metadata"]["namespace"]
        annotations = dict(defaults["metadata"].get("annotations") or {})
        with reading(f"ServiceDefaults {name}"):
            if not annotations.get(PORT_ANNOTATION, "").isdecimal():
                raise UnreadableRouteError(f"it lacks annotation {PORT_ANNOTATION} with the number of a port")
            port = int(annotations.pop(PORT_ANNOTATION))
        with reading(f"ServiceSplitter {name}"):
            sides = {
                str(Track.STABLE): Backend(name, port),
                str(Track.CANARY): Backend(f"{name}-{Track.CANARY}", port),
            }
            weights = {each["serviceSubset"]: each["weight"] for each in splitter["spec"]["splits"]}
            if strange := weights.keys() - sides.keys():
                raise UnreadableRouteError(f"subset {', '.join(sorted(strange))} is neither of {' and '.join(sides)}")
            whole = all(isinstance(weight, int | float) and weight == int(weight) for weight in weights.values())
            if not whole or sum(weights.values()) != TOTAL_WEIGHT:
                told = " and ".join(f"{weight} ({side})" for side, weight in weights.items())
                raise UnreadableRouteError(f"weights {told} are not whole and together {TOTAL_WEIGHT}")
            shared = [(sides[side], int(weight)) for side, weight in weights.items()]
        with reading(f"ServiceRouter {name}"):
            routes = [route for router in routers for route in router["spec"]["routes"]]
            chosen = [
                (_condition(route), [(side, TOTAL_WEIGHT * (side == _destination(route, sides))) for side, _ in shared])
                for route in routes
            ]
            stable, canary = backends_of([*chosen, (None, shared)])
        match = Match(name, "/")
        return Split(name=name, namespace=namespace, match=match, stable=stable, canary=canary, annotations=annotations)


def _object(split: Split, kind: str, spec: Manifest, annotations: dict[str, str] | None = None) -> Manifest:
    own = metadata(split, annotations or {})
    return {"apiVersion": _API_VERSION, "kind": kind, "metadata": own, "spec": spec}


def _splits(split: Split, weight: int) -> list[Manifest]:
    stable = {"weight": TOTAL_WEIGHT - weight, "serviceSubset": str(Track.STABLE)}
    return [stable, {"weight": weight, "serviceSubset": str(Track.CANARY)}] if split.canary else [stable]


def _header(condition: Condition) -> Manifest:
    if isinstance(condition, Header):
        return {"name": condition.name, "exact": condition.value}
    return {"name": COOKIE_HEADER, "regex": cookie_pattern(condition)}


def _condition(route: Manifest) -> Condition:
    header = one(route["match"]["http"]["header"], "headers in a match")
    if "regex" in header:
        return cookie_of(header["regex"])
    return Header(header["name"], header["exact"])


def _destination(route: Manifest, sides: dict[str, Backend]) -> Any:  # noqa: ANN401 - of a manifest
    subset = route["destination"]["serviceSubset"]
    if subset not in sides:
        raise UnreadableRouteError(f"subset {subset} is neither of {' and '.join(sides)}")
    return sides[subset]
