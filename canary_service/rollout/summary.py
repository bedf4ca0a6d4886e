"""A run in numbers, as `canary report --json` prints it (docs/journal.md). No I/O."""

from typing import Literal, TypeAlias

from canary_service.rollout.course import Course, ServiceCourse, Step, merged
from canary_service.rollout.event_words import p95_milliseconds, share
from canary_service.rollout.events import Promoted, RolledBack, RunEnd
from canary_service.rollout.model import Record
from canary_service.rollout.samples import TrackSample
from canary_service.rollout.verdict import Outcome

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

    `update_seconds` is the time until the weight was read back. `verdicts` counts the samples by how things stood
    with them, `verdict` is the last verdict. `share` is the percent of all requests that the canary answered.
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
    found = merged([each.sample for each in step.samples]) if step.samples else None
    return StepSummary(
        weight=step.weight,
        began=step.began,
        ended=step.ended,
        update_seconds=step.update_seconds,
        verdict=step.verdict.outcome if step.verdict else None,
        verdicts={"pass": step.count("pass"), "inconclusive": step.count("inconclusive"), "fail": step.count("fail")},
        stable=_track(found.stable if found else None),
        canary=_track(found.canary if found else None),
        share=share(found) if found else None,
    )


def _track(found: TrackSample | None) -> TrackSummary:
    if found is None:
        return TrackSummary(requests=None, failed=None, p95_milliseconds=None)
    return TrackSummary(requests=found.requests, failed=found.failed, p95_milliseconds=p95_milliseconds(found))
