"""Journals of runs as the driver writes them, made up: the same ones at every call.

    python -m tests.unit.journals FOLDER

writes each as FOLDER/NAME.jsonl and its report as FOLDER/NAME.html.
"""

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from canary_service.rollout.events import (
    EVENTS,
    AnyEvent,
    Finished,
    Held,
    Promoted,
    Resumed,
    RolledBack,
    RunStarted,
    Sampled,
    ServiceAtStart,
    StepStarted,
    Troubled,
    WeightSet,
)
from canary_service.rollout.samples import AlignedSample, PodsSample, Sample, TrackSample
from canary_service.rollout.verdict import GateResult, Outcome, Verdict

STACK = "macromind/dev"
START = 1_795_000_000.0
"""2026-11-18 11:06:40 UTC."""

STEPS = (5, 20, 50, 100)
SERVICES = ("auth-service", "meal-planner-service", "nutrition-ai-service")

Fault = Callable[[str, int], tuple[float, float]]
"""By service and weight, the percent points of errors that a canary has on top, and the factor of its latency."""


def healthy(_service: str, _weight: int) -> tuple[float, float]:
    return 0, 1


def failing(service: str, weight: int) -> tuple[float, float]:
    return (10, 1.1) if (service, weight) == ("meal-planner-service", 20) else (0, 1)


class Story:
    """Tells a run, event after event."""

    def __init__(  # noqa: PLR0913 - what makes one run differ from another
        self,
        *,
        services: Iterable[str] = SERVICES,
        fault: Fault = healthy,
        step_seconds: int = 900,
        sample_seconds: int = 60,
        requests_per_second: float = 30,
        seed: int = 1,
    ) -> None:
        self.now = START
        self.services = tuple(services)
        self.step_seconds = step_seconds
        self.sample_seconds = sample_seconds
        self._requests_per_second = requests_per_second
        self._fault = fault
        self._random = random.Random(seed)  # noqa: S311 - no secret is made of it
        self._weight = 0

    def started(self) -> AnyEvent:
        return RunStarted(
            at=self.now,
            stack=STACK,
            run="20261118T110640Z-4f2a",
            by="kim@build-7",
            command="run",
            steps=STEPS,
            step_seconds=self.step_seconds,
            sample_seconds=self.sample_seconds,
            services={
                name: ServiceAtStart(
                    stable_image=f"macromind/{name}:1.4.2", canary_image=f"macromind/{name}:1.5.0", weight=0
                )
                for name in self.services
            },
        )

    def step(self, weight: int) -> Iterator[AnyEvent]:
        """Move to a weight and read it back."""
        yield StepStarted(at=self.now, stack=STACK, services=self.services, weight=weight)
        self.now += 2.9
        for name in self.services:
            yield self._weight_set(name, weight, "update", 2.9)
        self._weight = weight

    def watch(self, seconds: float | None = None, *, blind: bool = False) -> Iterator[AnyEvent]:
        """Look at the canaries at the present weight until the first fails; `blind` without Prometheus."""
        seconds = self.step_seconds if seconds is None else seconds
        began = self.now
        while self.now < began + seconds:
            self.now += self.sample_seconds
            samples = [self._sampled(name, began + seconds - self.now, blind=blind) for name in self.services]
            yield from samples
            if any(each.verdict.outcome == "fail" for each in samples):
                return

    def rolled_back(self, reason: str) -> Iterator[AnyEvent]:
        self.now += 0.031
        for name in self.services:
            yield self._weight_set(name, 0, "cut-off", 0.031)
        self._weight = 0
        yield RolledBack(at=self.now, stack=STACK, services=self.services, reason=reason, seconds=0.084)
        self.now += 3.4
        for name in self.services:
            yield WeightSet(at=self.now, stack=STACK, service=name, before=0, read_back=0, seconds=3.4, means="update")

    def said(self, text: str) -> AnyEvent:
        return Troubled(at=self.now, stack=STACK, text=text)

    def held(self, reason: str) -> AnyEvent:
        return Held(at=self.now, stack=STACK, services=self.services, reason=reason)

    def resumed(self) -> AnyEvent:
        return Resumed(at=self.now, stack=STACK, services=self.services)

    def promoted(self) -> AnyEvent:
        self.now += 9.7
        return Promoted(at=self.now, stack=STACK, services=self.services)

    def finished(self, outcome: str, exit_code: int, text: str) -> AnyEvent:
        self.now += 0.4
        return Finished.model_validate(
            {"at": self.now, "stack": STACK, "outcome": outcome, "exit_code": exit_code, "text": text}
        )

    def _weight_set(self, name: str, weight: int, means: str, seconds: float) -> AnyEvent:
        return WeightSet.model_validate(
            {
                "at": self.now,
                "stack": STACK,
                "service": name,
                "before": self._weight,
                "read_back": weight,
                "seconds": seconds,
                "means": means,
            }
        )

    def _sampled(self, name: str, remaining: float, *, blind: bool) -> Sampled:
        return Sampled(
            at=self.now,
            stack=STACK,
            sample=(sample := self._sample(name, blind=blind)),
            verdict=_verdict(sample, complete=remaining <= 0),
            remaining_seconds=max(0.0, remaining),
        )

    def _sample(self, name: str, *, blind: bool) -> Sample:
        pods = PodsSample(wanted=2, ready=2, memory_percent=self._random.gauss(41, 1), cpu_percent=None)
        lasted = float(self.sample_seconds)
        common = {
            "service": name,
            "at": self.now,
            "seconds": lasted,
            "counted_seconds": lasted,
            "weight": self._weight,
        }
        if blind:
            problem = "http://prometheus.monitoring:9090 was asked, and it answered 503"
            return Sample(**common, pods=pods, problems={"requests": problem})
        total = self._requests_per_second * self.sample_seconds * self._random.gauss(1, 0.05)
        share = self._weight / 100
        points, factor = self._fault(name, self._weight)
        stable = self._track(total * (1 - share), 0.2, 0.030)
        canary = self._track(total * share, 0.2 + points, 0.031 * factor)
        aligned = AlignedSample(stable=stable.requests, canary=canary.requests)
        return Sample(**common, stable=stable, canary=canary, aligned=aligned, pods=pods)

    def _track(self, requests: float, percent: float, seconds: float) -> TrackSample:
        if not requests:
            return TrackSample(requests=0, failed=0)
        failed = sum(self._random.random() < percent / 100 for _ in range(round(requests)))
        return TrackSample(requests=requests, failed=failed, p95_seconds=seconds * self._random.gauss(1, 0.04))


