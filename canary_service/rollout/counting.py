"""How many requests each track has answered, by looking at the counters again and again. No I/O.

Prometheus's own `increase` extrapolates to the ends of its window, which is right for rates and wrong for a count.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Protocol

from canary_service.observability.queries import SERVICE, TARGET, TRACK
from canary_service.routing.split import Track


class Reading(Protocol):
    """What one target has counted for one track from its start to a moment."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Service, track, and what tells the target from others."""

    @property
    def value(self) -> float:
        """How many."""

    @property
    def at(self) -> float:
        """The moment, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Count:
    """Requests that stable and canary have answered."""

    stable: float = 0
    canary: float = 0

    @property
    def total(self) -> float:
        """All of them."""
        return self.stable + self.canary


def counted(readings: Iterable[Reading], new_after: float | None) -> dict[str, Count]:
    """Return what each service has answered from the first reading of each target to its last.

    A target that shows less than before began at 0 meanwhile. A service without readings is not there.

    Args:
        readings: in any order.
        new_after: a target whose first reading is later than this began at 0, too; None when it may have counted unseen
            before.
    """
    found: dict[str, dict[str, float]] = {}
    for (service, track, *_), group in groupby(sorted(readings, key=_order), key=_key):
        of_target = list(group)
        values = [reading.value for reading in of_target]
        if new_after is not None and of_target[0].at > new_after:
            values = [0.0, *values]
        grown = sum(after - before if after >= before else after for before, after in pairwise(values))
        tracks = found.setdefault(service, {})
        tracks[track] = tracks.get(track, 0.0) + grown
    return {name: Count(by.get(Track.STABLE, 0.0), by.get(Track.CANARY, 0.0)) for name, by in found.items()}


def _key(reading: Reading) -> tuple[str, ...]:
    return tuple(reading.labels.get(label, "") for label in (SERVICE, TRACK, *TARGET))


def _order(reading: Reading) -> tuple[tuple[str, ...], float]:
    return _key(reading), reading.at
