"""How far a run has come, put together from its events. No I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from canary_service.rollout.events import (
    AnyEvent,
    Finished,
    Held,
    Promoted,
    Resumed,
    RolledBack,
    RunStarted,
    Sampled,
    StepStarted,
    WeightSet,
)
from canary_service.rollout.samples import AlignedSample, PodsSample, Sample, TrackSample
from canary_service.rollout.verdict import Outcome, Verdict


@dataclass
class Step:
    """What happened to one service at one weight.

    `weight` is percent, `began` and `ended` seconds since the epoch, `ended` None as long as nothing came after it.
    `updated` is when the weight was read back, `update_seconds` how long that took, both None before.
    """

    weight: int
    began: float
    ended: float | None = None
    updated: float | None = None
    update_seconds: float | None = None
    samples: list[Sampled] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict | None:
        """The last verdict; None before the first one."""
        return self.samples[-1].verdict if self.samples else None

    def count(self, outcome: Outcome) -> int:
        """Return at how many looks things stood like this."""
        return sum(standing(each.verdict) == outcome for each in self.samples)


@dataclass
class ServiceCourse:
    """What happened to one service. Weights are percent.

    `declared` is the weight it was last told to go to, `weights` what was read back, and when; None is a canary that
    is gone. `held` is why it waits, `end` how it ended.
    """

    name: str
    declared: int
    stable_image: str | None = None
    canary_image: str | None = None
    weights: list[tuple[float, int | None]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    held: Held | None = None
    end: Promoted | RolledBack | None = None

    @property
    def read_back(self) -> int | None:
        """The weight that was read back last; None without a canary, or before the first look."""
        return self.weights[-1][1] if self.weights else None

    @property
    def samples(self) -> list[Sampled]:
        """All looks at it, oldest first."""
        return [each for step in self.steps for each in step.samples]

    @property
    def latest(self) -> Sampled | None:
        """The last look at it, None before the first or when the last step has none yet."""
        return self.steps[-1].samples[-1] if self.steps and self.steps[-1].samples else None


def standing(verdict: Verdict) -> Outcome:
    """Return how things stand: a step that cannot pass yet, because it has not had its time, may be good so far."""
    good_so_far = bool(verdict.gates) and all(gate.outcome == "pass" for gate in verdict.gates)
    return "pass" if good_so_far else verdict.outcome


def merged(samples: Sequence[Sample]) -> Sample:
    """Return samples of one service at one weight, at least one, as one: requests added up, the worst of all else."""
    return samples[-1].model_copy(
        update={
            "seconds": sum(each.seconds for each in samples),
            "counted_seconds": sum(each.counted_seconds for each in samples),
            "stable": _added([each.stable for each in samples]),
            "canary": _added([each.canary for each in samples]),
            "aligned": AlignedSample.total(each.aligned for each in samples),
            "pods": _worst([each.pods for each in samples]),
            "problems": {what: why for each in samples for what, why in each.problems.items()},
        }
    )


def _added(tracks: Sequence[TrackSample | None]) -> TrackSample | None:
    known = [each for each in tracks if each]
    if not known:
        return None
    p95 = [each.p95_seconds for each in known if each.p95_seconds is not None]
    return TrackSample(
        requests=sum(each.requests for each in known),
        failed=sum(each.failed for each in known),
        p95_seconds=max(p95, default=None),
    )


def _worst(pods: Sequence[PodsSample | None]) -> PodsSample | None:
    known = [each for each in pods if each]
    if not known:
        return None
    cpu = [each.cpu_percent for each in known if each.cpu_percent is not None]
    memory = [each.memory_percent for each in known if each.memory_percent is not None]
    return min(known, key=lambda each: each.ready).model_copy(
        update={
            "restarts": max(each.restarts for each in known),
            "cpu_percent": max(cpu, default=None),
            "memory_percent": max(memory, default=None),
        }
    )


class Course:
    """A run as far as its events tell; `events` are those that people want in a list, without samples like the last."""

    def __init__(self, events: Iterable[AnyEvent] = ()) -> None:
        self.started: RunStarted | None = None
        self.finished: Finished | None = None
        self.services: dict[str, ServiceCourse] = {}
        self.events: list[AnyEvent] = []
        self.last_at: float | None = None
        for event in events:
            self.add(event)

    def add(self, event: AnyEvent) -> None:  # noqa: C901, PLR0912 - one case for each kind of event
        """Take in the next event."""
        self.last_at = event.at
        if not isinstance(event, Sampled) or self._tells(event):
            self.events.append(event)
        match event:
            case RunStarted():
                self.started = event
                self.services = {
                    name: ServiceCourse(
                        name, each.weight or 0, each.stable_image, each.canary_image, weights=[(event.at, each.weight)]
                    )
                    for name, each in event.services.items()
                }
            case StepStarted():
                for service in self._of(event.services):
                    self._begin(service, event.weight, event.at)
            case WeightSet():
                self._weight_set(event)
            case Sampled():
                self._step_of(event).samples.append(event)
            case Held():
                for service in self._of(event.services):
                    service.held = event
            case Resumed():
                for service in self._of(event.services):
                    service.held = None
            case RolledBack() | Promoted():
                for service in self._of(event.services):
                    self._end(service, event)
            case Finished():
                self.finished = event
                for service in self.services.values():
                    self._close(service, event.at)
            case _:
                pass

    def _of(self, names: Sequence[str]) -> list[ServiceCourse]:
        return [self.services.setdefault(name, ServiceCourse(name, 0)) for name in names]

    def _tells(self, event: Sampled) -> bool:
        """Tell whether a sample says something other than the one before it."""
        service = self.services.get(event.sample.service)
        latest = service.latest if service else None
        return latest is None or standing(latest.verdict) != standing(event.verdict)

    def _begin(self, service: ServiceCourse, weight: int, at: float) -> None:
        self._close(service, at)
        service.declared, service.held, service.end = weight, None, None
        service.steps.append(Step(weight, at))

    def _weight_set(self, event: WeightSet) -> None:
        (service,) = self._of((event.service,))
        service.weights.append((event.at, event.read_back))
        if event.means == "cut-off":
            service.declared = event.read_back
            self._close(service, event.at)
        elif service.steps and service.steps[-1].ended is None:
            service.steps[-1].updated, service.steps[-1].update_seconds = event.at, event.seconds

    def _step_of(self, event: Sampled) -> Step:
        """Return the step that a sample belongs to: a run that goes on after another begins with no update."""
        (service,) = self._of((event.sample.service,))
        if not service.steps or service.steps[-1].ended is not None:
            weight = service.read_back if event.sample.weight is None else event.sample.weight
            self._begin(service, weight or 0, event.at - event.sample.seconds)
        return service.steps[-1]

    def _end(self, service: ServiceCourse, event: RolledBack | Promoted) -> None:
        self._close(service, event.at)
        service.end, service.held = event, None
        if isinstance(event, Promoted):
            service.weights.append((event.at, None))

    @staticmethod
    def _close(service: ServiceCourse, at: float) -> None:
        if service.steps and service.steps[-1].ended is None:
            service.steps[-1].ended = at
