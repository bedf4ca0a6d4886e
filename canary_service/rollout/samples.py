"""What is known of a canary beside stable at one moment. No I/O.

None is what is not known; it is no 0, which would be a good result.
"""

from collections.abc import Iterable
from typing import Literal, TypeAlias

from pydantic import Field

from canary_service.rollout.model import Record

Resource: TypeAlias = Literal["cpu", "memory"]


class TrackSample(Record):
    """What one track answered in the time of a sample.

    Args:
        requests: how many.
        failed: how many of them failed.
        p95_seconds: the 95th percentile of their durations; None without requests, or above the last bucket.
        timed: how many of them have a duration.
        buckets: of the histogram of those: upper bounds in seconds, rising, with how many were not slower. What is
            slower than the last is in `timed` alone.
    """

    requests: float
    failed: float
    p95_seconds: float | None = None
    timed: float = 0.0
    buckets: tuple[tuple[float, float], ...] = ()


class AlignedSample(Record):
    """How many requests each track answered in one and the same time, estimated between scrapes."""

    stable: float
    canary: float

    @staticmethod
    def total(samples: Iterable["AlignedSample | None"]) -> "AlignedSample | None":
        """Add up those that are known; None when none is."""
        known = [sample for sample in samples if sample]
        if not known:
            return None
        return AlignedSample(stable=sum(each.stable for each in known), canary=sum(each.canary for each in known))


class PodsSample(Record):
    """The canary's pods.

    Args:
        wanted: how many there should be.
        ready: how many take requests.
        restarts: how often containers of pods that there are now were started again since the step began.
        reasons: what stands in the way of readiness, in the words of the pods and controllers.
        crashing: a container is in a crash loop, or waits for something that time alone will not bring.
        limited: of which resources each of them has a limit.
        cpu_percent: of the pod that uses most of its limit; None without a limit or a measurement.
        memory_percent: likewise.
    """

    wanted: int
    ready: int
    restarts: int = 0
    reasons: tuple[str, ...] = ()
    crashing: bool = False
    limited: tuple[Resource, ...] = ()
    cpu_percent: float | None = None
    memory_percent: float | None = None


class Sample(Record):
    """What is known of one service's canary at one moment.

    Args:
        service: its name.
        at: when it was taken, in seconds since the epoch.
        seconds: the time since the sample before, or since the step began; samples of a step do not overlap.
        counted_seconds: the time that its counts cover: longer when samples before could not be counted, shorter when
            targets had to be scraped first, 0 when nothing was counted.
        weight: percent, as read back from the cluster; None when that cannot be asked.
        stable: what stable answered; None when that is not known.
        canary: what the canary answered; likewise.
        aligned: what both answered in one and the same time, of which alone a share can be told: it ends with the last
            moment for which all targets were scraped. None while it is not known, as when pods have not been scraped
            yet, have come or have gone.
        baseline: what stable answered when it last had enough requests; asked for at weight 100 only.
        sticky: a cookie keeps clients on their track, so that the canary's share need not follow the weight.
        pods: the canary's pods; None when the cluster could not be asked.
        values: of the user's queries, by name; None where there is no number.
        webhook: whether the user's webhook passes the canary: True, False, or None while it waits or cannot be asked.
        problems: why something could not be asked: `weight`, `requests`, `baseline`, `pods`, `cpu`, `memory`,
            `query NAME`, `webhook`. What is None without a problem was asked for, and nothing was there.
    """

    service: str
    at: float
    seconds: float
    counted_seconds: float = 0.0
    weight: int | None
    stable: TrackSample | None = None
    canary: TrackSample | None = None
    aligned: AlignedSample | None = None
    baseline: TrackSample | None = None
    sticky: bool = False
    pods: PodsSample | None = None
    values: dict[str, float | None] = Field(default_factory=dict)
    webhook: bool | None = None
    problems: dict[str, str] = Field(default_factory=dict)
