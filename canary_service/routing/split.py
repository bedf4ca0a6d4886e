"""What a router is told and what is read back from it: the split of one service's traffic."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, TypeAlias

PathType: TypeAlias = Literal["Prefix", "Exact", "ImplementationSpecific"]
"""The path types of `networking.k8s.io/v1` Ingress."""

CanaryBehavior: TypeAlias = Literal["sticky", "legacy"]
"""Whether the canary holds its clients too (sticky), or only stable does (legacy)."""

TOTAL_WEIGHT: Final = 100
"""Weights are percent."""


class Track(StrEnum):
    """The two versions of a service that run side by side; also the value of the pods' `version` label."""

    STABLE = "stable"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Header:
    """Requests that carry this header with exactly this value go to the canary, whatever the weight."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class SessionAffinity:
    """A cookie by which the proxy keeps a client on the pod that answered it first, and so on its track.

    `max_age` is in seconds; None ends it with the browser's session.
    """

    cookie_name: str
    max_age: int | None = None
    canary_behavior: CanaryBehavior = "sticky"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where requests come in: an ingress class, a Gateway (perhaps one `listener` of it), an entry point.

    `namespace` is that of a Gateway, None when it is the route's own.
    """

    name: str
    namespace: str | None = None
    listener: str | None = None

    def __str__(self) -> str:
        place = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{place} ({self.listener})" if self.listener else place


@dataclass(frozen=True, slots=True)
class Match:
    """The requests that belong to the service."""

    host: str
    path: str
    path_type: PathType = "Prefix"


@dataclass(frozen=True, slots=True)
class Backend:
    """A Kubernetes Service and the number or name of the port on which it takes requests."""

    service: str
    port: int | str


@dataclass(frozen=True, slots=True)
class CanaryBackend:
    """Where canary requests go, and which requests those are.

    `weight` is the percent (0 to 100) of the requests that neither header nor cookie decided. `cookie` names a cookie
    that decides by its value: `always` is the canary, `never` is stable. `mirror` is the percent of those requests of
    which the canary gets a copy while its weight is 0, and its answers are thrown away: with requests of its own, a
    canary is measured by these, and copies would falsify its share.
    """

    backend: Backend
    weight: int
    header: Header | None = None
    cookie: str | None = None
    mirror: int = 0

    def __post_init__(self) -> None:
        for name, percent in (("weight", self.weight), ("mirror", self.mirror)):
            if not 0 <= percent <= TOTAL_WEIGHT:
                raise ValueError(f"{name} must be from 0 to {TOTAL_WEIGHT} percent, not {percent}")
        if self.weight and self.mirror:
            raise ValueError(f"mirror must be 0 at weight {self.weight}, not {self.mirror}")


@dataclass(frozen=True, slots=True)
class Split:
    """How the requests of one service are shared between its stable and its canary version.

    `canary` is None when there is only the stable version. `entries` are empty where the router's own default holds.
    `annotations` are the user's own, for the object that routes to the stable version.
    """

    name: str
    namespace: str
    match: Match
    stable: Backend
    canary: CanaryBackend | None = None
    entries: tuple[Entry, ...] = ()
    tls_secret: str | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    affinity: SessionAffinity | None = None

    @property
    def weight(self) -> int:
        """Percent of the requests that go to the canary."""
        return self.canary.weight if self.canary else 0

    @property
    def mirror(self) -> int:
        """Percent of the requests to stable of which the canary gets a copy."""
        return self.canary.mirror if self.canary else 0
