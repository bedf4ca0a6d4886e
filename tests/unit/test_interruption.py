"""Signals end a run between two actions, not within one; a second one ends it at once."""

import os
import signal
from collections.abc import Iterator

import pytest

from canary_service.rollout.interruption import ROLL_BACK, Interruptions


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Signals as a terminal would give them to the tests, however these were started (nohup, in the background)."""
    before = {each: signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, ROLL_BACK])
def test_a_signal_interrupts_where_it_may(number: signal.Signals) -> None:
    with Interruptions() as signals, pytest.raises(KeyboardInterrupt), signals.allowed():
        send(number)
    assert not signals.at_once
    assert signals.roll_back == (number == ROLL_BACK)


def test_a_signal_waits_until_it_may_interrupt() -> None:
    with Interruptions() as signals:
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), signals.allowed():
            pytest.fail("it had come before")


def test_a_signal_interrupts_once() -> None:
    with Interruptions() as signals:
        with pytest.raises(KeyboardInterrupt), signals.allowed():
            send(signal.SIGINT)
        with signals.allowed():
            pass


def test_a_second_signal_interrupts_anywhere() -> None:
    with Interruptions() as signals:
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)
        assert signals.at_once


def test_after_an_answer_the_next_signal_is_a_first_one() -> None:
    with Interruptions() as signals:
        with pytest.raises(KeyboardInterrupt), signals.allowed():
            send(signal.SIGINT)
        signals.answered()
        send(signal.SIGINT)
        assert not signals.at_once


def test_the_handlers_before_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interruptions():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_was_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruptions() as signals, signals.allowed():
            send(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
