"""A run as one HTML page that needs nothing besides itself: no script, no font, no picture. No I/O but its style."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Final

from canary_service.rollout.charts import Frame, Line, Mark, Point, line_chart, row_chart
from canary_service.rollout.course import Course, ServiceCourse, merged, standing
from canary_service.rollout.event_words import (
    SIGNS,
    duration,
    error_percent,
    line,
    number,
    p95_milliseconds,
    seconds,
    share,
    stand,
)
from canary_service.rollout.events import AnyEvent, Held, RolledBack, Sampled, WeightSet
from canary_service.rollout.markup import Child, Element, document, element
from canary_service.rollout.samples import PodsSample, Sample, TrackSample
from canary_service.rollout.summary import RunOutcome, RunSummary, ServiceSummary, StepSummary, summarised
from canary_service.rollout.verdict import Outcome, Verdict

_POINTS: Final = 240
"""Moments that the charts of all services together show: a file stays small however long the run was."""

_FEWEST_POINTS: Final = 24

# Scales begin at 0 and go up to these at least, so that noise does not look like trouble.
_SHARE_SCALE: Final = 10.0
_FAILED_SCALE: Final = 1.0
_MILLISECONDS_SCALE: Final = 10.0
_RATE_SCALE: Final = 1.0
_PODS_SCALE: Final = 4

OUTCOMES: Final[dict[RunOutcome, tuple[Outcome, str]]] = {
    "done": ("pass", "done"),
    "rolled-back": ("fail", "rolled back"),
    "held": ("inconclusive", "held"),
    "failed": ("fail", "failed"),
    "locked": ("inconclusive", "locked"),
    "refused": ("inconclusive", "refused"),
    "interrupted": ("inconclusive", "interrupted"),
    "unfinished": ("inconclusive", "not finished"),
}
"""How a run ended: what that means for the release, and in words."""

_WORST_FIRST: Final[tuple[Outcome, ...]] = ("fail", "inconclusive", "pass")
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""What a browser may load for the page: nothing."""

_NOT_KNOWN: Final = "–"  # noqa: RUF001 - an en dash is what a table has there


def page(events: Iterable[AnyEvent]) -> str:
    """Return the report of a run.

    Raises:
        ValueError: it has not begun: there is no `run-started` among the events.
    """
    events = list(events)
    course = Course(events)
    summary = summarised(course)
    if summary is None:
        raise ValueError("there is no event of a run that has begun")
    kind, words = OUTCOMES[summary.outcome]
    title = f"{summary.stack}: canary {summary.command} {words}"
    return document(
        element(
            "html",
            element(
                "head",
                element("meta", charset="utf-8"),
                element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
                element("meta", name="viewport", content="width=device-width, initial-scale=1"),
                element("title", f"{title}, {_date(summary.started)}"),
                element("style", _style()),
            ),
            element(
                "body",
                element(
                    "header",
                    element("h1", f"{summary.stack}: canary {summary.command} ", _badge(kind, words)),
                    element("p", summary.text) if summary.text else None,
                    _facts(course, summary),
                ),
                element("main", _services(course, summary, events), _timeline(course, summary)),
                element("footer", f"Run {summary.run}. All times are UTC."),
            ),
            lang="en",
        )
    )


@cache
def _style() -> str:
    return Path(__file__).with_suffix(".css").read_text(encoding="utf-8")


def _badge(kind: Outcome, words: str) -> Element:
    return element("span", f"{SIGNS[kind]} {words}", class_=f"outcome {kind}")


def _facts(course: Course, summary: RunSummary) -> Element:
    started = course.started
    facts: dict[str, str | None] = {
        "started": _date(summary.started),
        "ended" if course.finished else "last event": _date(summary.ended),
        "lasted": duration(summary.ended - summary.started),
        "by": summary.by,
        "steps": ", ".join(f"{each} %" for each in started.steps) if started else None,
        "watched at each step": f"{duration(started.step_seconds)}, every {duration(started.sample_seconds)}"
        if started
        else None,
        "rolled back in": _rollback(summary),
        "exit code": None if summary.exit_code is None else str(summary.exit_code),
    }
    return element(
        "dl", [element("div", element("dt", name), element("dd", text)) for name, text in facts.items() if text]
    )


def _rollback(summary: RunSummary) -> str | None:
    slowest = max((each.rollback_seconds for each in summary.services.values() if each.rollback_seconds), default=None)
    return None if slowest is None else f"{seconds(slowest)} from the verdict to weight 0 read back"


