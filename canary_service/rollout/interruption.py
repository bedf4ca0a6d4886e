"""Time, and signals that want a run to end."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, Self

ROLL_BACK: Final = signal.SIGUSR1
"""Tells a run to roll back, as when another stack of its wave fails."""

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, ROLL_BACK)


class SystemClock:
    """The time of this machine."""

    def time(self) -> float:
        """Return the seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or when a signal raises."""
        time.sleep(seconds)


class Interruptions:
    """Handles SIGINT, SIGTERM, SIGHUP and `ROLL_BACK` from entering to leaving.

    The first one raises KeyboardInterrupt only where that is allowed, so that none comes between setting a weight and
    knowing it, or into a rollback; there it waits. The second one raises at once. What was ignored before stays so, as
    SIGHUP under nohup.
    """

    def __init__(self) -> None:
        self._count = 0
        self._waiting = self._allowed = self._typed = self._roll_back = False
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for each in _ENDING:
            if signal.getsignal(each) != signal.SIG_IGN:
                self._former[each] = signal.signal(each, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._former.items():
            signal.signal(each, handler)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let the first signal, also one that waits, raise KeyboardInterrupt meanwhile."""
        try:
            self._allowed = True
            if self._waiting:
                self._interrupt()
            yield
        finally:
            self._allowed = False

    def answered(self) -> None:
        """Forget the first signal: the run goes on."""
        self._count = 0

    @property
    def at_once(self) -> bool:
        """Whether a second one has come."""
        return self._count > 1

    @property
    def typed(self) -> bool:
        """Whether the last one was typed at a terminal, so that somebody is there."""
        return self._typed

    @property
    def roll_back(self) -> bool:
        """Whether the canaries are to be rolled back."""
        return self._roll_back

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        self._roll_back |= number == ROLL_BACK
        self._typed = number == signal.SIGINT
        self._waiting = True
        if self._allowed or self.at_once:
            self._interrupt()

    def _interrupt(self) -> None:
        self._waiting = False
        raise KeyboardInterrupt
