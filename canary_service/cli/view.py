"""How a run, or a stack without one, is shown: a live table on a terminal, a line for each event elsewhere."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, Self

from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from canary_service.rollout.course import Course, ServiceCourse, merged, standing
from canary_service.rollout.event_words import SIGNS, duration, error_percent, line, p95_milliseconds, share, stand
from canary_service.rollout.events import AnyEvent, Promoted, RolledBack, Sampled
from canary_service.rollout.samples import Sample, TrackSample
from canary_service.rollout.verdict import Outcome, Verdict
from canary_service.routing.split import TOTAL_WEIGHT

_REFRESHES_PER_SECOND: Final = 4
_GAP: Final = 2
_TWO_DIGITS: Final = 10
_LONGEST_NAME: Final = 26
_FEWEST_EVENTS: Final = 3
_STYLES: Final[dict[Outcome, str]] = {"pass": "green", "inconclusive": "yellow", "fail": "bold red"}
_URGENCY: Final[tuple[Outcome | None, ...]] = ("fail", "inconclusive", None, "pass")

# From so many columns of the terminal on, these are shown besides the service.
_COLUMNS: Final[tuple[tuple[int, tuple[str, ...]], ...]] = (
    (98, ("bar", "weight", "share", "rate", "failed", "p95", "pods", "verdict")),
    (76, ("bar", "weight", "share", "failed", "p95", "verdict")),
    (54, ("weight", "share", "failed", "verdict")),
    (0, ("weight", "verdict")),
)
_WIDTHS: Final = {"bar": 8, "weight": 6, "share": 6, "rate": 10, "failed": 8, "p95": 8, "pods": 5, "verdict": 12}
_HEADINGS: Final = {
    "bar": "",
    "weight": "% set",
    "share": "% seen",
    "rate": "requests/s",
    "failed": "% failed",
    "p95": "p95 ms",
}
_PAIRS: Final = "Pairs are stable/canary."
_OF_STEP: Final = f"{_PAIRS} Requests are those of the step so far, p95 is the highest."


@dataclass(frozen=True, slots=True)
class Row:
    """What is shown of a service. Weights are percent; None is no canary, or one of which nothing is known."""

    service: str
    declared: int | None
    read_back: int | None
    sample: Sample | None = None
    verdict: Verdict | None = None
    state: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """All that is shown: `status` is what goes on now, `events` what happened, oldest first, `key` what numbers are."""

    title: str
    rows: Sequence[Row]
    status: Sequence[str] = ()
    events: Sequence[str] = ()
    key: str = _PAIRS

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        """Fit it into the terminal: columns and rows are left out before anything wraps."""
        # One line stays free: a terminal scrolls when its last one is written.
        free = options.max_height - 1 - len((self.title, self.key, *self.status)) - 1
        events = min(_FEWEST_EVENTS, len(self.events))
        room = max(free - events - 1, 1)
        rows, hidden = self.rows, 0
        if len(rows) > room:
            rows = sorted(rows, key=_urgency)[: max(room - 1, 1)]
            hidden = len(self.rows) - len(rows)
        parts: list[RenderableType] = [_line(self.title, "bold"), _table(rows, options)]
        if hidden:
            parts.append(_line(f"and {hidden} more", "dim"))
        parts += [_line(self.key, "dim"), *(_line(text, "") for text in self.status)]
        free -= len(rows) + bool(hidden)
        if free > 1 and self.events:
            parts += ["", *(_line(text, "dim") for text in self.events[1 - free :])]
        yield Group(*parts)


class Listener(Protocol):
    """What a run tells its events to, as long as it is entered."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """End."""

    def __call__(self, event: AnyEvent) -> None:
        """Take in an event."""

    def paused(self) -> AbstractContextManager[None]:
        """Leave the terminal alone for a while, so that a question can be asked."""


class Lines:
    """A line for each event; that of a look has the numbers of the step so far."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._course = Course()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""

    def __call__(self, event: AnyEvent) -> None:
        """Write an event."""
        self._course.add(event)
        if isinstance(event, Sampled):
            step = self._course.services[event.sample.service].steps[-1]
            event = event.model_copy(update={"sample": merged([each.sample for each in step.samples])})
        self._console.print(stamped(event), markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is drawn that would be in the way."""
        yield


class View:
    """A table that is drawn anew while a run goes on; after that its last state stays on the terminal."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.time) -> None:
        self._course = Course()
        self._clock = clock
        self._changing = threading.Lock()
        self._console = console
        self._live = self._table()

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, event: AnyEvent) -> None:
        """Show an event."""
        with self._changing:
            self._course.add(event)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal alone for a while, so that a question can be asked."""
        self._live.stop()
        try:
            yield
        finally:
            # Another one, which begins below the question; the former would draw over it.
            self._live = self._table()
            self._live.start(refresh=True)

    def _table(self) -> Live:
        return Live(get_renderable=self.scene, console=self._console, refresh_per_second=_REFRESHES_PER_SECOND)

    def scene(self) -> Scene:
        """Return what is to be seen now."""
        with self._changing:
            return scene_of(self._course, self._clock())


def listener(console: Console) -> View | Lines:
    """Return what shows a run on this console."""
    return View(console) if console.is_terminal and not console.is_dumb_terminal else Lines(console)


def scene_of(course: Course, now: float) -> Scene:
    """Return what is to be seen of a run.

    Args:
        course: the run.
        now: seconds since the epoch, from which the time left is counted.
    """
    started, finished = course.started, course.finished
    title = f"{started.stack}  canary {started.command}  {started.run}" if started else "The run begins."
    rows = [_row(service) for service in course.services.values()]
    status = [finished.text] if finished else list(dict.fromkeys(_status(course, now)))
    told = [event for event in course.events if not isinstance(event, Sampled) or standing(event.verdict) != "pass"]
    return Scene(title, rows, status, [stamped(event) for event in told], _OF_STEP)


def _row(service: ServiceCourse) -> Row:
    latest = service.latest
    failing = latest is not None and standing(latest.verdict) == "fail"
    waits = "held" if service.held and not failing else ""
    state = {Promoted: "promoted", RolledBack: "rolled back", type(None): waits}
    return Row(
        service.name,
        None if isinstance(service.end, Promoted) else service.declared,
        service.read_back,
        _of_step(service),
        latest.verdict if latest else None,
        state[type(service.end)],
    )


def _of_step(service: ServiceCourse) -> Sample | None:
    """Return what the step has shown so far, which is what the gates go by; pods as they were last."""
    latest = service.latest
    if latest is None:
        return None
    return merged([each.sample for each in service.steps[-1].samples]).model_copy(update={"pods": latest.sample.pods})


def _status(course: Course, now: float) -> Iterator[str]:
    for service in course.services.values():
        step = service.steps[-1] if service.steps else None
        if service.held:
            yield f"held for {duration(now - service.held.at)}: {service.held.reason}"
        elif step is None or step.ended is not None:
            continue
        elif not step.samples:
            yield f"to {step.weight} %: {duration(now - step.began)}"
        else:
            last = step.samples[-1]
            left = max(last.remaining_seconds - (now - last.at), 0)
            yield f"watched at {step.weight} %: {duration(left)} left"


def _table(rows: Sequence[Row], options: ConsoleOptions) -> Table:
    columns = next(columns for width, columns in _COLUMNS if options.max_width >= width)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="dim")
    rest = sum(_WIDTHS[name] + _GAP for name in columns)
    longest = max((len(row.service) for row in rows), default=0)
    name_width = max(min(longest, options.max_width - rest, _LONGEST_NAME), len("service"))
    table.add_column("service", no_wrap=True, overflow="ellipsis", width=name_width)
    for name in columns:
        side: JustifyMethod = "left" if name in {"bar", "verdict"} else "right"
        # The same width whatever is in it: nothing jumps when a number changes.
        table.add_column(_HEADINGS.get(name, name), justify=side, no_wrap=True, width=_WIDTHS[name])
    for row in rows:
        cells = {
            "bar": _bar(row, ascii_only=options.ascii_only),
            "weight": _weight(row, ascii_only=options.ascii_only),
            "share": Text(_decimal(share(row.sample)) if row.sample else ""),
            "rate": Text(_pair(row.sample, _rate)),
            "failed": Text(_pair(row.sample, lambda track, _: _decimal(error_percent(track)))),
            "p95": Text(_pair(row.sample, lambda track, _: _short(p95_milliseconds(track)))),
            "pods": Text(f"{row.sample.pods.ready}/{row.sample.pods.wanted}" if row.sample and row.sample.pods else ""),
            "verdict": _verdict(row),
        }
        table.add_row(Text(row.service), *(cells[name] for name in columns))
    return table


def _bar(row: Row, *, ascii_only: bool) -> Text:
    full, coming, empty = "#=-" if ascii_only else "█▒░"
    width = _WIDTHS["bar"]
    filled = math.ceil((row.read_back or 0) * width / TOTAL_WEIGHT)
    target = max(math.ceil((row.declared or 0) * width / TOTAL_WEIGHT), filled)
    return Text.assemble(
        (full * filled, "yellow"), (coming * (target - filled), "yellow"), (empty * (width - target), "dim")
    )


def _weight(row: Row, *, ascii_only: bool) -> Text:
    if row.declared == row.read_back:
        return Text("-" if row.declared is None else str(row.declared))
    before = "?" if row.read_back is None else row.read_back
    after = "-" if row.declared is None else row.declared
    return Text(f"{before}{'>' if ascii_only else '→'}{after}", style="bold")


def _verdict(row: Row) -> Text:
    if row.state:
        style = {"promoted": "green", "rolled back": "bold red"}.get(row.state, "yellow")
        return Text(row.state, style=style)
    if row.verdict is None:
        return Text("")
    stands = standing(row.verdict)
    words = stand(row.verdict)
    sign = "" if len(words) + 2 > _WIDTHS["verdict"] else f"{SIGNS[stands]} "
    return Text(f"{sign}{words}", style=_STYLES[stands])


def _urgency(row: Row) -> int:
    return _URGENCY.index(standing(row.verdict) if row.verdict else None)


def _pair(sample: Sample | None, shown: Callable[[TrackSample, Sample], str]) -> str:
    """Return what stable and canary have, one beside the other."""
    if sample is None or (sample.stable is None and sample.canary is None):
        return ""
    return "/".join("-" if track is None else shown(track, sample) for track in (sample.stable, sample.canary))


def _rate(track: TrackSample, sample: Sample) -> str:
    return _short(track.requests / sample.counted_seconds) if sample.counted_seconds else "-"


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value >= _TWO_DIGITS else f"{value:.1f}"


def stamped(event: AnyEvent) -> str:
    """Return an event in one line, with its time of day."""
    return f"{datetime.fromtimestamp(event.at).astimezone():%H:%M:%S}  {line(event)}"


def _line(text: str, style: str) -> Text:
    return Text(text.replace("\n", " "), style=style, no_wrap=True, overflow="ellipsis")
