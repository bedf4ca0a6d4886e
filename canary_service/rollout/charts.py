"""Charts over time as inline SVG, which need no script and follow the colours of the page. No I/O."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, pairwise
from typing import Final

from canary_service.rollout.event_words import number
from canary_service.rollout.markup import Element, element, short

_WIDTH: Final = 480
_LEFT: Final = 46
_RIGHT: Final = 10
_TOP: Final = 20
_BOTTOM: Final = 22
_PLOT_HEIGHT: Final = 120
_ROW_HEIGHT: Final = 22
_LABEL_WIDTH: Final = 34
"""What a step's label takes: closer ones would lie over each other."""

_Y_TICKS: Final = 4
_X_TICKS: Final = 6
_SECONDS_BETWEEN_TICKS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
_DAY: Final = 86400
_MINUTE: Final = 60

Point = tuple[float, float | None]
"""Seconds since the epoch, and a value; None where nothing is known."""


@dataclass(frozen=True, slots=True)
class Line:
    """Values over time. `kind` is its class in the style sheet; a stepped one keeps its value until the next."""

    name: str
    kind: str
    points: Sequence[Point]
    stepped: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment that stands out in all charts. `label` is written beside it, `kind` its class in the style sheet."""

    at: float
    label: str
    kind: str


@dataclass(frozen=True, slots=True)
class Frame:
    """What the charts of one service have in common: the time they show, its marks, and spans that are shaded."""

    begin: float
    end: float
    marks: Sequence[Mark] = ()
    shaded: Sequence[tuple[float, float]] = ()

    def x(self, at: float) -> float:
        """Return where a moment is."""
        part = (at - self.begin) / max(self.end - self.begin, 1)
        return _LEFT + part * (_WIDTH - _LEFT - _RIGHT)


def line_chart(frame: Frame, title: str, unit: str, lines: Sequence[Line], at_least: float) -> Element:
    """Return a figure of lines over time.

    Args:
        frame: the time it shows.
        title: what is measured.
        unit: of the values.
        lines: what is drawn.
        at_least: the upper end of the scale, unless a value is above it.
    """
    highest = max((value for line in lines for _, value in line.points if value is not None), default=0.0)
    step = _nice(max(highest, at_least) / _Y_TICKS)
    top = step * math.ceil(max(highest, at_least) / step - 1e-9)
    height = _TOP + _PLOT_HEIGHT + _BOTTOM

    def y(value: float) -> float:
        return _TOP + _PLOT_HEIGHT * (1 - value / top)

    scale = []
    for value in (step * index for index in range(round(top / step) + 1)):
        scale += [
            element("path", class_="grid", d=f"M{_LEFT},{short(y(value))}H{_WIDTH - _RIGHT}"),
            element("text", number(value), class_="y", x=_LEFT - 6, y=y(value) + 4),
        ]
    drawn = [
        element("path", class_=f"{style} {line.kind}", d=path)
        for line in lines
        for style, path in (("line", _path(frame, line, y)), ("dot", _dots(frame, line, y)))
        if path
    ]
    facts = "; ".join(_described(line, unit) for line in lines)
    keys = [element("span", line.name, class_=f"key {line.kind}") for line in lines]
    return element(
        "figure",
        element("figcaption", element("span", element("strong", title), f" ({unit})"), keys),
        _svg(
            frame,
            height,
            f"{title}, {unit}",
            facts,
            [*scale, *drawn, element("g", _hints(frame, lines, unit, height), class_="hints")],
        ),
    )


def row_chart(frame: Frame, title: str, rows: Sequence[tuple[str, str, Sequence[tuple[float, float]]]]) -> Element:
    """Return a figure of spans of time in named rows.

    Args:
        frame: the time it shows.
        title: what the rows are.
        rows: of each its name, its class in the style sheet, and the spans in it; the first one is on top.
    """
    height = _TOP + _ROW_HEIGHT * len(rows) + _BOTTOM
    drawn = []
    for index, (name, kind, spans) in enumerate(rows):
        y = _TOP + _ROW_HEIGHT * index
        drawn.append(element("path", class_="grid", d=f"M{_LEFT},{y + _ROW_HEIGHT}H{_WIDTH - _RIGHT}"))
        drawn.append(element("text", name, class_="y", x=_LEFT - 6, y=y + _ROW_HEIGHT / 2 + 4))
        for begin, end in spans:
            left, right = frame.x(begin), frame.x(end)
            box = {"x": left, "y": y + 4, "width": max(right - left - 1, 1), "height": _ROW_HEIGHT - 6}
            drawn.append(element("rect", element("title", f"{_clock(end)} {name}"), class_=kind, **box))
    facts = ", ".join(f"{len(spans)} {name}" for name, _, spans in rows)
    key = element("span", "held", class_="key held") if frame.shaded else None
    return element(
        "figure", element("figcaption", element("strong", title), key), _svg(frame, height, title, facts, drawn)
    )


def _svg(frame: Frame, height: float, title: str, facts: str, drawn: Sequence[Element]) -> Element:
    bottom = height - _BOTTOM
    shaded = [
        element(
            "rect",
            class_="held",
            x=frame.x(begin),
            y=_TOP,
            width=max(frame.x(end) - frame.x(begin), 1),
            height=bottom - _TOP,
        )
        for begin, end in frame.shaded
    ]
    ticks = [
        element("text", label, class_="x", x=frame.x(at), y=height - 6) for at, label in _ticks(frame.begin, frame.end)
    ]
    return element(
        "svg",
        element("title", title),
        element("desc", facts),
        shaded,
        _marks(frame, bottom),
        drawn,
        ticks,
        viewBox=f"0 0 {_WIDTH} {short(height)}",
        role="img",
        aria_label=f"{title}. {facts}",
    )


def _marks(frame: Frame, bottom: float) -> Iterator[Element]:
    # A label that would lie over that of a later mark is left out: the last one says where things stand.
    free = math.inf
    for mark in reversed(frame.marks):
        x = frame.x(mark.at)
        yield element("path", class_=f"mark {mark.kind}", d=f"M{short(x)},{_TOP - 4}V{short(bottom)}")
        if x + _LABEL_WIDTH <= free:
            late = x + 2 * _LABEL_WIDTH > _WIDTH
            side = {"text_anchor": "end", "x": x - 3} if late else {"x": x + 3}
            yield element("text", mark.label, class_=f"label {mark.kind}", y=_TOP - 6, **side)
            free = x - 2 * _LABEL_WIDTH if late else x


def _path(frame: Frame, line: Line, y: Callable[[float], float]) -> str:
    parts = []
    before: float | None = None
    for at, value in line.points:
        if value is not None:
            x, height = short(frame.x(at)), short(y(value))
            parts.append(f"M{x},{height}" if before is None else f"H{x}V{height}" if line.stepped else f"L{x},{height}")
        before = value
    if line.stepped and before is not None:
        parts.append(f"H{short(frame.x(frame.end))}")
    return "".join(parts)


def _dots(frame: Frame, line: Line, y: Callable[[float], float]) -> str:
    """Return a path of the points that have no neighbour to be joined to: a line of them would not be seen."""
    if line.stepped:
        return ""
    values = [None, *(value for _, value in line.points), None]
    alone = [
        (at, value)
        for (at, value), before, after in zip(line.points, values, values[2:], strict=False)
        if value is not None and before is None and after is None
    ]
    return "".join(f"M{short(frame.x(at))},{short(y(value))}h0" for at, value in alone)


def _hints(frame: Frame, lines: Sequence[Line], unit: str, height: float) -> Iterator[Element]:
    """Yield an invisible strip for each moment, with its numbers as a tooltip."""
    at_moment: dict[float, list[str]] = {}
    for line in lines:
        for at, value in line.points:
            if value is not None:
                at_moment.setdefault(at, []).append(f"{line.name} {number(value)}")
    moments = sorted(at_moment)
    between = [frame.x((one + other) / 2) for one, other in pairwise(moments)]
    for at, left, right in zip(moments, [_LEFT, *between], [*between, _WIDTH - _RIGHT], strict=False):
        text = f"{_clock(at)} {', '.join(at_moment[at])} {unit}"
        strip = f"M{short(left)},{_TOP}H{short(right)}V{short(height)}H{short(left)}z"
        yield element("path", element("title", text), d=strip)


def _described(line: Line, unit: str) -> str:
    known = [value for _, value in line.points if value is not None]
    if not known:
        return f"{line.name}: not measured"
    return f"{line.name}: {number(min(known))} to {number(max(known))} {unit}, at the end {number(known[-1])} {unit}"


def _nice(step: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, … that is not below a step."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * (1 - 1e-9))


def _ticks(begin: float, end: float) -> Iterator[tuple[float, str]]:
    """Yield moments that are whole minutes or more, where there is room, and what the clock showed (UTC)."""
    seconds = next(
        (each for each in _SECONDS_BETWEEN_TICKS if (end - begin) / each <= _X_TICKS),
        _DAY * math.ceil((end - begin) / _DAY / _X_TICKS),
    )
    form = "%H:%M:%S" if seconds < _MINUTE else "%H:%M" if seconds < _DAY else "%m-%d"
    for index in count(math.ceil(begin / seconds)):
        if index * seconds > end:
            return
        yield index * seconds, f"{datetime.fromtimestamp(index * seconds, UTC):{form}}"


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"
