"""The view of a run fits the terminal, says what is so, and is lines where there is no terminal."""

import io
from collections.abc import Iterable

import pytest
from rich.console import Console
from rich.text import Text

from canary_service.cli.view import Lines, Row, Scene, View, listener, scene_of
from canary_service.rollout.course import Course
from canary_service.rollout.events import AnyEvent, Held, RolledBack, Sampled, StepStarted, WeightSet
from tests.unit.journals import STACK, promoted, rolled_back, unfinished

SIZES = [(80, 24), (120, 40), (100, 24), (76, 24), (60, 15), (40, 10), (30, 8)]


def drawn(scene: Scene, width: int = 80, height: int = 24, encoding: str = "utf-8") -> list[str]:
    """Return the lines of a scene on a terminal, without colours."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, height=height, force_terminal=True, color_system=None)
    console.print(scene)
    file.seek(0)
    return file.read().splitlines()


def until(events: Iterable[AnyEvent], kind: type, count: int = 1) -> list[AnyEvent]:
    """Return the events up to the last of so many of one kind."""
    found: list[AnyEvent] = []
    for event in events:
        found.append(event)
        count -= isinstance(event, kind)
        if count == 0:
            break
    return found


def scene(events: list[AnyEvent], later: float = 0.0) -> Scene:
    return scene_of(Course(events), events[-1].at + later)


def row(events: list[AnyEvent], service: str = "auth-service") -> str:
    (found,) = (line for line in drawn(scene(events), 120, 60)[1:6] if line.startswith(service))
    return found


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("events", [list(promoted()), list(rolled_back()), list(unfinished()), list(promoted())[:3]])
def test_a_scene_fits_the_terminal_at_any_time(events: list[AnyEvent], width: int, height: int) -> None:
    for end in range(1, len(events) + 1, 41):
        lines = drawn(scene(events[:end]), width, height)

        assert len(lines) < height
        assert max(map(len, lines)) <= width


def test_on_80_columns_everything_that_decides_is_there() -> None:
    text = "\n".join(drawn(scene(until(rolled_back(), RolledBack)[:-4])))

    for heading in ("service", "% set", "% seen", "% failed", "p95 ms", "verdict"):
        assert heading in text
    assert "meal-planner-service" in text
    assert "✗ fail" in text
    assert "…" not in text.splitlines()[1]


def test_many_services_leave_room_for_events_and_the_failing_one_stays() -> None:
    names = tuple(f"service-{number:02}" for number in range(40))
    events = list(
        rolled_back(services=names, fault=lambda name, weight: (30 * (name == names[33]) * (weight == 20), 1))
    )
    course = until(events, RolledBack)[: -len(names) - 1]

    lines = drawn(scene(course), 80, 24)

    assert len(lines) < 24
    assert any(line.startswith("service-33") and "✗ fail" in line for line in lines)
    assert any(line.startswith("and ") and line.endswith(" more") for line in lines)


def test_a_weight_is_shown_as_read_back_beside_the_one_it_goes_to() -> None:
    begun = until(unfinished(), StepStarted, 2)

    assert "5→20" in row(begun)
    assert row(until(unfinished(), WeightSet, 4)).split()[2] == "20"


def test_a_weight_that_was_not_read_back_is_not_claimed() -> None:
    assert "?→20" in drawn(Scene("", [Row("cart", 20, None)]))[2]
    assert drawn(Scene("", [Row("cart", None, None)]))[2].split()[2] == "-"
    assert "20→-" in drawn(Scene("", [Row("cart", None, 20)]))[2]


def test_time_left_counts_down_between_samples() -> None:
    events = until(unfinished(), Sampled, 3)

    assert "watched at 5 %: 14:00 min left" in drawn(scene(events))
    assert "watched at 5 %: 13:30 min left" in drawn(scene(events, later=30))
    assert "watched at 5 %: 0 s left" in drawn(scene(events, later=9999))


def test_a_hold_and_its_reason_are_shown_until_it_is_over() -> None:
    held = until(rolled_back(), Held)
    resumed = [*held, next(event for event in rolled_back() if event.event == "resumed")]

    assert "held for 20 s: Prometheus could not be asked" in drawn(scene(held, later=20))
    assert "held" in row(held)
    assert not any(line.startswith("held for") for line in drawn(scene(resumed)))


def test_a_failure_is_shown_also_during_a_hold() -> None:
    failing = next(event for event in rolled_back() if isinstance(event, Sampled) and event.verdict.outcome == "fail")
    held = [*until(rolled_back(), Held), failing]

    assert "✗ fail" in row(held, "meal-planner-service")
    assert "held" in row(held)


def test_numbers_are_those_of_the_step_so_far() -> None:
    events = until(unfinished(fault=lambda _name, _weight: (2, 1)), Sampled, 54)
    looks = [event.sample for event in events if isinstance(event, Sampled)]
    weight = looks[-1].weight
    tracks = [each.canary for each in looks if each.canary and (each.service, each.weight) == ("auth-service", weight)]
    percent = 100 * sum(each.failed for each in tracks) / sum(each.requests for each in tracks)

    assert len(tracks) > 1
    assert f"/{percent:.1f}" in row(events)


def test_before_its_time_a_step_is_good_so_far_at_most() -> None:
    assert "good so far" in row(until(unfinished(), Sampled, 3))
    assert "✓ pass" in row(until(unfinished(), Sampled, 45))


def test_the_end_of_a_run_is_its_text() -> None:
    assert "rolled back at 20 %" in drawn(scene(list(rolled_back())))
    assert "rolled back" in row(list(rolled_back()))
    assert "promoted" in row(list(promoted()))


def test_a_terminal_without_unicode_gets_ascii_bars() -> None:
    line = drawn(Scene("", [Row("cart", 50, 20)]), encoding="ascii")[2]

    assert "##==----" in line
    assert "20>50" in line


def test_texts_are_no_markup() -> None:
    event = Held(at=0, stack=STACK, services=("cart",), reason="[red]100 %[/red]\nand more")

    lines = drawn(scene([event]))

    assert any("[red]100 %[/red] and more" in line for line in lines)


def test_without_a_terminal_there_is_a_line_for_each_event() -> None:
    file = io.StringIO()
    console = Console(file=file, width=20)
    events = list(rolled_back())

    with listener(console) as view:
        assert isinstance(view, Lines)
        for event in events:
            view(event)

    assert len(file.getvalue().splitlines()) == len(events)
    assert "\x1b" not in file.getvalue()


def test_on_a_terminal_the_last_state_stays_and_a_question_can_be_asked_in_between() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, height=24, force_terminal=True)
    first, *others = rolled_back()

    with listener(console) as view:
        assert isinstance(view, View)
        view(first)
        with view.paused():
            console.print("go on?")
        for event in others:
            view(event)

    after = file.getvalue().partition("go on?")[2]
    assert "\x1b[1A" not in after.partition("canary run")[0], "the question and what is above it stay"
    shown = Text.from_ansi(file.getvalue()).plain
    assert "go on?" in shown
    assert shown.rstrip().endswith("rolled back at 20 % (exit code 2)")