def _services(course: Course, summary: RunSummary, events: Sequence[AnyEvent]) -> Iterator[Element]:
    most = max(_POINTS // max(len(course.services), 1), _FEWEST_POINTS)
    for name, service in course.services.items():
        frame = Frame(summary.started, summary.ended, tuple(_marks(service)), tuple(_held(name, events, summary.ended)))
        moments = list(_moments(service, most))
        yield element(
            "section",
            element("h2", name),
            element("p", _images(service)),
            element("p", _end(summary.services[name])),
            element("div", _charts(frame, service, moments), class_="charts"),
            _steps(service, summary.services[name]) if service.steps else None,
            _gates(service),
            _samples(moments) if moments else None,
        )


def _images(service: ServiceCourse) -> Iterator[Child]:
    yield "stable "
    yield element("code", service.stable_image or _NOT_KNOWN)
    yield ", canary "
    yield element("code", service.canary_image or "none")


def _end(service: ServiceSummary) -> str:
    if service.end == "promoted":
        return "Promoted: stable runs the canary's image, and the canary is gone."
    if service.end == "rolled-back":
        return f"Rolled back: {service.reason}"
    return "There is no canary." if service.weight is None else f"The canary has {service.weight} %."


def _marks(service: ServiceCourse) -> Iterator[Mark]:
    for step in service.steps:
        yield Mark(step.updated or step.began, f"{step.weight} %", "step")
    if isinstance(service.end, RolledBack):
        yield Mark(service.end.at, "rolled back", "fail")


def _held(name: str, events: Iterable[AnyEvent], end: float) -> Iterator[tuple[float, float]]:
    begin: float | None = None
    for event in events:
        if isinstance(event, Held) and name in event.services:
            begin = event.at if begin is None else begin
        elif (
            begin is not None and not isinstance(event, Sampled | WeightSet) and name in getattr(event, "services", ())
        ):
            yield begin, event.at
            begin = None
    if begin is not None:
        yield begin, end


@dataclass(frozen=True, slots=True)
class _Moment:
    """Some samples after one another at one weight, taken as one; `share` (percent) is that of the step so far."""

    sample: Sample
    outcome: Outcome
    share: float | None


def _moments(service: ServiceCourse, most: int) -> Iterator[_Moment]:
    size = max(math.ceil(len(service.samples) / most), 1)
    for step in service.steps:
        parts = [step.samples[first : first + size] for first in range(0, len(step.samples), size)]
        samples = [merged([each.sample for each in part]) for part in parts]
        # Tracks are not scraped at the same moment, so one look alone may see requests of one of them only.
        so_far = accumulate(samples, lambda one, other: merged([one, other]))
        for part, sample, whole in zip(parts, samples, so_far, strict=True):
            outcomes = {standing(each.verdict) for each in part}
            yield _Moment(sample, next(each for each in _WORST_FIRST if each in outcomes), share(whole))


def _charts(frame: Frame, service: ServiceCourse, moments: Sequence[_Moment]) -> Iterator[Element]:
    def points(value: Callable[[Sample], float | None]) -> list[Point]:
        return [(each.sample.at, _finite(value(each.sample))) for each in moments]

    def pods(value: Callable[[PodsSample], float | None]) -> list[Point]:
        return points(lambda sample: value(sample.pods) if sample.pods else None)

    def both(value: Callable[[Sample, TrackSample | None], float | None]) -> list[Line]:
        return [
            Line("stable", "stable", points(lambda sample: value(sample, sample.stable))),
            Line("canary", "canary", points(lambda sample: value(sample, sample.canary))),
        ]

    weights = Line("weight read back", "weight", [(at, weight or 0) for at, weight in service.weights], stepped=True)
    shares = [(each.sample.at, _finite(each.share)) for each in moments]
    measured = [Line("measured, of the step so far", "canary", shares)] if moments else []
    yield line_chart(frame, "Canary's share", "%", [weights, *measured], _SHARE_SCALE)
    if not moments:
        return
    yield row_chart(
        frame,
        "Gates",
        [
            (
                outcome if outcome != "inconclusive" else "?",
                outcome,
                [(each.sample.at - each.sample.seconds, each.sample.at) for each in moments if each.outcome == outcome],
            )
            for outcome in _WORST_FIRST
        ],
    )
    yield line_chart(frame, "Failed requests", "%", both(lambda _, track: error_percent(track)), _FAILED_SCALE)
    yield line_chart(
        frame,
        "95th percentile of response times",
        "ms",
        both(lambda _, track: p95_milliseconds(track)),
        _MILLISECONDS_SCALE,
    )
    yield line_chart(
        frame, "Requests", "per second", both(lambda sample, track: _rate(track, sample.counted_seconds)), _RATE_SCALE
    )
    yield line_chart(
        frame,
        "Canary's pods",
        "number",
        [
            Line("ready", "stable", pods(lambda found: found.ready)),
            Line("wanted", "third", pods(lambda found: found.wanted)),
            Line("restarts", "canary", pods(lambda found: found.restarts)),
        ],
        _PODS_SCALE,
    )
    used = [
        Line("memory", "stable", pods(lambda found: found.memory_percent)),
        Line("CPU", "canary", pods(lambda found: found.cpu_percent)),
    ]
    if known := [each for each in used if any(value is not None for _, value in each.points)]:
        yield line_chart(frame, "Canary's use of its limits", "% of the limit, highest pod", known, at_least=100)


def _steps(service: ServiceCourse, summary: ServiceSummary) -> Element:
    return _table(
        "Steps. Percentiles are the highest of a sample.",
        [
            "weight",
            "began",
            "lasted",
            "update",
            "samples ✓ / ? / ✗",
            "canary's requests",
            "share",
            "failed: canary",
            "stable",
            "p95: canary",
            "stable",
            "verdict",
        ],
        [_step(each, step.verdict) for each, step in zip(summary.steps, service.steps, strict=True)],
    )


def _step(step: StepSummary, verdict: Verdict | None) -> list[Element]:
    return [
        _cell(f"{step.weight} %"),
        _cell(_clock(step.began)),
        _cell(None if step.ended is None else duration(step.ended - step.began)),
        _cell(None if step.update_seconds is None else seconds(step.update_seconds)),
        _cell(" / ".join(str(step.verdicts[each]) for each in reversed(_WORST_FIRST))),
        _cell(_whole(step.canary.requests)),
        _cell(_percent(step.share)),
        *[_cell(_number(each.error_percent, " %")) for each in (step.canary, step.stable)],
        *[_cell(_number(each.p95_milliseconds, " ms")) for each in (step.canary, step.stable)],
        _stand_cell(verdict) if verdict else _cell(None),
    ]


def _gates(service: ServiceCourse) -> Iterator[Element]:
    for step in service.steps:
        if verdict := step.verdict:
            yield element(
                "details",
                element("summary", f"Gates at {step.weight} %: {stand(verdict)}"),
                _table(
                    None,
                    ["gate", "verdict", "measured", "limit", "says"],
                    _gate_rows(verdict),
                    text=(0, 4),
                ),
                open="" if standing(verdict) != "pass" else None,
            )


def _gate_rows(verdict: Verdict) -> Iterator[list[Element]]:
    for gate in verdict.gates:
        unit = f" {gate.unit}".rstrip()
        yield [
            _cell(gate.gate, "text"),
            _outcome_cell(gate.outcome),
            _cell(_number(gate.measured, unit)),
            _cell(_number(gate.limit, unit)),
            _cell(gate.text, "text"),
        ]


def _samples(moments: Sequence[_Moment]) -> Element:
    return element(
        "details",
        element("summary", "Samples as a table"),
        _table(
            None,
            [
                "time",
                "covers",
                "weight",
                "share",
                "requests: canary",
                "stable",
                "failed: canary",
                "stable",
                "p95: canary",
                "stable",
                "pods ready",
                "restarts",
                "verdict",
                "not known",
            ],
            [_sample(each) for each in moments],
            text=(13,),
        ),
    )


def _sample(moment: _Moment) -> list[Element]:
    sample = moment.sample
    tracks = (sample.canary, sample.stable)
    pods = sample.pods
    return [
        _cell(_clock(sample.at)),
        _cell(duration(sample.seconds)),
        _cell(None if sample.weight is None else f"{sample.weight} %"),
        _cell(_percent(share(sample))),
        *[_cell(_whole(track.requests if track else None)) for track in tracks],
        *[_cell(_number(error_percent(track), " %")) for track in tracks],
        *[_cell(_number(p95_milliseconds(track), " ms")) for track in tracks],
        _cell(f"{pods.ready} of {pods.wanted}" if pods else None),
        _cell(str(pods.restarts) if pods else None),
        _outcome_cell(moment.outcome),
        _cell("; ".join(dict.fromkeys(sample.problems.values())), "text"),
    ]


def _timeline(course: Course, summary: RunSummary) -> Element:
    return element(
        "section",
        element("h2", "Events"),
        _table(
            "Of the samples, the first at each step and those whose verdict is another than the one before.",
            ["time", "after", "event"],
            [
                [_cell(_clock(event.at)), _cell(duration(event.at - summary.started)), _cell(line(event), "text")]
                for event in course.events
            ],
            text=(2,),
        ),
    )


def _table(
    caption: str | None, headings: Sequence[str], rows: Iterable[Sequence[Element]], text: Sequence[int] = ()
) -> Element:
    return element(
        "div",
        element(
            "table",
            element("caption", caption) if caption else None,
            element(
                "thead",
                element(
                    "tr",
                    [
                        element("th", name, scope="col", class_="text" if index in text else None)
                        for index, name in enumerate(headings)
                    ],
                ),
            ),
            element("tbody", [element("tr", row) for row in rows]),
        ),
        class_="scroll",
    )


def _cell(text: str | None, class_: str | None = None) -> Element:
    return element("td", _NOT_KNOWN if text is None else text, class_=class_)


def _outcome_cell(outcome: Outcome) -> Element:
    return _cell(f"{SIGNS[outcome]} {outcome}", outcome)


def _stand_cell(verdict: Verdict) -> Element:
    stands = standing(verdict)
    return _cell(f"{SIGNS[stands]} {stand(verdict)}", stands)


def _number(value: float | None, unit: str = "") -> str | None:
    return None if value is None else f"{number(value)}{unit}"


def _whole(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f}"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f} %"


def _rate(track: TrackSample | None, lasted: float) -> float | None:
    return track.requests / lasted if track and lasted else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _date(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"
