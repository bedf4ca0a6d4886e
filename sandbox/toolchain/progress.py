"""Tells what a build is doing, how long it has taken and what remains."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TextIO

Kind = Literal["download", "build"]

# Seconds of recorded work that outweigh the first measurements on this machine.
_PRIOR = 20.0


@dataclass(frozen=True, slots=True)
class Step:
    """A named piece of work; `seconds` is what it took where it was recorded, on two processors."""

    name: str
    kind: Kind
    seconds: float


def clock(seconds: float) -> str:
    """Format minutes and seconds, as in 2:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def roughly(seconds: float) -> str:
    """Round a duration for people: `40 s` or `7 min`."""
    return f"{max(round(seconds, -1), 5):.0f} s" if seconds < 95 else f"{seconds / 60:.0f} min"  # noqa: PLR2004 - prose


def processors() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Estimate:
    """What remains: the recorded times, scaled by how this machine did on the steps already finished.

    Downloads and builds are scaled apart: a slow network says nothing about the processors.
    """

    def __init__(self, steps: Sequence[Step], cpus: int, *, resumed: bool = False) -> None:
        self._left = list(steps)
        self._resumed = resumed
        # Compiling spreads over processors, linking hardly: beyond eight times as many little is gained.
        self._factor = {"download": 1.0, "build": max(2 / cpus, 1 / 8)}
        self._recorded = {"download": 0.0, "build": 0.0}
        self._taken = {"download": 0.0, "build": 0.0}

    def finish(self, seconds: float) -> None:
        """Learn from the first of the steps left, which took `seconds`."""
        step = self._left.pop(0)
        if self._resumed and step.kind == "build":
            # The first one goes on where an interrupted build ended: its time says nothing about the others.
            self._resumed = False
            return
        self._recorded[step.kind] += step.seconds
        self._taken[step.kind] += seconds

    def remaining(self, elapsed: float = 0.0) -> float:
        """Return the seconds until the last step ends, the first one left having run for `elapsed`."""
        return sum(map(self._expected, self._left)) - min(elapsed, self._expected(self._left[0]) if self._left else 0)

    def overdue(self, elapsed: float) -> bool:
        """Tell whether the first step left takes longer than expected."""
        return elapsed > self._expected(self._left[0])

    def _expected(self, step: Step) -> float:
        taken = _PRIOR * self._factor[step.kind] + self._taken[step.kind]
        return step.seconds * taken / (_PRIOR + self._recorded[step.kind])


class Progress:
    """Writes one line per finished step and, on a terminal, a live line for the running one."""

    def __init__(self, steps: Sequence[Step], stream: TextIO, *, resumed: bool = False) -> None:
        self._steps = steps
        self._stream = stream
        self._live = stream.isatty()
        self._estimate = Estimate(steps, processors(), resumed=resumed)
        self._done = 0
        self._waiting = False
        self._began = self._step_began = time.monotonic()

    def note(self, text: str) -> None:
        """Write a line of its own."""
        self.clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Take the live line away."""
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def wait(self, holder: str) -> None:
        """Say, again and again, that another process builds: once where there is no live line."""
        text = f"Waiting for the build by {holder}"
        if self._live:
            self._show(f"{text}  {clock(time.monotonic() - self._began)}")
        elif not self._waiting:
            self.note(text)
        self._waiting = True

    @contextmanager
    def step(self) -> Iterator[None]:
        """Tell the beginning and the end of the next step, which is done inside."""
        self._step_began = time.monotonic()
        label = self._label()
        if not self._live:
            self.note(f"{label} ...")
        self.tick()
        try:
            yield
        except KeyboardInterrupt:
            self.note(f"{label}  interrupted after {clock(self._elapsed())}. Run it again to resume.")
            raise
        except BaseException:
            self.note(f"{label}  failed after {clock(self._elapsed())}")
            raise
        taken = self._elapsed()
        self._estimate.finish(taken)
        self._done += 1
        remaining = self._estimate.remaining()
        self.note(f"{label}  {clock(taken)}" + (f", about {roughly(remaining)} left" if remaining else ""))

    def tick(self) -> None:
        """Renew the live line."""
        if self._live:
            elapsed = self._elapsed()
            left = f"about {roughly(self._estimate.remaining(elapsed))} left"
            if self._estimate.overdue(elapsed):
                left = "longer than expected"
            self._show(f"{self._label()}  {clock(elapsed)}, {left}")

    def end(self) -> None:
        """Say that all is done and how long it took."""
        self.note(f"Built in {clock(time.monotonic() - self._began)}.")

    def _elapsed(self) -> float:
        return time.monotonic() - self._step_began

    def _label(self) -> str:
        total = len(self._steps)
        return f"[{self._done + 1:>{len(str(total))}}/{total}] {self._steps[self._done].name}"

    def _show(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K{text}")
        self._stream.flush()
