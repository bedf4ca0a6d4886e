"""A cluster, a stack and a clock that tests drive: what a run of the driver meets, and what becomes of it."""

import copy
import heapq
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from canary_service.cluster.errors import ClusterError
from canary_service.config.loader import load
from canary_service.config.settings import Settings
from canary_service.rollout.driver import Driver, Task
from canary_service.rollout.ends import RunEnded
from canary_service.rollout.engine import EngineError
from canary_service.rollout.events import EVENTS, AnyEvent, Finished, Sampled, Troubled, WeightSet
from canary_service.rollout.release import Changes, Copy, path_of
from canary_service.rollout.samples import PodsSample, Sample, TrackSample
from canary_service.rollout.sampling import Mark
from canary_service.rollout.stack import LockedError
from canary_service.rollout.tools import Tools
from canary_service.rollout.verdict import GateResult, Outcome, Verdict
from canary_service.routing.split import Backend, CanaryBackend, Match, Split, Track
from canary_service.workload.labels import object_name, selector
from canary_service.workload.live import LiveDeployment, LiveService

STACK = "macromind/dev"
STABLE, CANARY, NEXT = "example/app:1.0", "example/app:2.0", "example/app:3.0"


class KilledError(BaseException):
    """As `kill -9`: nothing of the run is done any more."""


