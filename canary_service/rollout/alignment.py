"""What both tracks answered in one and the same time, by targets that are scraped each at a moment of its own. No I/O.

A target's count is as old as its last scrape, and two targets' counts differ in age by up to a scrape interval. In a
step of a few intervals that alone would make a share of 50 % one of 40 %.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

Target = tuple[str, ...]

MOST_UNKNOWN: Final = 0.1
"""So large a part of a track's targets may come, go or not be scraped, and its count is still taken: a track that
misses a tenth moves a share by at most 2.5 points, half of the least that `weightDifference` is by default."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a target had counted when it was scraped.

    Args:
        at: when that was, in seconds since the epoch.
        counts: of requests, by track; one that is not there was never asked for and has 0.
    """

    at: float
    counts: Mapping[str, float]


class Alignment:
    """Takes readings as they come, and interpolates all counts for moments at which all targets' are known."""

    def __init__(self) -> None:
        self._readings: dict[Target, list[Reading]] = {}
        self._counted_to = 0.0

    def add(self, found: Mapping[Target, Reading], pods: Mapping[str, int]) -> dict[str, float] | None:
        """Return what each track answered since the last time that this was known, as far as it is known now.

        A target that comes, goes or begins again leaves a time in which its requests are not known: then nothing is
        told of that time, and None returned, unless it is one of many.

        Args:
            found: the newest reading of each target.
            pods: how many of each track there have to be among the targets.
        """
        if not found or _is_much(_missing(found, pods), found, pods):
            self._begin({})
            return None
        changed = self._changed(found)
        if not self._readings or _is_much(changed.values(), found, pods):
            self._begin(found)
            return None
        for target in changed:
            self._readings.pop(target, None)
        for target, reading in found.items():
            known = self._readings.setdefault(target, [reading])
            if reading.at > known[-1].at:
                known.append(reading)
        return self._counted()

    def _begin(self, found: Mapping[Target, Reading]) -> None:
        self._readings = {target: [reading] for target, reading in found.items()}
        self._counted_to = max((reading.at for reading in found.values()), default=0.0)

    def _changed(self, found: Mapping[Target, Reading]) -> dict[Target, Reading]:
        """Return the targets that have come, gone or begun again."""
        changed = {target: reading for target, reading in found.items() if target not in self._readings}
        for target, known in self._readings.items():
            now = found.get(target)
            if now is None or any(now.counts.get(track, 0.0) < count for track, count in known[-1].counts.items()):
                changed[target] = known[-1]
        return changed

    def _counted(self) -> dict[str, float]:
        begin, end = self._counted_to, min(known[-1].at for known in self._readings.values())
        tracks = {track for known in self._readings.values() for track in known[-1].counts}
        if end <= begin:
            return dict.fromkeys(tracks, 0.0)
        self._counted_to = end
        counted = {
            track: sum(_at(known, end, track) - _at(known, begin, track) for known in self._readings.values())
            for track in tracks
        }
        for known in self._readings.values():
            del known[: max(index for index, reading in enumerate(known) if reading.at <= end or not index)]
        return counted


def _at(known: list[Reading], moment: float, track: str) -> float:
    """Return the count at a moment, interpolated; before the first and after the last reading it is theirs."""
    for early, late in pairwise(known):
        if early.at <= moment < late.at:
            begin, end = early.counts.get(track, 0.0), late.counts.get(track, 0.0)
            return begin + (end - begin) * (moment - early.at) / (late.at - early.at)
    return known[0 if moment < known[0].at else -1].counts.get(track, 0.0)


def _missing(found: Mapping[Target, Reading], pods: Mapping[str, int]) -> Iterable[Reading]:
    """Return a reading for each pod that should be among the targets and is not."""
    for track, wanted in pods.items():
        # A pod may be scraped at several ports; some sources do not tell the pod.
        seen = {target[0] or target for target, reading in found.items() if track in reading.counts}
        yield from [Reading(0.0, {track: 0.0})] * (wanted - len(seen))


def _is_much(changed: Iterable[Reading], found: Mapping[Target, Reading], pods: Mapping[str, int]) -> bool:
    tracks = [track for reading in changed for track in reading.counts]
    return any(
        tracks.count(track)
        > MOST_UNKNOWN * max(pods.get(track, 0), sum(track in reading.counts for reading in found.values()))
        for track in set(tracks)
    )
