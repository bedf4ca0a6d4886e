"""The seam between a split and the objects that make a proxy carry it out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from canary_service.routing.split import Match, Split, Track

Manifest: TypeAlias = dict[str, Any]
"""A Kubernetes object as the API server takes it."""


class Feature(StrEnum):
    """What a router can do with a request; what it cannot do is refused when the configuration loads."""

    WEIGHT = "weight"
    HEADER = "header"
    COOKIE = "cookie"
    AFFINITY = "affinity"
    AFFINITY_OF_STABLE = "affinity of stable"
    """Keeps the clients of stable's pods only (`legacy`)."""

    MIRROR = "mirror"
    """Sends the canary copies of requests to stable."""

    ATTACH = "attach"
    """Keeps the canary in an object of its own, beside objects that belong to somebody else."""

    TLS = "tls"
    """Takes the host's certificate from a Secret that the route names."""

    IMPLEMENTATION_SPECIFIC = "implementation-specific"
    """Has path types of its own."""

    MESH = "mesh"
    """Without entries, requests come from clients that call the Service by its name, whatever host and path."""


@dataclass(frozen=True, slots=True)
class RouteKind:
    """A kind of a router's objects, and how the API server's paths write it.

    In `other_versions` the API server has the same objects: who goes over from one to another keeps them.
    """

    api_version: str
    kind: str
    plural: str
    other_versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteObject:
    """An object of a router, and the names of the Services that must be ready before it exists."""

    manifest: Manifest
    services: frozenset[str]


@dataclass(frozen=True, slots=True)
class HeaderSyntax:
    """The header names and values a router takes.

    `rule` says the same as the patterns in words, for messages.
    """

    name: re.Pattern[str]
    value: re.Pattern[str]
    rule: str


@dataclass(frozen=True, slots=True)
class Pending:
    """Why requests are not routed by objects that are there.

    `refused` means that a controller has said no, which time alone will hardly mend; otherwise it has not answered.
    `stale` means that it has answered for what the objects were before: it may just need time.
    """

    reason: str
    refused: bool = False
    stale: bool = False


class UnreadableRouteError(ValueError):
    """Objects that were read from a cluster do not say how traffic is split. A retry does not help."""


class Router(Protocol):
    """One kind of traffic router. Pure: data in, data out.

    For every split whose features the router has, `read` gives back what `render` was given.
    """

    @property
    def name(self) -> str:
        """The value of the `router` configuration key."""
        ...

    @property
    def features(self) -> frozenset[Feature]:
        """What the router can do."""
        ...

    @property
    def kinds(self) -> tuple[RouteKind, ...]:
        """All kinds of objects that `render` may return."""
        ...

    @property
    def header_syntax(self) -> HeaderSyntax:
        """The headers the router takes."""
        ...

    @property
    def sync_seconds(self) -> float:
        """The longest time from a changed object to the first request that is routed by it, in seconds."""
        ...

    def render(self, split: Split) -> Sequence[RouteObject]:
        """Return the router's objects in the order in which they have to be created."""
        ...

    def pod_annotations(self, service: str, track: Track) -> dict[str, str]:
        """Return what the pods of a service's track need so that the router can tell them apart."""
        ...

    def demands(self, split: Split) -> Mapping[Feature, frozenset[str]]:
        """Return the optional features of the Gateway API without which nobody may be given these objects to serve."""
        ...

    def narrowed(self, manifests: Sequence[Manifest], match: Match) -> list[Manifest]:
        """Return those of the objects that route these requests, without what they say of others."""
        ...

    def taken_along(self, manifests: Sequence[Manifest], split: Split) -> list[str]:
        """Return what else, as host and path, goes to the split's stable Service and so to its canary too."""
        ...

    def pending(self, manifests: Sequence[Manifest]) -> Pending | None:
        """Return why requests are not routed by one service's objects yet; None when they are, or no status says so.

        Raises:
            UnreadableRouteError: the objects are not those of one service's split.
        """
        ...

    def read(self, manifests: Sequence[Manifest]) -> Split:
        """Return the split that these objects describe.

        Raises:
            UnreadableRouteError: the objects are not those of one service's split.
        """
        ...
