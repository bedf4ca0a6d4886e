"""What is known of a canary beside stable at one moment. No I/O.

None is what is not known; it is no 0, which would be a good result.
"""

from pydantic import Field

from rollout.model import Record


class TrackSample(Record):
    """What one track answered in the time of a sample.

    Args:
        requests: how many; as Prometheus extrapolates, no whole number.
        failed: how many of them failed.
        p95_seconds: the 95th percentile of their durations; None without requests.
    """

    requests: float
    failed: float
    p95_seconds: float | None = None


class PodsSample(Record):
    """The canary's pods.

    Args:
        wanted: how many there should be.
        ready: how many take requests.
        restarts: how often containers of pods that there are now were started again since the step began.
        reasons: what stands in the way of readiness, in the words of the pods and controllers.
        crashing: a container is in a crash loop, or waits for something that time alone will not bring.
        cpu_percent: of the pod that uses most of its limit; None without a limit or a measurement.
        memory_percent: likewise.
    """

    wanted: int
    ready: int
    restarts: int = 0
    reasons: tuple[str, ...] = ()
    crashing: bool = False
    cpu_percent: float | None = None
    memory_percent: float | None = None


class Sample(Record):
    """What is known of one service's canary at one moment.

    Args:
        service: its name.
        at: when it was taken, in seconds since the epoch.
        seconds: the time before that, which its counts cover; samples of a step do not overlap.
        weight: percent, as read back from the cluster.
        stable: what stable answered; None when that is not known.
        canary: what the canary answered; likewise.
        pods: the canary's pods; None when the cluster could not be asked.
        values: of the user's queries, by name; None where there is no number.
        webhook: whether the user's webhook passes the canary: True, False, or None while it waits or cannot be asked.
        problems: what could not be asked, and why.
    """

    service: str
    at: float
    seconds: float
    weight: int
    stable: TrackSample | None = None
    canary: TrackSample | None = None
    pods: PodsSample | None = None
    values: dict[str, float | None] = Field(default_factory=dict)
    webhook: bool | None = None
    problems: tuple[str, ...] = ()
