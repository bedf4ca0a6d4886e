"""A sign of life on standard error while something takes longer."""

import shutil
import sys
import time
from typing import Final, Self

_AFTER_SECONDS: Final = 2.0
_EVERY_SECONDS: Final = 10.0


class Progress:
    """Says how far a step is: on a terminal always anew in one line, elsewhere a line from time to time."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._begin = time.monotonic()
        self._next = _AFTER_SECONDS
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            sys.stderr.write("\r\033[K")

    def show(self, text: str) -> None:
        """Say what is being done, once the step has taken two seconds."""
        elapsed = time.monotonic() - self._begin
        line = f"{self._step}: {text.partition(chr(10))[0]}, {elapsed:.0f} s"
        if elapsed >= _AFTER_SECONDS and sys.stderr.isatty():
            sys.stderr.write(f"\r{line[: shutil.get_terminal_size().columns - 1]}\033[K")
            self._drawn = True
        elif elapsed >= self._next:
            sys.stderr.write(f"{line}\n")
            self._next += _EVERY_SECONDS
        sys.stderr.flush()
