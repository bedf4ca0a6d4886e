"""A wave of stacks is promoted as a whole, or goes back as a whole."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from canary_service.rollout.waves import Phase, Wave

Outcome = Callable[[str, Phase], int]


@dataclass
class Play:
    """The runs of a wave, of which the one that began first ends first."""

    wave: Wave
    begun: list[tuple[str, Phase]] = field(default_factory=list)
    running: dict[str, Phase] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    most: int = 0

    def begin(self) -> None:
        due = self.wave.due()
        self.begun += due.items()
        self.running |= due
        self.most = max(self.most, len(self.running))

    def end(self, name: str, code: int, *, released: bool = True) -> None:
        phase = self.running.pop(name)
        stopped = [*(self.wave.failed(name, "too many errors") if code == 2 else ())]
        stopped += self.wave.ended(name, code, released=released)
        assert phase != "rollback" or not stopped
        self.told += stopped
        self.begin()

    def stopped(self) -> None:
        """Let those end that were told to."""
        for name in [each for each in self.running if each in self.told]:
            self.end(name, 130)

    def rest(self, codes: Mapping[tuple[str, Phase], int] | None = None) -> int:
        """Let all runs end, well unless told otherwise; return the wave's exit code."""
        while self.running:
            name, phase = next(iter(self.running.items()))
            self.end(name, (codes or {}).get((name, phase), 2 if phase == "rollback" else 0))
        return self.wave.exit_code

    def of(self, phase: Phase) -> list[str]:
        return [name for name, each in self.begun if each == phase]


def play(stacks: Sequence[str], parallel: int = 9, exposed: Sequence[str] = (), sequential: Sequence[str] = ()) -> Play:
    begun = Play(Wave(stacks, parallel, exposed, sequential))
    begun.begin()
    return begun


def test_nothing_is_promoted_before_all_have_passed() -> None:
    wave = play("abc")
    wave.end("a", 0)
    wave.end("b", 0)
    assert wave.of("promotion") == []
    wave.end("c", 0)
    assert wave.of("promotion") == ["a", "b", "c"]
    assert wave.rest() == 0


def test_a_stack_alone_is_promoted_without_waiting() -> None:
    wave = play("a")
    assert wave.begun == [("a", "promotion")]
    assert wave.rest() == 0
    assert len(wave.begun) == 1


def test_a_stack_with_nothing_to_release_counts_as_done() -> None:
    wave = play("ab")
    wave.end("a", 0, released=False)
    wave.end("b", 0)
    assert wave.of("promotion") == ["b"]
    assert wave.rest() == 0


@pytest.mark.parametrize("parallel", [1, 2, 3])
def test_no_more_run_at_a_time_than_allowed(parallel: int) -> None:
    wave = play("abcde", parallel)
    assert wave.rest() == 0
    assert wave.most == parallel
    assert wave.of("steps") == wave.of("promotion") == list("abcde")


def test_one_that_fails_takes_back_those_that_run_and_those_that_have_passed() -> None:
    wave = play("abc")
    wave.end("a", 0)
    wave.end("b", 2)
    assert wave.told == ["c"]
    assert wave.of("rollback") == [], "a run is over before another one of the same stack begins"
    wave.stopped()
    assert wave.of("rollback") == ["a", "c"]
    assert wave.wave.reason == "b, of the same wave: too many errors"
    assert wave.rest() == 2
    assert list(wave.wave.not_back) == []


def test_the_others_are_told_before_the_rollback_of_the_one_that_fails_is_over() -> None:
    wave = play("abc", 2)
    assert list(wave.wave.failed("a", "too many errors")) == ["b"]
    assert wave.wave.rolling_back
    wave.end("b", 2)
    wave.end("a", 2)
    assert wave.running == {}
    assert wave.wave.reason == "a, of the same wave: too many errors", "b has none of its own"
    assert wave.rest() == 2


def test_a_stack_whose_services_move_one_by_one_goes_back_with_all_of_them() -> None:
    wave = play("ab", sequential="ab")
    wave.end("a", 2)
    wave.end("b", 2)
    assert wave.of("rollback") == ["a", "b"]
    assert wave.rest() == 2
    assert list(wave.wave.not_back) == []


def test_one_that_has_not_begun_is_taken_back_only_if_its_canary_gets_requests_already() -> None:
    wave = play("abc", 1, exposed="c")
    wave.end("a", 2)
    assert wave.of("rollback") == ["c"]
    assert wave.rest() == 2


def test_one_that_fails_at_its_promotion_takes_back_the_others() -> None:
    wave = play("ab")
    wave.end("a", 0)
    wave.end("b", 0)
    wave.end("a", 0)
    wave.end("b", 2)
    assert wave.of("rollback") == ["a"], "its run finds whether it is promoted"
    assert wave.rest({("a", "rollback"): 0}) == 2


def test_one_that_fails_while_it_is_stopped_takes_back_the_others_too() -> None:
    wave = play("ab")
    wave.end("a", 4)
    wave.end("b", 2)
    assert wave.of("rollback") == ["a"]
    assert wave.rest() == 2


@pytest.mark.parametrize("code", [1, 4, 5, 6])
def test_one_that_cannot_go_on_ends_the_others_at_their_weights(code: int) -> None:
    wave = play("abc", 2)
    wave.end("a", code)
    assert wave.told == ["b"]
    wave.stopped()
    assert wave.of("steps") == ["a", "b"]
    assert wave.of("rollback") == wave.of("promotion") == []
    assert wave.rest() == code


def test_when_one_is_held_the_others_take_their_steps_and_none_is_promoted() -> None:
    wave = play("abc", 2)
    wave.end("a", 3)
    assert wave.told == []
    assert wave.of("steps") == ["a", "b", "c"]
    assert wave.rest() == 3
    assert wave.of("promotion") == []


def test_what_fails_counts_more_than_what_is_held() -> None:
    wave = play("ab")
    wave.end("a", 3)
    wave.end("b", 5)
    assert wave.rest() == 5


def test_an_interrupt_ends_all_runs_and_begins_no_others() -> None:
    wave = play("abc", 2)
    wave.told += wave.wave.interrupted()
    assert wave.told == ["a", "b"]
    wave.stopped()
    assert wave.rest() == 130
    assert wave.of("steps") == ["a", "b"]


def test_an_interrupt_that_comes_when_all_have_passed_promotes_none() -> None:
    wave = play("ab")
    wave.end("a", 0)
    wave.told += wave.wave.interrupted()
    wave.end("b", 0)
    assert wave.of("promotion") == []
    assert wave.rest() == 130


def test_an_interrupt_does_not_stop_a_rollback_and_a_second_one_is_passed_on() -> None:
    wave = play("abcd", 1)
    for name in "abc":
        wave.end(name, 0)
    wave.end("d", 2)
    assert wave.running == {"a": "rollback"}
    assert wave.wave.interrupted() == ()
    wave.end("a", 2)
    assert wave.running == {"b": "rollback"}
    assert list(wave.wave.interrupted()) == ["b"]
    wave.end("b", 130)
    assert wave.rest() == 130
    assert wave.of("rollback") == ["a", "b"]
    assert list(wave.wave.not_back) == ["b", "c"]


def test_a_rollback_that_does_not_work_is_what_the_wave_ends_with() -> None:
    wave = play("ab")
    wave.end("a", 0)
    wave.end("b", 2)
    assert wave.rest({("a", "rollback"): 4}) == 4
    assert list(wave.wave.not_back) == ["a"]
