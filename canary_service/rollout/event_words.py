"""What happened in a run, in one line for people. No I/O."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from canary_service.rollout.course import standing
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
    Troubled,
    WeightSet,
)
from canary_service.rollout.samples import Sample, TrackSample
from canary_service.rollout.verdict import Outcome, Verdict

_HOUR: Final = 3600
_MINUTE: Final = 60
_NAMES_SHOWN: Final = 4

SIGNS: Final[dict[Outcome, str]] = {"pass": "✓", "inconclusive": "?", "fail": "✗"}


def line(event: AnyEvent) -> str:  # noqa: C901, PLR0911 - one case for each kind of event
    """Return what an event says."""
    match event:
        case RunStarted():
            return f"canary {event.command}: {', '.join(_at_start(event))}"
        case StepStarted():
            return f"to {event.weight} %: {listed(event.services)}"
        case WeightSet(means="cut-off"):
            return (
                f"{event.service}: cut off, {event.before} → {event.read_back} % "
                f"read back after {seconds(event.seconds)}"
            )
        case WeightSet():
            moved = f"{event.before} → {event.read_back}" if event.before != event.read_back else f"{event.read_back}"
            return f"{event.service}: {moved} % read back after {seconds(event.seconds)}"
        case Sampled():
            facts = "; ".join([verdict(event.verdict), *measured(event.sample)])
            return f"{event.sample.service}: {facts}; {duration(event.remaining_seconds)} left"
        case Held(approval=True):
            return f"waits for approval: {event.reason} ({listed(event.services)})"
        case Held():
            return f"held: {event.reason} ({listed(event.services)})"
        case Resumed():
            return f"goes on: {listed(event.services)}"
        case RolledBack():
            return f"rolled back in {seconds(event.seconds)}: {event.reason} ({listed(event.services)})"
        case Promoted():
            return f"promoted: {listed(event.services)}"
        case Troubled():
            return event.text
        case Finished():
            return f"{event.text} (exit code {event.exit_code})"


def stand(found: Verdict) -> str:
    """Return how things stand by a verdict, in a word or two."""
    stands = standing(found)
    return "good so far" if stands == "pass" != found.outcome else stands


def verdict(found: Verdict) -> str:
    """Return what a verdict says: a failure with its reasons; which gates are open, if any; else that it is good."""
    stands = standing(found)
    gates = [gate for gate in found.gates if gate.outcome == stands]
    reasons = {"fail": [gate.text for gate in gates], "inconclusive": [gate.gate for gate in gates], "pass": []}[stands]
    return f"{SIGNS[stands]} " + ": ".join(filter(None, [stand(found), ", ".join(reasons)]))


def measured(sample: Sample) -> Iterator[str]:
    """Yield the numbers of a sample that are known, and what could not be asked."""
    if sample.canary:
        part = share(sample)
        yield f"{sample.canary.requests:,.0f} requests" + ("" if part is None else f" ({part:.1f} %)")
    yield from _compared("errors", [error_percent(track) for track in (sample.canary, sample.stable)], " %")
    yield from _compared("p95", [p95_milliseconds(track) for track in (sample.canary, sample.stable)], " ms")
    yield from dict.fromkeys(sample.problems.values())


def share(sample: Sample) -> float | None:
    """Return the percent of a sample's requests that the canary answered; None when that is not known."""
    if sample.aligned is None:
        return None
    total = sample.aligned.stable + sample.aligned.canary
    return 100 * sample.aligned.canary / total if total else None


def error_percent(track: TrackSample | None) -> float | None:
    """Return the percent of a track's requests that failed; None without requests."""
    return 100 * track.failed / track.requests if track and track.requests else None


def p95_milliseconds(track: TrackSample | None) -> float | None:
    """Return the 95th percentile of a track's response times; None without requests."""
    return None if track is None or track.p95_seconds is None else 1000 * track.p95_seconds


def number(value: float) -> str:
    """Return a number with as many digits as people need."""
    if abs(value) >= 100 or value == int(value):  # noqa: PLR2004 - three digits are enough
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"


def listed(names: Sequence[str]) -> str:
    """Return names as a list in words, of more than four the first three."""
    if len(names) > _NAMES_SHOWN:
        names = [*names[: _NAMES_SHOWN - 1], f"{len(names) - _NAMES_SHOWN + 1} others"]
    return joined(names)


def joined(names: Iterable[str]) -> str:
    """Return names, each of them, as a list in words: `a, b and c`."""
    names = tuple(names)
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def seconds(value: float) -> str:
    """Return a short time: milliseconds below a second."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def duration(value: float) -> str:
    """Return a time as `45 s`, `2:05 min` or `1:02:05 h`."""
    whole = max(0, round(value))
    if whole < _MINUTE:
        return f"{whole} s"
    minutes, rest = divmod(whole, _MINUTE)
    if whole < _HOUR:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"


def _compared(name: str, values: Sequence[float | None], unit: str) -> Iterator[str]:
    canary, stable = values
    if canary is not None:
        yield f"{name} {number(canary)}{unit}" + ("" if stable is None else f" (stable {number(stable)}{unit})")


def _at_start(event: RunStarted) -> Iterator[str]:
    for name, found in event.services.items():
        weight = "?" if found.weight is None else found.weight
        yield f"{name} ({found.canary_image or 'no canary'}, at {weight} %)"
