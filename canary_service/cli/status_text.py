"""The status of a stack as text for 80 columns. No I/O."""

from collections.abc import Iterator
from textwrap import wrap
from typing import Final

from canary_service.rollout.status import LastVerdict, ServiceStatus, Status, TrackStatus

WIDTH: Final = 80
_NAME_WIDTH: Final = 24
_HOUR: Final = 3600
_DAY: Final = 24 * _HOUR
_SHOWN_DAYS: Final = 2
_SHOWN_HOURS: Final = 2
_MINUTE: Final = 60

MARK: Final = "!"
"""Before a service whose parts disagree."""


def render(status: Status) -> str:
    """Return one row per service, then what each is made of, then where they disagree."""
    return "\n".join(_lines(status)) + "\n"


def _lines(status: Status) -> Iterator[str]:
    wrong = [service for service in status.services if service.problems]
    count = len(status.services)
    said = f"{count} service{'' if count == 1 else 's'}"
    yield f"{status.stack}: {said}, " + (f"{len(wrong)} with problems" if wrong else "no problems")
    yield ""
    rows: list[tuple[str, ...]] = [("", "service", "declared", "in force", "measured", "stable", "canary", "age")]
    rows += [_row(service) for service in status.services]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for service in status.services:
        yield ""
        yield service.name
        yield from _details(service, status.run)


def _row(service: ServiceStatus) -> tuple[str, ...]:
    name = service.name if len(service.name) <= _NAME_WIDTH else f"{service.name[: _NAME_WIDTH - 1]}…"
    measured = service.measured
    share = "-" if measured is None or measured.share is None else f"{measured.share:.1f} %"
    age = service.canary.age_seconds if service.canary else None
    return (
        MARK if service.problems else "",
        name,
        _percent(service.declared),
        _percent(service.weight),
        share,
        _pods(service.stable),
        _pods(service.canary),
        "-" if age is None else duration(age),
    )


def _details(service: ServiceStatus, run: str | None) -> Iterator[str]:
    for name, track in (("stable", service.stable), ("canary", service.canary)):
        if track:
            yield from _entry(name, _track(track))
    measured = service.measured
    if measured is None:
        yield from _entry("measured", f"not measured: {service.not_measured}")
    elif not measured.requests:
        yield from _entry("measured", f"no requests in {measured.seconds} s")
    else:
        counted = f"{measured.canary} of {measured.requests} requests in {measured.seconds} s"
        yield from _entry("measured", f"the canary answered {counted}")
    if service.mirror:
        yield from _entry("mirror", f"copies of {service.mirror} % of stable's requests go to the canary")
    if service.always_canary:
        yield from _entry("always", f"to the canary: {', '.join(service.always_canary)}")
    yield from _entry("verdict", _verdict(service.verdict, run))
    for problem in service.problems:
        yield from _entry(MARK, problem)


def _entry(name: str, text: str) -> list[str]:
    return wrap(
        text,
        WIDTH,
        initial_indent=f"  {name:<8} ",
        subsequent_indent=" " * 11,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _track(track: TrackStatus) -> str:
    images = ", ".join(dict.fromkeys((track.image, *track.serving)))
    restarts = f", {track.restarts} restarts" if track.restarts else ""
    return f"{images}, {track.ready} of {track.wanted} pods ready{restarts}"


def _verdict(verdict: LastVerdict | None, run: str | None) -> str:
    if verdict is None:
        return f"none in run {run}, the last one here" if run else "no run here"
    weight = "" if verdict.weight is None else f" at {verdict.weight} %"
    text = f": {verdict.text}" if verdict.text else ""
    return f"{verdict.outcome}{weight}, run {verdict.run}{text}"


def _percent(value: int | None) -> str:
    return "-" if value is None else f"{value} %"


def _pods(track: TrackStatus | None) -> str:
    return f"{track.ready}/{track.wanted}" if track else "-"


def duration(seconds: float) -> str:
    """Return a time in its largest unit, as kubectl does: 45s, 12m, 5h, 3d."""
    for unit, name, shown in ((_DAY, "d", _SHOWN_DAYS), (_HOUR, "h", _SHOWN_HOURS), (_MINUTE, "m", 2)):
        if seconds >= shown * unit:
            return f"{seconds // unit:.0f}{name}"
    return f"{seconds:.0f}s"
