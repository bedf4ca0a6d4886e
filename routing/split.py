"""What a router is told and what is read back from it: the split of one service's traffic."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, TypeAlias

PathType: TypeAlias = Literal["Prefix", "Exact", "ImplementationSpecific"]
"""The path types of `networking.k8s.io/v1` Ingress."""

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
class Match:
    """The requests that belong to the service."""

    host: str
    path: str
    path_type: PathType = "Prefix"


@dataclass(frozen=True, slots=True)
class Backend:
    """A Kubernetes Service and the port on which it takes requests."""

    service: str
    port: int


@dataclass(frozen=True, slots=True)
class CanaryBackend:
    """Where canary requests go, and which requests those are.

    `weight` is the percent (0 to 100) of the requests that no header decided.
    """

    backend: Backend
    weight: int
    header: Header | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= TOTAL_WEIGHT:
            raise ValueError(f"weight must be from 0 to {TOTAL_WEIGHT} percent, not {self.weight}")


@dataclass(frozen=True, slots=True)
class Split:
    """How the requests of one service are shared between its stable and its canary version.

    `canary` is None when there is only the stable version. `annotations` are the user's own, for the object
    that routes to the stable version.
    """

    name: str
    namespace: str
    match: Match
    stable: Backend
    canary: CanaryBackend | None = None
    ingress_class: str = "nginx"
    tls_secret: str | None = None
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def weight(self) -> int:
        """Percent of the requests that go to the canary."""
        return self.canary.weight if self.canary else 0
