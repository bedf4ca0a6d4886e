"""A run in numbers, as `canary report --json` prints it (docs/journal.md). No I/O."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from rollout.course import Course, ServiceCourse, Step
from rollout.events import Promoted, RolledBack, RunEnd
from rollout.model import Record
from rollout.samples import TrackSample
from rollout.verdict import Outcome

RunOutcome: TypeAlias = RunEnd | Literal["unfinished"]


class TrackSummary(Record):
    """What a track answered during a step.

    `requests` and `failed` are None when nothing was measured; `p95_milliseconds` is the highest 95th percentile of a
    sample.
    """

    requests: float | None
    failed: float | None
    p95_milliseconds: float | None

    @property
    def error_percent(self) -> float | None:
        """Percent of the requests that failed; None without requests."""
        return None if not self.requests or self.failed is None else 100 * self.failed / self.requests


class StepSummary(Record):
    """One service at one weight. Times are seconds since the epoch.

    `update_seconds` is the time until the weight was read back. `verdicts` counts the samples by what was said of them,
    `verdict` is the last. `share` is the percent of all requests that the canary answered.
    """

    weight: int
    began: float
    ended: float | None
    update_seconds: float | None
    verdict: Outcome | None
    verdicts: dict[Outcome, int]
    stable: TrackSummary
    canary: TrackSummary
    share: float | None


class ServiceSummary(Record):
    """What became of one service. `weight` is the percent that was read back last, None without a canary.

    `rollback_seconds` is the time from the verdict until weight 0 was read back, None without a rollback.
    """

    stable_image: str | None
    canary_image: str | None
    weight: int | None
    end: Literal["promoted", "rolled-back"] | None
    reason: str | None
    rollback_seconds: float | None
    steps: tuple[StepSummary, ...]


class RunSummary(Record):
    """A run. Times are seconds since the epoch; `ended` is that of the last event."""

    schema_version: int = 1
    run: str
    stack: str
    command: str
    by: str | None
    started: float
    ended: float
    outcome: RunOutcome
    exit_code: int | None
    text: str | None
    services: dict[str, ServiceSummary]


def summarised(course: Course) -> RunSummary | None:
    """Return a run in numbers; None when it has not even begun."""
    if course.started is None or course.last_at is None:
        return None
    started, finished = course.started, course.finished
    return RunSummary(
        run=started.run,
        stack=started.stack,
        command=started.command,
        by=started.by,
        started=started.at,
        ended=course.last_at,
        outcome=finished.outcome if finished else "unfinished",
        exit_code=finished.exit_code if finished else None,
        text=finished.text if finished else None,
        services={name: _service(found) for name, found in course.services.items()},
    )


def _service(found: ServiceCourse) -> ServiceSummary:
    rolled_back = found.end if isinstance(found.end, RolledBack) else None
    return ServiceSummary(
        stable_image=found.stable_image,
        canary_image=found.canary_image,
        weight=found.read_back,
        end="promoted" if isinstance(found.end, Promoted) else "rolled-back" if rolled_back else None,
        reason=rolled_back.reason if rolled_back else None,
        rollback_seconds=rolled_back.seconds if rolled_back else None,
        steps=tuple(map(_step, found.steps)),
    )


def _step(step: Step) -> StepSummary:
    stable = _track([each.sample.stable for each in step.samples])
    canary = _track([each.sample.canary for each in step.samples])
    total = (stable.requests or 0) + (canary.requests or 0)
    counted = stable.requests is not None and canary.requests is not None and total
    return StepSummary(
        weight=step.weight,
        began=step.began,
        ended=step.ended,
        update_seconds=step.update_seconds,
        verdict=step.outcome,
        verdicts={"pass": step.count("pass"), "inconclusive": step.count("inconclusive"), "fail": step.count("fail")},
        stable=stable,
        canary=canary,
        share=100 * (canary.requests or 0) / total if counted else None,
    )


def _track(samples: Sequence[TrackSample | None]) -> TrackSummary:
    known = [each for each in samples if each]
    p95 = [1000 * each.p95_seconds for each in known if each.p95_seconds is not None]
    return TrackSummary(
        requests=sum(each.requests for each in known) if known else None,
        failed=sum(each.failed for each in known) if known else None,
        p95_milliseconds=max(p95, default=None),
    )
