"""How many requests each track has answered between two looks at the counters. No I/O.

Prometheus's own `increase` extrapolates to the ends of its window, which is right for rates and wrong for a count.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from observability.queries import SERVICE, TARGET, TRACK
from routing.split import Track


class Counter(Protocol):
    """What one target has counted for one track since it started."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Service, track, and what tells the target from others."""

    @property
    def value(self) -> float:
        """How many."""


@dataclass(frozen=True, slots=True)
class Count:
    """Requests that stable and canary have answered."""

    stable: float = 0
    canary: float = 0

    @property
    def total(self) -> float:
        """All of them."""
        return self.stable + self.canary


def counted(before: Iterable[Counter], after: Iterable[Counter], *, from_zero: bool) -> dict[str, Count]:
    """Return what each service has answered between two looks; a service that nothing has counted is not there.

    A target that shows less than before began at 0. What a target counted that has gone meanwhile is not known.

    Args:
        before: the first look.
        after: the second.
        from_zero: a target that was not there at the first look began at 0, too. Otherwise it may have counted unseen
            before, and is left out.
    """
    former = {_key(each): each.value for each in before}
    found: dict[str, dict[str, float]] = {}
    for each in after:
        begin = former.get(_key(each), 0.0 if from_zero else each.value)
        grown = each.value - begin if each.value >= begin else each.value
        tracks = found.setdefault(each.labels[SERVICE], {})
        tracks[each.labels[TRACK]] = tracks.get(each.labels[TRACK], 0.0) + grown
    return {name: Count(by.get(Track.STABLE, 0.0), by.get(Track.CANARY, 0.0)) for name, by in found.items()}


def _key(counter: Counter) -> tuple[str | None, ...]:
    return tuple(counter.labels.get(label) for label in (SERVICE, TRACK, *TARGET))
