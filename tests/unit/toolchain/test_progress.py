"""What people see meanwhile."""

import io

import pytest

from sandbox.toolchain.progress import Estimate, Progress, Step

_STEPS = [Step("modules", "download", 10), Step("one", "build", 100), Step("two", "build", 100)]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_two_processors_take_what_was_recorded() -> None:
    assert Estimate(_STEPS, 2).remaining() == 210


def test_more_processors_take_less_and_one_takes_more() -> None:
    assert Estimate(_STEPS, 8).remaining() == 60
    assert Estimate(_STEPS, 1).remaining() == 410
    assert Estimate(_STEPS, 16).remaining() == Estimate(_STEPS, 128).remaining()


def test_the_running_step_counts_down_to_nothing() -> None:
    estimate = Estimate(_STEPS[1:2], 2)
    assert estimate.remaining(40) == 60
    assert not estimate.overdue(99)
    assert estimate.remaining(400) == 0
    assert estimate.overdue(400)


def test_a_slow_machine_is_noticed() -> None:
    estimate = Estimate(_STEPS, 2)
    estimate.finish(10)
    estimate.finish(200)
    assert 170 < estimate.remaining() < 200


def test_a_slow_network_says_nothing_about_the_processors() -> None:
    estimate = Estimate(_STEPS, 2)
    estimate.finish(600)
    assert estimate.remaining() == 200


def test_a_step_resumed_half_way_says_nothing_about_the_others() -> None:
    estimate = Estimate(_STEPS, 2, resumed=True)
    estimate.finish(10)
    estimate.finish(1)
    assert estimate.remaining() == 100


def test_in_a_file_each_step_leaves_two_plain_lines() -> None:
    stream = io.StringIO()
    progress = Progress(_STEPS[:1], stream)
    with progress.step():
        progress.tick()
        progress.tick()
    assert stream.getvalue() == "[1/1] modules ...\n[1/1] modules  0:00\n"


def test_on_a_terminal_the_live_line_is_renewed_in_place() -> None:
    stream = _Terminal()
    progress = Progress(_STEPS, stream)
    with progress.step():
        progress.tick()
    assert "\r\x1b[K[1/3] modules  0:00, about" in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


def test_a_failed_step_is_named_on_a_line_of_its_own() -> None:
    stream = _Terminal()
    progress = Progress(_STEPS, stream)
    with pytest.raises(ValueError, match="broken"), progress.step():
        raise ValueError("broken")
    assert stream.getvalue().endswith("\r\x1b[K[1/3] modules  failed after 0:00\n")


def test_waiting_is_said_once_in_a_file() -> None:
    stream = io.StringIO()
    progress = Progress((), stream)
    progress.wait("process 7 in /clone")
    progress.wait("process 7 in /clone")
    assert stream.getvalue() == "Waiting for the build by process 7 in /clone\n"