@dataclass
class World:
    """Everything outside the driver.

    `config` is the stack file, `running` the image and `weights` the percent of each service's canary in the cluster;
    without an entry there is no canary. `raised` are all raises of a weight, from and to. `failing_updates` end one
    update each, after the first service. `quality` says what a sample of a service finds: good, bad, few or nothing.
    `unreadable` are services whose route says no weight until it is put back.
    """

    config: dict[str, Any]
    weights: dict[str, int] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)
    stable: dict[str, str] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    quality: Callable[["World", str], str] = lambda _world, _service: "good"
    now: float = 0.0
    updates: int = 0
    raised: list[tuple[str, int, int]] = field(default_factory=list)
    events: list[AnyEvent] = field(default_factory=list)
    planned: list[tuple[float, int, Callable[[], object]]] = field(default_factory=list)
    failing_updates: list[BaseException | None] = field(default_factory=list)
    during_update: Callable[[], object] = lambda: None
    cluster_away: bool = False
    stuck: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)
    undo: dict[str, Any] | None = None
    locked_by: str = ""
    answers: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    present: bool = False
    at_once: bool = False
    roll_back: bool = False
    found_obstacles: list[str] = field(default_factory=list)
    typed: bool = True
    last_sample: dict[str, float] = field(default_factory=dict)

    @staticmethod
    def of(*services: str, **rollout: object) -> "World":
        """Return a world with these services at weight 0, each with a canary that is declared and not deployed."""
        timing = {"stepSeconds": 60, "sampleSeconds": 10, "holdSeconds": 120}
        declared = {
            name: {"path": f"/{name}", "port": 8080, "image": STABLE, "canary": {"image": CANARY}} for name in services
        }
        config = {"namespace": "macromind", "host": "macromind.local", "rollout": timing | rollout}
        return World(config | {"services": declared}, stable=dict.fromkeys(services, STABLE))

    def at(self, weight: int) -> "World":
        """Let all canaries run at this weight (percent), as declared."""
        self.config["canaryWeight"] = str(weight)
        for name in self.config["services"]:
            self.running[name], self.weights[name] = CANARY, weight
        return self

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Let something happen so many seconds from now."""
        heapq.heappush(self.planned, (self.now + seconds, len(self.planned), act))

    # What the driver works with.

    def settings(self) -> Settings:
        values = self.config.items()
        return load({key: value if isinstance(value, str) else json.dumps(value) for key, value in values})

    def set(self, changes: Changes) -> None:
        self.undo = self.undo or copy.deepcopy(self.config)
        before = copy.deepcopy(self.config)
        for path, value in changes.items():
            *parents, key = path_of(path)
            place = _at(self.config, parents)
            if value is None:
                place.pop(key, None)
            else:
                place[key] = _at(before, path_of(value.key)) if isinstance(value, Copy) else value

    def restore(self) -> bool:
        possible = self.undo is not None
        self.config, self.undo = self.undo or self.config, None
        return possible

    def up(self, report: Callable[[str], object]) -> None:
        report("updating")
        if self.locked_by:
            raise LockedError(f"the stack is locked by {self.locked_by}")
        self.updates += 1
        self.during_update()
        failure = self.failing_updates.pop(0) if self.failing_updates else None
        settings = self.settings()
        if self.cluster_away:
            raise EngineError("the API server cannot be asked")
        for number, name in enumerate(settings.services):
            if failure and number:
                raise failure
            self._apply(settings, name)
        if failure:
            raise failure
        self.undo = None

    def _apply(self, settings: Settings, name: str) -> None:
        self.unreadable.discard(name)
        service = settings.services[name]
        if service.canary:
            self.running[name] = service.canary.image
            self._weigh(name, settings.split_of(name).weight)
        else:
            self.stable[name] = service.image or ""
            self.running.pop(name, None)
            self.weights.pop(name, None)

    def _weigh(self, name: str, weight: int) -> None:
        if weight > self.weights.get(name, 0):
            self.raised.append((name, self.weights.get(name, 0), weight))
        self.weights[name] = weight

    def read(self) -> dict[str, LiveService]:
        if self.cluster_away:
            raise ClusterError("the API server cannot be asked")
        return {name: self._live(name) for name in self.stable}

    def _live(self, name: str) -> LiveService:
        canary = CanaryBackend(Backend(f"{name}-canary", 8080), self.weights[name]) if name in self.weights else None
        running = self.running.get(name)
        split = Split(name, "macromind", Match("macromind.local", f"/{name}"), Backend(name, 8080), canary)
        return LiveService(
            stable=_deployment(name, Track.STABLE, self.stable[name]),
            canary=_deployment(name, Track.CANARY, running, self.marks.get(name, "")) if running else None,
            split=None if name in self.unreadable else split,
            unreadable="two rules" if name in self.unreadable else "",
        )

    def lower(self, weights: Mapping[str, int]) -> None:
        if self.cluster_away:
            raise ClusterError("the API server cannot be asked")
        for name in weights.keys() & self.weights.keys() - self.stuck:
            self.weights[name] = weights[name]
            self.unreadable.discard(name)
        if stuck := weights.keys() & self.stuck:
            raise ClusterError(f"{', '.join(stuck)}: the weight is not lowered")

    def mark_rolled_back(self, name: str, image: str | None) -> None:
        if image is None:
            self.marks.pop(name, None)
        else:
            self.marks[name] = image

    def obstacles(self) -> list[str]:
        return self.found_obstacles

    def begin(self, service: str) -> Mark:
        self.last_sample[service] = self.now
        return Mark()

    def sample(self, service: str, mark: Mark) -> Sample:
        del mark
        seconds, self.last_sample[service] = self.now - self.last_sample[service], self.now
        found = self.quality(self, service)
        requests = {"good": 100.0, "bad": 100.0, "few": 1.0}.get(found)
        answered = None if requests is None else TrackSample(requests=requests, failed=50.0 * (found == "bad"))
        return Sample(
            service=service,
            at=self.now,
            seconds=seconds,
            weight=None if self.cluster_away or service in self.unreadable else self.weights.get(service, 0),
            stable=answered and TrackSample(requests=1000.0, failed=0.0),
            canary=answered,
            pods=PodsSample(wanted=1, ready=1),
            problems={} if answered else {"requests": "Prometheus: ConnectError"},
        )

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while self.planned and self.planned[0][0] <= end:
            self.now, _, act = heapq.heappop(self.planned)
            act()
        self.now = end

    @contextmanager
    def allowed(self) -> Iterator[None]:
        yield

    def answered(self) -> None:
        self.at_once = False

    def ask(self, question: str, answers: Sequence[str]) -> None:
        self.questions.append(f"{question} {'/'.join(answers)}")

    def answer(self) -> str | None:
        return self.answers.pop(0) if self.answers else None

    # What tests do and see.

    def run(self, *listeners: Callable[[AnyEvent], object], **task: Any) -> Finished:  # noqa: ANN401 - fields of Task
        """Run a driver from its start to its end."""
        tools = Tools(self, self, self, self, judged, self, self, self, lambda _line: None)
        driver = Driver(Task(STACK, **task), tools, [self.events.append, *listeners])
        try:
            start = driver.prepare()
        except RunEnded as ended:
            code, text = ended.exit_code, ended.text
            return Finished(at=self.now, stack=STACK, outcome=ended.outcome, exit_code=code, text=text)
        finished = driver.run(start, "run-1")
        for event in self.events:
            assert EVENTS.validate_json(EVENTS.dump_json(event, by_alias=True)) == event
        return finished

    def told(self, kind: str) -> list[Any]:
        """Return the events of a kind."""
        return [event for event in self.events if event.event == kind]

    @property
    def shifts(self) -> list[tuple[str, int, int, str]]:
        """Every change of a weight that was told."""
        return [(e.service, e.before, e.read_back, e.means) for e in self.events if isinstance(e, WeightSet)]

    @property
    def troubles(self) -> str:
        return "\n".join(e.text for e in self.events if isinstance(e, Troubled))

    @property
    def sampled_at(self) -> list[int | None]:
        """The weight of each sample that was judged."""
        return [e.sample.weight for e in self.events if isinstance(e, Sampled)]


def interrupt() -> None:
    raise KeyboardInterrupt


def judged(samples: Sequence[Sample], *, complete: bool) -> Verdict:
    """Fail by the first bad sample, pass by enough good ones."""
    last = samples[-1]
    outcome: Outcome = "inconclusive"
    if last.canary and last.canary.failed:
        outcome = "fail"
    elif complete and last.canary and last.canary.requests > 10:
        outcome = "pass"
    gate = GateResult(gate="error-rate", outcome=outcome, text=f"error rate: {outcome}")
    return Verdict(service=last.service, outcome=outcome, gates=(gate,))


def _at(config: dict[str, Any], path: Sequence[str]) -> Any:  # noqa: ANN401 - a value of any type that YAML has
    for part in path:
        config = config[part]
    return config


def _deployment(service: str, track: Track, image: str, rolled_back: str = "") -> LiveDeployment:
    assert object_name(service, track)
    labels = selector(service, track)
    return LiveDeployment(image, (image,), 1, 1, labels, 1, rolled_out=True, rolled_back=rolled_back)