def _verdict(sample: Sample, *, complete: bool) -> Verdict:
    gates = tuple(_gates(sample))
    outcomes = [gate.outcome for gate in gates]
    outcome: Outcome = "pass" if complete and set(outcomes) == {"pass"} else "inconclusive"
    return Verdict(service=sample.service, outcome="fail" if "fail" in outcomes else outcome, gates=gates)


def _gates(sample: Sample) -> Iterator[GateResult]:
    yield GateResult(
        gate="availability", outcome="pass", measured=2, limit=2, unit="pods", text="2 of 2 pods are ready"
    )
    if sample.stable is None or sample.canary is None:
        for gate in ("error-rate", "latency", "share"):
            yield GateResult(gate=gate, outcome="inconclusive", text="Prometheus could not be asked")
        return
    if not sample.stable.requests:
        yield GateResult(gate="error-rate", outcome="pass", text="stable has no requests to compare with")
        return
    difference = 100 * (sample.canary.failed / sample.canary.requests - sample.stable.failed / sample.stable.requests)
    yield GateResult(
        gate="error-rate",
        outcome="fail" if difference > 5 else "pass",
        measured=difference,
        limit=5,
        unit="points",
        text=f"canary fails {difference:.1f} points more often than stable, at most 5 are allowed",
    )
    ratio = (sample.canary.p95_seconds or 0) / (sample.stable.p95_seconds or 1)
    yield GateResult(
        gate="latency",
        outcome="pass",
        measured=ratio,
        limit=1.5,
        unit="times",
        text=f"p95 is {ratio:.2f} times stable's",
    )


def promoted(**options: object) -> Iterator[AnyEvent]:
    """Tell a run of an hour that ends well."""
    story = Story(**options)  # type: ignore[arg-type] # those of Story
    yield story.started()
    for weight in STEPS:
        yield from story.step(weight)
        yield from story.watch()
    yield story.promoted()
    yield story.finished("done", 0, "promoted")


def rolled_back(**options: object) -> Iterator[AnyEvent]:
    """Tell a run that is blind for a while, and whose second step fails."""
    story = Story(**{"fault": failing} | options)  # type: ignore[arg-type] # those of Story
    yield story.started()
    yield from story.step(5)
    yield from story.watch(600)
    yield story.said("Prometheus cannot be asked: it answered 503")
    yield from story.watch(300, blind=True)
    yield story.held("Prometheus could not be asked")
    yield from story.watch(240, blind=True)
    yield story.resumed()
    yield from story.watch(300)
    yield from story.step(20)
    yield from story.watch()
    yield from story.rolled_back("meal-planner-service: canary fails 9.8 points more often than stable")
    yield story.finished("rolled-back", 2, "rolled back at 20 %")


def unfinished(**options: object) -> Iterator[AnyEvent]:
    """Tell a run that was killed, or that still goes on."""
    story = Story(**options)  # type: ignore[arg-type] # those of Story
    yield story.started()
    yield from story.step(5)
    yield from story.watch()
    yield from story.step(20)
    yield from story.watch(420)


JOURNALS: dict[str, Callable[..., Iterator[AnyEvent]]] = {
    "promoted": promoted,
    "rolled-back": rolled_back,
    "unfinished": unfinished,
}


def main(folder: Path) -> None:
    """Write all journals and their reports."""
    from canary_service.rollout.report import page  # noqa: PLC0415 - the stories are of use without it

    folder.mkdir(parents=True, exist_ok=True)
    for name, story in JOURNALS.items():
        events = list(story())
        (folder / f"{name}.jsonl").write_bytes(
            b"".join(EVENTS.dump_json(each, by_alias=True) + b"\n" for each in events)
        )
        (folder / f"{name}.html").write_text(page(events), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
